"""Section of the settings for metrics, traces and logs."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr

from embedway.config.addresses import is_loopback, parse_http_url
from embedway.config.types import Flag, Seconds, Section

_RULE = "must be an http or https URL without a query"
_RULE_WITH_USER = "must be an https URL, because it contains a user or password, or lead to this machine"


def _check_gateway(gateway: SecretStr) -> SecretStr:
    url = gateway.get_secret_value()
    parts = parse_http_url(url, rule=_RULE)
    if "?" in url or "#" in url:
        raise ValueError(_RULE)
    if "@" in url and parts.scheme == "http" and not is_loopback(parts.host):
        raise ValueError(_RULE_WITH_USER)
    return gateway


#: URL of a push gateway; it may contain a password. Metrics contain no secrets, so plain HTTP is allowed without one.
GatewayUrl: TypeAlias = Annotated[SecretStr, AfterValidator(_check_gateway)]


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
    push_gateway: GatewayUrl | None = None
    #: Name of the job at the push gateway. Processes of one machine that push at the same time need different names.
    push_job: Annotated[str, Field(min_length=1, max_length=100)] = "embedway"
    #: Time between two pushes, in seconds; the last one is when an embedder is closed.
    push_every_s: Annotated[Seconds, Field(ge=1)] = 15.0
