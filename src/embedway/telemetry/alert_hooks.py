"""Hooks for alerts on routes: error rates and circuits, to the logger `embedway.alerts`, a webhook and metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embedway.telemetry.budget_hooks import budget_document
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetWarningDetails, CircuitDetails, ErrorRateDetails
from embedway.telemetry.webhook import Webhook

if TYPE_CHECKING:
    from embedway.telemetry.operations import Operation

_log = logging.getLogger("embedway.alerts")


class AlertHook(BaseHook):
    """Hook that sends alerts on routes to the log, the metrics and a webhook.

    Circuits are logged without alerts too (`dispatch/log_lines.py`). With `budgets`, the webhook receives warnings of
    budgets too.
    """

    def __init__(self, webhook: str | None = None, *, budgets: bool = False) -> None:
        self._webhook = None if webhook is None else Webhook(webhook, "an alert", _log, setting="alerts.webhook")
        self._budgets = budgets
        #: Routes whose circuit was reported as open. A failed probe opens it again, which is not another alert.
        self._open: set[str] = set()

    def event(self, operation: Operation) -> None:
        """Send an alert."""
        details = operation.details
        if isinstance(details, ErrorRateDetails):
            self._report_rate(details)
        elif isinstance(details, CircuitDetails):
            self._report_circuit(details)
        elif isinstance(details, BudgetWarningDetails) and self._budgets:
            self._post("budget", budget_document(details))

    async def flush(self) -> None:
        """Wait briefly for pending requests of the webhook."""
        if self._webhook is not None:
            await self._webhook.flush()

    def _report_rate(self, details: ErrorRateDetails) -> None:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in details.errors)
        facts = details.failed, details.requests, details.window_s
        if details.level == "raised":
            _count("error_rate", details.route)
            _log.warning("route %s: %d of %d requests failed in the last %g s (%s)", details.route, *facts, kinds)
        else:
            _log.warning("route %s works again: %d of %d requests failed in the last %g s", details.route, *facts)
        document: dict[str, Any] = {
            "failed": details.failed,
            "requests": details.requests,
            "rate": round(details.rate, 6),
        }
        document |= {"window_s": details.window_s, "errors": dict(details.errors)}
        self._post("error_rate", {"level": details.level, "route": details.route, **document})

    def _report_circuit(self, details: CircuitDetails) -> None:
        route, is_open = details.route, details.after == "open"
        if details.after == "half-open" or is_open == (route in self._open):
            return
        if is_open:
            self._open.add(route)
            _count("circuit", route)
        else:
            self._open.discard(route)
        self._post("circuit", {"level": "raised" if is_open else "cleared", "route": route})

    def _post(self, kind: str, document: dict[str, Any]) -> None:
        if self._webhook is not None:
            self._webhook.post({"kind": kind, **document})


def _count(kind: str, route: str) -> None:
    from embedway.telemetry.metrics import count_alert  # noqa: PLC0415  most programs have no alerts

    count_alert(kind, route)
