"""Money of one request: each attempt is marked as sent before it is sent, and settled when it is finished.

The common request, one attempt that is answered, takes two transactions of the ledger: one reserves its money and marks
it as sent, and one settles it and closes the entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from embedway.errors import EmbedwayError, LedgerError
from embedway.ledger.base import Purpose, Settlement
from embedway.ledger.refusals import max_cost_exceeded
from embedway.ledger.reported import reported
from embedway.telemetry.operations import BudgetWarningDetails, CostDetails

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.ledger.base import Crossing, Ledger, Refused
    from embedway.ledger.budgets import Budgets
    from embedway.ledger.reservation import Reservation

#: Returns nano-dollars for a number of tokens and searches; None if no price is known.
Prices: TypeAlias = Callable[[int, int], int | None]

_log = logging.getLogger("embedway.budget")

#: Maximum refusals of limits before an implausible cost is booked without the amount beyond its reservation.
_MOST_REFUSALS = 10


@dataclass(slots=True)
class CallBudget:
    """Limit and spending of one call, over all its requests."""

    purpose: Purpose
    #: Maximum cost in nano-dollars; None for no limit.
    max_nanousd: int | None = None
    spent: int = 0
    #: Reserved or under way, in nano-dollars.
    held: int = 0
    #: Accounts of its requests.
    accounts: list[Account] = field(default_factory=list)

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


@dataclass(frozen=True, slots=True)
class Share:
    """One caller's share of an answer. `cost` is in nano-dollars, None if no price is known."""

    tokens: int
    searches: int
    cost: int | None
    #: Whether the service reported them, they are our own count, or the report is implausible.
    source: Literal["reported", "estimated", "unsure"]
    #: Whether our own count is booked.
    is_own: bool


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
    #: Its reservation until that is in the ledger; None without a ledger.
    reservation: Reservation | None = None
    entry: str | None = None
    #: Under way, in nano-dollars.
    sent: int = 0
    totals: AccountTotals = field(default_factory=AccountTotals)
    #: Routes that answered, for the ledger.
    route: str = ""
    #: Settled here, although the ledger may still list it as under way, in nano-dollars.
    _unbooked: int = 0
    _state: Literal["open", "closing", "closed"] = "open"
    #: Proofs of routes that may still book probes here.
    _holders: int = 0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def failure(self) -> EmbedwayError | None:
        """Error of its reservation, so that nothing was sent; None if there is none."""
        return None if self.reservation is None else self.reservation.error

    async def reserve(self) -> None:
        """Make the reservation alone. Raises BudgetExceededError and LedgerError; the account is then closed.

        If the caller is cancelled meanwhile, nothing is reserved.
        """
        try:
            await asyncio.shield(self.budgets.run_in_background(self._reserve_alone()))
        except BaseException:
            self.budgets.run_in_background(self.close())
            raise

    def reserve_later(self) -> None:
        """Make the reservation with the first amount that is sent, or alone if that takes longer."""
        assert self.reservation is not None  # noqa: S101  there is a ledger
        context = self.reservation.context
        self.reservation.start_timer(lambda: self.budgets.run_in_background(self._reserve_late(), context=context))

    async def _reserve_late(self) -> None:
        try:
            await self._reserve_alone()
        except EmbedwayError:  # raised to the call, whose wait ends
            if self.reservation is not None:
                self.reservation.end_wait()

    async def _reserve_alone(self) -> None:
        async with self._lock:
            if self._state == "open":
                await self._reserve(0)

    async def _reserve(self, sent: int) -> None:
        """Make the reservation, unless it is made, with an amount that is under way. The lock is held."""
        reservation = self.reservation
        if reservation is None:
            return
        if reservation.error is not None:
            raise reservation.error
        reservation.stop_timer()
        try:
            self.entry = await self.budgets.reserve(self, reservation, sent)
        except EmbedwayError as error:
            self.call_budget.held -= self.reserved
            self.reserved = 0
            reservation.error = error
            raise
        self.reservation = None

    async def mark_sent(self, tokens: int, searches: int) -> int:
        """Mark the maximum cost of an attempt as under way, and return it in nano-dollars.

        Raises BudgetExceededError if a limit refuses the reservation, or if earlier attempts spent it and no more is
        available, and LedgerError if the account is closed. If the caller is cancelled meanwhile, nothing is under way.
        """
        if self.budgets.ledger is None:
            return await self._mark_sent(tokens, searches)  # does not wait
        context = None if self.reservation is None else self.reservation.context
        marking = self.budgets.run_in_background(self._mark_sent(tokens, searches), context=context)
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
            if self.failure is not None:
                raise self.failure
            if self._state == "closed":
                # A batch of several callers goes on without one that was cancelled. That is no failure of the ledger.
                raise LedgerError("the call of these texts has ended, so they are not sent")
            more = max(0, amount - self.reserved)
            left = self.call_budget.left() if more else None
            if left is not None and more > left:
                raise max_cost_exceeded(self.call_budget, more, left)
            refused = await self._send(amount)
            if refused is not None:
                raise self.budgets.refuse(refused, more)
        return amount

    async def _send(self, amount: int) -> Refused | None:
        """Mark an amount as under way, unless a limit refuses it. The lock is held.

        Raises the errors of the reservation if that is not made yet.
        """
        if self.reservation is not None and amount <= self.reserved:
            await self._reserve(amount)
        elif self.budgets.ledger is not None:
            refused = await self._send_in(self.budgets.ledger, amount)
            if refused is not None:
                return refused
        self.call_budget.held += max(0, amount - self.reserved)
        self.reserved = max(0, self.reserved - amount)
        self.sent += amount
        return None

    async def _send_in(self, ledger: Ledger, amount: int) -> Refused | None:
        # Limits may allow the texts, but not a probe that costs more.
        await self._reserve(0)
        entry = self.entry
        if entry is None:
            return None
        try:
            with reported(self.budgets.hooks, "ledger", "send"):
                return await ledger.send(entry, amount, self.budgets.limits)
        except LedgerError:
            # Nothing is sent, but it may be marked as sent.
            with contextlib.suppress(LedgerError), reported(self.budgets.hooks, "ledger", "revert_send"):
                await ledger.revert_send(entry, self.sent + self._unbooked)
            raise

    async def _send_up_to(self, amount: int) -> int:
        """Mark as much of an amount as under way as the limits allow, and return it."""
        async with self._lock:
            left = self.call_budget.left()
            amount = amount if left is None else min(amount, self.reserved + left)
            # Each refusal is by another limit, or another call has spent in between.
            for _ in range(_MOST_REFUSALS):
                try:
                    refused = await self._send(amount) if amount > 0 else None
                except LedgerError:
                    return 0
                if refused is None:
                    return max(0, amount)
                amount = 0 if refused.restored else min(amount - 1, self.reserved + refused.left)
        return 0

    async def settle_answer(self, sent: int, share: Share, *, last_route: str = "") -> None:
        """Settle an answered attempt. An implausible cost uses up the limits, but does not exceed them.

        `last_route` names the routes that answered if nothing more will be sent. The account is then closed with it, in
        one transaction, unless an attempt is still under way.
        """
        settlement = self._settlement_of(sent, share)
        if share.source == "unsure":
            sent += await self._send_up_to(settlement.cost - sent)
            settlement = replace(settlement, sent=sent, cost=min(settlement.cost, sent))
            self.totals.unsure += settlement.cost
        await self._settle(settlement, last_route)

    def _settlement_of(self, sent: int, share: Share) -> Settlement:
        """Add an answer to the totals, except its cost, and return its settlement."""
        totals = self.totals
        totals.unpriced = totals.unpriced or share.cost is None
        totals.tokens += share.tokens
        totals.searches += share.searches
        totals.estimated = totals.estimated or share.is_own
        return Settlement(sent, share.cost or 0, share.tokens, share.source)

    def settle_last(self, sent: int, share: Share, route: str) -> bool:
        """Settle the answered attempt that ends the account, and book it in the background, as one transaction.

        Until it is booked, the ledger lists the money as under way, so that nothing else can spend it. Returns False,
        and does nothing, if the cost is not certain or something else is under way; `settle_answer` then waits.
        """
        is_alone = self.sent == sent and not self._holders and not self._lock.locked()
        if share.source == "unsure" or self._state != "open" or not is_alone:
            return False
        settlement = self._settlement_of(sent, share)
        self._count(settlement)
        self._end()
        if self.entry is not None:
            self.budgets.open_accounts[self.entry] = self  # its lease is renewed until it is booked
            self.budgets.run_in_background(self._book_last(self.entry, settlement, route))
        return True

    async def _book_last(self, entry: str, settlement: Settlement, route: str) -> None:
        try:
            await self._book(entry, settlement, route)
        except LedgerError as error:
            self.budgets.note_unbooked(error)
            await self._close_entry(entry, route)
        finally:
            self.budgets.open_accounts.pop(entry, None)

    async def settle_failure(self, sent: int, *, billed: bool) -> None:
        """Settle a failed attempt; with `billed`, all of it may be on the bill."""
        if billed:
            self.totals.unsure += sent
            self.totals.unpriced = self.totals.unpriced or self.prices(1, 1) is None
        await self._settle(Settlement(sent, sent if billed else 0, 0, "unsure" if billed else "unbilled"))

    async def _settle(self, settlement: Settlement, last_route: str = "") -> None:
        try:
            async with self._lock:
                self._count(settlement)
                if self.entry is None:
                    return
                is_last = not self._is_in_use and (bool(last_route) or self._state == "closing")
                try:
                    await self._book(self.entry, settlement, (last_route or self.route) if is_last else None)
                except LedgerError:
                    self._unbooked += settlement.sent
                    raise
                if is_last:
                    self._end()
        finally:
            if self._state == "closing":
                await self.close()

    async def _book(self, entry: str, settlement: Settlement, last_route: str | None) -> None:
        """Book a settlement in the ledger; with `last_route`, it closes the entry."""
        budgets = self.budgets
        assert budgets.ledger is not None  # noqa: S101  the entry comes from it
        closing = {} if last_route is None else {"last_route": last_route}
        with reported(budgets.hooks, "ledger", "settle"):
            crossings = await budgets.ledger.settle(entry, settlement, budgets.limits, **closing)
        budgets.note_booked()
        if settlement.cost:
            budgets.standings.note_change(self.call_budget.purpose)
        for crossing in crossings:
            budgets.hooks.event(_warning_of, crossing)

    def _count(self, settlement: Settlement) -> None:
        """Count the outcome of an attempt here, before it is booked."""
        call_budget, sent, cost = self.call_budget, settlement.sent, settlement.cost
        self.sent -= sent
        # An unbilled amount is available to the next attempt; a higher cost is taken from the reservation.
        back = sent if settlement.kind == "unbilled" else -min(self.reserved, max(0, cost - sent))
        self.reserved += back
        self.totals.spent += cost
        call_budget.spent += cost
        call_budget.held += back - sent
        if cost and settlement.kind != "unbilled":
            # Before it is booked: it is spent, even if the ledger fails.
            self.budgets.hooks.event(CostDetails, call_budget.purpose.model, cost, settlement.kind)

    @contextlib.contextmanager
    def held_open(self) -> Iterator[None]:
        """Keep the account open for attempts that may begin after its request has ended."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._state != "open":
                self.budgets.run_in_background(self.close())

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is sent and booked here."""
        return self._state == "closed"

    @property
    def _is_in_use(self) -> bool:
        """Whether attempts are under way, or may begin."""
        return bool(self.sent or self._holders)

    async def close(self) -> None:
        """Release the reservation; if an attempt is still under way, after it is finished."""
        if self._state == "open":
            self._state = "closing"
        async with self._lock:
            if self._is_in_use or self._state == "closed":
                return
            self._end()
            if self.entry is not None:
                await self._close_entry(self.entry, self.route)

    async def _close_entry(self, entry: str, route: str) -> None:
        assert self.budgets.ledger is not None  # noqa: S101  the entry comes from it
        try:
            with reported(self.budgets.hooks, "ledger", "close"):
                await self.budgets.ledger.close(entry, route=route)
        except LedgerError as error:
            # The result is paid for, and must not be lost because of this.
            _log.warning("a reservation could not be released; it ends when its lease expires: %s", error)

    def _end(self) -> None:
        self._state = "closed"
        self.call_budget.held -= self.reserved
        self.reserved = 0
        if self.reservation is not None:
            self.reservation.stop_timer()
        if self.entry is not None:
            self.budgets.open_accounts.pop(self.entry, None)


def _warning_of(crossing: Crossing) -> BudgetWarningDetails:
    limit = crossing.limit
    return BudgetWarningDetails(
        limit.name, crossing.level, crossing.spent, limit.nanousd, limit.scope, crossing.period, limit.hard
    )
