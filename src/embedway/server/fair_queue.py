"""Bounded admission of calls: slots for running calls, and a weighted fair queue among API keys for waiting ones.

Keys are served by start-time fair queueing (Goyal, Vin and Cheng, 1996): each key has a virtual time, which a call
advances by its cost divided by the key's weight, and the waiting key with the lowest time is next. While two keys wait,
their served costs per weight differ by at most one largest call of each. Within a key, queries go first, then higher
priorities; calls age, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import OverloadedError
from embedway.server.turns import KeyCalls, Turn, level_of
from embedway.server.waiting_calls import SOONEST_S, WaitingCalls, WaitingLimits
from embedway.server.waiting_keys import WaitingKeys

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._running = 0
        self._waiting = WaitingCalls(WaitingLimits(max_waiting, max_waiting_cost, max_wait_s), clock)
        self._order = WaitingKeys(max(1, math.ceil(max_running * share)))
        self._keys: dict[str, KeyCalls] = {}
        self._most_keys = _FEW_KEYS
        #: Virtual time: the start of the latest call.
        self._time = 0.0
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
        while self._running or self._waiting.count:
            if self._finished is None or self._finished.is_set():
                self._finished = asyncio.Event()
            await self._finished.wait()

    def state(self) -> QueueState:
        """Return the present numbers."""
        waiting = self._waiting
        oldest_s = waiting.oldest_wait_s(self._keys.values())
        return QueueState(self._running, waiting.count, waiting.cost, oldest_s, waiting.drain.per_s)

    def enter(self, turn: Turn) -> bool:
        """Start a call, or make it wait. Return whether it waits. Raises OverloadedError."""
        if self._is_closed:
            raise OverloadedError("this server is closing; try again, on another replica", retry_after_s=SOONEST_S)
        key = self._keys.get(turn.key_name)
        if key is None:
            key = self._add_key(turn.key_name)
        if (not self._waiting.count and self._running < self._common) or (
            not (key.running or key.waiting) and self._running < self._max_running
        ):
            key.weight = turn.weight
            self._start(turn, key, max(key.time, self._time))
            return False
        self._waiting.check_place(turn, key)
        if not key.waiting:
            key.time = max(key.time, self._time)
        self._waiting.add(turn, key)
        self._order.add(key)
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
        if self._waiting.count:
            self._fill()
        elif not self._running:
            self._rest()

    def _rest(self) -> None:
        """Nothing runs or waits."""
        if self._finished is not None:
            self._finished.set()
        if self._time > _LATEST_TIME:
            self._keys.clear()
            self._order.clear()
            self._time = 0.0

    def _stop_waiting(self, turn: Turn, key: KeyCalls) -> None:
        self._waiting.remove(turn, key)
        if not key.waiting:
            self._order.discard(key)

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
        self._waiting.drain.finish(turn.cost)
        self._order.end_call(key, self._time)

    def _fill(self) -> None:
        """Start waiting calls while there are slots for them."""
        waiting, order = self._waiting, self._order
        while waiting.count and self._running < self._max_running:
            key = order.pop(others_wait=waiting.keys > 1) if self._running < self._common else order.pop_idle()
            if key is None:
                return
            turn = key.pop()
            self._stop_waiting(turn, key)
            self._start(turn, key, key.time)
            if key.waiting:
                order.add(key)
            turn.admit()

    def _add_key(self, name: str) -> KeyCalls:
        if len(self._keys) >= self._most_keys:
            for old in [one for one in self._keys.values() if not one.running and not one.waiting]:
                # It owes nothing, as a new key, or no call waits that it could delay.
                if old.time <= self._time or not self._waiting.count:
                    del self._keys[old.name]
            self._most_keys = max(_FEW_KEYS, 2 * len(self._keys))
        key = self._keys[name] = KeyCalls(name)
        return key
