"""Recovery of requests to services: retry, bisection and failover, in one recursion over parts of a request.

This is the only retry layer. `Decisions` decides on a retry; only texts with an invalid vector in a good answer are
sent again without it. A finished part is never sent again; a failed part is sent again alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embedway.concurrency import run_together
from embedway.dispatch.attempt import Attempt, RequestContext
from embedway.dispatch.decisions import Decisions
from embedway.dispatch.halving import MOST_ALONE, is_about_its_texts, may_be_the_texts
from embedway.dispatch.limits import add_note
from embedway.dispatch.log_lines import RequestLog
from embedway.dispatch.request import UpstreamResponse
from embedway.dispatch.row_errors import RowErrors, first_error
from embedway.dispatch.steps import Decision, Failed, History, RoutePlan, plan_of
from embedway.dispatch.waits import back_off_s, is_closed_by, is_loading, reason_of
from embedway.errors import (
    BadVectorsError,
    DeadlineError,
    EmbedwayError,
    InputError,
    NoRouteError,
    RateLimitedError,
    RefusedInputError,
)
from embedway.providers.base import sum_of
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import BatchDetails, FailoverDetails, WaitDetails

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
        texts, tokens, first = len(request.texts), sum_of(request.lengths), routes[0].name
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
        decisions = Decisions(context, policy, self._chance)
        row_errors = RowErrors(request, response, decisions.found)
        recovery = _Recovery(context, policy, self._sleep, decisions, row_errors)
        rows = np.arange(len(request.texts), dtype=np.int64)
        try:
            await recovery.deliver(rows, plan_of(routes, request.quarantined), attempts=0)
        except* EmbedwayError as errors:
            error = first_error(errors)
            raise error from error.__cause__
        row_errors.forget_rows_of_outages()
        return response


@dataclass(frozen=True, slots=True)
class _Recovery:
    """Recovery of one call of `UpstreamClient.send`."""

    context: RequestContext
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[object]]
    decisions: Decisions
    errors: RowErrors
    #: Answers by route, and texts by route that had a valid vector when they were asked again.
    answers: Counter[str] = field(default_factory=Counter)
    healed: Counter[str] = field(default_factory=Counter)
    log: RequestLog = field(default_factory=RequestLog)

    async def deliver(self, rows: Rows, plan: RoutePlan, attempts: int, cause: EmbedwayError | None = None) -> None:
        """Send rows to the current route of a plan, in parts within its limits on inputs and tokens.

        `cause` is the error of the previous route, if there is one.
        """
        if not len(rows):
            return
        request = self.context.request
        if not plan.routes or attempts >= self.policy.max_attempts:
            skipped = tuple((route.name, self._untried) for route in plan.routes)
            failed = (*plan.failed, *skipped)
            self.errors.fail(rows, NoRouteError(request.space.model, failed=failed), cause=cause)
            return
        route = plan.routes[0]
        parts = self.decisions.split(rows, route)
        notes = self.context.response.notes
        is_noted = any(one.startswith(f"{route.name} accepts ") for one in notes)
        if len(parts) > 1 and not is_noted and (note := route.learned.note(route.name)):
            add_note(notes, note, route.name)
        if len(parts) > 1 and self.decisions.needs_one_answer(route):
            self.errors.fail(
                rows,
                InputError(
                    f"{route.name} scores all texts of a request together, and these texts need {len(parts)} requests, "
                    f"whose answers are not comparable: send at most {route.declared.max_inputs} texts"
                ),
            )
            return
        await self._send_parts(parts, plan, attempts)

    @property
    def _untried(self) -> str:
        return f"not tried: no attempts were left (upstream.max_attempts = {self.policy.max_attempts})"

    async def _send_parts(self, parts: Sequence[Rows], plan: RoutePlan, attempts: int) -> None:
        await run_together(self._send_part(part, plan, History(attempts)) for part in parts)

    async def _send_part(self, rows: Rows, plan: RoutePlan, history: History, failed: Failed | None = None) -> None:
        """Send rows in one request to the current route, until they are answered or another step is decided.

        `failed` is their last attempt, if no step was decided after it yet.
        """
        is_sent = False
        while True:
            if failed is None:
                failed = await self._try(rows, plan, history)
            if failed is None:
                return
            is_sent |= failed.attempt.is_sent
            route, attempt, error = plan.routes[0], failed.attempt, failed.error
            decision = self.decisions.decide(error, attempt, history)
            is_final = attempt.is_sent and decision.step != "retry"
            if len(rows) == 1 and is_final and is_about_its_texts(error):
                self.decisions.found_of(rows, route).count_alone(error)
            if not attempt.is_sent and isinstance(decision.error, DeadlineError):
                await self.context.others_in_flight()
            failed = None
            if attempt.is_sent and decision.step in {"retry", "separate callers"}:
                self.log.retry(route.name, len(rows), error, attempts=history.attempts, wait_s=decision.wait_s)
            if decision.wait_s is not None:
                await self._back_off(decision.wait_s, error, route)
            if decision.step != "retry":
                await self._follow(decision, rows, plan, history, is_sent=is_sent)
                return

    async def _follow(
        self, decision: Decision, rows: Rows, plan: RoutePlan, history: History, *, is_sent: bool
    ) -> None:
        """Take the next step with rows that failed, other than a retry. With `is_sent`, they were sent."""
        error = decision.error
        if decision.step == "separate callers":
            parts = [own for _, own in self.context.request.by_caller(rows)]
            await self._send_parts(parts, plan, min(history.attempts, self.policy.max_attempts - 1))
        elif decision.step == "split":
            # A refusal does not count as an attempt.
            await self.deliver(rows, plan, history.attempts - isinstance(error, RefusedInputError))
        elif decision.step == "halve":
            await self._halve(rows, plan, history, error)
        elif decision.step == "fail over":
            await self._fail_over(rows, plan, history.attempts, error, is_sent=is_sent)
        else:
            self.errors.fail(rows, error)

    async def _try(self, rows: Rows, plan: RoutePlan, history: History) -> Failed | None:
        """Send rows once to the current route. Accept the valid rows of an answer, and ask for the others again."""
        context, route = self.context, plan.routes[0]
        attempt = Attempt(
            context,
            rows,
            route,
            has_alternative=len(plan.routes) > 1,
            has_waiting=bool(plan.waiting),
            started_at=context.clock(),
            number=history.attempts + 1,
            weigh=partial(self.decisions.weigh, rows, plan, history),
            check_first=partial(self.decisions.check_first, rows, route),
            probe_again=partial(self._probe_again, history),
        )
        try:
            vectors = await attempt.run()
        except EmbedwayError as error:
            history.count(attempt, error)
            if history.is_searched and may_be_the_texts(error):
                self.decisions.found_of(rows, route).count_failure(self.answers[route.name])
            return Failed(attempt, error)
        self.answers[route.name] += 1
        self.healed[route.name] += history.is_asked_again
        for caller, _ in context.request.by_caller(rows):
            self.decisions.found[route.name, caller].answers += 1
        invalid = attempt.invalid
        can_retry = not history.bad_answers and history.attempts + 1 < self.policy.max_attempts
        if invalid is not None and can_retry and self.decisions.needs_one_answer(route):
            # Scores of two answers are not comparable, so all texts are sent again.
            history.count(attempt, invalid)
            return Failed(attempt, invalid)
        context.response.vectors[rows] = vectors
        if invalid is not None:
            await self._ask_again(rows[list(invalid.rows)], plan, history.attempts + 1, invalid)
        return None

    async def _probe_again(self, history: History, attempt: Attempt, error: EmbedwayError) -> bool:
        """Wait after a failed probe of a paid answer, as before a retry of the texts. Return whether to send it again.

        A probe counts as an attempt with the texts of the answer.
        """
        if isinstance(error, BadVectorsError) and not error.billed:
            return False  # a result, not a failure
        tried = replace(history)
        tried.count(attempt, error)
        decision = self.decisions.decide(error, attempt, tried)
        if decision.step not in ("retry", "separate callers"):
            return False
        history.count(attempt, error)
        self.log.retry(attempt.route.name, len(attempt.rows), error, attempts=history.attempts, wait_s=decision.wait_s)
        if decision.wait_s is not None:
            await self._back_off(decision.wait_s, error, attempt.route)
        return True

    async def _ask_again(self, rows: Rows, plan: RoutePlan, attempts: int, error: BadVectorsError) -> None:
        """Send texts alone whose vectors were invalid in an answer with valid ones. A second invalid vector is final.

        If none of the first texts then has a valid vector, the others are not sent again.
        """
        route = plan.routes[0]
        if attempts >= self.policy.max_attempts or self.decisions.needs_one_answer(route):
            groups, rest = [], rows
        else:
            groups, rest = [rows[start : start + MOST_ALONE] for start in range(0, len(rows), MOST_ALONE)], rows[:0]
            self.log.retry_alone(route.name, len(rows), error)
        for number, group in enumerate(groups):
            if number and not self.healed[route.name]:
                rest = np.concatenate(groups[number:])
                break
            await run_together(
                self._send_part(row.reshape(1), plan, History(attempts, on_route=1, bad_answers=1, is_asked_again=True))
                for row in group
            )
        if len(rest) and len(plan.routes) > 1 and not self.decisions.needs_one_answer(route):
            await self._fail_over(rest, plan, attempts, error, is_sent=True)
            return
        for row in rest:
            self.errors.fail(row.reshape(1), error)

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

    async def _fail_over(
        self, rows: Rows, plan: RoutePlan, attempts: int, error: EmbedwayError, *, is_sent: bool
    ) -> None:
        """Send rows to the next route, or fail with the reasons of all routes.

        If no route is left, one that failed is used again: the one that is available first, if before the deadline; or
        if the last route fails for another reason than the texts, one that may have failed because of a text.
        """
        route = plan.routes[0]
        failed = (*plan.failed, (route.name, reason_of(error, route)))
        waiting = (*plan.waiting, route) if is_closed_by(error) else plan.waiting
        if len(plan.routes) > 1:
            suspect = (*plan.suspect, (route, error)) if may_be_the_texts(error) else plan.suspect
            if attempts < self.policy.max_attempts:
                self._note_failover(route, plan.routes[1], len(rows), error, is_sent=is_sent)
            await self.deliver(rows, RoutePlan(plan.routes[1:], failed, waiting, suspect), attempts, error)
            return
        if plan.waiting:
            tokens = sum_of(self.context.request.lengths[rows])
            wait_s, soonest = min(((one.limiter.wait_s(tokens), one) for one in waiting), key=lambda pair: pair[0])
            if self.context.clock() + wait_s < self.context.deadline and attempts < self.policy.max_attempts:
                others = tuple(reason for reason in failed if reason[0] != soonest.name)
                if soonest.name == route.name:
                    self.log.retry(route.name, len(rows), error, attempts=attempts, wait_s=wait_s)
                else:
                    self._note_failover(route, soonest, len(rows), error, is_sent=is_sent)
                await self.deliver(rows, RoutePlan((soonest,), others), attempts, error)
                return
        if plan.suspect and not may_be_the_texts(error) and self.decisions.can_search(rows, plan.suspect[0][0]):
            earlier, reason = plan.suspect[0]
            others = tuple(one for one in failed if one[0] != earlier.name)
            self._note_failover(route, earlier, len(rows), error, is_sent=is_sent)
            await self._halve(rows, RoutePlan((earlier,), others), History(attempts, failures=1), reason)
            return
        if not plan.failed:
            self.errors.fail(rows, error, cause=error)
            return
        reasons = NoRouteError(self.context.request.space.model, failed=failed)
        waits = [one.limiter.wait_s(0) for one in waiting]
        waits += [error.retry_after_s] if isinstance(error, DeadlineError) and error.retry_after_s is not None else []
        reasons.retry_after_s = min(waits, default=None)
        self.errors.fail(rows, reasons, cause=error)

    def _note_failover(
        self, route: ServiceRoute, following: ServiceRoute, texts: int, error: EmbedwayError, *, is_sent: bool
    ) -> None:
        self.log.failover(route.name, following.name, texts, error, is_sent=is_sent)
        facts = self.context.request.model, route.name, following.name, texts, type(error).__name__
        self.context.hooks.event(FailoverDetails, *facts)

    async def _halve(self, rows: Rows, plan: RoutePlan, history: History, error: EmbedwayError) -> None:
        """Halve refused or failing rows until the texts at fault are alone. A refusal does not count as an attempt."""
        request, route, is_refused = self.context.request, plan.routes[0], isinstance(error, RefusedInputError)
        if self.decisions.can_search(rows, route):
            self.log.search(route.name, len(rows), error)
        if request.has_several_callers(rows):
            middle = request.middle(rows)
            await self._send_parts((rows[:middle], rows[middle:]), plan, history.attempts - 1)
            return
        if not self.decisions.can_search(rows, route):
            self.errors.fail(rows, error)
            return
        found, attempts = self.decisions.found_of(rows, route), history.attempts - 1
        if not is_refused:
            skipped = tuple((route.name, self._untried) for route in plan.routes[1:])
            plan = RoutePlan(plan.routes[:1], plan.failed + skipped)
            attempts = min(2, self.policy.max_attempts - 1)
            found.begin(history.failures, self.answers[route.name])
        if history.is_searched:
            await self._search(rows, plan, attempts)
            return
        if not found.answers:
            # One search at a time, until a text is answered or enough texts failed.
            async with found.one_search():
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
            tries = self.decisions.found_of(rows, route).failures_in_a_row(self.answers[route.name])
            if 1 < tries < self.policy.max_attempts:
                wait_s = back_off_s(self.policy, _NO_ERROR, tries=tries, polls=0, chance=self.decisions.chance)
                if self.context.clock() + wait_s < self.context.deadline:
                    await self._back_off(wait_s, _NO_ERROR, route)
            history = History(attempts, is_searched=True)
            failed = await self._try(half, plan, history)
            if failed is not None:
                failures.append((half, history, failed))
        for half, history, failed in failures:
            await self._send_part(half, plan, history, failed)
