"""Memory in front of a slower cache."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from embedway.cache.base import CacheFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.cache.base import CacheStore, Group, GroupSize
    from embedway.cache.memory import MemoryCache

#: How long what another process has cleared may still be found in front.
_LOOK_S = 1.0


class TieredCache:
    """What is read from behind is kept in front, as old as it is; what is written goes behind first."""

    def __init__(
        self, memory: MemoryCache, backing: CacheStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.memory = memory
        self.backing = backing
        self.errors = backing.errors
        self.supports_leases = backing.supports_leases
        self._clock = clock
        self._generation: int | None = None
        self._looked_at = float("-inf")

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `CacheStore.get_many`."""
        return [held and held[0] for held in await self.get_aged(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `CacheStore.get_aged`."""
        await self._empty_if_cleared()
        found = await self.memory.get_aged(group, keys)
        missing = [row for row, held in enumerate(found) if held is None]
        if missing:
            behind = await self.backing.get_aged(group, [keys[row] for row in missing])
            fresh, created = [], []
            for row, held in zip(missing, behind, strict=True):
                if held is not None:
                    found[row] = held
                    fresh.append((keys[row], held[0]))
                    created.append(held[1])
            await self.memory.put_many(group, fresh, created=created)
        return found

    async def generation(self) -> int | None:
        """See `CacheStore.generation`."""
        return await self.backing.generation()

    async def _empty_if_cleared(self) -> None:
        """Forget all that is in front where somebody, in whichever process, has cleared what is behind."""
        now = self._clock()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        generation = await self.backing.generation()
        if generation is None:
            return
        if self._generation is not None and generation != self._generation:
            await self.memory.clear(CacheFilter())
        self._generation = generation

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `CacheStore.put_many`; what only memory keeps is not counted."""
        kept = await self.backing.put_many(group, items)
        await self.memory.put_many(group, items)
        return kept

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `CacheStore.delete_many`."""
        await self.memory.delete_many(group, keys)
        await self.backing.delete_many(group, keys)

    async def group_sizes(self) -> list[GroupSize]:
        """What is kept behind: all of it."""
        return await self.backing.group_sizes()

    async def clear(self, which: CacheFilter) -> int:
        """See `CacheStore.clear`."""
        gone = await self.backing.clear(which)
        await self.memory.clear(which)
        return gone

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `CacheStore.sample`."""
        return await self.backing.sample(group, count)

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """See `CacheStore.add_counts`."""
        return await self.backing.add_counts(counts)

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `CacheStore.counts`."""
        return await self.backing.counts()

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """See `CacheStore.lease`."""
        return await self.backing.lease(group, keys, seconds)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `CacheStore.release`."""
        await self.backing.release(group, keys)

    async def aclose(self) -> None:
        """Close both."""
        await self.memory.aclose()
        await self.backing.aclose()
