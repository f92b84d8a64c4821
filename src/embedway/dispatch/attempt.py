"""One attempt: some texts of a request, sent once to one route."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from embedway.dispatch.billing import book, mark_under_way
from embedway.dispatch.probes import send_probe, with_own_errors
from embedway.dispatch.proofs import order_note, too_many_rows
from embedway.dispatch.usage import record, usage_of
from embedway.dispatch.waits import is_closed_by, is_loading, missed_deadline, reason_of, skipped, waited_for
from embedway.errors import (
    BadVectorsError,
    BudgetExceededError,
    DeadlineError,
    EmbedwayError,
    LedgerError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.answers import checked_answer, checked_rates
from embedway.providers.base import sum_of
from embedway.providers.delivery import forget_attempt, of_attempt, record_attempt
from embedway.quality.checks import DiversityCheck, report_refusal
from embedway.telemetry.operations import AttemptDetails, Outcome, ValidationDetails, WaitDetails
from embedway.types import NO_RATES
from embedway.vectors import to_size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager

    from embedway.dispatch.billing import Charge
    from embedway.dispatch.request import Rows, ServiceRoute, UpstreamRequest, UpstreamResponse
    from embedway.dispatch.usage import Usage
    from embedway.providers.base import Answer
    from embedway.providers.delivery import Delivery
    from embedway.telemetry.hooks import Hooks
    from embedway.types import Space, Vectors

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """State shared by all attempts of one request."""

    request: UpstreamRequest
    response: UpstreamResponse
    clock: Callable[[], float]
    deadline: float
    #: The setting or argument of the deadline, and its value, for errors.
    deadline_named: str
    #: Maximum time for which texts wait for a route if another route could serve them, in seconds.
    patience_s: float
    hooks: Hooks
    #: Time when the request began.
    started_at: float = 0.0
    #: One semaphore per route, in front of the route's own. It limits how many parts of a large request wait for the
    #: route at a time, so that other requests need not wait until it ends.
    fairness: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    #: A future for each attempt that was sent and has not ended.
    in_flight: set[asyncio.Future[None]] = field(default_factory=set)

    async def others_in_flight(self) -> None:
        """Wait for attempts under way, unless errors are returned by row: their answers are paid, and cached."""
        if self.in_flight and not self.request.partial:
            await asyncio.wait(set(self.in_flight))


@dataclass(slots=True)
class Attempt:
    """One attempt to send some texts to one route."""

    context: RequestContext
    rows: Rows
    route: ServiceRoute
    #: Whether another route of the space is left.
    has_alternative: bool
    #: Number of the attempt, from 1, over all attempts with these texts.
    number: int
    #: Time when it started, or when it was sent.
    started_at: float
    #: Whether a route that failed before may be used again after a wait, so that an attempt is left for it.
    has_waiting: bool = False
    #: Returns the weight of a failure in the route's circuit; below 1 if one of the texts may be the reason.
    weigh: Callable[[EmbedwayError], float] = lambda _error: 1.0
    #: Raises an error if the texts are not to be sent after all; called after the waits.
    check_first: Callable[[], None] = lambda: None
    #: Waits after a failed probe while a paid answer is held, and returns whether to send the probe again.
    probe_again: Callable[[Attempt, EmbedwayError], Awaitable[bool]] | None = None
    #: Whether it was sent, so that it counts.
    is_sent: bool = False
    #: Whether its requests had a connection.
    delivery: Delivery | None = None
    #: Whether its own deadline ended it, which is no failure of the route that makes proofs void.
    is_late: bool = False
    #: Error of the invalid rows in an answer whose other rows are valid.
    invalid: BadVectorsError | None = None

    async def run(self) -> Vectors:
        """Wait for the route, send the texts, and return their vectors, checked and truncated to the space's size.

        The rows of `invalid` are NaN. Raises BadVectorsError if no row is valid.
        """
        request, response, route = self.context.request, self.context.response, self.route
        tokens = sum_of(request.lengths[self.rows])
        forget_attempt()
        if route.circuit.opened_at is not None and route.circuit.state == "open":
            raise skipped(route)
        with contextlib.ExitStack() as places:
            await self._wait(tokens, places)
            self.check_first()
            if route.circuit.opened_at is not None and not route.circuit.allow():
                raise skipped(route)
            answer = await self._exchange(tokens, places)
        if answer.rates != NO_RATES:
            route.limiter.learn(answer.rates, tokens)
        route.learned.accept(request.lengths[self.rows])
        if route.name not in response.routes:
            response.routes.append(route.name)
        return answer.vectors

    async def _wait(self, tokens: int, places: contextlib.ExitStack) -> None:
        """Wait for the semaphore and the rate limiter of the route; `places` releases the slots."""
        context, route = self.context, self.route
        fairness = context.fairness.get(route.name)
        if fairness is None:
            fairness = context.fairness[route.name] = asyncio.Semaphore(route.semaphore.limit)
        busy = fairness.locked()
        waits = busy or route.semaphore.is_busy or not route.limiter.is_unlimited
        try:
            async with asyncio.timeout(self._left_s()) if waits else contextlib.nullcontext():
                hooks = context.hooks
                with hooks.operation(WaitDetails, "semaphore", route.name) if busy else contextlib.nullcontext():
                    await fairness.acquire()
                places.callback(fairness.release)
                places.callback(await route.semaphore.take(context.request.urgency))
                await self.pass_limits(tokens)
        except DeadlineError:
            raise
        except TimeoutError as error:
            raise missed_deadline(self, f"could not be asked, {waited_for(route, tokens)},") from error

    async def pass_limits(self, tokens: int) -> None:
        """Wait for the rate limiter. Raises RateLimitedError if the wait is too long."""
        route, longest_s = self.route, functools.partial(self._longest_wait_s, self.context.clock())
        obstacle = await route.limiter.acquire(tokens, self.context.request.urgency, longest_s=longest_s)
        if obstacle is not None:
            raise RateLimitedError(str(obstacle), route=route.name, retry_after_s=obstacle.wait_s)

    async def _exchange(self, tokens: int, places: contextlib.ExitStack) -> Answer:
        """Mark the money as under way, call the provider, check the answer, update the circuit, and book the cost.

        The hooks' attempt starts after the money is marked, because nothing is sent before, and ends with `places`.
        """
        context, route, request = self.context, self.route, self.context.request
        declared = route.provider.declared
        charges: list[Charge] = []
        usage: Usage | None = None
        outcome, last_route = Outcome(), ""
        is_judged = may_be_billed = False
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await self._verify_route()
            failures = route.proof.failures
            delivery = self.delivery = record_attempt()  # the connections of probes do not count
            if request.accounts and not declared.free:
                await mark_under_way(request, self.rows, charges)
            facts = request.model, route.name, self.number, len(self.rows), tokens
            outcome = places.enter_context(context.hooks.operation(AttemptDetails, *facts))
            # Until an answer shows otherwise, it may be executed and billed.
            self.is_sent = may_be_billed = True
            context.in_flight.add(ended)
            self.started_at = context.clock()
            context.response.attempts += 1
            answer = await self._call_provider()
            usage = usage_of(answer, request, self.rows, declared)
            record(usage, route, context.response, charges)
            outcome.billed_tokens = usage.reported_tokens
            answer = self._check(answer)
            await self._prove(answer, failures)
            is_judged = True
            route.circuit.record_success()
            route.note_outcome()
            route.semaphore.widen()
            # Before it is booked: a caller that is cancelled meanwhile has paid for it.
            self._pass_on(answer.vectors)
            last_route = self._last_route()
        except EmbedwayError as error:
            if not self.is_sent:
                raise
            is_judged = True
            if isinstance(error, BadVectorsError) and not error.of_probe:
                report_refusal(context.hooks, request.model, error, len(self.rows))
                outcome.billed_tokens = outcome.billed_tokens or error.billed_tokens
            may_be_billed = self._record_failure(error)
            raise
        finally:
            context.in_flight.discard(ended)
            ended.set_result(None)
            if not is_judged:
                route.circuit.release_probe()
            if charges:
                # Bad vectors are billed like good ones.
                billed = may_be_billed and delivery.may_have_begun
                await book(charges, usage, billed=billed, last_route=last_route)
        return answer

    def _last_route(self) -> str:
        """Return the routes that answered so far, for the ledger; empty if texts of this attempt are sent again."""
        names = dict.fromkeys((*self.context.response.routes, self.route.name))
        return ", ".join(names) if self.invalid is None else ""

    def _record_failure(self, error: EmbedwayError) -> bool:
        """Update the route after a failed attempt, and return whether the attempt may be billed."""
        route = self.route
        if isinstance(error, RateLimitedError) and error.retry_after_s is None:
            # Without a time, the reason may be the number of requests at a time.
            route.semaphore.narrow()
        if isinstance(error, UpstreamError) and (rates := checked_rates(error.rates)) != NO_RATES:
            route.limiter.learn(rates)
        if not is_loading(error):
            route.note_outcome(error)
        is_healthy = isinstance(error, (RefusedInputError, RateLimitedError, BudgetExceededError, LedgerError))
        if not (is_healthy or self.is_late):
            route.proof.record_failure()
        # A refusal and a rate limit are answers of a healthy service; a budget stops only probes here.
        if is_healthy:
            route.circuit.record_success()
        elif not is_loading(error) and (weight := self.weigh(error)):
            route.circuit.record_failure(weight, reason_of(error, route))
        else:
            route.circuit.release_probe()
        # An answer whose vectors cannot be read was computed, and is billed too. A model that loads computes nothing.
        return isinstance(error, DeadlineError) or (
            isinstance(error, (BadVectorsError, UpstreamError)) and error.billed and not is_loading(error)
        )

    def _pass_on(self, vectors: Vectors) -> None:
        """Pass the valid rows on."""
        on_ready = self.context.request.on_ready
        if on_ready is None:
            return
        if self.invalid is None:
            on_ready(self.rows, vectors)
        else:
            bad = list(self.invalid.rows)
            on_ready(np.delete(self.rows, bad), np.delete(vectors, bad, axis=0))

    def _check(self, answer: Answer) -> Answer:
        """Check the vectors of an answer, and truncate them to the space's size.

        Raises BadVectorsError if no row is valid.
        """
        request, route, count = self.context.request, self.route.name, len(self.rows)
        space = sent = request.space
        if not self.route.provider.declared.dimensions and request.full_width != space.dimensions:
            sent = replace(space, dimensions=request.full_width)
        try:
            with self.context.hooks.operation(ValidationDetails, route, count):
                self._check_rows(answer, sent)
        except BadVectorsError as error:
            if not 0 < len(error.rows) < count:
                raise
            self.invalid = error
            report_refusal(self.context.hooks, request.model, error, count)
            vectors = np.array(answer.vectors)
            vectors[list(error.rows)] = np.nan
            answer = replace(answer, vectors=vectors)
        return answer if sent is space else replace(answer, vectors=to_size(answer.vectors, space))

    def _check_rows(self, answer: Answer, space: Space) -> None:
        """Raise BadVectorsError with all rows that are invalid, or have one vector for different texts."""
        request, route, vectors, invalid = self.context.request, self.route, answer.vectors, None
        try:
            request.check(vectors, count=len(self.rows), space=space, route=route.name)
        except BadVectorsError as error:
            if request.reads is None or not 0 < len(error.rows) < len(self.rows):
                raise
            invalid = error
        if request.reads is not None:
            kind = request.input_type, request.prompt
            check = DiversityCheck(request.reads, route.checks, route.name, request.model, self.context.hooks, kind)
            ordered = len(self.rows) == 1 or not answer.by_position  # the order is proved later
            invalid = check.find_fault(vectors, lambda row: request.texts[self.rows[row]], invalid, ordered=ordered)
        if invalid is not None:
            raise invalid

    async def _verify_route(self) -> None:
        """Verify the route if that is due. Nothing of the attempt is sent before."""
        proof, texts = self.route.proof, len(self.rows)
        if proof.is_settled:
            return
        send = functools.partial(send_probe, self)
        await self._in_time(proof.verify(self.route, texts, send, hold=self._hold))
        self.is_sent = False  # only probes were sent

    async def _prove(self, answer: Answer, failures: int) -> None:
        """Prove that an answer can be used: the route's space, if it failed since `failures`, and the order of rows.

        The answer is paid for, so only the probes are sent again if they fail.
        """
        route, notes = self.route, self.context.response.notes
        if route.proof.failures == failures and not self._is_in_order_of_arrival(answer):
            return
        while True:
            try:
                ordered = await self._in_time(self._prove_once(answer, failures))
                break
            except (BadVectorsError, UpstreamError) as error:
                error.of_probe = True
                if self.probe_again is None or not await self.probe_again(self, error):
                    raise
                if not (is_closed_by(error) or self.is_late):
                    route.proof.record_failure()
        if ordered:
            notes.append(order_note(route.name, ordered))
            if len(self.rows) > ordered:
                raise too_many_rows(route.name, ordered)

    async def _prove_once(self, answer: Answer, failures: int) -> int:
        """Send the probes that are due. Return the texts for which the order is proved; 0 if rows have an index."""
        route, send, texts = self.route, functools.partial(send_probe, self), len(self.rows)
        if route.proof.failures != failures and not route.proof.is_settled:
            await route.proof.verify(route, texts, send, hold=self._hold)
        if not self._is_in_order_of_arrival(answer):
            return 0
        return await route.proof.prove_order(route, self._embed, self.context.request.prompt, send, hold=self._hold)

    def _is_in_order_of_arrival(self, answer: Answer) -> bool:
        """Return whether the order of an answer's rows has to be proved."""
        return answer.by_position and len(self.rows) > 1

    def _hold(self) -> AbstractContextManager[object]:
        """Keep the account open that probes are booked to, until they are booked."""
        request = self.context.request
        if not request.accounts:
            return contextlib.nullcontext()
        return request.accounts[request.caller_of(self.rows[0])].held_open()

    async def _call_provider(self) -> Answer:
        """Call the provider within the time left. Raises only our own errors, without any third-party text."""
        texts = [self.context.request.texts[row] for row in self.rows]
        return await self._in_time(with_own_errors(self._embed(texts), route=self.route.name))

    async def _embed(self, texts: Sequence[str]) -> Answer:
        request, route = self.context.request, self.route
        declared, wanted = route.provider.declared, request.space.dimensions
        prompt = "" if declared.input_type else request.prompt
        # A width is requested if the service supports it and does not return it by default.
        is_asked = declared.dimensions and wanted != (request.default_width or request.full_width)
        answer = await route.provider.embed(
            [prompt + text for text in texts],
            input_type=request.input_type,
            dimensions=wanted if is_asked else None,
        )
        return checked_answer(answer, route=route.name)

    async def _in_time(self, work: Coroutine[Any, Any, V]) -> V:
        """Await work of the route within the time left."""
        timeout_s = self._left_s()
        self.is_late = False
        if timeout_s is not None and self.has_alternative:
            timeout_s /= 2  # leave time for the next route if this one hangs
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except DeadlineError:
            raise
        except TimeoutError as error:
            self.is_late = True
            if not self.has_alternative:
                is_connected = self.delivery is None or self.delivery.may_have_begun
                how = "did not answer" if is_connected else "could not be asked, because no connection was ready"
                raise missed_deadline(self, how) from error
            awaited = of_attempt().awaited
            reason = f"{awaited} gave no token in time" if awaited else "no answer in time"
            raise UnavailableError(reason, route=self.route.name, billed=True) from error

    def _longest_wait_s(self, since: float) -> float:
        """Return the longest wait for the rate limiter, in seconds: with another route, the patience that is left."""
        left_s = self._left_s()
        if left_s is None:
            return float("inf")
        waited_s = self.context.clock() - since
        return min(left_s, self.context.patience_s - waited_s) if self.has_alternative else left_s

    def _left_s(self) -> float | None:
        """Return the seconds until the deadline; None for a local provider, which has no deadline."""
        if self.route.provider.declared.local:
            return None
        return max(0.0, self.context.deadline - self.context.clock())
