"""Decisions of the recovery of a request: the next step after a failed attempt.

This is the only place that decides on a retry after a failure.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from embedway.dispatch.halving import GOOD_ANSWERS, UNLIKELY, UNSURE, Findings, is_about_its_texts, may_be_the_texts
from embedway.dispatch.limits import add_note, too_long
from embedway.dispatch.steps import Decision, LimitLearnedError
from embedway.dispatch.waits import back_off_s, exhausted, is_closed_by, is_loading, too_late
from embedway.errors import (
    BadVectorsError,
    BudgetExceededError,
    DeadlineError,
    EmbedwayError,
    LedgerError,
    ProtocolError,
    RateLimitedError,
    RefusedInputError,
    UpstreamError,
)
from embedway.types import ServiceLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.dispatch.attempt import Attempt, RequestContext
    from embedway.dispatch.request import RetryPolicy, Rows, ServiceRoute
    from embedway.dispatch.steps import History, RoutePlan

#: Checks of a vector against those of other texts.
_SAMENESS = ("same_vector", "near_constant")


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions for one request, from its policy and the findings about its routes."""

    context: RequestContext
    policy: RetryPolicy
    chance: Callable[[], float]
    #: Findings by route and caller.
    found: dict[tuple[str, int], Findings] = field(default_factory=lambda: defaultdict(Findings))

    def split(self, rows: Rows, route: ServiceRoute) -> list[Rows]:
        """Split rows into requests within the route's limits, declared and learned."""
        if len(rows) == 1:
            return [rows]
        parts = route.split(rows, self.context.request.lengths)
        return parts if self.needs_one_answer(route) else route.learned.alone(parts, self.context.request.lengths)

    def weigh(  # noqa: PLR0911  one return for each reason
        self, rows: Rows, plan: RoutePlan, history: History, error: EmbedwayError
    ) -> float:
        """Return the weight of a failure in the route's circuit, less if a text may be the reason."""
        if isinstance(error, BadVectorsError) and history.is_asked_again:
            return UNLIKELY
        is_repeated = history.failures + history.bad_answers > 0
        if isinstance(error, BadVectorsError) and error.check in _SAMENESS and not is_repeated and len(rows) == 1:
            return self._weigh_sameness(rows, plan.routes[0])
        if len(rows) == 1 and is_repeated and not history.is_searched and is_about_its_texts(error):
            return 0.0  # one text opens no circuit
        if len(plan.routes) > 1 or not may_be_the_texts(error):
            return 1.0
        if history.is_searched:
            return UNLIKELY if self.found_of(rows, plan.routes[0]).answers else UNSURE
        if len(rows) > 1:
            return 0.0 if is_repeated else UNSURE
        # One text opens no circuit, however often its callers send it.
        return 1.0 if plan.routes[0].circuit.is_new(self.context.request.texts[rows[0]]) else 0.0

    def _weigh_sameness(self, rows: Rows, route: ServiceRoute) -> float:
        """Return the weight of a text whose vector belonged to another text, each text once.

        A service that returns one vector for all texts gives no other answers. After several good ones, the reason is
        more likely the texts, such as long ones with the same beginning, and other callers' texts are to be sent.
        """
        if not route.circuit.is_new(self.context.request.texts[rows[0]]):
            return 0.0
        return UNLIKELY if route.circuit.answers >= GOOD_ANSWERS else UNSURE

    def decide(  # noqa: PLR0911  one return for each kind of failure
        self, error: EmbedwayError, attempt: Attempt, history: History
    ) -> Decision:
        """Decide the step after a failed attempt. Only this method and `_decide_wait` decide on a retry."""
        several = self.context.request.has_several_callers(attempt.rows)
        if not (attempt.is_sent or several) and self.found_of(attempt.rows, attempt.route).is_exhausted:
            can_fail_over = attempt.has_alternative and not isinstance(error, RefusedInputError)
            return Decision("fail over" if can_fail_over else "give up", error)
        if isinstance(error, LimitLearnedError):
            return Decision("split", error)
        if isinstance(error, UpstreamError) and self._may_split(error, attempt):
            return Decision("split", error)
        if isinstance(error, RefusedInputError):
            is_alone = len(attempt.rows) == 1 and isinstance(error.limits, ServiceLimits)
            tokens = int(self.context.request.lengths[attempt.rows[0]])
            return Decision("halve", too_long(error, tokens) if is_alone else error)
        if isinstance(error, (BudgetExceededError, LedgerError, DeadlineError)):
            # The budget or account is one caller's, so the other callers' texts are sent again.
            is_shared = several and not isinstance(error, DeadlineError)
            return Decision("separate callers" if is_shared else "give up", error)
        if self._is_to_be_halved(error, attempt, history):
            return Decision("separate callers" if several else "halve", error)
        if history.attempts >= self.policy.max_attempts - attempt.has_waiting:
            return Decision("fail over", self._exhausted(error, history))
        # One text may cause the failure of several callers' texts, so they are retried separately.
        again: Literal["separate callers", "retry"] = "separate callers" if several else "retry"
        if isinstance(error, (BadVectorsError, ProtocolError)):
            # One bad answer may be chance; the second is the route's fault. So is an error that is not billed, such as
            # an unknown model.
            is_final = history.bad_answers > 1 or (isinstance(error, ProtocolError) and not error.billed)
            return Decision("fail over" if is_final else again, error)
        if not isinstance(error, UpstreamError) or not error.transient:
            return Decision("fail over", error)
        return self._decide_wait(error, attempt, history, again)

    def _decide_wait(
        self,
        error: UpstreamError,
        attempt: Attempt,
        history: History,
        again: Literal["separate callers", "retry"],
    ) -> Decision:
        """Decide after a transient error: wait and send again, or use another route if that is sooner."""
        tries, now = max(1, history.on_route), self.context.clock()
        wait_s = back_off_s(self.policy, error, tries=tries, polls=history.loading, chance=self.chance)
        closed_s = wait_s if is_closed_by(error) and attempt.is_sent else None
        is_too_late = now + wait_s >= self.context.deadline
        is_slow = history.on_route > 1 or wait_s + now - attempt.started_at > self.context.patience_s
        if attempt.has_alternative and (is_slow or is_too_late or is_loading(error)):
            # Another route of the space is available now; this one would require a wait.
            return Decision("fail over", error, closed_s)
        if is_too_late:
            return Decision("fail over", too_late(error, attempt, wait_s), closed_s)
        if isinstance(error, RateLimitedError) and attempt.is_sent and len(self.split(attempt.rows, attempt.route)) > 1:
            # The service has named a limit on tokens that this request exceeds alone.
            return Decision("split", error, wait_s)
        return Decision("retry" if closed_s is not None else again, error, wait_s)

    def _may_split(self, error: UpstreamError, attempt: Attempt) -> bool:
        """Learn the limits in a refusal, and return whether its texts are now more than one request."""
        route, rows = attempt.route, attempt.rows
        if not isinstance(error.limits, ServiceLimits):
            return False
        note = route.learned.learn(error.limits, self.context.request.lengths[rows], route=route.name)
        if note:
            add_note(self.context.response.notes, note, route.name)
        return len(self.split(rows, route)) > 1

    def _exhausted(self, error: EmbedwayError, history: History) -> EmbedwayError:
        passed_s = self.context.clock() - self.context.started_at
        return exhausted(self.policy, error, tries=history.attempts, passed_s=passed_s)

    def _is_to_be_halved(self, error: EmbedwayError, attempt: Attempt, history: History) -> bool:
        """Return whether texts failed so often that one of them may be the reason, and can be sent apart."""
        rows, most = attempt.rows, self.policy.max_attempts
        if not may_be_the_texts(error) or not self.can_search(rows, attempt.route):
            return False
        is_last_try = history.attempts >= most
        if self.context.request.has_several_callers(rows):
            return is_last_try
        is_repeated = history.failures > 1 and not attempt.has_alternative
        return history.is_searched or is_repeated or (is_last_try and most > 1)

    def can_search(self, rows: Rows, route: ServiceRoute) -> bool:
        """Return whether rows may be sent to a route in parts, to find a text at fault."""
        return len(rows) > 1 and not self.needs_one_answer(route)

    def found_of(self, rows: Rows, route: ServiceRoute) -> Findings:
        """Return the findings about a route and the caller of the first row."""
        return self.found[route.name, self.context.request.caller_of(rows[0])]

    def check_first(self, rows: Rows, route: ServiceRoute) -> None:
        """Raise an error if too many other texts of their caller failed, or if rows are to be split again."""
        # A limit may have been learned while they waited.
        has_learned = len(rows) > 1 and route.learned.has_any
        if has_learned and not self.needs_one_answer(route):
            self._check_size(rows, route)
        if not self.context.request.has_several_callers(rows):
            self.found_of(rows, route).check(route.name)

    def _check_size(self, rows: Rows, route: ServiceRoute) -> None:
        if len(route.split(rows, self.context.request.lengths)) > 1:
            raise LimitLearnedError

    def needs_one_answer(self, route: ServiceRoute) -> bool:
        """Return whether a route must answer the texts in one request."""
        return self.context.request.one_answer and route.provider.declared.batch_dependent
