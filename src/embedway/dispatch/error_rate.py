"""Error rate of a route over a window of time, with an event when it becomes high and when it is normal again.

Each route has counters in a fixed number of time slices, so that memory and time do not grow with the requests. The
counters belong to one embedder of one process.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from embedway.dispatch.log_lines import kind_of
from embedway.errors import BudgetExceededError, InputError, LedgerError, RefusedInputError
from embedway.telemetry.operations import ErrorRateDetails

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.errors import EmbedwayError
    from embedway.telemetry.hooks import Hooks

#: Time slices of a window. A request leaves the window with its slice, up to a thirtieth of the window early.
_SLICES = 30
#: Maximum kinds of errors that a slice counts by name, and that an alert lists; others of a slice are `other`.
_MOST_KINDS = 16
#: Errors of a text or of the caller's money; the route works.
_NO_FAILURES = (RefusedInputError, InputError, BudgetExceededError, LedgerError)


class AlertPolicy(NamedTuple):
    """Thresholds of alerts; see `[alerts]` of the settings."""

    error_rate: float = 0.2
    window_s: float = 300.0
    min_requests: int = 10


class ErrorRate:
    """Counters of one route. Used from one event loop."""

    def __init__(
        self, route: str, policy: AlertPolicy, hooks: Hooks, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._route = route
        self._policy = policy
        self._hooks = hooks
        self._clock = clock
        self._slice_s = policy.window_s / _SLICES
        self._slice = int(clock() // self._slice_s)
        #: Requests, failures, and failures by kind, of each slice.
        self._requests, self._failed = [0] * _SLICES, [0] * _SLICES
        self._kinds: list[dict[str, int]] = [{} for _ in range(_SLICES)]
        #: Requests and failures of all slices.
        self._all_requests = self._all_failed = 0
        self._is_raised = self._is_skipping = False

    def record(self, error: EmbedwayError | None = None) -> None:
        """Record a request that was sent, and its error. A refused text is an answer of a route that works."""
        self._is_skipping = False
        self._record(None if error is None or isinstance(error, _NO_FAILURES) else kind_of(error))

    def record_skip(self) -> None:
        """Record a request that was not sent because the circuit is open; once until a request is sent again."""
        if not self._is_skipping:
            self._is_skipping = True
            self._record("skipped: circuit open")

    def _record(self, kind: str | None) -> None:
        self._forget_old()
        at = self._slice % _SLICES
        self._requests[at] += 1
        self._all_requests += 1
        if kind is not None:
            self._failed[at] += 1
            self._all_failed += 1
            kinds = self._kinds[at]
            if kind not in kinds and len(kinds) >= _MOST_KINDS:
                kind = "other"
            kinds[kind] = kinds.get(kind, 0) + 1
        elif not self._is_raised:
            return  # a success cannot raise an alert
        self._judge()

    def _forget_old(self) -> None:
        """Empty the slices that have left the window."""
        now = int(self._clock() // self._slice_s)
        for number in range(max(self._slice + 1, now - _SLICES + 1), now + 1):
            at = number % _SLICES
            self._all_requests -= self._requests[at]
            self._all_failed -= self._failed[at]
            self._requests[at] = self._failed[at] = 0
            self._kinds[at] = {}
        self._slice = max(self._slice, now)

    def _judge(self) -> None:
        """Report a change. The rate must fall to half of the threshold before an alert is cleared, or it would flap."""
        failed, requests, policy = self._all_failed, self._all_requests, self._policy
        rate = failed / requests
        is_known = requests >= policy.min_requests
        if not self._is_raised and is_known and rate >= policy.error_rate:
            self._report("raised")
        elif self._is_raised and (is_known or not failed) and rate <= policy.error_rate / 2:
            self._report("cleared")

    def _report(self, level: Literal["raised", "cleared"]) -> None:
        self._is_raised = level == "raised"
        failed, requests = self._all_failed, self._all_requests
        kinds: Counter[str] = Counter()
        for one in self._kinds:
            kinds.update(one)
        facts = failed, requests, failed / requests, self._policy.window_s, tuple(kinds.most_common(_MOST_KINDS))
        self._hooks.event(ErrorRateDetails, self._route, level, *facts)


class ErrorRates:
    """Error rates of an embedder's routes, by name: models that share a route's name share its counters."""

    def __init__(self, policy: AlertPolicy, hooks: Hooks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._hooks = hooks
        self._clock = clock
        self._by_route: dict[str, ErrorRate] = {}

    def of(self, route: str) -> ErrorRate:
        """Return the counters of a route."""
        found = self._by_route.get(route)
        if found is None:
            found = self._by_route[route] = ErrorRate(route, self._policy, self._hooks, clock=self._clock)
        return found
