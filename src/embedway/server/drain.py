"""Measured drain of a queue: cost that is finished in a second while calls wait."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time constant of the window, in seconds of waiting.
_WINDOW_S = 10.0


class Drain:
    """Cost per second over an exponential sliding window.

    Only time in which calls wait is counted: at other times, the speed is that of the callers. The window survives
    times without waiting calls, so that the speed is known when the next call waits.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: Weighted cost and seconds in the window.
        self._cost = self._seconds = 0.0
        #: Time up to which waiting is counted; None while no call waits.
        self._counted: float | None = None

    def start(self) -> None:
        """Begin a time in which calls wait."""
        self._counted = self._clock()

    def stop(self) -> None:
        """End a time in which calls wait."""
        self._advance()
        self._counted = None

    def finish(self, cost: float) -> None:
        """Count the cost of a finished call, if calls wait."""
        if self._counted is not None:
            self._advance()
            self._cost += cost

    @property
    def per_s(self) -> float | None:
        """Cost per second; None before the first call has finished while another one waited."""
        if self._counted is not None:
            self._advance()
        return self._cost / self._seconds if self._cost and self._seconds else None

    def _advance(self) -> None:
        if self._counted is None:
            return
        now = self._clock()
        kept = math.exp(-max(0.0, now - self._counted) / _WINDOW_S)
        self._counted = now
        self._cost *= kept
        self._seconds = self._seconds * kept + _WINDOW_S * (1 - kept)
