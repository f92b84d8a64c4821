"""Circuit breaker: a route that fails repeatedly is skipped, then probed with one request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

State: TypeAlias = Literal["closed", "open", "half-open"]
#: Maximum number of texts that a circuit remembers.
_MOST_TEXTS = 100


class CircuitBreaker:
    """Opens after `failures` consecutive failures, for `rest_s` seconds; then allows one request as a probe.

    The caller decides which requests count as failures: a rejected text does not, an unavailable service does.
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
        self._failed = 0.0
        #: Successful requests so far.
        self.answers = 0
        #: Time of opening; None while closed.
        self.opened_at: float | None = None
        self._probing = False
        #: Hashes of the texts that failed alone since the last success.
        self._texts: set[int] = set()
        #: Reason of the last failure.
        self._reason = ""
        #: The state reported last.
        self._reported: State = "closed"

    @property
    def state(self) -> State:
        """State: closed allows all requests, open none, half-open one at a time."""
        if self.opened_at is None:
            return "closed"
        return "half-open" if self._clock() - self.opened_at >= self._rest_s else "open"

    @property
    def skipped(self) -> str:
        """Why and how long requests are not sent, in words."""
        left_s = 0.0 if self.opened_at is None else self.opened_at + self._rest_s - self._clock()
        until = f"for another {left_s:.1f} s" if left_s > 0 else "until a request under way is answered"
        last = f"; the last error: {self._reason}" if self._reason else ""
        return f"skipped {until}, after several failures in a row{last}"

    def is_new(self, text: str) -> bool:
        """Return whether a text that failed alone did not fail alone before, since the last success."""
        known, number = len(self._texts), hash(text)
        if known < _MOST_TEXTS:
            self._texts.add(number)
        return len(self._texts) > known or (known == _MOST_TEXTS and number not in self._texts)

    def allow(self) -> bool:
        """Return whether a request may be sent now. In the half-open state the first caller sends the probe."""
        if self.opened_at is None:
            return True
        if self._probing or self.state == "open":
            return False
        self._probing = True
        # The half-open state results from time alone, and is reported with the probe.
        self._report("half-open")
        return True

    def record_success(self) -> None:
        """Record a successful request and close the circuit."""
        self._failed = 0
        self.answers += 1
        self._texts.clear()
        self._probing = False
        if self.opened_at is not None:
            self._change(None)

    def record_failure(self, weight: float = 1.0, reason: str = "") -> None:
        """Record a request that failed because of the route; open the circuit when the limit is reached.

        `weight` is below 1 if the reason may be a text of the request.
        """
        self._failed += weight
        self._reason = reason
        # While it is open, failures of earlier requests do not extend the pause.
        if self._probing or (self.opened_at is None and self._failed >= self._limit):
            self._change(self._clock())
        self._probing = False

    def release_probe(self) -> None:
        """Record nothing for a request that ended without an answer or a failure; the next one may be the probe."""
        self._probing = False

    def _change(self, opened_at: float | None) -> None:
        """Open or close the circuit. Only this method does."""
        self.opened_at = opened_at
        self._report("closed" if opened_at is None else "open")

    def _report(self, state: State) -> None:
        """Report a state change once: another probe after an unanswered one is not a change."""
        before, self._reported = self._reported, state
        if self._on_change is not None and before != state:
            self._on_change(before, state)
