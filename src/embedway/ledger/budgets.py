"""Budgets of an embedder: reserve money before a request is sent, renew the leases, and book savings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from embedway.errors import EmbedwayError, LedgerError
from embedway.ledger.account import Account
from embedway.ledger.base import Refused, new_entry
from embedway.ledger.refusals import budget_exceeded, estimate_note, max_cost_exceeded
from embedway.ledger.reported import reported
from embedway.ledger.reservation import Reservation
from embedway.ledger.standing_reports import StandingReports
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import BudgetRefusalDetails, ReservationDetails
from embedway.types import ESTIMATE_MARGIN

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from embedway.errors import BudgetExceededError
    from embedway.ledger.account import CallBudget, Prices
    from embedway.ledger.base import Ledger, Limit, Purpose

R = TypeVar("R")

_log = logging.getLogger("embedway.budget")

#: Interval at which savings of cache hits are booked in the ledger, in seconds.
_SAVINGS_S = 60.0
#: Maximum purposes whose refusals are remembered.
_MOST_PURPOSES = 1000


class Budgets:
    """Ledger with the configured limits, for one embedder. Without a ledger, only `max_cost` limits a call."""

    def __init__(
        self,
        ledger: Ledger | None,
        limits: Sequence[Limit] = (),
        *,
        lease_s: float = 60.0,
        hooks: Hooks | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.ledger = ledger
        self.limits = tuple(limits)
        self.lease_s = lease_s
        self.hooks = Hooks() if hooks is None else hooks
        self.savings = Savings(ledger, sleep, self.hooks)
        self.standings = StandingReports(ledger, self.limits, self.hooks, self.run_in_background)
        #: Costs that could not be booked since the ledger worked last.
        self._unbooked = 0
        self._sleep = sleep
        #: Whether the last reservation failed, and purposes whose last reservation was refused.
        self._refusing = False
        self._refused: set[Purpose] = set()
        #: Open accounts by ledger entry; their leases are renewed.
        self.open_accounts: dict[str, Account] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._last: asyncio.Task[None] | None = None
        self._closed = False

    async def open(
        self,
        call_budget: CallBudget,
        prices: Prices,
        *,
        tokens: int,
        texts: int,
        searches: int = 0,
        exact: bool = True,
        later: bool = False,
    ) -> Account:
        """Reserve the maximum cost of a request. Raises BudgetExceededError before anything is sent, or LedgerError.

        With `later`, the reservation may be made with the first amount that is sent, so that its errors are raised
        then; see `Account.failure`.
        """
        margin = 1 if exact else ESTIMATE_MARGIN
        needed = prices(tokens * margin, searches)
        note = "" if exact else estimate_note(call_budget.purpose.model)
        left = None if call_budget.max_nanousd is None else call_budget.left()
        is_over = left is not None and (needed is None or needed > left)
        if is_over or self.ledger is None:
            with self.hooks.operation(ReservationDetails, call_budget.purpose.model, needed):
                if left is not None and is_over:
                    raise max_cost_exceeded(call_budget, needed, left, note=note)
        account = Account(self, call_budget, prices, reserved=needed or 0, margin=margin)
        call_budget.held += account.reserved
        call_budget.accounts.append(account)
        if self.ledger is not None:
            account.reservation = Reservation(needed, texts, note)
            if later and not self._refusing and call_budget.purpose not in self._refused:
                account.reserve_later()
            else:
                await account.reserve()
        return account

    async def reserve(self, account: Account, reservation: Reservation, sent: int) -> str:
        """Make a reservation, of which `sent` is under way at once, and return its entry.

        Raises BudgetExceededError and LedgerError. Until a reservation of the same purpose is made again, those of
        later calls are made before they wait for anything: a refused call should not take the place of another.
        """
        assert self.ledger is not None  # noqa: S101  without a ledger there is no reservation
        purpose, needed, entry = account.call_budget.purpose, reservation.needed, new_entry()
        with self.hooks.operation(ReservationDetails, purpose.model, needed):
            try:
                with reported(self.hooks, "ledger", "reserve"):
                    answer = await self.ledger.reserve(
                        purpose,
                        needed,
                        self.limits,
                        lease_s=self.lease_s,
                        texts=reservation.texts,
                        sent=sent,
                        entry=entry,
                    )
            except LedgerError:
                self._refusing = True
                if sent:
                    await self._revert(self.ledger, entry)
                raise
            self._refusing = False
            if isinstance(answer, Refused):
                if len(self._refused) >= _MOST_PURPOSES:
                    self._refused.clear()
                self._refused.add(purpose)
                raise self.refuse(answer, needed, model=purpose.model, note=reservation.note)
        self._refused.discard(purpose)
        self.open_accounts[answer] = account
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return answer

    async def _revert(self, ledger: Ledger, entry: str) -> None:
        """Revert a reservation whose answer was lost, and which may be marked as sent although nothing is sent."""
        with contextlib.suppress(LedgerError):
            with reported(self.hooks, "ledger", "revert_send"):
                await ledger.revert_send(entry, 0)
            await ledger.close(entry)

    def note_unbooked(self, error: LedgerError) -> None:
        """Count a cost that could not be booked, and log the first one since the ledger worked last."""
        self._unbooked += 1
        if self._unbooked == 1:
            _log.warning("the cost of a request could not be booked yet: %s. Later ones are counted", error)

    def note_booked(self) -> None:
        """Log once that the ledger works again, with the number of costs that could not be booked."""
        if self._unbooked:
            _log.warning("costs are booked again; those of %d requests could not be booked", self._unbooked)
            self._unbooked = 0

    async def settle(self) -> None:
        """Wait until everything finished so far is booked."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        await self.savings.flush()

    async def aclose(self) -> None:
        """Book everything that is finished, release the reservations, and close the ledger."""
        if self.ledger is None:
            return
        if self._renewing is not None:
            self._renewing.cancel()
        self.savings.stop()
        self.standings.stop()
        try:
            for account in list(self.open_accounts.values()):
                await account.close()
            for entry, account in list(self.open_accounts.items()):
                if not account.is_closed:  # otherwise it is being booked
                    await self.ledger.close(entry)  # attempts still under way may be billed
            await self.settle()
        except LedgerError as error:
            _log.warning("some costs could not be booked; reservations end when their leases expire: %s", error)
        finally:
            await self.standings.report()
            await self.ledger.aclose()
            self._closed = True
            for task in self._background:
                task.add_done_callback(self._close_again)

    def run_in_background(
        self, work: Coroutine[Any, Any, R], *, context: contextvars.Context | None = None
    ) -> asyncio.Task[R]:
        """Run a coroutine that the cancellation of a caller must not cancel."""
        task = asyncio.create_task(work, context=context)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        if self._closed:
            task.add_done_callback(self._close_again)
        return task

    def refuse(self, refused: Refused, needed: int | None, *, model: str = "", note: str = "") -> BudgetExceededError:
        """Return the error for a reservation that a limit refuses, and report it to the hooks."""
        self.hooks.event(BudgetRefusalDetails, refused.limit.name, needed, refused.left)
        return budget_exceeded(refused, needed, model=model, note=note)

    def _close_again(self, _task: asyncio.Task[Any]) -> None:
        """Close the ledger again, after a booking that outlived its embedder reopened it."""
        if self.ledger is not None and not self._background:
            self._last = asyncio.create_task(self._close_ledger(self.ledger))

    async def _close_ledger(self, ledger: Ledger) -> None:
        if not self._background:
            await ledger.aclose()

    async def _renew(self) -> None:
        while True:
            await self._sleep(self.lease_s / 3)
            if not self.open_accounts:
                return
            assert self.ledger is not None  # noqa: S101  open accounts come from it
            try:
                with reported(self.hooks, "ledger", "renew"):
                    await self.ledger.renew(list(self.open_accounts), self.lease_s)
            except EmbedwayError as error:
                _log.warning("reservations could not be renewed: %s", error)


