"""Money: reserved before a request is sent, booked when it is over, given back when it is not used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.errors import BudgetExceededError, EmbedwayError, LedgerError
from embedway.ledger.base import Purpose, Refused, Settlement, moment
from embedway.money import usd
from embedway.telemetry import prometheus as metrics
from embedway.types import ESTIMATE_MARGIN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Literal

    from embedway.ledger.base import Crossing, Ledger, Limit

    #: What so many tokens or searches cost in nano-dollars; None where no price is known.
    Prices = Callable[[int, int], int | None]

R = TypeVar("R")

_log = logging.getLogger("embedway.budget")

#: How often hits are booked as savings, how long a webhook may take, and how long closing waits for it.
_SAVINGS_S = 60.0
_WEBHOOK_S = 10.0
_TELLING_S = 1.0
MAX_COST = "max_cost"


@dataclass(slots=True)
class Spending:
    """What one call may spend, and has spent, over all the requests it takes."""

    purpose: Purpose
    #: Nano-dollars; None for no limit of its own.
    most: int | None = None
    spent: int = 0
    #: Reserved and under way.
    held: int = 0

    def left(self) -> int | None:
        """What it may still reserve."""
        return None if self.most is None else max(0, self.most - self.spent - self.held)


@dataclass(slots=True)
class _Savings:
    nanousd: int = 0
    texts: int = 0
    tokens: int = 0


class Budgets:
    """A ledger with the limits of the settings, for one embedder. `ledger` None books nothing and limits nothing."""

    def __init__(
        self,
        ledger: Ledger | None,
        limits: Sequence[Limit] = (),
        *,
        lease_s: float = 60.0,
        webhook: str | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.ledger = ledger
        self.limits = tuple(limits)
        self.lease_s = lease_s
        self._webhook = webhook
        self._sleep = sleep
        self._open: dict[str, Account] = {}
        self._saved: dict[Purpose, _Savings] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[Any]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._last: asyncio.Task[None] | None = None
        self._closed = False

    async def open(
        self, spending: Spending, prices: Prices, *, tokens: int, texts: int, searches: int = 0, exact: bool = True
    ) -> Account:
        """Reserve what a request may cost. Raises BudgetExceededError, before anything is sent, and LedgerError."""
        margin = 1 if exact else ESTIMATE_MARGIN
        needed = prices(tokens * margin, searches)
        left = spending.left()
        if left is not None and (needed is None or needed > left):
            raise _too_dear(spending, needed, left, exact=exact)
        account = Account(self, spending, prices, reserved=needed or 0, margin=margin)
        spending.held += needed or 0
        if self.ledger is not None:
            reserving = self.beside(
                self.ledger.reserve(spending.purpose, needed, self.limits, lease_s=self.lease_s, texts=texts)
            )
            try:
                answer = await asyncio.shield(reserving)
            except BaseException:
                spending.held -= needed or 0
                self.beside(self._give_back(reserving))
                raise
            if isinstance(answer, Refused):
                spending.held -= needed or 0
                raise self.refusal(answer, needed, about=_about(spending, exact=exact))
            account.entry = answer
            self._open[answer] = account
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        return account

    def saved(self, purpose: Purpose, nanousd: int, *, texts: int, tokens: int) -> None:
        """Note hits; they are booked a little later, many at once."""
        if self.ledger is None or not nanousd:
            return
        savings = self._saved.setdefault(purpose, _Savings())
        savings.nanousd += nanousd
        savings.texts += texts
        savings.tokens += tokens
        if self._saving is None:
            self._saving = asyncio.create_task(self._save_often())

    async def settle(self) -> None:
        """Wait until all is booked that is over."""
        while self._beside:
            await asyncio.gather(*self._beside, return_exceptions=True)
        await self._save()

    async def aclose(self) -> None:
        """Book all that is over, give back what is reserved, and close the ledger."""
        if self.ledger is None:
            return
        for task in (self._renewing, self._saving):
            if task is not None:
                task.cancel()
        try:
            for account in list(self._open.values()):
                await account.close()
            for entry in list(self._open):
                await self.ledger.close(entry)  # what is under way still may be billed
            await self.settle()
        except LedgerError as error:
            _log.warning("not all could be booked; reservations are given back when their leases run out: %s", error)
        finally:
            await self.ledger.aclose()
            self._closed = True
            await self._stop_telling()

    def beside(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Do something that a caller's cancellation must not end."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._beside.discard(task)
        if self._closed and not self._beside:
            # An answer outlived its embedder, and its booking opened the ledger again.
            self._last = asyncio.create_task(self._close_again())

    async def _close_again(self) -> None:
        if self.ledger is not None and not self._beside:
            await self.ledger.aclose()

    def forget(self, entry: str) -> None:
        """An account is closed."""
        self._open.pop(entry, None)
        if not self._open and self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    def refusal(self, refused: Refused, needed: int | None, *, about: str = "") -> BudgetExceededError:
        """The error for a reservation that a limit refuses."""
        limit = refused.limit
        metrics.refused(limit.name)
        if refused.restored is not None:
            return BudgetExceededError(
                f"the ledger was restored from a backup of {moment(refused.restored.books_of)}, and what was spent "
                f"since is not in it: budget {limit.name!r} refuses every call, and nothing was sent. Look at "
                "`embedway budget show`, lower the budgets by what was spent since (`embedway budget set NAME USD`, or "
                "the settings), then let them count again: `embedway budget confirm`",
                budget=limit.name,
                needed=needed,
                left=refused.left,
            )
        when = "in all" if limit.period == "total" else f"in {refused.period}"
        scope = "" if limit.scope == "*" else f" for {limit.scope.replace(':', ' ')}"
        what = "has no known price" if needed is None else f"may cost ${usd(needed)}{about}"
        raised = "; give the model a price" if needed is None else ""
        return BudgetExceededError(
            f"the call {what}, and budget {limit.name!r} allows ${usd(limit.nanousd)} {when}{scope}, of which "
            f"${usd(refused.left)} is left; nothing was sent{raised}",
            budget=limit.name,
            needed=needed,
            left=refused.left,
        )

    def warn(self, crossings: Sequence[Crossing]) -> None:
        """Tell that parts of budgets are spent: in the log, as a metric, and to the webhook."""
        for crossing in crossings:
            limit = crossing.limit
            _log.warning(
                "budget %s: %d %% spent, $%s of $%s (%s)",
                limit.name,
                crossing.level,
                usd(crossing.spent),
                usd(limit.nanousd),
                crossing.period,
            )
            metrics.warned(limit.name, crossing.level, crossing.spent / limit.nanousd if limit.nanousd else 1.0)
            if self._webhook is not None:
                telling = asyncio.create_task(_post(self._webhook, crossing.to_json()))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

    async def _stop_telling(self) -> None:
        """Give the webhook a moment: it is told of money, and holds nothing up."""
        if not self._telling:
            return
        _, late = await asyncio.wait(self._telling, timeout=_TELLING_S)
        for task in late:
            task.cancel()
        if late:
            _log.warning("the webhook was too slow to be told of %d warnings of budgets before the end", len(late))
            await asyncio.wait(late)

    async def _give_back(self, reserving: asyncio.Task[str | Refused]) -> None:
        """A caller went away while its reservation was made."""
        with contextlib.suppress(EmbedwayError):
            answer = await reserving
            if isinstance(answer, str) and self.ledger is not None:
                await self.ledger.close(answer)

    async def _renew(self) -> None:
        while True:
            await self._sleep(self.lease_s / 3)
            assert self.ledger is not None  # noqa: S101  it gave the reservations
            try:
                await self.ledger.renew(list(self._open), self.lease_s)
            except EmbedwayError as error:
                _log.warning("reservations could not be renewed: %s", error)

    async def _save_often(self) -> None:
        while True:
            await self._sleep(_SAVINGS_S)
            try:
                await self._save()
            except EmbedwayError as error:
                _log.warning("savings could not be booked: %s", error)

    async def _save(self) -> None:
        saved, self._saved = self._saved, {}
        for purpose, savings in saved.items():
            assert self.ledger is not None  # noqa: S101  else nothing was noted
            await self.ledger.book_saved(purpose, savings.nanousd, texts=savings.texts, tokens=savings.tokens)


@dataclass(slots=True)
class Account:
    """The money of one request, from its reservation until its last attempt is over."""

    budgets: Budgets
    spending: Spending
    prices: Prices
    #: Held and not under way.
    reserved: int
    #: How many times over tokens are held, because they are estimated.
    margin: int = 1
    entry: str | None = None
    sent: int = 0
    #: What it cost, the tokens on the bill, and what of it is our own count, or may be on the bill although it failed.
    spent: int = 0
    tokens: int = 0
    searches: int = 0
    estimated: bool = False
    unsure: int = 0
    unpriced: bool = False
    #: What is over, although the ledger may still have it as under way.
    _unbooked: int = 0
    _closing: bool = False
    _closed: bool = False
    #: The routes that answered, for the ledger.
    route: str = ""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def cover(self, tokens: int, searches: int) -> int:
        """Mark what an attempt may cost at most as under way, and tell how much that is.

        Raises BudgetExceededError where earlier attempts used up what was reserved and there is no more. When the
        caller goes away meanwhile, nothing is under way.
        """
        covering = self.budgets.beside(self._cover(tokens, searches))
        try:
            return await asyncio.shield(covering)
        except asyncio.CancelledError:
            self.budgets.beside(self._uncover(covering))
            raise

    async def _uncover(self, covering: asyncio.Task[int]) -> None:
        with contextlib.suppress(EmbedwayError):
            await self.failed(await covering, billed=False)

    async def _cover(self, tokens: int, searches: int) -> int:
        amount = self.prices(tokens * self.margin, searches) or 0
        async with self._lock:
            more = max(0, amount - self.reserved)
            left = self.spending.left()
            if more and left is not None and more > left:
                raise _too_dear(self.spending, more, left, exact=True)
            if self.budgets.ledger is not None and self.entry is not None:
                try:
                    refused = await self.budgets.ledger.send(self.entry, amount, self.budgets.limits)
                except LedgerError:
                    # Nothing is sent, and it may be marked all the same.
                    with contextlib.suppress(LedgerError):
                        await self.budgets.ledger.revert_send(self.entry, self.sent + self._unbooked)
                    raise
                if refused is not None:
                    raise self.budgets.refusal(refused, more)
            self.spending.held += more
            self.reserved = max(0, self.reserved - amount)
            self.sent += amount
        return amount

    async def answered(self, sent: int, *, tokens: int, searches: int, tokens_told: bool, searches_told: bool) -> None:
        """An attempt was answered: book what the service says it bills, or what we counted."""
        # Only what is priced has to be told.
        reported = searches_told if self.prices(0, 1) else tokens_told
        cost = self.prices(tokens, searches)
        if cost is None:
            self.unpriced, cost = True, 0
        self.tokens += tokens
        self.searches += searches
        self.estimated = self.estimated or not reported
        await self._settled(sent, cost, tokens, "reported" if reported else "estimated")

    async def failed(self, sent: int, *, billed: bool) -> None:
        """An attempt failed; what may be on the bill is booked."""
        if billed:
            self.unsure += sent
            self.unpriced = self.unpriced or self.prices(1, 1) is None
        await self._settled(sent, sent if billed else 0, 0, "unsure" if billed else "unbilled")

    async def _settled(
        self, sent: int, cost: int, tokens: int, kind: Literal["reported", "estimated", "unsure", "unbilled"]
    ) -> None:
        try:
            async with self._lock:
                self.sent -= sent
                # What is not billed can be spent by the next attempt; what cost more takes of the reservation.
                back = sent if kind == "unbilled" else -min(self.reserved, max(0, cost - sent))
                self.reserved += back
                self.spent += cost
                self.spending.spent += cost
                self.spending.held += back - sent
                await self._book(Settlement(sent, cost, tokens, kind))
        finally:
            if self._closing:
                await self.close()

    async def _book(self, settlement: Settlement) -> None:
        ledger = self.budgets.ledger
        if ledger is None or self.entry is None:
            return
        try:
            self.budgets.warn(await ledger.settle(self.entry, settlement, self.budgets.limits))
        except LedgerError:
            self._unbooked += settlement.sent
            raise

    async def close(self) -> None:
        """Give back what is reserved; where an attempt is under way still, when that is over."""
        self._closing = True
        async with self._lock:
            if self.sent or self._closed:
                return
            self._closed = True
            self.spending.held -= self.reserved
            self.reserved = 0
            if self.budgets.ledger is not None and self.entry is not None:
                self.budgets.forget(self.entry)
                try:
                    await self.budgets.ledger.close(self.entry, route=self.route)
                except LedgerError as error:
                    # What was bought is here, and no reason to lose it.
                    _log.warning("a reservation could not be given back, and ends with its lease: %s", error)


def _about(spending: Spending, *, exact: bool) -> str:
    return "" if exact else f" (twice its estimate, for {spending.purpose.model} has no tokenizer here)"


def _too_dear(spending: Spending, needed: int | None, left: int, *, exact: bool) -> BudgetExceededError:
    most = usd(spending.most or 0)
    if needed is None:
        what = f"{spending.purpose.model} has no known price, and max_cost is ${most}; give the model a price"
    else:
        rest = "" if left == spending.most else f", of which ${usd(left)} is left"
        model = f"{spending.purpose.model}{_about(spending, exact=exact)}"
        what = f"the call may cost ${usd(needed)} with {model}; max_cost is ${most}{rest}"
    return BudgetExceededError(f"{what}; nothing more was sent", budget=MAX_COST, needed=needed, left=left)


async def _post(url: str, document: dict[str, Any]) -> None:
    import aiohttp  # noqa: PLC0415  few have a webhook

    try:
        timeout = aiohttp.ClientTimeout(total=_WEBHOOK_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=document) as answer:
            if answer.status >= 400:
                _log.warning("the webhook answered a budget's warning with HTTP %d", answer.status)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # Its address may hold a token.
        _log.warning("the webhook could not be told of a budget's warning: %s", type(error).__name__)
