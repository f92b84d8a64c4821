"""Circuit breaker: a route that keeps failing rests, and is then tried with one request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

State: TypeAlias = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Opens after `failures` failed requests in a row, for `rest_s` seconds; then lets one through as a probe.

    The caller says which requests count as failed: a refused text does not, a dead service does.
    """

    def __init__(
        self,
        *,
        failures: int = 8,
        rest_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State, State], None] | None = None,
    ) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._clock = clock
        self._on_change = on_change
        self._failed = 0
        #: When it opened; None while it is closed.
        self.opened_at: float | None = None
        self._probing = False
        #: The state that was told last.
        self._told: State = "closed"

    @property
    def state(self) -> State:
        """Closed lets all requests through, open none, half-open one at a time."""
        if self.opened_at is None:
            return "closed"
        return "half-open" if self._clock() - self.opened_at >= self._rest_s else "open"

    def allow(self) -> bool:
        """Whether a request may go out now; in the half-open state the first to ask is the probe."""
        if self.opened_at is None:
            return True
        if self._probing or self.state == "open":
            return False
        self._probing = True
        # The state turns half-open by time alone, and is seen where the probe goes out.
        self._tell("half-open")
        return True

    def record_success(self) -> None:
        """Count a request that was answered, and close the circuit."""
        self._failed = 0
        self._probing = False
        if self.opened_at is not None:
            self._change(None)

    def record_failure(self) -> None:
        """Count a request that failed by the route's fault; open the circuit where it is one too many."""
        self._failed += 1
        # While it is open, failures of what was sent before do not lengthen its rest.
        if self._probing or (self.opened_at is None and self._failed >= self._limit):
            self._change(self._clock())
        self._probing = False

    def release_probe(self) -> None:
        """Count nothing, for a request that ended without an answer or a failure; the next may be the probe."""
        self._probing = False

    def _change(self, opened_at: float | None) -> None:
        """Open or close the circuit: the only place where it does."""
        self.opened_at = opened_at
        self._tell("closed" if opened_at is None else "open")

    def _tell(self, state: State) -> None:
        """Tell a change once: after a probe without an answer, the next probe is none."""
        before, self._told = self._told, state
        if self._on_change is not None and before != state:
            self._on_change(before, state)
