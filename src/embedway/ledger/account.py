"""Money of one request: each attempt is marked as sent before it is sent, and settled when it is finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from embedway.errors import EmbedwayError, LedgerError
from embedway.ledger.base import Purpose, Settlement
from embedway.ledger.refusals import max_cost_exceeded
from embedway.telemetry.operations import BudgetWarningDetails

if TYPE_CHECKING:
    from embedway.ledger.base import Crossing
    from embedway.ledger.budgets import Budgets

#: Returns nano-dollars for a number of tokens and searches; None if no price is known.
Prices: TypeAlias = Callable[[int, int], int | None]

_log = logging.getLogger("embedway.budget")


@dataclass(slots=True)
class CallBudget:
    """Limit and spending of one call, over all its requests."""

    purpose: Purpose
    #: Maximum cost in nano-dollars; None for no limit.
    max_nanousd: int | None = None
    spent: int = 0
    #: Reserved or under way, in nano-dollars.
    held: int = 0

    def left(self) -> int | None:
        """Return the nano-dollars that can still be reserved; None for no limit."""
        return None if self.max_nanousd is None else max(0, self.max_nanousd - self.spent - self.held)


@dataclass(slots=True)
class AccountTotals:
    """Sums over the finished attempts of one request."""

    #: Nano-dollars; `unsure` is the part for failed attempts that may be billed.
    spent: int = 0
    unsure: int = 0
    tokens: int = 0
    searches: int = 0
    #: Whether some of it is our own estimate, and whether some of it has no known price.
    estimated: bool = False
    unpriced: bool = False


@dataclass(slots=True)
class Account:
    """Money of one request, from its reservation until its last attempt is finished."""

    budgets: Budgets
    call_budget: CallBudget
    prices: Prices
    #: Held but not under way, in nano-dollars.
    reserved: int
    #: Factor of the reserved tokens, above 1 if they are estimated.
    margin: int = 1
    entry: str | None = None
    #: Under way, in nano-dollars.
    sent: int = 0
    totals: AccountTotals = field(default_factory=AccountTotals)
    #: Routes that answered, for the ledger.
    route: str = ""
    #: Settled here, although the ledger may still list it as under way, in nano-dollars.
    _unbooked: int = 0
    _state: Literal["open", "closing", "closed"] = "open"
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def mark_sent(self, tokens: int, searches: int) -> int:
        """Mark the maximum cost of an attempt as under way, and return it in nano-dollars.

        Raises BudgetExceededError if earlier attempts spent the reservation and no more is available. If the caller is
        cancelled meanwhile, nothing is under way.
        """
        marking = self.budgets.run_in_background(self._mark_sent(tokens, searches))
        try:
            return await asyncio.shield(marking)
        except asyncio.CancelledError:
            self.budgets.run_in_background(self._unmark_sent(marking))
            raise

    async def _unmark_sent(self, marking: asyncio.Task[int]) -> None:
        with contextlib.suppress(EmbedwayError):
            await self.settle_failure(await marking, billed=False)

    async def _mark_sent(self, tokens: int, searches: int) -> int:
        amount = self.prices(tokens * self.margin, searches) or 0
        async with self._lock:
            more = max(0, amount - self.reserved)
            left = self.call_budget.left() if more else None
            if left is not None and more > left:
                raise max_cost_exceeded(self.call_budget, more, left)
            ledger = self.budgets.ledger
            if ledger is not None and self.entry is not None:
                try:
                    refused = await ledger.send(self.entry, amount, self.budgets.limits)
                except LedgerError:
                    # Nothing is sent, but it may be marked as sent.
                    with contextlib.suppress(LedgerError):
                        await ledger.revert_send(self.entry, self.sent + self._unbooked)
                    raise
                if refused is not None:
                    raise self.budgets.refuse(refused, more)
            self.call_budget.held += more
            self.reserved = max(0, self.reserved - amount)
            self.sent += amount
        return amount

    async def settle_answer(
        self, sent: int, *, tokens: int, searches: int, tokens_reported: bool, searches_reported: bool
    ) -> None:
        """Settle an answered attempt, by the usage that the service reports or by our count."""
        # Only priced usage must be reported.
        reported = searches_reported if self.prices(0, 1) else tokens_reported
        cost = self.prices(tokens, searches)
        if cost is None:
            self.totals.unpriced, cost = True, 0
        self.totals.tokens += tokens
        self.totals.searches += searches
        self.totals.estimated = self.totals.estimated or not reported
        await self._settle(Settlement(sent, cost, tokens, "reported" if reported else "estimated"))

    async def settle_failure(self, sent: int, *, billed: bool) -> None:
        """Settle a failed attempt; with `billed`, all of it may be on the bill."""
        if billed:
            self.totals.unsure += sent
            self.totals.unpriced = self.totals.unpriced or self.prices(1, 1) is None
        await self._settle(Settlement(sent, sent if billed else 0, 0, "unsure" if billed else "unbilled"))

    async def _settle(self, settlement: Settlement) -> None:
        sent, cost, ledger = settlement.sent, settlement.cost, self.budgets.ledger
        try:
            async with self._lock:
                self.sent -= sent
                # An unbilled amount is available to the next attempt; a higher cost is taken from the reservation.
                back = sent if settlement.kind == "unbilled" else -min(self.reserved, max(0, cost - sent))
                self.reserved += back
                self.totals.spent += cost
                self.call_budget.spent += cost
                self.call_budget.held += back - sent
                if ledger is None or self.entry is None:
                    return
                try:
                    crossings = await ledger.settle(self.entry, settlement, self.budgets.limits)
                except LedgerError:
                    self._unbooked += sent
                    raise
                for crossing in crossings:
                    self.budgets.hooks.event(_warning_of, crossing)
        finally:
            if self._state != "open":
                await self.close()

    async def close(self) -> None:
        """Release the reservation; if an attempt is still under way, after it is finished."""
        if self._state == "open":
            self._state = "closing"
        async with self._lock:
            if self.sent or self._state == "closed":
                return
            self._state = "closed"
            self.call_budget.held -= self.reserved
            self.reserved = 0
            if self.budgets.ledger is not None and self.entry is not None:
                self.budgets.open_accounts.pop(self.entry, None)
                try:
                    await self.budgets.ledger.close(self.entry, route=self.route)
                except LedgerError as error:
                    # The result is paid for, and must not be lost because of this.
                    _log.warning("a reservation could not be released; it ends when its lease expires: %s", error)


def _warning_of(crossing: Crossing) -> BudgetWarningDetails:
    limit = crossing.limit
    return BudgetWarningDetails(
        limit.name, crossing.level, crossing.spent, limit.nanousd, limit.scope, crossing.period, limit.hard
    )
