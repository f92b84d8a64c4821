"""Recovery of requests to services: retry, bisection and failover, in one recursion over parts of a request.

This is the only retry layer, and `_Recovery._decide` is the only place that decides on a retry. A finished part is
never sent again; a failed part is sent again alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedway.dispatch.attempt import Attempt, RequestContext
from embedway.dispatch.limits import too_long
from embedway.dispatch.request import UpstreamResponse
from embedway.dispatch.waits import back_off_s, exhausted, is_closed_by, is_loading, reason_of, too_late
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
    UpstreamError,
)
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import BatchDetails, WaitDetails
from embedway.types import ServiceLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.dispatch.request import RetryPolicy, Rows, ServiceRoute, UpstreamRequest

#: After this many texts were sent alone and all refused, the request itself counts as refused.
_REFUSED_ALONE = 24


class UpstreamClient:
    """Client of services. `clock` returns seconds, `sleep` waits for seconds, `chance` returns numbers from 0 to 1."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        hooks: Hooks | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._hooks = Hooks() if hooks is None else hooks

    async def send(self, request: UpstreamRequest, routes: Sequence[ServiceRoute]) -> UpstreamResponse:
        """Embed all texts over the routes, in their order; all routes must serve `request.space`.

        Raises the first error, or with `partial` returns errors by row.
        """
        if not self._hooks.operating:  # no hook needs the counts
            return await self._send(request, routes)
        texts, tokens, first = len(request.texts), int(request.lengths.sum(dtype=np.int64)), routes[0].name
        with self._hooks.merged_operation(request.operations, BatchDetails, request.model, first, texts, tokens):
            return await self._send(request, routes)

    async def _send(self, request: UpstreamRequest, routes: Sequence[ServiceRoute]) -> UpstreamResponse:
        policy = self._policy
        vectors = np.empty((len(request.texts), request.space.dimensions), np.float32)
        if request.partial:
            vectors.fill(np.nan)
        response = UpstreamResponse(vectors)
        deadline, named = self._clock() + policy.deadline_s, f"upstream.deadline_s = {policy.deadline_s:g}"
        if request.deadline is not None and request.deadline.end < deadline:
            deadline, named = request.deadline.end, f"deadline_s = {request.deadline.seconds:g}"
        context = RequestContext(
            request,
            response,
            self._clock,
            deadline,
            named,
            patience_s=2 * policy.first_wait_s,
            hooks=self._hooks,
            started_at=self._clock(),
        )
        recovery = _Recovery(context, policy, self._sleep, self._chance)
        rows = np.arange(len(request.texts), dtype=np.int64)
        try:
            await recovery.deliver(rows, _RoutePlan(tuple(routes)), attempts=0)
        except* EmbedwayError as errors:
            error = _first_error(errors)
            raise error from error.__cause__
        return response


@dataclass(frozen=True, slots=True)
class _RoutePlan:
    """Routes that texts may still use, the current one first; the routes that failed before, and their reasons.

    `waiting` are those of the failed ones that may be used again after a wait, if no other route can help.
    """

    routes: tuple[ServiceRoute, ...]
    failed: tuple[tuple[str, str], ...] = ()
    waiting: tuple[ServiceRoute, ...] = ()


@dataclass(slots=True)
class _History:
    """Attempts that some texts were part of: in total, on the current route, and with a bad answer from it.

    `loading` counts the answers that the model is loading, which are not attempts.
    """

    attempts: int
    on_route: int = 0
    bad_answers: int = 0
    loading: int = 0


