"""Memory tier in front of a slower store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from embedway.cache.base import CacheFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.cache.base import CacheStore, Group, StoredEntry
    from embedway.cache.memory import MemoryCache

#: Maximum time for which memory may still contain entries that another process cleared, in seconds.
_GENERATION_S = 1.0


class TieredCache:
    """Memory in front of a backing store: read entries are copied to memory with their age; writes go to both."""

    def __init__(
        self,
        memory: MemoryCache,
        backing: CacheStore,
        *,
        refresh: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the tiers. With `refresh`, the time to live of an entry in memory starts when it is copied there."""
        self.memory = memory
        self.backing = backing
        self.errors = backing.errors
        self._refresh = refresh
        self.supports_leases = backing.supports_leases
        self._clock = clock
        self._generation: int | None = None
        self._generation_read_at = float("-inf")
        # Memory is not used for these: the backing store has all entries and the counts.
        self.generation, self.group_sizes = backing.generation, backing.group_sizes
        self.add_counts, self.counts = backing.add_counts, backing.counts
        self.lease, self.release = backing.lease, backing.release

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        await self._clear_memory_if_cleared()
        found = await self.memory.get_many(group, keys)
        missing = [row for row, stored in enumerate(found) if stored is None]
        if missing:
            read = await self.backing.get_many(group, [keys[row] for row in missing])
            items, created = [], []
            for row, stored in zip(missing, read, strict=True):
                if stored is not None:
                    found[row] = stored
                    items.append((keys[row], stored[0]))
                    created.append(stored[1])
            if items:
                await self.memory.put_many(group, items, created=created, restart=self._refresh)
        return found

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Store entries in both tiers; see `CacheStore.put_many`. Entries that only memory stores are not counted."""
        stored = await self.backing.put_many(group, items)
        await self.memory.put_many(group, items)
        return stored

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        await self.memory.delete_many(group, keys)
        await self.backing.delete_many(group, keys)

    async def clear(self, which: CacheFilter) -> int:
        deleted = await self.backing.clear(which)
        await self.memory.clear(which)
        return deleted

    async def aclose(self) -> None:
        await self.memory.aclose()
        await self.backing.aclose()

    async def _clear_memory_if_cleared(self) -> None:
        """Clear memory if any process has cleared entries of the backing store since the last check."""
        now = self._clock()
        if now - self._generation_read_at < _GENERATION_S:
            return
        self._generation_read_at = now
        generation = await self.backing.generation()
        if generation is None:
            return
        if self._generation is not None and generation != self._generation:
            await self.memory.clear(CacheFilter())
        self._generation = generation
