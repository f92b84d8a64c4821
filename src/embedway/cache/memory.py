"""Entries in this process's memory, bounded in bytes; the least recently used go first."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from embedway.cache.base import Group, Held, Troubles, Which

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What Python's objects for one entry take besides its bytes: key, tuple, dictionary.
_OVERHEAD_BYTES = 280


class MemoryCache:
    """A dictionary that forgets. Used from one event loop."""

    def __init__(self, max_bytes: int, *, ttl_s: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.troubles = Troubles()
        self.leases = False
        self._counts: dict[str, dict[str, int]] = {}
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[bytes, Group, float]] = OrderedDict()

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        del group  # keys differ already
        entries, touch = self._entries, self._entries.move_to_end
        found: list[bytes | None] = []
        oldest = self._clock() - self._ttl_s if self._ttl_s is not None else None
        for key in keys:
            held = entries.get(key)
            if held is None:
                found.append(None)
            elif oldest is not None and held[2] <= oldest:
                self._forget(key)
                found.append(None)
            else:
                touch(key)
                found.append(held[0])
        return found

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`."""
        now = self._clock()
        for key, entry in items:
            self._forget(key)
            self._entries[key] = (entry, group, now)
            self._bytes += len(entry) + _OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))
            self.troubles.evictions += 1
        return len(items)

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        del group
        for key in keys:
            self._forget(key)

    async def held(self) -> list[Held]:
        """See `Cache.held`."""
        counted: dict[Group, tuple[int, int]] = {}
        for entry, group, _ in self._entries.values():
            entries, size = counted.get(group, (0, 0))
            counted[group] = (entries + 1, size + len(entry) + _OVERHEAD_BYTES)
        return [Held(group, *numbers) for group, numbers in counted.items()]

    async def clear(self, which: Which) -> int:
        """See `Cache.clear`."""
        newest = self._clock() - which.older_than_s if which.older_than_s is not None else None
        meant = [
            key
            for key, (_, group, created) in self._entries.items()
            if which.takes(group) and (newest is None or created <= newest)
        ]
        for key in meant:
            self._forget(key)
        return len(meant)

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        mine = ((key, held[0]) for key, held in self._entries.items() if held[1] == group)
        return [pair for pair, _ in zip(mine, range(count), strict=False)]

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """See `Cache.add_counts`."""
        for model, numbers in counts.items():
            mine = self._counts.setdefault(model, {})
            for name, number in numbers.items():
                mine[name] = mine.get(name, 0) + number

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `Cache.counts`."""
        return {model: dict(numbers) for model, numbers in self._counts.items()}

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """All: no other process shares this memory."""
        del group, seconds
        return [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Nothing to give back."""

    async def aclose(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0

    def _forget(self, key: bytes) -> None:
        held = self._entries.pop(key, None)
        if held is not None:
            self._bytes -= len(held[0]) + _OVERHEAD_BYTES
