"""Memory in front of a slower cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.cache.base import Cache, Group, Held, Which
    from embedway.cache.memory import MemoryCache


class Tiers:
    """What is read from behind is kept in front; what is written goes behind first."""

    def __init__(self, front: MemoryCache, behind: Cache) -> None:
        self.front = front
        self.behind = behind
        self.troubles = behind.troubles
        self.leases = behind.leases

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        found = await self.front.get_many(group, keys)
        missing = [row for row, entry in enumerate(found) if entry is None]
        if missing:
            behind = await self.behind.get_many(group, [keys[row] for row in missing])
            fresh = []
            for row, entry in zip(missing, behind, strict=True):
                if entry is not None:
                    found[row] = entry
                    fresh.append((keys[row], entry))
            await self.front.put_many(group, fresh)
        return found

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`; what only memory keeps is not counted."""
        kept = await self.behind.put_many(group, items)
        await self.front.put_many(group, items)
        return kept

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        await self.front.delete_many(group, keys)
        await self.behind.delete_many(group, keys)

    async def held(self) -> list[Held]:
        """What is kept behind: all of it."""
        return await self.behind.held()

    async def clear(self, which: Which) -> int:
        """See `Cache.clear`."""
        await self.front.clear(which)
        return await self.behind.clear(which)

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        return await self.behind.sample(group, count)

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """See `Cache.add_counts`."""
        await self.behind.add_counts(counts)

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
