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

    from embedway.ledger.budgets import Account
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
    circuit: CircuitBreaker = field(default_factory=CircuitBreaker)
    semaphore: PrioritySemaphore = field(default_factory=lambda: PrioritySemaphore(8))

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
    callers: Rows | None = None
    #: Who pays, one for each owner; empty where nothing is billed.
    accounts: tuple[Account, ...] = ()
    #: The width that services answer in where they are not asked for one; None for the full width.
    default_width: int | None = None
    #: Told of each part as soon as it is answered and checked: positions of its texts, and their vectors.
    on_ready: Callable[[Rows, Vectors], None] | None = None
    #: How its parts wait for a route that others use too.
    urgency: Urgency = field(default_factory=Urgency)
    #: Whether routes whose answers depend on the rest of the request have to answer it in one: as with scores, which
    #: are compared with one another.
    one_answer: bool = False

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
        if self.callers is None or not self.has_several_callers(rows):
            return middle
        starts = np.flatnonzero(np.diff(self.callers[rows])) + 1
        return int(starts[np.abs(starts - middle).argmin()])

    def has_several_callers(self, rows: Rows) -> bool:
        """Whether rows are of several callers."""
        return self.callers is not None and bool(self.callers[rows[0]] != self.callers[rows[-1]])

    def by_caller(self, rows: Rows) -> list[Rows]:
        """Rows by caller."""
        return [rows] if self.callers is None else np.split(rows, np.flatnonzero(np.diff(self.callers[rows])) + 1)

    def caller(self, rows: Rows) -> int:
        """Whose rows of one caller are."""
        return 0 if self.callers is None else int(self.callers[rows[0]])


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

    async def send(self, request: UpstreamRequest, routes: Sequence[ServiceRoute]) -> UpstreamResponse:
        """Embed all texts over the routes, in their order; all of them must serve `sending.space`.

        Raises the first error, or with `partial` returns it with its rows.
        """
        vectors = np.empty((len(request.texts), request.space.dimensions), np.float32)
        if request.partial:
            vectors.fill(np.nan)
        response = UpstreamResponse(vectors)
        recovery = _Recovery(self, request, response, self._clock() + self._policy.deadline_s)
        rows = np.arange(len(request.texts), dtype=np.int64)
        try:
            await recovery.over(rows, list(routes), attempts=0, failed=())
        except* EmbedwayError as errors:
            raise _first(errors) from None
        return response

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
class _RoutePlan:
    """The route that texts are on, those behind it, and which failed before it and why."""

    route: ServiceRoute
    rest: list[ServiceRoute]
    failed: tuple[tuple[str, str], ...]

    @property
    def last(self) -> bool:
        """Whether no other route is left."""
        return not self.rest


