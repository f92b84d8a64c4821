"""Sending texts to services: split, limited, retried, failed over and bisected, and every row where it belongs.

There is one retry layer, this one. A finished part is never sent again; what failed is sent again alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.dispatch.billing import shares
from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.errors import (
    BadVectorsError,
    BudgetExceededError,
    DeadlineError,
    EmbedwayError,
    InputError,
    LedgerError,
    NoRouteError,
    ProtocolError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.base import split_requests
from embedway.providers.library import place_of
from embedway.urgency import Urgency
from embedway.vectors import to_size, validate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    import numpy.typing as npt

    from embedway.ledger.account import Account
    from embedway.providers.base import Answer, Provider
    from embedway.types import InputType, Space, Vectors

    Rows = npt.NDArray[np.int64]


_log = logging.getLogger(__name__)

#: Documents that a reranking service counts as one search; of more than so many tokens, the query's among them, it
#: makes several (https://docs.cohere.com/docs/how-does-cohere-pricing-work, read 2026-11-24). How many depends on the
#: query: with one of up to half that length, no more than one for each half.
_DOCUMENTS_A_SEARCH, _DOCUMENT_TOKENS = 100, 500
#: So many texts that are refused, each alone, without a single one taken: then the request is refused as such.
_REFUSED_ALONE = 24


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried.

    `max_attempts` bounds the upstream requests that any one text is part of, over all routes, refusals of a batch that
    is then halved not counted: they are at most log2 of its size. Waits double from `first_wait_s` to
    `longest_wait_s`, each shortened by up to a half at random, and are never shorter than the service asks for.
    """

    max_attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    deadline_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """A provider with what is remembered of it between requests."""

    name: str
    provider: Provider
    limiter: RateLimiter = field(default_factory=RateLimiter)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    slots: PrioritySemaphore = field(default_factory=lambda: PrioritySemaphore(8))

    def split(self, rows: Rows, lengths: npt.NDArray[np.int32]) -> list[Rows]:
        """Rows in their order, in parts that keep the service's limits on inputs and tokens of a request."""
        most = self.limiter.tokens_per_minute
        return split_requests(rows, lengths, self.provider.declared, tokens_per_minute=most)