@dataclass(frozen=True, slots=True)
class _Decision:
    """Next step after a failed attempt, and the wait before it; None for no wait."""

    step: Literal["retry", "separate callers", "split", "halve", "fail over", "give up"]
    error: EmbedwayError
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Recovery:
    """Recovery of one call of `UpstreamClient.send`."""

    context: RequestContext
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[object]]
    chance: Callable[[], float]
    #: Held while single texts are sent to find out whether the request itself is refused.
    refusal_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Routes that refuse all texts of a caller.
    refused_whole: set[tuple[str, int]] = field(default_factory=set)

    async def deliver(self, rows: Rows, plan: _RoutePlan, attempts: int) -> None:
        """Send rows to the current route of a plan, in parts within its limits on inputs and tokens."""
        if not len(rows):
            return
        request = self.context.request
        if not plan.routes or attempts >= self.policy.max_attempts:
            most = f"upstream.max_attempts = {self.policy.max_attempts}"
            skipped = tuple((route.name, f"not tried: no attempts were left ({most})") for route in plan.routes)
            self._fail(rows, NoRouteError(request.space.model, failed=(*plan.failed, *skipped)))
            return
        route = plan.routes[0]
        parts = self._split(rows, route)
        if len(parts) > 1 and (note := route.learned.note(route.name)):
            self.context.response.notes.append(note)
        if len(parts) > 1 and self._needs_one_answer(route):
            self._fail(
                rows,
                InputError(
                    f"{route.name} scores all texts of a request together, and these texts need {len(parts)} requests, "
                    f"whose answers are not comparable: send at most {route.declared.max_inputs} texts"
                ),
            )
            return
        await self._send_parts(parts, plan, attempts)

    def _split(self, rows: Rows, route: ServiceRoute) -> list[Rows]:
        """Split rows into requests within the route's limits, declared and learned."""
        if len(rows) == 1:
            return [rows]
        parts = route.split(rows, self.context.request.lengths)
        return parts if self._needs_one_answer(route) else route.learned.alone(parts, self.context.request.lengths)

    async def _send_parts(self, parts: Sequence[Rows], plan: _RoutePlan, attempts: int) -> None:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._send_part(part, plan, attempts))

    async def _send_part(self, rows: Rows, plan: _RoutePlan, attempts: int) -> None:
        """Send rows in one request to the current route, until they are answered or another step is decided."""
        route, history = plan.routes[0], _History(attempts)
        while True:
            has_alternative, started_at = len(plan.routes) > 1, self.context.clock()
            attempt = Attempt(
                self.context,
                rows,
                route,
                has_alternative=has_alternative,
                started_at=started_at,
                number=history.attempts + 1,
            )
            try:
                self.context.response.vectors[rows] = await attempt.run()
            except EmbedwayError as error:
                history.attempts += attempt.is_sent and not is_loading(error)
                history.on_route += not is_loading(error)
                history.loading += is_loading(error)
                history.bad_answers += isinstance(error, (BadVectorsError, ProtocolError))
                decision = self._decide(error, attempt, history)
                if not attempt.is_sent and isinstance(decision.error, DeadlineError):
                    await self.context.others_in_flight()
                if decision.wait_s is not None:
                    await self._back_off(decision.wait_s, error, route)
                if decision.step == "retry":
                    continue
                if decision.step == "separate callers":
                    parts = [own for _, own in self.context.request.by_caller(rows)]
                    await self._send_parts(parts, plan, history.attempts)
                elif decision.step == "split":
                    await self.deliver(rows, plan, history.attempts - isinstance(error, RefusedInputError))
                elif decision.step == "halve":
                    # A refusal does not count as an attempt.
                    await self._halve(rows, plan, history.attempts - 1, decision.error)
                elif decision.step == "fail over":
                    await self._fail_over(rows, plan, history.attempts, decision.error)
                else:
                    self._fail(rows, decision.error)
            return

    def _decide(  # noqa: PLR0911  one return for each kind of failure
        self, error: EmbedwayError, attempt: Attempt, history: _History
    ) -> _Decision:
        """Decide the step after a failed attempt. Only this method and `_decide_wait` decide on a retry."""
        several = self.context.request.has_several_callers(attempt.rows)
        if isinstance(error, UpstreamError) and self._may_split(error, attempt):
            return _Decision("split", error)
        if isinstance(error, RefusedInputError):
            is_alone = len(attempt.rows) == 1 and isinstance(error.limits, ServiceLimits)
            tokens = int(self.context.request.lengths[attempt.rows[0]])
            return _Decision("halve", too_long(error, tokens) if is_alone else error)
        if isinstance(error, (BudgetExceededError, LedgerError)):
            # The budget or account is one caller's, so the other callers' texts are sent again.
            return _Decision("separate callers" if several else "give up", error)
        if isinstance(error, DeadlineError):
            return _Decision("give up", error)
        if history.attempts >= self.policy.max_attempts:
            return _Decision("fail over", self._exhausted(error, history))
        # One text may cause the failure of several callers' texts, so they are retried separately.
        again: Literal["separate callers", "retry"] = "separate callers" if several else "retry"
        if isinstance(error, (BadVectorsError, ProtocolError)):
            # One bad answer may be chance; the second is the route's fault. So is an error that is not billed, such as
            # an unknown model.
            is_final = history.bad_answers > 1 or (isinstance(error, ProtocolError) and not error.billed)
            return _Decision("fail over" if is_final else again, error)
        if not isinstance(error, UpstreamError) or not error.transient:
            return _Decision("fail over", error)
        return self._decide_wait(error, attempt, history, again)

    def _decide_wait(
        self,
        error: UpstreamError,
        attempt: Attempt,
        history: _History,
        again: Literal["separate callers", "retry"],
    ) -> _Decision:
        """Decide after a transient error: wait and send again, or use another route if that is sooner."""
        tries, now = max(1, history.on_route), self.context.clock()
        wait_s = back_off_s(self.policy, error, tries=tries, polls=history.loading, chance=self.chance)
        closed_s = wait_s if is_closed_by(error) and attempt.is_sent else None
        is_too_late = now + wait_s > self.context.deadline
        is_slow = history.on_route > 1 or wait_s + now - attempt.started_at > self.context.patience_s
        if attempt.has_alternative and (is_slow or is_too_late or is_loading(error)):
            # Another route of the space is available now; this one would require a wait.
            return _Decision("fail over", error, closed_s)
        if is_too_late:
            return _Decision("fail over", too_late(error, attempt, wait_s), closed_s)
        if (
            isinstance(error, RateLimitedError)
            and attempt.is_sent
            and len(self._split(attempt.rows, attempt.route)) > 1
        ):
            # The service has named a limit on tokens that this request exceeds alone.
            return _Decision("split", error, wait_s)
        return _Decision("retry" if closed_s is not None else again, error, wait_s)

    def _may_split(self, error: UpstreamError, attempt: Attempt) -> bool:
        """Learn the limits in a refusal, and return whether its texts are now more than one request."""
        route, rows = attempt.route, attempt.rows
        if not isinstance(error.limits, ServiceLimits):
            return False
        note = route.learned.learn(error.limits, self.context.request.lengths[rows], route=route.name)
        if note:
            self.context.response.notes.append(note)
        return len(self._split(rows, route)) > 1

    def _exhausted(self, error: EmbedwayError, history: _History) -> EmbedwayError:
        passed_s = self.context.clock() - self.context.started_at
        return exhausted(self.policy, error, tries=history.attempts, passed_s=passed_s)

    async def _back_off(self, seconds: float, error: EmbedwayError, route: ServiceRoute) -> None:
        """Wait before a retry. A rate limit applies to all requests: the route is closed, and its limiter waits.

        So does a model that loads: the requests of all callers wait for it.
        """
        if isinstance(error, RateLimitedError):
            route.limiter.close_for(seconds)
        elif is_loading(error):
            route.limiter.close_for(seconds, "the service is loading its model, and is not asked")
        else:
            with self.context.hooks.operation(WaitDetails, "retry", route.name):
                await self.sleep(seconds)

    async def _fail_over(self, rows: Rows, plan: _RoutePlan, attempts: int, error: EmbedwayError) -> None:
        """Send rows to the next route, or fail with the reasons of all routes.

        If no route is left, the one is used again whose limit or loading model ends first, before the deadline.
        """
        route = plan.routes[0]
        failed = (*plan.failed, (route.name, reason_of(error, route)))
        waiting = (*plan.waiting, route) if is_closed_by(error) else plan.waiting
        if len(plan.routes) > 1:
            await self.deliver(rows, _RoutePlan(plan.routes[1:], failed, waiting), attempts)
            return
        if plan.waiting:
            tokens = int(self.context.request.lengths[rows].sum(dtype=np.int64))
            wait_s, soonest = min(((one.limiter.wait_s(tokens), one) for one in waiting), key=lambda pair: pair[0])
            if self.context.clock() + wait_s <= self.context.deadline and attempts < self.policy.max_attempts:
                others = tuple(reason for reason in failed if reason[0] != soonest.name)
                await self.deliver(rows, _RoutePlan((soonest,), others), attempts)
                return
        if not plan.failed:
            self._fail(rows, error)
            return
        reasons = NoRouteError(self.context.request.space.model, failed=failed)
        waits = [one.limiter.wait_s(0) for one in waiting]
        waits += [error.retry_after_s] if isinstance(error, DeadlineError) and error.retry_after_s is not None else []
        reasons.retry_after_s = min(waits, default=None)
        self._fail(rows, reasons)

    async def _halve(self, rows: Rows, plan: _RoutePlan, attempts: int, error: EmbedwayError) -> None:
        """Halve refused rows until the texts at fault are alone."""
        request, route = self.context.request, plan.routes[0]
        if not request.has_several_callers(rows):
            if len(rows) == 1 or self._needs_one_answer(route):
                self._fail(rows, error)
                return
            ((caller, _),) = request.by_caller(rows)
            if not self.context.response.routes:
                async with self.refusal_lock:
                    rows = await self._send_singly(rows, plan, attempts, caller)
            if (route.name, caller) in self.refused_whole:
                self._fail(rows, error)
                return
            if len(rows) < 2:
                # The rows left after single texts were sent are sent alone too.
                if len(rows):
                    await self._send_part(rows, plan, attempts)
                return
        middle = request.middle(rows)
        # If a single text is at fault, at least one half succeeds; the other is halved again.
        await self._send_parts((rows[:middle], rows[middle:]), plan, attempts)

    async def _send_singly(self, rows: Rows, plan: _RoutePlan, attempts: int, caller: int) -> Rows:
        """Send texts alone until one is accepted, and return the rows that were not sent.

        No text was accepted so far. If the reason is the request and not a text, halving would end in one request per
        text. This is assumed if texts from all parts of the request are sent alone and all are refused.
        """
        response, refused = self.context.response, (plan.routes[0].name, caller)
        places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _REFUSED_ALONE)).astype(np.int64))
        tried = 0
        for place in places.tolist():
            if response.routes or refused in self.refused_whole:
                break
            await self._send_part(rows[place : place + 1], plan, attempts)
            tried += 1
        else:
            if not response.routes and len(places) == _REFUSED_ALONE:
                self.refused_whole.add(refused)
        return np.delete(rows, places[:tried])

    def _needs_one_answer(self, route: ServiceRoute) -> bool:
        return self.context.request.one_answer and route.provider.declared.batch_dependent

    def _fail(self, rows: Rows, error: EmbedwayError) -> None:
        if not self.context.request.partial:
            raise error
        self.context.response.errors.update(dict.fromkeys(rows.tolist(), error))


def _first_error(errors: BaseException) -> EmbedwayError:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, EmbedwayError)  # noqa: S101 - `except*` catches nothing else
    return errors
