"""Reports of the amounts of budgets to hooks, after calls changed them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway.errors import EmbedwayError
from embedway.ledger.reported import reported
from embedway.telemetry.hooks import current_operation
from embedway.telemetry.operations import BudgetStandingDetails

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from embedway.ledger.base import Ledger, Limit, Purpose
    from embedway.telemetry.hooks import Hooks

#: Minimum interval of the reports, in seconds: each one reads the ledger once.
REPORT_S = 1.0


class StandingReports:
    """Reports the budgets that calls changed: within a second after a change, and when the embedder is closed.

    A budget whose period changed is reported too, so that none keeps the amount of a period that is over.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        limits: Sequence[Limit],
        hooks: Hooks,
        run_in_background: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._hooks = hooks
        self._run_in_background = run_in_background
        #: Scopes whose amounts changed since the last report.
        self._changed: set[str] = set()
        #: Last reported period of each budget.
        self._periods: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note_change(self, purpose: Purpose) -> None:
        """Note that money was spent for a purpose, and report it within a second."""
        if self._ledger is None or not self._hooks.is_listening:
            return
        self._changed.update(purpose.scopes)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REPORT_S, self._on_timer)

    def stop(self) -> None:
        """Stop the timer; `report` still works."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def report(self) -> None:
        """Report the changed budgets. A failure of the ledger is reported, and never raised."""
        self.stop()
        changed, self._changed = self._changed, set()
        if not changed or self._ledger is None:
            return
        # A report belongs to no call.
        current_operation.set(None)
        try:
            with reported(self._hooks, "ledger", "standings"):
                standings = await self._ledger.standings(self._limits)
        except EmbedwayError:
            return
        for one in standings:
            is_over = self._periods.get(one.limit.name, one.period) != one.period
            if is_over or one.limit.scope in changed:
                self._periods[one.limit.name] = one.period
                self._hooks.event(
                    BudgetStandingDetails, one.limit.name, one.spent, one.held, one.limit.nanousd, one.period
                )

    def _on_timer(self) -> None:
        self._timer = None
        self._run_in_background(self.report())
