"""Hooks for budgets: warnings to the logger `embedway.budget`, as JSON to `ledger.webhook`, and as metrics."""

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

#: Timeout of one request, in seconds.
REQUEST_S = 10.0
#: Maximum wait for pending requests on close, in seconds.
_FLUSH_S = 1.0


class LogHook(BaseHook):
    """Hook that logs warnings of budgets."""

    def event(self, operation: Operation) -> None:
        """Log a warning of a budget."""
        details = operation.details
        if isinstance(details, BudgetWarningDetails):
            _log.warning(
                "budget %s: %d %% or more is spent, $%s of $%s (%s)",
                details.budget,
                details.level,
                usd(details.spent_nanousd),
                usd(details.limit_nanousd),
                details.period,
            )


class WebhookHook(BaseHook):
    """Hook that posts warnings of budgets in the background. The URL may contain a token and is never logged."""

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
        """Wait briefly for pending requests, then cancel them: a webhook must not block."""
        if not self._posting:
            return
        _, late = await asyncio.wait(self._posting, timeout=_FLUSH_S)
        for task in late:
            task.cancel()
        if late:
            _log.warning("the webhook was too slow: %d warnings of budgets were not sent before the end", len(late))
            await asyncio.wait(late)

    async def _post(self, document: dict[str, Any]) -> None:
        try:
            import aiohttp  # noqa: PLC0415  few programs have a webhook

            timeout = aiohttp.ClientTimeout(total=REQUEST_S)
            async with (
                # No cookies and no redirects: the warning goes to the address of the settings, and nowhere else.
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                # The body of the answer is not read.
                session.post(self._url, json=document, allow_redirects=False) as response,
            ):
                if response.status >= 300:
                    _log.warning("the webhook answered a budget's warning with HTTP %d", response.status)
        # Every error is caught, because no code awaits this task. Its message may contain the URL.
        except Exception as error:  # noqa: BLE001
            _log.warning("a budget's warning could not be sent to the webhook: %s", type(error).__name__)


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
