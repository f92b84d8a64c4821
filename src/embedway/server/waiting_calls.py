"""Waiting calls of all keys: their number and cost, the limits of both, and the time until a call's turn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import OverloadedError
from embedway.server.drain import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from embedway.server.turns import KeyCalls, Turn

#: Bounds of the time to come back, in seconds.
SOONEST_S, _LATEST_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class WaitingLimits:
    """Limits of the waiting calls of all keys together."""

    calls: int
    #: Cost of the calls, unless one call alone costs more.
    cost: float
    #: Time until the turn of a call, in seconds, by the measured speed.
    wait_s: float


class WaitingCalls:
    """Numbers of the waiting calls; `clock` is monotonic."""

    def __init__(self, limits: WaitingLimits, clock: Callable[[], float]) -> None:
        self.drain = Drain(clock)
        self.count = 0
        self.cost = 0.0
        #: Number of keys with waiting calls, and the sum of their weights.
        self.keys = 0
        self._weights = 0.0
        self._limits = limits
        self._clock = clock
        self._numbers = itertools.count()

    def add(self, turn: Turn, key: KeyCalls) -> None:
        """Add a call."""
        if not self.count:
            self.drain.start()
        if key.waiting:
            self._weights -= key.weight
        else:
            self.keys += 1
        key.weight = turn.weight
        self._weights += key.weight
        turn.key, turn.is_waiting, turn.arrived = key, True, self._clock()
        key.add(turn, next(self._numbers))
        self.count += 1
        self.cost += turn.cost

    def remove(self, turn: Turn, key: KeyCalls) -> None:
        """Remove a call, which starts or gives up."""
        turn.is_waiting = False
        key.remove(turn)
        self.count -= 1
        self.cost -= turn.cost
        if not key.waiting:
            self.keys -= 1
            self._weights -= key.weight
        if not self.count:
            self._weights = self.cost = 0.0  # without the rounding errors of many sums
            self.drain.stop()

    def oldest_wait_s(self, keys: Iterable[KeyCalls]) -> float:
        """Return the seconds that the oldest call of the keys has waited; 0 without one."""
        arrivals = [arrived for key in keys if (arrived := key.oldest()) is not None]
        return max(0.0, self._clock() - min(arrivals)) if arrivals else 0.0

    def check_place(self, turn: Turn, key: KeyCalls) -> None:
        """Raise OverloadedError unless the call may wait."""
        limits = self._limits
        wait_s = self._expected_wait_s(turn, key)
        # A key may use as much as it leaves free (Choudhury and Hahne, 1998: dynamic thresholds).
        is_full = key.waiting + 1 > limits.calls - self.count
        if key.waiting:
            is_full = is_full or key.cost_before() + turn.cost > limits.cost - self.cost
        else:
            is_full = is_full or self.cost >= limits.cost
        if is_full:
            raise _busy(f"{self.count:,} calls wait, {key.waiting:,} of them with this key", wait_s)
        if wait_s is None:
            return
        when = f"the turn of this call would come in about {wait_s:.1f} s"
        if key.waiting and wait_s > limits.wait_s:
            raise _busy(f"{when}, and calls wait for at most {limits.wait_s:g} s", wait_s)
        if turn.deadline_s is not None and wait_s > turn.deadline_s:
            raise _busy(f"{when}, after its deadline of {turn.deadline_s:g} s", wait_s)

    def _expected_wait_s(self, turn: Turn, key: KeyCalls) -> float | None:
        """Return the time until a call's turn, by the cost before it and the drain; None if that is unknown."""
        drain = self.drain.per_s
        if drain is None:
            return None
        weights = self._weights + (0.0 if key.waiting else turn.weight)
        own = key.cost_before(turn.level) + turn.cost
        # Its key gets its share of the drain, or all of it if the others need less.
        return min(own * weights / turn.weight, self.cost) / drain


def _busy(reason: str, wait_s: float | None) -> OverloadedError:
    retry_after_s = min(max(wait_s or 0.0, SOONEST_S), _LATEST_S)
    return OverloadedError(
        f"this server is busy: {reason}; try again in {retry_after_s:.0f} s", retry_after_s=retry_after_s
    )
