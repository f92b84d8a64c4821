"""Cache store in the memory of this process, bounded in bytes, with least-recently-used eviction."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING

from embedway.cache.base import CacheFilter, Group, GroupSize, LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.cache.base import StoredEntry

#: Bytes of Python objects per entry, in addition to its own bytes: key, tuple, dictionary.
_OVERHEAD_BYTES = 280


class MemoryCache(LocalStore):
    """Cache store in a dictionary. Used from one event loop."""

    def __init__(
        self,
        max_bytes: int,
        *,
        ttl_s: float | None = None,
        refresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the store. With `refresh`, a hit starts the time to live of its entry again."""
        super().__init__("the cache in memory", ttl_s, clock)
        self._refresh = refresh
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._generation = 0
        #: Entry, group, time of storing, and start of the time to live.
        self._entries: OrderedDict[bytes, tuple[bytes, Group, float, float]] = OrderedDict()

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        del group  # keys already differ between groups
        entries, touch = self._entries, self._entries.move_to_end
        found: list[StoredEntry | None] = []
        after, until = self._lifetime()
        for key in keys:
            stored = entries.get(key)
            if stored is None:
                found.append(None)
            elif not after < stored[3] <= until:
                self._remove(key)
                found.append(None)
            else:
                touch(key)
                found.append((stored[0], stored[2]))
                if self._refresh:
                    entries[key] = (*stored[:3], self._clock())
        return found

    async def put_many(
        self,
        group: Group,
        items: Sequence[tuple[bytes, bytes]],
        *,
        created: Sequence[float] | None = None,
        restart: bool = False,
    ) -> int:
        """Store entries; see `CacheStore.put_many`. `created` contains the time of first storing; default now.

        With `restart`, their time to live starts now.
        """
        now = self._clock()
        times = created if created is not None else [now] * len(items)
        for (key, entry), stored_at in zip(items, times, strict=True):
            self._remove(key)
            if len(entry) + _OVERHEAD_BYTES > self._max_bytes:
                self.errors.evictions += 1
                continue  # it would evict all other entries, and then itself
            self._entries[key] = (entry, group, stored_at, now if restart else stored_at)
            self._bytes += len(entry) + _OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.errors.evictions += 1
        return len(items)

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        del group
        for key in keys:
            self._remove(key)

    async def clear(self, which: CacheFilter) -> int:
        self._generation += 1
        after, until = self._lifetime()
        newest, ahead = self._cleared(which.older_than_s)
        for key in [key for key, stored in self._entries.items() if not after < stored[3] <= until]:
            self._remove(key)  # expired, so not counted
        matching = [
            key
            for key, (_, group, stored_at, _) in self._entries.items()
            if which.matches(group) and not newest < stored_at <= ahead
        ]
        for key in matching:
            self._remove(key)
        return len(matching)

    async def generation(self) -> int:
        return self._generation

    async def group_sizes(self) -> list[GroupSize]:
        sizes: dict[Group, tuple[int, int]] = {}
        after, until = self._lifetime()
        for entry, group, _, since in self._entries.values():
            if not after < since <= until:
                continue
            entries, size = sizes.get(group, (0, 0))
            sizes[group] = (entries + 1, size + len(entry) + _OVERHEAD_BYTES)
        return [GroupSize(group, *numbers) for group, numbers in sizes.items()]

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        for model, numbers in counts.items():
            self._counts[model].update(numbers)
        return True

    async def counts(self) -> dict[str, dict[str, int]]:
        return {model: dict(numbers) for model, numbers in self._counts.items()}

    async def aclose(self) -> None:
        """Remove all entries."""
        self._entries.clear()
        self._bytes = 0

    def _remove(self, key: bytes) -> None:
        stored = self._entries.pop(key, None)
        if stored is not None:
            self._bytes -= len(stored[0]) + _OVERHEAD_BYTES
