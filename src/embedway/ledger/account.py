"""The money of one request: each attempt is marked as sent before it goes out, and settled when it is over."""

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

#: Nano-dollars for so many tokens and searches; None where no price is known.
Prices: TypeAlias = Callable[[int, int], int | None]

_log = logging.getLogger("embedway.budget")


@dataclass(slots=True)
class CallBudget:
    """The limit of one call, and what it spent, over all the requests it takes."""

    purpose: Purpose
    #: Nano-dollars; None for no limit of its own.
    max_nanousd: int | None = None
    spent: int = 0
    #: Reserved and under way.
    held: int = 0

    def left(self) -> int | None:
        """Nano-dollars that it may still reserve; None for no limit."""
        return None if self.max_nanousd is None else max(0, self.max_nanousd - self.spent - self.held)


@dataclass(slots=True)
class AccountTotals:
    """The sums over the attempts of one request that are over."""

    #: Nano-dollars, `unsure` of them for failed attempts that may be billed.
    spent: int = 0
    unsure: int = 0
    tokens: int = 0
    searches: int = 0
    #: Whether our own count stands for some of it, and whether no price was known for some of it.
    estimated: bool = False
    unpriced: bool = False


@dataclass(slots=True)
class Account:
    """The money of one request, from its reservation until its last attempt is over."""

    budgets: Budgets
    call_budget: CallBudget
    prices: Prices
    #: Held and not under way.
    reserved: int
    #: How many times over tokens are held, because they are estimated.
    margin: int = 1
    entry: str | None = None
    #: Under way.
    sent: int = 0
    totals: AccountTotals = field(default_factory=AccountTotals)
    #: The routes that answered, for the ledger.
    route: str = ""
    #: Settled here, although the ledger may still have it as under way.
    _unbooked: int = 0
    _state: Literal["open", "closing", "closed"] = "open"
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def mark_sent(self, tokens: int, searches: int) -> int:
        """Mark the most that an attempt may cost as under way, and return it in nano-dollars.

        Raises BudgetExceededError where earlier attempts used up what was reserved and there is no more. When the
        caller goes away meanwhile, nothing is under way.
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
                    # Nothing is sent, and it may be marked all the same.
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
        """Settle an attempt that was answered: by what the service says it bills, or by what we counted."""
        # Only what is priced has to be reported.
        reported = searches_reported if self.prices(0, 1) else tokens_reported
        cost = self.prices(tokens, searches)
        if cost is None:
            self.totals.unpriced, cost = True, 0
        self.totals.tokens += tokens
        self.totals.searches += searches
        self.totals.estimated = self.totals.estimated or not reported
        await self._settle(Settlement(sent, cost, tokens, "reported" if reported else "estimated"))

    async def settle_failure(self, sent: int, *, billed: bool) -> None:
        """Settle an attempt that failed; with `billed`, all of it may be on the bill."""
        if billed:
            self.totals.unsure += sent
            self.totals.unpriced = self.totals.unpriced or self.prices(1, 1) is None
        await self._settle(Settlement(sent, sent if billed else 0, 0, "unsure" if billed else "unbilled"))

    async def _settle(self, settlement: Settlement) -> None:
        sent, cost, ledger = settlement.sent, settlement.cost, self.budgets.ledger
        try:
            async with self._lock:
                self.sent -= sent
                # What is not billed can be spent by the next attempt; what cost more takes of the reservation.
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
        """Give back what is reserved; where an attempt is under way still, when that is over."""
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
                    # What was bought is here, and no reason to lose it.
                    _log.warning("a reservation could not be given back, and ends with its lease: %s", error)


def _warning_of(crossing: Crossing) -> BudgetWarningDetails:
    limit = crossing.limit
    return BudgetWarningDetails(
        limit.name, crossing.level, crossing.spent, limit.nanousd, limit.scope, crossing.period, limit.hard
    )
