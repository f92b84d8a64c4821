"""Entries in this process's memory, bounded in bytes; the least recently used go first."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from embedway.cache.base import CacheErrors, CacheFilter, Group, GroupSize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What Python's objects for one entry take besides its bytes: key, tuple, dictionary.
_OVERHEAD_BYTES = 280


class MemoryCache:
    """A dictionary that forgets. Used from one event loop."""

    def __init__(self, max_bytes: int, *, ttl_s: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.errors = CacheErrors()
        self.supports_leases = False
        self._counts: dict[str, dict[str, int]] = {}
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._bytes = 0
        self._generation = 0
        self._entries: OrderedDict[bytes, tuple[bytes, Group, float]] = OrderedDict()

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `CacheStore.get_many`."""
        return [held and held[0] for held in await self.get_aged(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `CacheStore.get_aged`."""
        del group  # keys differ already
        entries, touch = self._entries, self._entries.move_to_end
        found: list[tuple[bytes, float] | None] = []
        oldest = self._oldest()
        for key in keys:
            held = entries.get(key)
            if held is None:
                found.append(None)
            elif held[2] <= oldest:
                self._remove(key)
                found.append(None)
            else:
                touch(key)
                found.append((held[0], held[2]))
        return found

    async def generation(self) -> int:
        """See `CacheStore.generation`."""
        return self._generation

    async def put_many(
        self, group: Group, items: Sequence[tuple[bytes, bytes]], *, created: Sequence[float] | None = None
    ) -> int:
        """See `CacheStore.put_many`; `created` is when each was stored first, now by default."""
        times = created if created is not None else [self._clock()] * len(items)
        for (key, entry), stored in zip(items, times, strict=True):
            self._remove(key)
            if len(entry) + _OVERHEAD_BYTES > self._max_bytes:
                self.errors.evictions += 1
                continue  # all others would go for it, and then it
            self._entries[key] = (entry, group, stored)
            self._bytes += len(entry) + _OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.errors.evictions += 1
        return len(items)

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `CacheStore.delete_many`."""
        del group
        for key in keys:
            self._remove(key)

    async def group_sizes(self) -> list[GroupSize]:
        """See `CacheStore.group_sizes`."""
        counted: dict[Group, tuple[int, int]] = {}
        oldest = self._oldest()
        for entry, group, created in self._entries.values():
            if created <= oldest:
                continue
            entries, size = counted.get(group, (0, 0))
            counted[group] = (entries + 1, size + len(entry) + _OVERHEAD_BYTES)
        return [GroupSize(group, *numbers) for group, numbers in counted.items()]

    async def clear(self, which: CacheFilter) -> int:
        """See `CacheStore.clear`."""
        self._generation += 1
        newest = self._clock() - which.older_than_s if which.older_than_s is not None else None
        for key in [key for key, held in self._entries.items() if held[2] <= self._oldest()]:
            self._remove(key)  # gone, for everybody
        meant = [
            key
            for key, (_, group, created) in self._entries.items()
            if which.matches(group) and (newest is None or created <= newest)
        ]
        for key in meant:
            self._remove(key)
        return len(meant)

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `CacheStore.sample`."""
        mine = ((key, held[0]) for key, held in self._entries.items() if held[1] == group)
        return [pair for pair, _ in zip(mine, range(count), strict=False)]

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """See `CacheStore.add_counts`."""
        for model, numbers in counts.items():
            mine = self._counts.setdefault(model, {})
            for name, number in numbers.items():
                mine[name] = mine.get(name, 0) + number
        return True

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `CacheStore.counts`."""
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

    def _oldest(self) -> float:
        """What was stored then, or before, is too old."""
        return self._clock() - self._ttl_s if self._ttl_s is not None else float("-inf")

    def _remove(self, key: bytes) -> None:
        held = self._entries.pop(key, None)
        if held is not None:
            self._bytes -= len(held[0]) + _OVERHEAD_BYTES