class SavedCounts(Protocol):
    """Counts of a model in the cache."""

    nanousd_saved: int


@dataclass(slots=True)
class _Pending:
    nanousd: int = 0
    texts: int = 0
    tokens: int = 0


class Savings:
    """Books the savings of cache hits, for `cache stats` by model and for the ledger by purpose and day."""

    def __init__(self, ledger: Ledger | None, sleep: Callable[[float], Awaitable[object]], hooks: Hooks) -> None:
        self._ledger = ledger
        self._hooks = hooks
        self._sleep = sleep
        self._pending: dict[Purpose, _Pending] = {}
        self._flushing: asyncio.Task[None] | None = None

    def book(self, purpose: Purpose, counts: SavedCounts, nanousd: int, *, texts: int, tokens: int) -> None:
        """Book hits of a model: in its cache counts at once, in the ledger within a minute."""
        counts.nanousd_saved += nanousd
        if self._ledger is None or not nanousd:
            return
        pending = self._pending.setdefault(purpose, _Pending())
        pending.nanousd += nanousd
        pending.texts += texts
        pending.tokens += tokens
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_often(self._ledger))

    async def flush(self) -> None:
        """Book the pending savings in the ledger. Raises LedgerError."""
        if self._ledger is not None:
            await self._flush(self._ledger)

    def stop(self) -> None:
        """Stop the periodic booking; `flush` still works."""
        if self._flushing is not None:
            self._flushing.cancel()

    async def _flush(self, ledger: Ledger) -> None:
        pending, self._pending = self._pending, {}
        for purpose, one in pending.items():
            with reported(self._hooks, "ledger", "book_saved"):
                await ledger.book_saved(purpose, one.nanousd, texts=one.texts, tokens=one.tokens)

    async def _flush_often(self, ledger: Ledger) -> None:
        while True:
            await self._sleep(_SAVINGS_S)
            try:
                await self._flush(ledger)
            except EmbedwayError as error:
                _log.warning("savings could not be booked: %s", error)
