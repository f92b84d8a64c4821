"""Section of the settings for alerts, and the rule for URLs of webhooks."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, SecretStr

from embedway.config.addresses import is_loopback, parse_http_url
from embedway.config.types import Flag, Positive, Seconds, Section

_RULE = "must be an https URL, or http to this machine"


def _check_webhook(webhook: SecretStr) -> SecretStr:
    parts = parse_http_url(webhook.get_secret_value(), rule=_RULE)
    if parts.scheme == "http" and not is_loopback(parts.host):
        raise ValueError(_RULE)
    return webhook


#: URL that receives JSON; it may contain a token.
WebhookUrl: TypeAlias = Annotated[SecretStr, AfterValidator(_check_webhook)]


class AlertSettings(Section):
    """`[alerts]`: messages about routes that fail, to the log `embedway.alerts` and to a webhook."""

    #: Whether error rates are measured and alerts are sent.
    enabled: Flag = True
    #: Failed requests of a route divided by all, from which on an alert is raised.
    error_rate: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.2
    #: Time over which the rate is measured, in seconds.
    window_s: Annotated[Seconds, Field(ge=1, le=86_400)] = 300.0
    #: Minimum requests of a route in that time; fewer raise no alert.
    min_requests: Positive = 10
    #: URL that receives alerts as JSON, and warnings of budgets unless `ledger.webhook` is set; it may contain a token.
    webhook: WebhookUrl | None = None
