"""Memory in front of a slower cache."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from embedway.cache.base import CacheFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.cache.base import Cache, Group, GroupSize
    from embedway.cache.memory import MemoryCache

#: How long what another process has cleared may still be found in front.
_LOOK_S = 1.0


class Tiers:
    """What is read from behind is kept in front, as old as it is; what is written goes behind first."""

    def __init__(self, front: MemoryCache, behind: Cache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.front = front
        self.behind = behind
        self.troubles = behind.troubles
        self.leases = behind.leases
        self._clock = clock
        self._generation: int | None = None
        self._looked_at = float("-inf")

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [held and held[0] for held in await self.get_aged(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `Cache.get_aged`."""
        await self._empty_if_cleared()
        found = await self.front.get_aged(group, keys)
        missing = [row for row, held in enumerate(found) if held is None]
        if missing:
            behind = await self.behind.get_aged(group, [keys[row] for row in missing])
            fresh, created = [], []
            for row, held in zip(missing, behind, strict=True):
                if held is not None:
                    found[row] = held
                    fresh.append((keys[row], held[0]))
                    created.append(held[1])
            await self.front.put_many(group, fresh, created=created)
        return found

    async def generation(self) -> int | None:
        """See `Cache.generation`."""
        return await self.behind.generation()

    async def _empty_if_cleared(self) -> None:
        """Forget all that is in front where somebody, in whichever process, has cleared what is behind."""
        now = self._clock()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        generation = await self.behind.generation()
        if generation is None:
            return
        if self._generation is not None and generation != self._generation:
            await self.front.clear(CacheFilter())
        self._generation = generation

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`; what only memory keeps is not counted."""
        kept = await self.behind.put_many(group, items)
        await self.front.put_many(group, items)
        return kept

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        await self.front.delete_many(group, keys)
        await self.behind.delete_many(group, keys)

    async def held(self) -> list[GroupSize]:
        """What is kept behind: all of it."""
        return await self.behind.held()

    async def clear(self, which: CacheFilter) -> int:
        """See `Cache.clear`."""
        gone = await self.behind.clear(which)
        await self.front.clear(which)
        return gone

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        return await self.behind.sample(group, count)

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """See `Cache.add_counts`."""
        return await self.behind.add_counts(counts)

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `Cache.counts`."""
        return await self.behind.counts()

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """See `Cache.lease`."""
        return await self.behind.lease(group, keys, seconds)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.release`."""
        await self.behind.release(group, keys)

    async def aclose(self) -> None:
        """Close both."""
        await self.front.aclose()
        await self.behind.aclose()
