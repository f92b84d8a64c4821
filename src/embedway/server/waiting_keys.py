"""Waiting keys, in the order in which they get slots: by virtual time, within the share of each key."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.server.turns import KeyCalls


class KeyHeap:
    """Waiting keys by virtual time. A key that has stopped waiting stays until it is reached, and is skipped then."""

    __slots__ = ("_heap", "_members", "_numbers")

    def __init__(self) -> None:
        #: Virtual time when it was pushed, number, and key. The number decides between equal times.
        self._heap: list[tuple[float, int, KeyCalls]] = []
        self._members: set[KeyCalls] = set()
        self._numbers = itertools.count()

    def push(self, key: KeyCalls) -> None:
        """Add a key, unless it is there."""
        if key not in self._members:
            self._members.add(key)
            heapq.heappush(self._heap, (key.time, next(self._numbers), key))

    def pop(self) -> KeyCalls | None:
        """Remove and return the waiting key with the lowest virtual time; None without one."""
        while self._heap:
            begin, _, key = heapq.heappop(self._heap)
            self._members.discard(key)
            if key.waiting:
                if begin == key.time:
                    return key
                self.push(key)  # a call of it has started meanwhile
        return None

    def clear(self) -> None:
        """Remove all keys."""
        self._heap.clear()
        self._members.clear()


class WaitingKeys:
    """Waiting keys. A key that holds its share of the slots is set aside while others wait."""

    def __init__(self, most_of_key: int) -> None:
        """Create the order. `most_of_key` is the share of a key, in slots."""
        self._most_of_key = most_of_key
        self._all = KeyHeap()
        #: Those that run nothing, for the slots that are kept for them.
        self._idle = KeyHeap()
        self._aside: set[KeyCalls] = set()

    def add(self, key: KeyCalls) -> None:
        """Add a key with a waiting call, unless it is there."""
        if key not in self._aside:
            self._all.push(key)
        if not key.running:
            self._idle.push(key)

    def discard(self, key: KeyCalls) -> None:
        """Forget a key without waiting calls."""
        self._aside.discard(key)

    def end_call(self, key: KeyCalls, now: float) -> None:
        """Note that a running call of a key has ended, at a virtual time."""
        if key in self._aside and key.running < self._most_of_key:
            self._aside.discard(key)
            # It held its share meanwhile, so it has nothing to catch up.
            key.time = max(key.time, now)
            self._all.push(key)
        if key.waiting and not key.running:
            self._idle.push(key)

    def pop(self, *, others_wait: bool) -> KeyCalls | None:
        """Remove and return the next key; `others_wait` is whether more than one key waits."""
        while (key := self._all.pop()) is not None:
            if key.running < self._most_of_key or not others_wait:
                return key
            self._aside.add(key)
        if not self._aside:
            return None
        # No other key can use the slot.
        key = min(self._aside, key=lambda one: one.time)
        self._aside.discard(key)
        return key

    def pop_idle(self) -> KeyCalls | None:
        """Remove and return the next of the keys that run nothing."""
        while (key := self._idle.pop()) is not None:
            if not key.running:
                return key
        return None

    def clear(self) -> None:
        """Forget all keys, of which none waits."""
        self._all.clear()
        self._idle.clear()
