"""Hooks for budgets: warnings to the logger `embedway.budget`, and as JSON to `ledger.webhook`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embedway.money import usd
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetWarningDetails
from embedway.telemetry.webhook import Webhook

if TYPE_CHECKING:
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
