"""Recovery of requests to services: retry, bisection and failover, in one recursion over parts of a request.

This is the only retry layer, and `_Recovery._decide` is the only place that decides on a retry. A finished part is
never sent again; a failed part is sent again alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedway.dispatch.attempt import Attempt, RequestContext
from embedway.dispatch.halving import (
    MOST_ALONE,
    UNLIKELY,
    UNSURE,
    Findings,
    is_about_its_texts,
    may_be_the_texts,
)
from embedway.dispatch.request import UpstreamResponse
from embedway.dispatch.row_errors import RowErrors, first_error
from embedway.dispatch.steps import Decision, Failed, History, RoutePlan
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
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import BatchDetails, WaitDetails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.dispatch.request import RetryPolicy, Rows, ServiceRoute, UpstreamRequest

#: A failure without a wait that the service requests.
_NO_ERROR = EmbedwayError()


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
        context = RequestContext(
            request,
            response,
            self._clock,
            self._clock() + policy.deadline_s,
            patience_s=2 * policy.first_wait_s,
            hooks=self._hooks,
        )
        found: dict[tuple[str, int], Findings] = defaultdict(Findings)
        recovery = _Recovery(context, policy, self._sleep, self._chance, found, RowErrors(request, response, found))
        rows = np.arange(len(request.texts), dtype=np.int64)
        try:
            await recovery.deliver(rows, RoutePlan(tuple(routes)), attempts=0)
        except* EmbedwayError as errors:
            raise first_error(errors) from None
        recovery.errors.forget_rows_of_outages()
        return response


@dataclass(frozen=True, slots=True)
class _Recovery:
    """Recovery of one call of `UpstreamClient.send`."""

    context: RequestContext
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[object]]
    chance: Callable[[], float]
    #: What is known of each route and caller.
    found: dict[tuple[str, int], Findings]
    errors: RowErrors
    #: Answers by route, and texts by route that had a valid vector when they were asked again.
    answers: Counter[str] = field(default_factory=Counter)
    healed: Counter[str] = field(default_factory=Counter)

    async def deliver(self, rows: Rows, plan: RoutePlan, attempts: int, cause: EmbedwayError | None = None) -> None:
        """Send rows to the current route of a plan, in parts within its limits on inputs and tokens.

        `cause` is the error of the route before, if there is one.
        """
        if not len(rows):
            return
        request = self.context.request
        if not plan.routes or attempts >= self.policy.max_attempts:
            skipped = tuple((route.name, "not tried: no attempts were left") for route in plan.routes)
            failed = (*plan.failed, *skipped)
            self.errors.fail(rows, NoRouteError(request.space.model, failed=failed), cause=cause)
            return
        route = plan.routes[0]
        parts = [rows] if len(rows) == 1 else route.split(rows, request.lengths)
        if len(parts) > 1 and self._needs_one_answer(route):
            self.errors.fail(
                rows,
                InputError(
                    f"{route.name} scores all texts of a request together, and these texts need {len(parts)} requests, "
                    f"whose answers are not comparable: send at most {route.provider.declared.max_inputs} texts"
                ),
            )
            return
        await self._send_parts(parts, plan, attempts)

    async def _send_parts(self, parts: Sequence[Rows], plan: RoutePlan, attempts: int) -> None:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._send_part(part, plan, History(attempts)))

    async def _send_part(self, rows: Rows, plan: RoutePlan, history: History, failed: Failed | None = None) -> None:
        """Send rows in one request to the current route, until they are answered or another step is decided.

        `failed` is their last attempt, if it is not followed by a decision yet.
        """
        while True:
            if failed is None:
                failed = await self._try(rows, plan, history)
            if failed is None:
                return
            error, decision = failed.error, self._decide(failed.error, failed.attempt, history)
            is_final = failed.attempt.is_sent and decision.step != "retry"
            if len(rows) == 1 and is_final and is_about_its_texts(error):
                self._found(rows, plan.routes[0]).count_alone(error)
            failed = None
            if decision.wait_s is not None:
                await self._back_off(decision.wait_s, error, plan.routes[0])
            if decision.step == "retry":
                continue
            if decision.step == "separate callers":
                parts = [own for _, own in self.context.request.by_caller(rows)]
                await self._send_parts(parts, plan, min(history.attempts, self.policy.max_attempts - 1))
            elif decision.step == "halve":
                await self._halve(rows, plan, history, error)
            elif decision.step == "fail over":
                await self._fail_over(rows, plan, history.attempts, error)
            else:
                self.errors.fail(rows, decision.error)
            return

    async def _try(self, rows: Rows, plan: RoutePlan, history: History) -> Failed | None:
        """Send rows once to the current route. Accept the valid rows of an answer, and ask for the others again."""
        context, route = self.context, plan.routes[0]
        attempt = Attempt(
            context,
            rows,
            route,
            has_alternative=len(plan.routes) > 1,
            started_at=context.clock(),
            number=history.attempts + 1,
            weigh=partial(self._weigh, rows, plan, history),
            check_first=partial(self._check_first, rows, route),
        )
        try:
            vectors = await attempt.run()
        except EmbedwayError as error:
            history.count(attempt, error)
            if history.is_searched and may_be_the_texts(error):
                self._found(rows, route).count_failure(self.answers[route.name])
            return Failed(attempt, error)
        self.answers[route.name] += 1
        self.healed[route.name] += history.is_asked_again
        for caller, _ in context.request.by_caller(rows):
            self.found[route.name, caller].answers += 1
        invalid = attempt.invalid
        can_retry = not history.bad_answers and history.attempts + 1 < self.policy.max_attempts
        if invalid is not None and can_retry and self._needs_one_answer(route):
            # Scores of two answers are not comparable, so all texts are sent again.
            history.count(attempt, invalid)
            return Failed(attempt, invalid)
        context.response.vectors[rows] = vectors
        if invalid is not None:
            await self._ask_again(rows[list(invalid.rows)], plan, history.attempts + 1, invalid)
        return None

    async def _ask_again(self, rows: Rows, plan: RoutePlan, attempts: int, error: BadVectorsError) -> None:
        """Send texts alone whose vectors were invalid in an answer with valid ones. A second invalid vector is final.

        If not one of the first texts has a valid vector then, the others are not sent again.
        """
        route = plan.routes[0]
        if attempts >= self.policy.max_attempts or self._needs_one_answer(route):
            groups, rest = [], rows
        else:
            groups, rest = [rows[start : start + MOST_ALONE] for start in range(0, len(rows), MOST_ALONE)], rows[:0]
        for number, group in enumerate(groups):
            if number and not self.healed[route.name]:
                rest = np.concatenate(groups[number:])
                break
            async with asyncio.TaskGroup() as tasks:
                for row in group:
                    history = History(attempts, on_route=1, bad_answers=1, is_asked_again=True)
                    tasks.create_task(self._send_part(row.reshape(1), plan, history))
        if len(rest) and len(plan.routes) > 1 and not self._needs_one_answer(route):
            await self._fail_over(rest, plan, attempts, error)
            return
        for row in rest:
            self.errors.fail(row.reshape(1), error)

    def _weigh(self, rows: Rows, plan: RoutePlan, history: History, error: EmbedwayError) -> float:
        """Return the weight of a failure in the route's circuit, less if a text may be the reason."""
        if isinstance(error, BadVectorsError) and history.is_asked_again:
            return UNLIKELY
        is_repeated = history.failures + history.bad_answers > 0
        if len(rows) == 1 and is_repeated and not history.is_searched and is_about_its_texts(error):
            return 0.0  # one text opens no circuit
        if len(plan.routes) > 1 or not may_be_the_texts(error):
            return 1.0
        if history.is_searched:
            return UNLIKELY if self._found(rows, plan.routes[0]).answers else UNSURE
        return 1.0 if len(rows) == 1 else 0.0 if is_repeated else UNSURE

    def _decide(  # noqa: PLR0911  one return for each kind of failure
        self, error: EmbedwayError, attempt: Attempt, history: History
    ) -> Decision:
        """Decide the step after a failed attempt. Only this method decides on a retry."""
        several = self.context.request.has_several_callers(attempt.rows)
        if not (attempt.is_sent or several) and self._found(attempt.rows, attempt.route).is_exhausted:
            can_fail_over = attempt.has_alternative and not isinstance(error, RefusedInputError)
            return Decision("fail over" if can_fail_over else "give up", error)
        if isinstance(error, RefusedInputError):
            return Decision("halve", error)
        if isinstance(error, (BudgetExceededError, LedgerError, DeadlineError)):
            # The budget or account is one caller's, so the other callers' texts are sent again.
            is_shared = several and not isinstance(error, DeadlineError)
            return Decision("separate callers" if is_shared else "give up", error)
        if self._is_to_be_halved(error, attempt, history):
            return Decision("separate callers" if several else "halve", error)
        if history.attempts >= self.policy.max_attempts:
            return Decision("fail over", error)
        # One text may cause the failure of several callers' texts, so they are retried separately.
        again: Literal["separate callers", "retry"] = "separate callers" if several else "retry"
        if isinstance(error, (BadVectorsError, ProtocolError)):
            # One bad answer may be chance; the second is the route's fault. So is an error that is not billed, such as
            # an unknown model.
            is_final = history.bad_answers > 1 or (isinstance(error, ProtocolError) and not error.billed)
            return Decision("fail over" if is_final else again, error)
        if not isinstance(error, UpstreamError) or not error.transient:
            return Decision("fail over", error)
        is_limit = isinstance(error, RateLimitedError)
        wait_s, now = self._wait_s(history.on_route, error), self.context.clock()
        is_too_late = now + wait_s > self.context.deadline
        is_slow = history.on_route > 1 or wait_s + now - attempt.started_at > self.context.patience_s
        if attempt.has_alternative and (is_slow or is_too_late):
            # Another route of the space is available now; this one would require a wait.
            return Decision("fail over", error, wait_s if is_limit else None)
        if is_too_late:
            late = DeadlineError(
                f"{attempt.route.name} could only be retried in {wait_s:.1f} s, after the deadline of the request; "
                f"its last answer: {error}",
                attempts=self.context.response.attempts,
            )
            late.__cause__ = error
            return Decision("give up", late)
        return Decision("retry" if is_limit else again, error, wait_s)

    def _is_to_be_halved(self, error: EmbedwayError, attempt: Attempt, history: History) -> bool:
        """Return whether texts failed so often that one of them may be the reason, and can be sent apart."""
        rows, most = attempt.rows, self.policy.max_attempts
        if len(rows) == 1 or not may_be_the_texts(error) or self._needs_one_answer(attempt.route):
            return False
        is_last_try = history.attempts >= most
        if self.context.request.has_several_callers(rows):
            return is_last_try
        is_repeated = history.failures > 1 and not attempt.has_alternative
        return history.is_searched or is_repeated or (is_last_try and most > 1)

    def _wait_s(self, tries: int, error: EmbedwayError) -> float:
        """Return the seconds before the next try after `tries` tries (from 1) on a route, the last with this error."""
        policy = self.policy
        wait_s = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (tries - 1)) * (1 - self.chance() / 2)
        asked_s = error.retry_after_s if isinstance(error, (RateLimitedError, UnavailableError)) else None
        return wait_s if asked_s is None else max(wait_s, asked_s)

    async def _back_off(self, seconds: float, error: EmbedwayError, route: ServiceRoute) -> None:
        """Wait before a retry. A rate limit applies to all requests: the route is closed, and its limiter waits."""
        if isinstance(error, RateLimitedError):
            route.limiter.close_for(seconds)
        else:
            with self.context.hooks.operation(WaitDetails, "retry", route.name):
                await self.sleep(seconds)

    async def _fail_over(self, rows: Rows, plan: RoutePlan, attempts: int, error: EmbedwayError) -> None:
        """Send rows to the next route, or fail with the reasons of all routes."""
        failed = (*plan.failed, (plan.routes[0].name, str(error)))
        if len(plan.routes) > 1:
            await self.deliver(rows, RoutePlan(plan.routes[1:], failed), attempts, error)
        else:
            shown = NoRouteError(self.context.request.space.model, failed=failed) if plan.failed else error
            self.errors.fail(rows, shown, cause=error)

    async def _halve(self, rows: Rows, plan: RoutePlan, history: History, error: EmbedwayError) -> None:
        """Halve refused or failing rows until the texts at fault are alone. A refusal does not count as an attempt."""
        request, route, is_refused = self.context.request, plan.routes[0], isinstance(error, RefusedInputError)
        if request.has_several_callers(rows):
            middle = request.middle(rows)
            await self._send_parts((rows[:middle], rows[middle:]), plan, history.attempts - 1)
            return
        if len(rows) == 1 or self._needs_one_answer(route):
            self.errors.fail(rows, error)
            return
        found, attempts = self._found(rows, route), history.attempts - 1
        if not is_refused:
            skipped = tuple((route.name, "not tried: no attempts were left") for route in plan.routes[1:])
            plan = RoutePlan(plan.routes[:1], plan.failed + skipped)
            attempts = min(2, self.policy.max_attempts - 1)
            found.begin(history.failures, self.answers[route.name])
        if history.is_searched:
            await self._search(rows, plan, attempts)
            return
        if not found.answers:
            # One search at a time, until a text is answered or enough texts failed.
            async with found.lock:
                if not found.answers:
                    await self._search(rows, plan, attempts)
                    return
        if is_refused:
            await self._send_parts((rows[: len(rows) // 2], rows[len(rows) // 2 :]), plan, attempts)
        else:
            await self._search(rows, plan, attempts)

    async def _search(self, rows: Rows, plan: RoutePlan, attempts: int) -> None:
        """Send both halves of rows, one after the other, and then the parts of a failed half.

        If one text is at fault, each pair of halves has an answer, which shows that the service is up.
        """
        route, failures = plan.routes[0], []
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            tries = self._found(rows, route).failures_in_a_row(self.answers[route.name])
            if 1 < tries < self.policy.max_attempts:
                wait_s = self._wait_s(tries, _NO_ERROR)
                if self.context.clock() + wait_s <= self.context.deadline:
                    await self._back_off(wait_s, _NO_ERROR, route)
            history = History(attempts, is_searched=True)
            failed = await self._try(half, plan, history)
            if failed is not None:
                failures.append((half, history, failed))
        for half, history, failed in failures:
            await self._send_part(half, plan, history, failed)

    def _found(self, rows: Rows, route: ServiceRoute) -> Findings:
        """Return what is known of a route and the caller of the first row."""
        callers = self.context.request.callers
        return self.found[route.name, 0 if callers is None else int(callers[rows[0]])]

    def _check_first(self, rows: Rows, route: ServiceRoute) -> None:
        """Raise an error if too many other texts of their caller failed."""
        if not self.context.request.has_several_callers(rows):
            self._found(rows, route).check(route.name)

    def _needs_one_answer(self, route: ServiceRoute) -> bool:
        return self.context.request.one_answer and route.provider.declared.batch_dependent
