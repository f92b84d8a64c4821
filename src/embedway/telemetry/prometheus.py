"""The metrics of budgets, in Prometheus' default registry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from embedway.telemetry import names

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge


def warned(budget: str, level: int, ratio: float) -> None:
    """A part of a budget is spent that a warning was asked for at; `ratio` is spent over limit."""
    warnings, _, spent = _metrics()
    warnings.labels(budget=budget, level=str(level)).inc()
    spent.labels(budget=budget).set(ratio)


def refused(budget: str) -> None:
    """A call was refused, because it would pass a budget."""
    _metrics()[1].labels(budget=budget).inc()


@functools.cache
def _metrics() -> tuple[Counter, Counter, Gauge]:
    from prometheus_client import Counter, Gauge  # noqa: PLC0415  most programs never get so far

    return (
        Counter(names.BUDGET_WARNINGS, "Warnings that a part of a budget is spent.", ("budget", "level")),
        Counter(names.BUDGET_REFUSALS, "Calls refused because they would pass a budget.", ("budget",)),
        Gauge(names.BUDGET_SPENT, "What was spent over the limit, at the last warning.", ("budget",)),
    )
