"""One attempt: some texts of a request, sent once to one route."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.dispatch.billing import book, mark_under_way
from embedway.dispatch.usage import record, usage_of
from embedway.errors import (
    BadVectorsError,
    DeadlineError,
    EmbedwayError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.answers import checked_answer
from embedway.providers.delivery import record_attempt
from embedway.telemetry.operations import AttemptDetails, ValidationDetails, WaitDetails
from embedway.third_party import must_pass, place_of
from embedway.types import NO_RATES
from embedway.vectors import to_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.dispatch.billing import Charge
    from embedway.dispatch.request import Rows, ServiceRoute, UpstreamRequest, UpstreamResponse
    from embedway.dispatch.usage import Usage
    from embedway.providers.base import Answer
    from embedway.telemetry.hooks import Hooks
    from embedway.types import Vectors


@dataclass(frozen=True, slots=True)
class RequestContext:
    """State shared by all attempts of one request."""

    request: UpstreamRequest
    response: UpstreamResponse
    clock: Callable[[], float]
    deadline: float
    #: Maximum time for which texts wait for a route if another route could serve them, in seconds.
    patience_s: float
    hooks: Hooks
    #: One semaphore per route, in front of the route's own. It limits how many parts of a large request wait for the
    #: route at a time, so that other requests need not wait until it ends.
    fairness: dict[str, asyncio.Semaphore] = field(default_factory=dict)


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
    #: Whether it was sent, so that it counts.
    is_sent: bool = False

    async def run(self) -> Vectors:
        """Wait for the route, send the texts, and return their vectors, checked and truncated to the space's size."""
        request, response, route = self.context.request, self.context.response, self.route
        tokens = int(request.lengths[self.rows].sum(dtype=np.int64))
        if route.circuit.opened_at is not None and route.circuit.state == "open":
            raise _circuit_error(route)
        async with contextlib.AsyncExitStack() as places:
            await self._wait(tokens, places)
            if route.circuit.opened_at is not None and not route.circuit.allow():
                raise _circuit_error(route)
            answer = await self._exchange(tokens, places)
        if answer.rates != NO_RATES:
            route.limiter.learn(answer.rates, tokens)
        if route.name not in response.routes:
            response.routes.append(route.name)
        return answer.vectors

    async def _wait(self, tokens: int, places: contextlib.AsyncExitStack) -> None:
        """Wait for the semaphore and the rate limiter of the route; `places` releases the slots."""
        context, route = self.context, self.route
        fairness = context.fairness.setdefault(route.name, asyncio.Semaphore(route.semaphore.limit))
        try:
            async with asyncio.timeout(self._left_s()):
                hooks, busy = context.hooks, fairness.locked()
                with hooks.operation(WaitDetails, "semaphore", route.name) if busy else contextlib.nullcontext():
                    await places.enter_async_context(fairness)
                await places.enter_async_context(route.semaphore.hold(context.request.urgency))
                if self.has_alternative and (closed_s := route.limiter.closed_s()) > context.patience_s:
                    raise RateLimitedError("too many requests", route=route.name, retry_after_s=closed_s)
                await route.limiter.acquire(tokens, context.request.urgency)
        except DeadlineError:
            raise
        except TimeoutError as error:
            raise self._too_late() from error

    async def _exchange(self, tokens: int, places: contextlib.AsyncExitStack) -> Answer:
        """Mark the money as under way, call the provider, check the answer, update the circuit, and book the cost.

        The hooks' attempt starts after the money is marked, because nothing is sent before, and ends with `places`.
        """
        context, route, request = self.context, self.route, self.context.request
        declared = route.provider.declared
        charges: list[Charge] = []
        usage: Usage | None = None
        delivery, is_judged, may_be_billed = record_attempt(), False, False
        try:
            if request.accounts and not declared.free:
                await mark_under_way(request, self.rows, charges)
            facts = request.model, route.name, self.number, len(self.rows), tokens
            outcome = places.enter_context(context.hooks.operation(AttemptDetails, *facts))
            # Until an answer shows otherwise, it may be executed and billed.
            self.is_sent = may_be_billed = True
            self.started_at = context.clock()
            context.response.attempts += 1
            answer = await self._call_provider()
            usage = usage_of(answer, request, self.rows, declared)
            record(usage, route, context.response, charges)
            outcome.billed_tokens = None if usage.tokens.source == "estimated" else usage.tokens.booked
            answer = self._check(answer)
            is_judged = True
            route.circuit.record_success()
            route.semaphore.widen()
            # Before it is booked: a caller that is cancelled meanwhile has paid for it.
            if request.on_ready is not None:
                request.on_ready(self.rows, answer.vectors)
        except EmbedwayError as error:
            if not self.is_sent:
                raise
            is_judged = True
            # An answer whose vectors cannot be read was computed, and is billed too.
            may_be_billed = isinstance(error, DeadlineError) or (
                isinstance(error, (BadVectorsError, UpstreamError)) and error.billed
            )
            if isinstance(error, RateLimitedError) and error.retry_after_s is None:
                # Without a time, the reason may be the number of requests at a time.
                route.semaphore.narrow()
            if isinstance(error, UpstreamError) and error.rates not in {None, NO_RATES}:
                route.limiter.learn(error.rates)
            # A refusal and a rate limit are answers of a healthy service.
            if isinstance(error, (RefusedInputError, RateLimitedError)):
                route.circuit.record_success()
            else:
                route.circuit.record_failure()
            raise
        finally:
            if not is_judged:
                route.circuit.release_probe()
            if charges:
                # Bad vectors are billed like good ones.
                await book(charges, usage, billed=may_be_billed and delivery.may_have_begun)
        return answer

    def _check(self, answer: Answer) -> Answer:
        """Check the vectors of an answer, and truncate them to the space's size. Raises BadVectorsError."""
        request, route, count = self.context.request, self.route.name, len(self.rows)
        space = sent = request.space
        if not self.route.provider.declared.dimensions and request.full_width != space.dimensions:
            sent = replace(space, dimensions=request.full_width)
        with self.context.hooks.operation(ValidationDetails, route, count):
            request.check(answer.vectors, count=count, space=sent, route=route)
        return answer if sent is space else replace(answer, vectors=to_size(answer.vectors, space))

    async def _call_provider(self) -> Answer:
        """Call the provider within the time left. Raises only our own errors, without any third-party text."""
        request, route = self.context.request, self.route
        declared, wanted = route.provider.declared, request.space.dimensions
        prompt = "" if declared.input_type else request.prompt
        # A width is requested if the service supports it and does not return it by default.
        is_asked = declared.dimensions and wanted != (request.default_width or request.full_width)
        timeout_s = self._left_s()
        if timeout_s is not None and self.has_alternative:
            timeout_s /= 2  # leave time for the next route if this one hangs
        try:
            async with asyncio.timeout(timeout_s):
                answer = await route.provider.embed(
                    [prompt + request.texts[row] for row in self.rows],
                    input_type=request.input_type,
                    dimensions=wanted if is_asked else None,
                )
                return checked_answer(answer, route=route.name)
        except DeadlineError:
            raise
        except TimeoutError as error:
            if not self.has_alternative:
                raise self._too_late() from error
            raise UnavailableError("no answer in time", route=route.name, billed=True) from error
        except EmbedwayError:
            raise
        except BaseException as error:
            if must_pass(error):
                raise
            place = place_of(error)
        # Not raised above: a third-party error may repeat texts, and would be the context of this one.
        raise UpstreamError(f"its provider failed ({place})", route=route.name, billed=True)

    def _left_s(self) -> float | None:
        """Return the seconds until the deadline; None for a local provider, which has no deadline."""
        if self.route.provider.declared.local:
            return None
        return max(0.0, self.context.deadline - self.context.clock())

    def _too_late(self) -> DeadlineError:
        attempts = self.context.response.attempts
        return DeadlineError(f"{self.route.name} did not answer before the deadline of the request", attempts=attempts)


def _circuit_error(route: ServiceRoute) -> UpstreamError:
    return UpstreamError("skipped for a while after several failures in a row", route=route.name)