@dataclass(slots=True)
class UpstreamResponse:
    """What came of a request: float32 vectors (n, d), NaN in the rows that `errors` names, and what it took."""

    vectors: Vectors
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    attempts: int = 0
    #: Tokens that services reported as billed; those of answers that did not say are in `unreported_tokens`.
    billed_tokens: int = 0
    unreported_tokens: int = 0
    searches: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request: texts, their tokens, and the space that all routes must answer in."""

    texts: Sequence[str]
    lengths: npt.NDArray[np.int32]
    input_type: InputType
    space: Space
    #: The width of services that cannot be asked for another.
    full_width: int
    #: Give errors by row instead of raising the first.
    partial: bool = False
    #: Raises BadVectorsError for an answer that is none.
    check: Callable[..., None] = validate
    #: Whose each text is (n,), ascending, where several callers' requests were put together; None for one caller.
    owners: Rows | None = None
    #: Who pays, one for each owner; empty where nothing is billed.
    accounts: tuple[Account, ...] = ()
    #: The width that services answer in where they are not asked for one; None for the full width.
    default_width: int | None = None
    #: Told of each part as soon as it is answered and checked: positions of its texts, and their vectors.
    landed: Callable[[Rows, Vectors], None] | None = None
    #: How its parts wait for a route that others use too.
    urgency: Urgency = field(default_factory=Urgency)
    #: Whether routes whose answers depend on the rest of the request have to answer it in one: as with scores, which
    #: are compared with one another.
    compared: bool = False

    @property
    def asked_width(self) -> int | None:
        """The width to ask for of services that honour it; None where they answer in it unasked."""
        wanted = self.space.dimensions
        return None if wanted == (self.default_width or self.full_width) else wanted

    def first_half(self, rows: Rows) -> int:
        """Where to halve rows that were refused.

        It is between two callers where there are several, so that none of them pays for another's texts.
        """
        middle = len(rows) // 2
        if self.owners is None or not self.mixed(rows):
            return middle
        starts = np.flatnonzero(np.diff(self.owners[rows])) + 1
        return int(starts[np.abs(starts - middle).argmin()])

    def mixed(self, rows: Rows) -> bool:
        """Whether rows are of several callers."""
        return self.owners is not None and bool(self.owners[rows[0]] != self.owners[rows[-1]])

    def apart(self, rows: Rows) -> list[Rows]:
        """Rows by caller."""
        return [rows] if self.owners is None else np.split(rows, np.flatnonzero(np.diff(self.owners[rows])) + 1)

    def owner(self, rows: Rows) -> int:
        """Whose rows of one caller are."""
        return 0 if self.owners is None else int(self.owners[rows[0]])


class UpstreamClient:
    """Sends requests. `clock` gives seconds, `sleep` waits them, `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._chance = chance

    async def send(self, sending: UpstreamRequest, routes: Sequence[ServiceRoute]) -> UpstreamResponse:
        """Embed all texts over the routes, in their order; all of them must serve `sending.space`.

        Raises the first error, or with `partial` returns it with its rows.
        """
        vectors = np.empty((len(sending.texts), sending.space.dimensions), np.float32)
        if sending.partial:
            vectors.fill(np.nan)
        outcome = UpstreamResponse(vectors)
        request = _Request(self, sending, outcome, self._clock() + self._policy.deadline_s)
        rows = np.arange(len(sending.texts), dtype=np.int64)
        try:
            await request.over(rows, list(routes), attempts=0, failed=())
        except* EmbedwayError as errors:
            raise _first(errors) from None
        return outcome

    def wait_s(self, attempt: int, error: EmbedwayError) -> float:
        """Seconds before the next attempt after `attempt` (from 1) failed with this error."""
        policy = self._policy
        wait = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (attempt - 1)) * (1 - self._chance() / 2)
        asked = error.retry_after_s if isinstance(error, (RateLimitedError, UnavailableError)) else None
        return wait if asked is None else max(wait, asked)

    @property
    def policy(self) -> RetryPolicy:
        """How often and how long."""
        return self._policy

    def now(self) -> float:
        """The clock."""
        return self._clock()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await self._sleep(seconds)


@dataclass(frozen=True, slots=True)
class _Way:
    """The route that texts are on, those behind it, and which failed before it and why."""

    route: ServiceRoute
    rest: list[ServiceRoute]
    failed: tuple[tuple[str, str], ...]

    @property
    def last(self) -> bool:
        """Whether no other route is left."""
        return not self.rest


@dataclass(frozen=True, slots=True)
class _Request:
    """One call of `UpstreamClient.send`, under way."""

    sender: UpstreamClient
    sending: UpstreamRequest
    outcome: UpstreamResponse
    deadline: float
    #: Held while it is found out whether a request is refused as such.
    doubt: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Whose texts are all refused, by route.
    hopeless: set[tuple[str, int]] = field(default_factory=set)
    #: By route, what keeps all parts of a large request but some from waiting for the route's places: others who come
    #: meanwhile need not wait for its end.
    turns: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    async def over(
        self, rows: Rows, routes: list[ServiceRoute], *, attempts: int, failed: tuple[tuple[str, str], ...]
    ) -> None:
        """Carry rows to the first route that will have them, part by part."""
        if not len(rows):
            return
        if not routes or attempts >= self.sender.policy.max_attempts:
            skipped = tuple((route.name, "not tried: the attempts were used up") for route in routes)
            self._give_up(rows, NoRouteError(self.sending.space.model, failed=(*failed, *skipped)))
            return
        route = routes[0]
        way = _Way(route, routes[1:], failed)
        parts = route.split(rows, self.sending.lengths)
        if len(parts) > 1 and self._in_one(route):
            self._give_up(
                rows,
                InputError(
                    f"{route.name} reads all texts of a request together, and these take {len(parts)} requests, whose "
                    f"answers do not compare; give fewer: it takes at most {route.provider.declared.max_inputs} at once"
                ),
            )
            return
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._part(part, way, attempts))

    async def _part(self, rows: Rows, way: _Way, attempts: int) -> None:
        lineage = _Lineage(attempts)
        try:
            vectors = await self._until_answered(rows, way, lineage)
        except RefusedInputError as error:
            # A refusal is no attempt.
            await self._refused(rows, way, lineage.attempts - 1, error)
        except (DeadlineError, BudgetExceededError, LedgerError) as error:
            self._give_up(rows, error)
        except EmbedwayError as error:
            failed = (*way.failed, (way.route.name, str(error)))
            if way.last:
                no_route = NoRouteError(self.sending.space.model, failed=failed)
                self._give_up(rows, no_route if way.failed else error)
                return
            await self.over(rows, way.rest, attempts=lineage.attempts, failed=failed)
        else:
            if vectors is not None:
                self.outcome.vectors[rows] = vectors
                return
            async with asyncio.TaskGroup() as group:
                for own in self.sending.apart(rows):
                    group.create_task(self._part(own, way, lineage.attempts))

    async def _refused(self, rows: Rows, way: _Way, attempts: int, error: RefusedInputError) -> None:
        """Halve what was refused, until the texts at fault stand alone."""
        if not self.sending.mixed(rows):
            if len(rows) == 1 or self._in_one(way.route):
                self._give_up(rows, error)
                return
            verdict = self._verdict(rows, way)
            if not self.outcome.routes:
                async with self.doubt:
                    rows = await self._singly(rows, way, attempts)
            if verdict in self.hopeless:
                self._give_up(rows, error)
                return
            if len(rows) < 2:
                # What is left after single texts were tried is tried alone too.
                if len(rows):
                    await self._part(rows, way, attempts)
                return
        middle = self.sending.first_half(rows)
        # One of the halves at least passes when a single text is at fault; the other is halved again.
        async with asyncio.TaskGroup() as group:
            for half in (rows[:middle], rows[middle:]):
                group.create_task(self._part(half, way, attempts))

    def _verdict(self, rows: Rows, way: _Way) -> tuple[str, int]:
        return way.route.name, self.sending.owner(rows)

    async def _singly(self, rows: Rows, way: _Way, attempts: int) -> Rows:
        """Try texts alone until one is taken, and give the others.

        Nothing was ever taken: it may be the request that is refused, whatever its texts, and halving would end in a
        request for each of them. Texts from all over it that are refused alone, and none taken, tell.
        """
        verdict = self._verdict(rows, way)
        places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _REFUSED_ALONE)).astype(np.int64))
        tried = 0
        for place in places.tolist():
            if self.outcome.routes or verdict in self.hopeless:
                break
            await self._part(rows[place : place + 1], way, attempts)
            tried += 1
        else:
            if not self.outcome.routes and len(places) == _REFUSED_ALONE:
                self.hopeless.add(verdict)
        return np.delete(rows, places[:tried])

    async def _until_answered(  # noqa: C901  one branch for each way to fail
        self, rows: Rows, way: _Way, lineage: _Lineage
    ) -> Vectors | None:
        """One part on one route, tried until it is answered or nothing more may be tried.

        None where texts of several callers failed together: they are tried again apart, for it may be one of theirs.
        """
        route, last = way.route, way.last
        bad = False
        here = 0
        while True:
            here += 1
            lineage.called_at = self.sender.now()
            try:
                return await self._once(rows, route, lineage, last=last)
            except (BudgetExceededError, LedgerError):
                # One caller's money or account, and not the others'.
                if not self.sending.mixed(rows):
                    raise
                return None
            except (BadVectorsError, ProtocolError) as error:
                # Once may be chance; twice is the route's own fault. So is an answer that says what it is at once.
                final = isinstance(error, ProtocolError) and not error.billed
                if bad or final or not self._may_go_on(lineage):
                    raise
                bad = True
                if self.sending.mixed(rows):
                    return None
            except UpstreamError as error:
                if not error.transient or not self._may_go_on(lineage):
                    raise
                wait_s = self.sender.wait_s(here, error)
                lost_s = wait_s + self.sender.now() - lineage.called_at
                # Another route of the space is there at once; this one would have to be waited for.
                too_late = self.sender.now() + wait_s > self.deadline
                if not last and (here > 1 or too_late or lost_s > self._patience_s):
                    if isinstance(error, RateLimitedError):
                        route.limiter.close_for(wait_s)
                    raise
                await self._wait(wait_s, error, route)
                if self.sending.mixed(rows) and not isinstance(error, RateLimitedError):
                    return None

    @property
    def _patience_s(self) -> float:
        """How long a route may keep texts waiting that another route could take."""
        return 2 * self.sender.policy.first_wait_s

    def _in_one(self, route: ServiceRoute) -> bool:
        return self.sending.compared and route.provider.declared.batch_dependent

    def _may_go_on(self, lineage: _Lineage) -> bool:
        return lineage.attempts < self.sender.policy.max_attempts

    async def _wait(self, seconds: float, error: EmbedwayError, route: ServiceRoute) -> None:
        if self.sender.now() + seconds > self.deadline:
            raise DeadlineError(
                f"{route.name} would have to be tried again in {seconds:.1f} s, and the time for the request is up "
                f"before that; its last answer: {error}",
                attempts=self.outcome.attempts,
            ) from error
        if isinstance(error, RateLimitedError):
            route.limiter.close_for(seconds)
        else:
            await self.sender.pause(seconds)

    async def _once(self, rows: Rows, route: ServiceRoute, lineage: _Lineage, *, last: bool) -> Vectors:
        sending = self.sending
        tokens = int(sending.lengths[rows].sum(dtype=np.int64))
        declared = route.provider.declared
        if route.breaker.state == "open":
            raise _left_alone(route)
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(None if declared.local else self._left_s()):
                    turns = self.turns.setdefault(route.name, asyncio.Semaphore(route.slots.limit))
                    await held.enter_async_context(turns)
                    await held.enter_async_context(route.slots.place(sending.urgency))
                    closed_s = route.limiter.closed_s()
                    if not last and closed_s > self._patience_s:
                        raise RateLimitedError("too many requests", route=route.name, retry_after_s=closed_s)
                    await route.limiter.acquire(tokens, sending.urgency)
            except TimeoutError as error:
                raise self._too_late(route) from error
            if not route.breaker.allow():
                raise _left_alone(route)
            paid = await self._covered(rows, route)
            lineage.attempts += 1
            lineage.called_at = self.sender.now()
            self.outcome.attempts += 1
            answer = await self._call(rows, route, paid, last=last)
        route.limiter.learn(answer.rates)
        self.outcome.searches += answer.searches or 0
        if answer.tokens is not None:
            self.outcome.billed_tokens += answer.tokens
        elif answer.searches is None:
            self.outcome.unreported_tokens += tokens
        if route.name not in self.outcome.routes:
            self.outcome.routes.append(route.name)
        return to_size(answer.vectors, sending.space)

    def _left_s(self) -> float:
        return max(0.0, self.deadline - self.sender.now())

    def _too_late(self, route: ServiceRoute) -> DeadlineError:
        return DeadlineError(
            f"{route.name} did not answer before the time for the request was up", attempts=self.outcome.attempts
        )

    async def _covered(self, rows: Rows, route: ServiceRoute) -> list[_Paid]:
        """Mark what this attempt may cost as under way, for each caller whose texts are in it."""
        if not self.sending.accounts or route.provider.declared.free:
            return []
        paid: list[_Paid] = []

        async def cover(own: Rows) -> None:
            account = self.sending.accounts[self.sending.owner(own)]
            tokens = int(self.sending.lengths[own].sum(dtype=np.int64))
            searches = searches_of(self.sending.lengths[own])
            sent = await account.mark_sent(tokens, searches)
            paid.append(_Paid(account, sent, tokens, searches))

        try:
            # All at once: a ledger books them together.
            outcomes = await asyncio.gather(*map(cover, self.sending.apart(rows)), return_exceptions=True)
            _raise_first(outcomes)
        except BaseException:
            route.breaker.abandoned()
            await _finally(paid, lambda one: one.account.settle_failure(one.sent, billed=False))
            raise
        return paid

    async def _call(self, rows: Rows, route: ServiceRoute, paid: Sequence[_Paid], *, last: bool) -> Answer:
        """One request, checked, what it says of the route's health, and what it costs."""
        sending, declared = self.sending, route.provider.declared
        asked = sending.asked_width if declared.dimensions else None
        told = False
        # Until there is an answer that says otherwise, it may be carried out, and billed.
        billed = True
        answered: Answer | None = None
        try:
            answered = await self._answer(rows, route, asked, last=last)
            width = sending.space.dimensions if declared.dimensions else sending.full_width
            space = replace(sending.space, dimensions=width)
            sending.check(answered.vectors, count=len(rows), space=space, route=route.name)
            told = True
            route.breaker.succeeded()
            # Before it is booked: a caller who goes away meanwhile has paid for it.
            if sending.landed is not None:
                sending.landed(rows, to_size(answered.vectors, sending.space))
        except EmbedwayError as error:
            told = True
            billed = isinstance(error, DeadlineError) or (isinstance(error, UpstreamError) and error.billed)
            if isinstance(error, UpstreamError) and error.rates is not None:
                route.limiter.learn(error.rates)
            # A refusal and a limit are answers of a service that is well.
            if isinstance(error, (RefusedInputError, RateLimitedError)):
                route.breaker.succeeded()
            else:
                route.breaker.failed()
            raise
        finally:
            if not told:
                route.breaker.abandoned()
            if paid and answered is not None:
                # Bad vectors are billed like good ones.
                await _answered(paid, answered)
            elif paid:
                await _finally(paid, lambda one: one.account.settle_failure(one.sent, billed=billed))
        return answered

    async def _answer(self, rows: Rows, route: ServiceRoute, width: int | None, *, last: bool) -> Answer:
        """What a provider answers in time. Raises errors of our tree alone, and nothing of what a stranger's says."""
        sending, declared = self.sending, route.provider.declared
        prompt = "" if declared.input_type else sending.space.prompt(sending.input_type)
        left_s = self._left_s()
        # A route that hangs must leave time for the next.
        share_s = None if declared.local else left_s if last else left_s / 2
        try:
            async with asyncio.timeout(share_s):
                return await route.provider.embed(
                    [prompt + sending.texts[row] for row in rows], input_type=sending.input_type, dimensions=width
                )
        except TimeoutError as error:
            if last:
                raise self._too_late(route) from error
            raise UnavailableError("no answer in time", route=route.name, billed=True) from error
        except EmbedwayError:
            raise
        except Exception as error:  # noqa: BLE001  a provider may be anybody's
            place = place_of(error)
        # Not raised above: a stranger's error may repeat texts, and would be this one's context.
        raise UpstreamError(f"its provider failed ({place})", route=route.name, billed=True)

    def _give_up(self, rows: Rows, error: EmbedwayError) -> None:
        if not self.sending.partial:
            raise error
        self.outcome.errors.update(dict.fromkeys(rows.tolist(), error))


@dataclass(frozen=True, slots=True)
class _Paid:
    """One caller's part of an attempt: what of its money is under way, for how many tokens and searches."""

    account: Account
    sent: int
    tokens: int
    searches: int


async def _answered(paid: Sequence[_Paid], answer: Answer) -> None:
    """Book an answered attempt: the service's own count of tokens, shared out by ours, or ours."""
    weights = [one.tokens for one in paid]
    tokens = weights if answer.tokens is None else shares(answer.tokens, weights)
    if answer.tokens is None and answer.searches is not None:
        tokens = [0] * len(paid)
    guessed = [one.searches for one in paid]
    searches = guessed if answer.searches is None else shares(answer.searches, guessed)
    parts = {id(one): part for one, *part in zip(paid, tokens, searches, strict=True)}

    async def book(one: _Paid) -> None:
        own_tokens, own_searches = parts[id(one)]
        await one.account.settle_answer(
            one.sent,
            tokens=own_tokens,
            searches=own_searches,
            tokens_reported=answer.tokens is not None,
            searches_reported=answer.searches is not None,
        )

    await _finally(paid, book)


async def _finally(paid: Sequence[_Paid], book: Callable[[_Paid], Coroutine[Any, Any, None]]) -> None:
    """Book for every caller, also when the one who waits is cancelled meanwhile."""
    if paid:
        await asyncio.shield(paid[0].account.budgets.run_in_background(_each(paid, book)))


def searches_of(lengths: npt.NDArray[np.int32]) -> int:
    """Searches that a service bills for documents of so many tokens, each with its query; never too few."""
    documents = np.where(lengths > _DOCUMENT_TOKENS, -(-2 * lengths.astype(np.int64) // _DOCUMENT_TOKENS), 1)
    return -(-int(documents.sum()) // _DOCUMENTS_A_SEARCH)


def _left_alone(route: ServiceRoute) -> UpstreamError:
    return UpstreamError("it failed several times in a row and is left alone", route=route.name)


def _raise_first(outcomes: Sequence[BaseException | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


async def _each(paid: Sequence[_Paid], book: Callable[[_Paid], Coroutine[Any, Any, None]]) -> None:
    for outcome in await asyncio.gather(*map(book, paid), return_exceptions=True):
        if isinstance(outcome, LedgerError):
            # The answer is here and paid for; what is not booked now is booked as unsure when its lease has run out.
            _log.warning("what a request cost could not be booked yet: %s", outcome)
        elif outcome is not None:
            raise outcome


@dataclass(slots=True)
class _Lineage:
    """How many requests these texts have been part of, and when they last went out."""

    attempts: int
    called_at: float = 0.0


def _first(errors: BaseException) -> EmbedwayError:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, EmbedwayError)  # noqa: S101 - `except*` let nothing else through
    return errors
