"""Metrics of budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.telemetry import names
from embedway.telemetry.labels import budget_label

if TYPE_CHECKING:
    from embedway.telemetry.metrics import Metrics
    from embedway.telemetry.operations import BudgetRefusalDetails, BudgetStandingDetails, BudgetWarningDetails


def on_warning(_hook: object, metrics: Metrics, details: BudgetWarningDetails) -> None:
    """Count a warning of a budget."""
    budget = budget_label(details.budget, metrics.limit)
    metrics.child(names.BUDGET_WARNINGS, budget, str(details.level)).inc()
    _set_ratio(metrics, budget, details.spent_nanousd, details.limit_nanousd)


def on_refusal(_hook: object, metrics: Metrics, details: BudgetRefusalDetails) -> None:
    """Count a call that a budget refused."""
    metrics.child(names.BUDGET_REFUSALS, budget_label(details.budget, metrics.limit)).inc()


def on_standing(_hook: object, metrics: Metrics, details: BudgetStandingDetails) -> None:
    """Report what is spent and left of a budget."""
    budget, spent = budget_label(details.budget, metrics.limit), details.spent_nanousd
    left = max(0, details.limit_nanousd - spent - details.held_nanousd)
    metrics.child(names.BUDGET_REFUSALS, budget)  # it begins at 0: Prometheus must see the first one
    metrics.child(names.BUDGET_SPENT, budget).set(spent / 1e9)
    metrics.child(names.BUDGET_LEFT, budget).set(left / 1e9)
    _set_ratio(metrics, budget, spent, details.limit_nanousd)


def _set_ratio(metrics: Metrics, budget: str, spent: int, limit: int) -> None:
    metrics.child(names.BUDGET_RATIO, budget).set(spent / limit if limit else 1.0)
