"""Hooks for budgets: warnings in the log `embedway.budget`, posted as JSON to `ledger.webhook`, and as metrics."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from embedway.money import usd
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import BudgetRefusalDetails, BudgetWarningDetails

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge

    from embedway.telemetry.operations import Operation

_log = logging.getLogger("embedway.budget")

#: How long one request may take, and how long closing waits for all that are under way.
REQUEST_S = 10.0
_FLUSH_S = 1.0


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


class WebhookHook(BaseHook):
    """Posts each warning of a budget, beside the caller's way. The address may hold a token and is never logged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._posting: set[asyncio.Task[None]] = set()

    def event(self, operation: Operation) -> None:
        """Start to post a warning of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            task = asyncio.create_task(self._post(_document(details)))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def flush(self) -> None:
        """Wait a moment for requests under way, then cancel them: a webhook holds nothing up."""
        if not self._posting:
            return
        _, late = await asyncio.wait(self._posting, timeout=_FLUSH_S)
        for task in late:
            task.cancel()
        if late:
            _log.warning("the webhook was too slow to be told of %d warnings of budgets before the end", len(late))
            await asyncio.wait(late)

    async def _post(self, document: dict[str, Any]) -> None:
        import aiohttp  # noqa: PLC0415  few have a webhook

        try:
            timeout = aiohttp.ClientTimeout(total=REQUEST_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._url, json=document) as response,
            ):
                if response.status >= 400:
                    _log.warning("the webhook answered a budget's warning with HTTP %d", response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("the webhook could not be told of a budget's warning: %s", type(error).__name__)


def _document(details: BudgetWarningDetails) -> dict[str, Any]:
    return {
        "budget": details.budget,
        "level": details.level,
        "spent_usd": usd(details.spent_nanousd),
        "limit_usd": usd(details.limit_nanousd),
        "scope": details.scope,
        "period": details.period,
        "hard": details.hard,
    }


class PrometheusHook(BaseHook):
    """Counts warnings and refusals of budgets, and measures what is spent of them, in Prometheus' default registry.

    Labels hold names of models and budgets, never texts or keys.
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
    from prometheus_client import Counter, Gauge  # noqa: PLC0415  most programs never get so far

    return (
        Counter("embedway_budget_warnings", "Warnings that a part of a budget is spent.", ("budget", "level")),
        Counter("embedway_budget_refusals", "Calls refused because they would pass a budget.", ("budget",)),
        Gauge("embedway_budget_spent_ratio", "What was spent over the limit, at the last warning.", ("budget",)),
    )
