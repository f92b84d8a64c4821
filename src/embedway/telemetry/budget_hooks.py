"""Hooks for budgets: warnings to the logger `embedway.budget`, as JSON to `ledger.webhook`, and as metrics."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from embedway.money import usd
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetRefusalDetails, BudgetWarningDetails
from embedway.telemetry.webhook import Webhook

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge

    from embedway.telemetry.operations import Operation

_log = logging.getLogger("embedway.budget")
_REMEDY = "Raise the limit with `embedway budget set`, or use a cheaper model."


class LogHook(BaseHook):
    """Hook that logs warnings of budgets."""

    def event(self, operation: Operation) -> None:
        """Log a warning of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            _log.warning(
                "budget %s: %d %% or more is spent, $%s of $%s (%s). %s",
                details.budget,
                details.level,
                usd(details.spent_nanousd),
                usd(details.limit_nanousd),
                details.period,
                _REMEDY,
            )


class WebhookHook(BaseHook):
    """Hook that posts warnings of budgets in the background. The URL may contain a token and is never logged."""

    def __init__(self, url: str) -> None:
        self._webhook = Webhook(url, "a budget's warning", _log, setting="ledger.webhook")

    def event(self, operation: Operation) -> None:
        """Start to post a warning of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            self._webhook.post(budget_document(details))

    async def flush(self) -> None:
        """Wait briefly for pending requests, then cancel them."""
        await self._webhook.flush()


def budget_document(details: BudgetWarningDetails) -> dict[str, Any]:
    """Return the document of a warning for a webhook."""
    return {
        "budget": details.budget,
        "level": details.level,
        "spent_usd": usd(details.spent_nanousd),
        "limit_usd": usd(details.limit_nanousd),
        "scope": details.scope,
        "period": details.period,
        "hard": details.hard,
        "remedy": _REMEDY,
    }


class PrometheusHook(BaseHook):
    """Hook that reports warnings, refusals and spent ratios of budgets to Prometheus' default registry.

    Labels contain names and levels of budgets, never texts or keys.
    """

    def event(self, operation: Operation) -> None:
        """Count an event of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            warnings, _, ratio = _metrics()
            warnings.labels(budget=details.budget, level=str(details.level)).inc()
            spent, limit = details.spent_nanousd, details.limit_nanousd
            ratio.labels(budget=details.budget).set(spent / limit if limit else 1.0)
        elif isinstance(details, BudgetRefusalDetails):
            _, refusals, _ = _metrics()
            refusals.labels(budget=details.budget).inc()


@functools.cache
def _metrics() -> tuple[Counter, Counter, Gauge]:
    from prometheus_client import Counter, Gauge  # noqa: PLC0415  most programs never need it

    return (
        Counter("embedway_budget_warnings", "Warnings that a part of a budget is spent.", ("budget", "level")),
        Counter("embedway_budget_refusals", "Calls refused because they would exceed a budget.", ("budget",)),
        Gauge("embedway_budget_spent_ratio", "Amount spent divided by the limit, at the last warning.", ("budget",)),
    )
