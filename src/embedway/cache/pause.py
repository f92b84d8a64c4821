"""Time of some seconds by two clocks: the pause after a failure, and the validity of a check."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pause:
    """Time of some seconds by the monotonic clock. A jump of the wall clock ends it early.

    The wall clock may be set back by a day, so it cannot measure the time alone. The monotonic clock stops while the
    machine is suspended, so the pause also ends if the wall clock has advanced by more.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a pause that has not started. `clock` returns seconds since 1970, `ticks` monotonic seconds."""
        self._seconds = seconds
        self._clock = clock
        self._ticks = ticks
        self._started: tuple[float, float] | None = None

    def start(self) -> None:
        """Start the pause, again if it is running."""
        self._started = self._clock(), self._ticks()

    def is_running(self) -> bool:
        """Return whether the pause was started and has not ended."""
        if self._started is None:
            return False
        elapsed = self._clock() - self._started[0], self._ticks() - self._started[1]
        if all(0 <= seconds < self._seconds for seconds in elapsed):
            return True
        self._started = None
        return False
