"""Warnings of budgets in the log `embedway.budget`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedway.money import usd
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetWarningDetails

if TYPE_CHECKING:
    from embedway.telemetry.operations import Operation

_log = logging.getLogger("embedway.budget")


class LogHook(BaseHook):
    """Logs each budget of which a part is spent."""

    def event(self, operation: Operation) -> None:
        """Log a warning of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            _log.warning(
                "budget %s: %d %% spent, $%s of $%s (%s)",
                details.budget,
                details.level,
                usd(details.spent_nanousd),
                usd(details.limit_nanousd),
                details.period,
            )
