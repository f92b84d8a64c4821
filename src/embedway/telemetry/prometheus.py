"""The metrics of budgets, in Prometheus' default registry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from embedway.telemetry import names
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetRefusalDetails, BudgetWarningDetails

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge

    from embedway.telemetry.operations import Operation


class PrometheusHook(BaseHook):
    """Counts warnings and refusals of budgets, and measures what is spent of them."""

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
    from prometheus_client import Counter, Gauge  # noqa: PLC0415  most programs never get so far

    return (
        Counter(names.BUDGET_WARNINGS, "Warnings that a part of a budget is spent.", ("budget", "level")),
        Counter(names.BUDGET_REFUSALS, "Calls refused because they would pass a budget.", ("budget",)),
        Gauge(names.BUDGET_SPENT, "What was spent over the limit, at the last warning.", ("budget",)),
    )
