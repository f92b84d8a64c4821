"""Section of the settings for metrics, traces and logs."""

from __future__ import annotations

from typing import Literal

from embedway.config.alerts import WebhookUrl  # noqa: TC001  pydantic evaluates the annotations
from embedway.config.types import Flag, Seconds, Section


class TelemetrySettings(Section):
    """`[telemetry]`: metrics, traces and logs of what an embedder does."""

    #: Whether metrics are reported to the default registry of prometheus-client.
    prometheus: Flag = True
    #: Whether spans and metrics are reported to the global providers of OpenTelemetry (`embedway[opentelemetry]`).
    opentelemetry: Flag = False
    #: Whether each call is logged as one JSON line to the logger `embedway.requests`: names and numbers, no texts.
    log_requests: Flag = False
    #: Format of the log lines that commands print on standard error: plain text, or one JSON document a line.
    log_format: Literal["text", "json"] = "text"
    #: URL of a Prometheus push gateway that receives the metrics of a process; it may contain a password.
    push_gateway: WebhookUrl | None = None
    #: Name of the job at the push gateway.
    push_job: str = "embedway"
    #: Time between two pushes, in seconds; the last one is at the end of the process.
    push_every_s: Seconds = 15.0
