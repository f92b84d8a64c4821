"""Bounded admission of calls: slots for running calls, and a weighted fair queue among API keys for waiting ones.

Keys are served by start-time fair queueing (Goyal, Vin and Cheng, 1996): each key has a virtual time, which a call
advances by its cost divided by the key's weight, and the waiting key with the lowest time is next. While two keys wait,
their served costs per weight differ by at most one largest call of each. Within a key, queries go first, then higher
priorities; calls age, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import OverloadedError
from embedway.server.drain import Drain
from embedway.server.turns import KeyCalls, Turn, level_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bounds of the time to come back, in seconds.
_SOONEST_S, _LATEST_S = 1.0, 60.0
#: Least cost and weight of a call: with a cost of 0, calls of one key would always be next.
_LEAST = 1e-9
#: Virtual time from which it begins anew when nothing waits, so that it stays exact.
_LATEST_TIME = 1e9
#: Number of keys in memory below which keys without calls are not looked for.
_FEW_KEYS = 64


@dataclass(frozen=True, slots=True)
class QueueState:
    """Numbers of a queue for metrics and autoscaling."""

    running: int
    waiting: int
    #: Cost of the waiting calls.
    waiting_cost: float
    #: Seconds that the oldest waiting call has waited; 0 without one.
    oldest_wait_s: float
    #: Cost finished in a second while calls waited; None if it was not measured yet.
    drain_per_s: float | None


class FairQueue:
    """Slots for running calls, and a bounded queue of waiting ones. Used from one event loop; `clock` is monotonic.

    `max_running` calls run at the same time. An eighth of the slots is kept for keys that run nothing, and a key that
    holds `share` of the slots gets no more while others wait: bulk of one key never takes all of them. At most
    `max_waiting` calls wait, and calls of at most `max_waiting_cost` together, unless one call alone is larger. A key
    may use as many of these places as it leaves free, so that there are places for other keys. A call waits only if,
    by the measured speed, its turn comes within `max_wait_s` seconds: the queue stays short where the service is slow.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_waiting: int,
        max_wait_s: float = math.inf,
        max_waiting_cost: float = math.inf,
        share: float = 0.5,
        reserved: float = 0.125,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_running = max_running
        #: Slots that every key may use; the others are for keys that run nothing.
        self._common = max_running - int(max_running * reserved)
        self._most_of_key = max(1, math.ceil(max_running * share))
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._max_cost = max_waiting_cost
        self._clock = clock
        self._drain = Drain(clock)
        self._numbers = itertools.count()
        self._keys: dict[str, KeyCalls] = {}
        self._most_keys = _FEW_KEYS
        self._queue: list[tuple[float, int, KeyCalls]] = []
        self._idle_queue: list[tuple[float, int, KeyCalls]] = []
        self._parked: set[KeyCalls] = set()
        #: Virtual time: the start of the latest call.
        self._time = 0.0
        self._running = self._waiting = 0
        self._waiting_cost = 0.0
        #: Sum of the weights of keys with waiting calls.
        self._weights = 0.0
        self._is_closed = False
        #: Set when nothing runs or waits; None while no one waits for that.
        self._finished: asyncio.Event | None = None

    def turn(
        self,
        key_name: str,
        *,
        cost: float,
        priority: int = 0,
        weight: float = 1.0,
        query: bool = False,
        deadline_s: float | None = None,
    ) -> Turn:
        """Return a context manager that waits for a slot and holds it: `async with queue.turn(…):`.

        `cost` is in texts or tokens, the same for all calls. Entering raises OverloadedError if the queue is full or
        closed, or if by the measured speed the turn would come after `deadline_s` seconds; and DeadlineError if it has
        not come by then.
        """
        level = level_of(priority, query=query)
        return Turn(
            self, key_name, cost=max(cost, _LEAST), weight=max(weight, _LEAST), level=level, deadline_s=deadline_s
        )

    def close(self) -> None:
        """Refuse new calls. Running and waiting ones go on; `finished` waits for them."""
        self._is_closed = True

    async def finished(self) -> None:
        """Wait until no call runs or waits."""
        while self._running or self._waiting:
            if self._finished is None or self._finished.is_set():
                self._finished = asyncio.Event()
            await self._finished.wait()

    def state(self) -> QueueState:
        """Return the present numbers."""
        arrivals = [arrived for key in self._keys.values() if (arrived := key.oldest()) is not None]
        oldest_s = max(0.0, self._clock() - min(arrivals)) if arrivals else 0.0
        return QueueState(self._running, self._waiting, self._waiting_cost, oldest_s, self._drain.per_s)

    def enter(self, turn: Turn) -> bool:
        """Start a call, or make it wait. Return whether it waits. Raises OverloadedError."""
        if self._is_closed:
            raise OverloadedError("this server is closing; try again, on another replica", retry_after_s=_SOONEST_S)
        key = self._keys.get(turn.key_name)
        if key is None:
            key = self._add_key(turn.key_name)
        if (not self._waiting and self._running < self._common) or (
            not (key.running or key.waiting) and self._running < self._max_running
        ):
            key.weight = turn.weight
            self._start(turn, key, max(key.time, self._time))
            return False
        self._check_place(turn, key)
        self._wait(turn, key)
        self._fill()
        return turn.is_waiting

    def leave(self, turn: Turn) -> None:
        """End a call: one that runs frees its slot, one that waits leaves the queue."""
        key = turn.key
        if key is None:
            return
        turn.key = None
        if turn.is_waiting:
            self._stop_waiting(turn, key)
        else:
            self._stop_running(turn, key)
        if self._waiting:
            self._fill()
        elif not self._running:
            self._rest()

    def _rest(self) -> None:
        """Nothing runs or waits."""
        if self._finished is not None:
            self._finished.set()
        if self._time > _LATEST_TIME:
            self._keys.clear()
            self._queue.clear()
            self._idle_queue.clear()
            self._time = 0.0

    def _check_place(self, turn: Turn, key: KeyCalls) -> None:
        """Raise OverloadedError unless the call may wait."""
        wait_s = self._expected_wait_s(turn, key)
        # A key may use as much as it leaves free (Choudhury and Hahne, 1998: dynamic thresholds).
        is_full = key.waiting + 1 > self._max_waiting - self._waiting
        if key.waiting:
            is_full = is_full or key.cost_before() + turn.cost > self._max_cost - self._waiting_cost
        else:
            is_full = is_full or self._waiting_cost >= self._max_cost
        retry_after_s = min(max(wait_s or 0.0, _SOONEST_S), _LATEST_S)
        if is_full:
            raise OverloadedError(
                f"this server is busy: {self._waiting:,} calls wait, {key.waiting:,} of them with this key; try again "
                f"in {retry_after_s:.0f} s",
                retry_after_s=retry_after_s,
            )
        if wait_s is not None and key.waiting and wait_s > self._max_wait_s:
            raise OverloadedError(
                f"this server is busy: the turn of this call would come in about {wait_s:.1f} s, and calls wait for at "
                f"most {self._max_wait_s:g} s; try again in {retry_after_s:.0f} s",
                retry_after_s=retry_after_s,
            )
        if turn.deadline_s is not None and wait_s is not None and wait_s > turn.deadline_s:
            raise OverloadedError(
                f"this server is busy: the turn of this call would come in about {wait_s:.1f} s, after its deadline of "
                f"{turn.deadline_s:g} s; try again in {retry_after_s:.0f} s",
                retry_after_s=retry_after_s,
            )

    def _expected_wait_s(self, turn: Turn, key: KeyCalls) -> float | None:
        """Return the time until a call's turn, by the cost before it and the drain; None if that is unknown."""
        drain = self._drain.per_s
        if drain is None:
            return None
        weights = self._weights + (0.0 if key.waiting else turn.weight)
        own = key.cost_before(turn.level) + turn.cost
        # Its key gets its share of the drain, or all of it if the others need less.
        return min(own * weights / turn.weight, self._waiting_cost) / drain

    def _wait(self, turn: Turn, key: KeyCalls) -> None:
        if not self._waiting:
            self._drain.start()
        if key.waiting:
            self._weights -= key.weight
        else:
            key.time = max(key.time, self._time)
        key.weight = turn.weight
        self._weights += key.weight
        turn.key, turn.is_waiting, turn.arrived = key, True, self._clock()
        key.add(turn, next(self._numbers))
        self._waiting += 1
        self._waiting_cost += turn.cost
        if not key.is_queued and not key.is_parked:
            self._queue_key(key)
        if not key.running:
            self._queue_idle(key)

    def _stop_waiting(self, turn: Turn, key: KeyCalls) -> None:
        turn.is_waiting = False
        key.remove(turn)
        self._waiting -= 1
        self._waiting_cost -= turn.cost
        if not key.waiting:
            self._weights -= key.weight
            self._parked.discard(key)
            key.is_parked = False
        if not self._waiting:
            self._weights = self._waiting_cost = 0.0
            self._drain.stop()

    def _start(self, turn: Turn, key: KeyCalls, begin: float) -> None:
        """Give a slot to a call, and charge its key from a virtual time on."""
        key.time = begin + turn.cost / key.weight
        self._time = max(self._time, begin)
        turn.key = key
        key.running += 1
        self._running += 1

    def _stop_running(self, turn: Turn, key: KeyCalls) -> None:
        self._running -= 1
        key.running -= 1
        self._drain.finish(turn.cost)
        if key.is_parked and key.running < self._most_of_key:
            self._parked.discard(key)
            key.is_parked = False
            # It held its share meanwhile, so it has nothing to catch up.
            key.time = max(key.time, self._time)
            self._queue_key(key)
        if key.waiting and not key.running:
            self._queue_idle(key)

    def _fill(self) -> None:
        """Start waiting calls while there are slots for them."""
        while self._waiting and self._running < self._max_running:
            key = self._next_key() if self._running < self._common else self._next_idle_key()
            if key is None:
                return
            turn = key.pop()
            self._stop_waiting(turn, key)
            self._start(turn, key, key.time)
            if key.waiting and not key.is_queued:
                self._queue_key(key)
            turn.admit()

    def _next_key(self) -> KeyCalls | None:
        """Return the waiting key with the lowest virtual time that does not hold its share of the slots."""
        while self._queue:
            begin, _, key = heapq.heappop(self._queue)
            key.is_queued = False
            if not key.waiting:
                continue
            if begin != key.time:  # its call got a slot for keys that run nothing
                self._queue_key(key)
            elif key.running >= self._most_of_key and self._weights > key.weight:
                key.is_parked = True
                self._parked.add(key)
            else:
                return key
        if not self._parked:
            return None
        # No other key can use the slot.
        key = min(self._parked, key=lambda one: one.time)
        self._parked.discard(key)
        key.is_parked = False
        return key

    def _next_idle_key(self) -> KeyCalls | None:
        """Return the waiting key with the lowest virtual time that runs nothing."""
        while self._idle_queue:
            begin, _, key = heapq.heappop(self._idle_queue)
            key.is_idle_queued = False
            if not key.waiting or key.running:
                continue
            if begin == key.time:
                return key
            self._queue_idle(key)
        return None

    def _queue_key(self, key: KeyCalls) -> None:
        key.is_queued = True
        heapq.heappush(self._queue, (key.time, next(self._numbers), key))

    def _queue_idle(self, key: KeyCalls) -> None:
        if not key.is_idle_queued:
            key.is_idle_queued = True
            heapq.heappush(self._idle_queue, (key.time, next(self._numbers), key))

    def _add_key(self, name: str) -> KeyCalls:
        if len(self._keys) >= self._most_keys:
            for old in [one for one in self._keys.values() if not one.running and not one.waiting]:
                # It owes nothing, as a new key, or no call waits that it could delay.
                if old.time <= self._time or not self._waiting:
                    del self._keys[old.name]
            self._most_keys = max(_FEW_KEYS, 2 * len(self._keys))
        key = self._keys[name] = KeyCalls(name)
        return key
