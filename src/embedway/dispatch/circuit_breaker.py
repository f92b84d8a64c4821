"""A circuit breaker: a route that keeps failing is left alone for a while, then tried with one request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

State: TypeAlias = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Opens after `failures` failed requests in a row, for `rest_s` seconds; then lets one through as a probe.

    What counts as failure is the caller's to say: a refused text is none, a dead service is.
    """

    def __init__(self, *, failures: int = 8, rest_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """Closed lets all through, open nobody, half-open one at a time."""
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._clock() - self._opened_at >= self._rest_s else "open"

    def allow(self) -> bool:
        """Whether a request may go out now; in the half-open state the first to ask is the probe."""
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def succeeded(self) -> None:
        """A request was answered: all is well."""
        self._failed = 0
        self._opened_at = None
        self._probing = False

    def failed(self) -> None:
        """A request failed by the route's fault."""
        self._failed += 1
        # While it is open, failures of what was sent before do not lengthen its rest.
        if self._probing or (self._opened_at is None and self._failed >= self._limit):
            self._opened_at = self._clock()
        self._probing = False

    def abandoned(self) -> None:
        """A request ended without telling anything, cancelled for example: the next one may be the probe."""
        self._probing = False