@dataclass(frozen=True, slots=True)
class _Recovery:
    """One call of `UpstreamClient.send`, under way."""

    client: UpstreamClient
    request: UpstreamRequest
    response: UpstreamResponse
    deadline: float
    #: Held while it is found out whether a request is refused as such.
    refusal_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Whose texts are all refused, by route.
    refused_whole: set[tuple[str, int]] = field(default_factory=set)
    #: By route, what keeps all parts of a large request but some from waiting for the route's places: others who come
    #: meanwhile need not wait for its end.
    fairness: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    async def over(
        self, rows: Rows, routes: list[ServiceRoute], *, attempts: int, failed: tuple[tuple[str, str], ...]
    ) -> None:
        """Carry rows to the first route that will have them, part by part."""
        if not len(rows):
            return
        if not routes or attempts >= self.client.policy.max_attempts:
            skipped = tuple((route.name, "not tried: the attempts were used up") for route in routes)
            self._give_up(rows, NoRouteError(self.request.space.model, failed=(*failed, *skipped)))
            return
        route = routes[0]
        plan = _RoutePlan(route, routes[1:], failed)
        parts = route.split(rows, self.request.lengths)
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
                group.create_task(self._part(part, plan, attempts))

    async def _part(self, rows: Rows, plan: _RoutePlan, attempts: int) -> None:
        tried = _AttemptsSoFar(attempts)
        try:
            vectors = await self._until_answered(rows, plan, tried)
        except RefusedInputError as error:
            # A refusal is no attempt.
            await self._refused(rows, plan, tried.attempts - 1, error)
        except (DeadlineError, BudgetExceededError, LedgerError) as error:
            self._give_up(rows, error)
        except EmbedwayError as error:
            failed = (*plan.failed, (plan.route.name, str(error)))
            if plan.last:
                no_route = NoRouteError(self.request.space.model, failed=failed)
                self._give_up(rows, no_route if plan.failed else error)
                return
            await self.over(rows, plan.rest, attempts=tried.attempts, failed=failed)
        else:
            if vectors is not None:
                self.response.vectors[rows] = vectors
                return
            async with asyncio.TaskGroup() as group:
                for own in self.request.by_caller(rows):
                    group.create_task(self._part(own, plan, tried.attempts))

    async def _refused(self, rows: Rows, plan: _RoutePlan, attempts: int, error: RefusedInputError) -> None:
        """Halve what was refused, until the texts at fault stand alone."""
        if not self.request.has_several_callers(rows):
            if len(rows) == 1 or self._in_one(plan.route):
                self._give_up(rows, error)
                return
            verdict = self._verdict(rows, plan)
            if not self.response.routes:
                async with self.refusal_lock:
                    rows = await self._singly(rows, plan, attempts)
            if verdict in self.refused_whole:
                self._give_up(rows, error)
                return
            if len(rows) < 2:
                # What is left after single texts were tried is tried alone too.
                if len(rows):
                    await self._part(rows, plan, attempts)
                return
        middle = self.request.first_half(rows)
        # One of the halves at least passes when a single text is at fault; the other is halved again.
        async with asyncio.TaskGroup() as group:
            for half in (rows[:middle], rows[middle:]):
                group.create_task(self._part(half, plan, attempts))

    def _verdict(self, rows: Rows, plan: _RoutePlan) -> tuple[str, int]:
        return plan.route.name, self.request.caller(rows)

    async def _singly(self, rows: Rows, plan: _RoutePlan, attempts: int) -> Rows:
        """Try texts alone until one is taken, and give the others.

        Nothing was ever taken: it may be the request that is refused, whatever its texts, and halving would end in a
        request for each of them. Texts from all over it that are refused alone, and none taken, tell.
        """
        verdict = self._verdict(rows, plan)
        places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _REFUSED_ALONE)).astype(np.int64))
        tried = 0
        for place in places.tolist():
            if self.response.routes or verdict in self.refused_whole:
                break
            await self._part(rows[place : place + 1], plan, attempts)
            tried += 1
        else:
            if not self.response.routes and len(places) == _REFUSED_ALONE:
                self.refused_whole.add(verdict)
        return np.delete(rows, places[:tried])

    async def _until_answered(  # noqa: C901  one branch for each way to fail
        self, rows: Rows, plan: _RoutePlan, tried: _AttemptsSoFar
    ) -> Vectors | None:
        """One part on one route, tried until it is answered or nothing more may be tried.

        None where texts of several callers failed together: they are tried again apart, for it may be one of theirs.
        """
        route, last = plan.route, plan.last
        bad = False
        here = 0
        while True:
            here += 1
            tried.called_at = self.client.now()
            try:
                return await self._once(rows, route, tried, last=last)
            except (BudgetExceededError, LedgerError):
                # One caller's money or account, and not the others'.
                if not self.request.has_several_callers(rows):
                    raise
                return None
            except (BadVectorsError, ProtocolError) as error:
                # Once may be chance; twice is the route's own fault. So is an answer that says what it is at once.
                final = isinstance(error, ProtocolError) and not error.billed
                if bad or final or not self._may_go_on(tried):
                    raise
                bad = True
                if self.request.has_several_callers(rows):
                    return None
            except UpstreamError as error:
                if not error.transient or not self._may_go_on(tried):
                    raise
                wait_s = self.client.wait_s(here, error)
                lost_s = wait_s + self.client.now() - tried.called_at
                # Another route of the space is there at once; this one would have to be waited for.
                too_late = self.client.now() + wait_s > self.deadline
                if not last and (here > 1 or too_late or lost_s > self._patience_s):
                    if isinstance(error, RateLimitedError):
                        route.limiter.close_for(wait_s)
                    raise
                await self._wait(wait_s, error, route)
                if self.request.has_several_callers(rows) and not isinstance(error, RateLimitedError):
                    return None

    @property
    def _patience_s(self) -> float:
        """How long a route may keep texts waiting that another route could take."""
        return 2 * self.client.policy.first_wait_s

    def _in_one(self, route: ServiceRoute) -> bool:
        return self.request.one_answer and route.provider.declared.batch_dependent

    def _may_go_on(self, tried: _AttemptsSoFar) -> bool:
        return tried.attempts < self.client.policy.max_attempts

    async def _wait(self, seconds: float, error: EmbedwayError, route: ServiceRoute) -> None:
        if self.client.now() + seconds > self.deadline:
            raise DeadlineError(
                f"{route.name} would have to be tried again in {seconds:.1f} s, and the time for the request is up "
                f"before that; its last answer: {error}",
                attempts=self.response.attempts,
            ) from error
        if isinstance(error, RateLimitedError):
            route.limiter.close_for(seconds)
        else:
            await self.client.pause(seconds)

    async def _once(self, rows: Rows, route: ServiceRoute, tried: _AttemptsSoFar, *, last: bool) -> Vectors:
        request = self.request
        tokens = int(request.lengths[rows].sum(dtype=np.int64))
        declared = route.provider.declared
        if route.circuit.state == "open":
            raise _left_alone(route)
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(None if declared.local else self._left_s()):
                    fairness = self.fairness.setdefault(route.name, asyncio.Semaphore(route.semaphore.limit))
                    await held.enter_async_context(fairness)
                    await held.enter_async_context(route.semaphore.place(request.urgency))
                    closed_s = route.limiter.closed_s()
                    if not last and closed_s > self._patience_s:
                        raise RateLimitedError("too many requests", route=route.name, retry_after_s=closed_s)
                    await route.limiter.acquire(tokens, request.urgency)
            except TimeoutError as error:
                raise self._too_late(route) from error
            if not route.circuit.allow():
                raise _left_alone(route)
            paid = await self._covered(rows, route)
            tried.attempts += 1
            tried.called_at = self.client.now()
            self.response.attempts += 1
            answer = await self._call(rows, route, paid, last=last)
        route.limiter.learn(answer.rates)
        self.response.searches += answer.searches or 0
        if answer.tokens is not None:
            self.response.billed_tokens += answer.tokens
        elif answer.searches is None:
            self.response.unreported_tokens += tokens
        if route.name not in self.response.routes:
            self.response.routes.append(route.name)
        return to_size(answer.vectors, request.space)

    def _left_s(self) -> float:
        return max(0.0, self.deadline - self.client.now())

    def _too_late(self, route: ServiceRoute) -> DeadlineError:
        return DeadlineError(
            f"{route.name} did not answer before the time for the request was up", attempts=self.response.attempts
        )

    async def _covered(self, rows: Rows, route: ServiceRoute) -> list[_Reserved]:
        """Mark what this attempt may cost as under way, for each caller whose texts are in it."""
        if not self.request.accounts or route.provider.declared.free:
            return []
        paid: list[_Reserved] = []

        async def cover(own: Rows) -> None:
            account = self.request.accounts[self.request.caller(own)]
            tokens = int(self.request.lengths[own].sum(dtype=np.int64))
            searches = searches_of(self.request.lengths[own])
            sent = await account.cover(tokens, searches)
            paid.append(_Reserved(account, sent, tokens, searches))

        try:
            # All at once: a ledger books them together.
            outcomes = await asyncio.gather(*map(cover, self.request.by_caller(rows)), return_exceptions=True)
            _raise_first(outcomes)
        except BaseException:
            route.circuit.abandoned()
            await _finally(paid, lambda one: one.account.failed(one.sent, billed=False))
            raise
        return paid

    async def _call(self, rows: Rows, route: ServiceRoute, paid: Sequence[_Reserved], *, last: bool) -> Answer:
        """One request, checked, what it says of the route's health, and what it costs."""
        request, declared = self.request, route.provider.declared
        asked = request.asked_width if declared.dimensions else None
        told = False
        # Until there is an answer that says otherwise, it may be carried out, and billed.
        billed = True
        answered: Answer | None = None
        try:
            answered = await self._answer(rows, route, asked, last=last)
            width = request.space.dimensions if declared.dimensions else request.full_width
            space = replace(request.space, dimensions=width)
            request.check(answered.vectors, count=len(rows), space=space, route=route.name)
            told = True
            route.circuit.succeeded()
            # Before it is booked: a caller who goes away meanwhile has paid for it.
            if request.on_ready is not None:
                request.on_ready(rows, to_size(answered.vectors, request.space))
        except EmbedwayError as error:
            told = True
            billed = isinstance(error, DeadlineError) or (isinstance(error, UpstreamError) and error.billed)
            if isinstance(error, UpstreamError) and error.rates is not None:
                route.limiter.learn(error.rates)
            # A refusal and a limit are answers of a service that is well.
            if isinstance(error, (RefusedInputError, RateLimitedError)):
                route.circuit.succeeded()
            else:
                route.circuit.failed()
            raise
        finally:
            if not told:
                route.circuit.abandoned()
            if paid and answered is not None:
                # Bad vectors are billed like good ones.
                await _answered(paid, answered)
            elif paid:
                await _finally(paid, lambda one: one.account.failed(one.sent, billed=billed))
        return answered

    async def _answer(self, rows: Rows, route: ServiceRoute, width: int | None, *, last: bool) -> Answer:
        """What a provider answers in time. Raises errors of our tree alone, and nothing of what a stranger's says."""
        request, declared = self.request, route.provider.declared
        prompt = "" if declared.input_type else request.space.prompt(request.input_type)
        left_s = self._left_s()
        # A route that hangs must leave time for the next.
        share_s = None if declared.local else left_s if last else left_s / 2
        try:
            async with asyncio.timeout(share_s):
                return await route.provider.embed(
                    [prompt + request.texts[row] for row in rows], input_type=request.input_type, dimensions=width
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
        if not self.request.partial:
            raise error
        self.response.errors.update(dict.fromkeys(rows.tolist(), error))


@dataclass(frozen=True, slots=True)
class _Reserved:
    """One caller's part of an attempt: what of its money is under way, for how many tokens and searches."""

    account: Account
    sent: int
    tokens: int
    searches: int


async def _answered(paid: Sequence[_Reserved], answer: Answer) -> None:
    """Book an answered attempt: the service's own count of tokens, shared out by ours, or ours."""
    weights = [one.tokens for one in paid]
    tokens = weights if answer.tokens is None else shares(answer.tokens, weights)
    if answer.tokens is None and answer.searches is not None:
        tokens = [0] * len(paid)
    guessed = [one.searches for one in paid]
    searches = guessed if answer.searches is None else shares(answer.searches, guessed)
    parts = {id(one): part for one, *part in zip(paid, tokens, searches, strict=True)}

    async def book(one: _Reserved) -> None:
        own_tokens, own_searches = parts[id(one)]
        await one.account.answered(
            one.sent,
            tokens=own_tokens,
            searches=own_searches,
            tokens_told=answer.tokens is not None,
            searches_told=answer.searches is not None,
        )

    await _finally(paid, book)


async def _finally(paid: Sequence[_Reserved], book: Callable[[_Reserved], Coroutine[Any, Any, None]]) -> None:
    """Book for every caller, also when the one who waits is cancelled meanwhile."""
    if paid:
        await asyncio.shield(paid[0].account.budgets.beside(_each(paid, book)))


def searches_of(lengths: npt.NDArray[np.int32]) -> int:
    """Searches that a service bills for documents of so many tokens, each with its query; never too few."""
    documents = np.where(lengths > _DOCUMENT_TOKENS, -(-2 * lengths.astype(np.int64) // _DOCUMENT_TOKENS), 1)
    return -(-int(documents.sum()) // _DOCUMENTS_A_SEARCH)


def _left_alone(route: ServiceRoute) -> UpstreamError:
    return UpstreamError("it failed several times in a row and is left alone", route=route.name)


def _raise_first(outcomes: Sequence[BaseException | None]) -> None:
    for response in outcomes:
        if response is not None:
            raise response


async def _each(paid: Sequence[_Reserved], book: Callable[[_Reserved], Coroutine[Any, Any, None]]) -> None:
    for response in await asyncio.gather(*map(book, paid), return_exceptions=True):
        if isinstance(response, LedgerError):
            # The answer is here and paid for; what is not booked now is booked as unsure when its lease has run out.
            _log.warning("what a request cost could not be booked yet: %s", response)
        elif response is not None:
            raise response


@dataclass(slots=True)
class _AttemptsSoFar:
    """How many requests these texts have been part of, and when they last went out."""

    attempts: int
    called_at: float = 0.0


def _first(errors: BaseException) -> EmbedwayError:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, EmbedwayError)  # noqa: S101 - `except*` let nothing else through
    return errors
