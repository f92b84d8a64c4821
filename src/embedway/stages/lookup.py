"""Reading of cache entries: keys, decoding, and the same checks as for vectors that were just computed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedway.cache.codec import decode, signed_anew
from embedway.stages.validate import bad_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.cache.base import Cache, Group
    from embedway.cache.codec import CodecName, Meta
    from embedway.cache.key import KeyMaker
    from embedway.cache.seal import Seal
    from embedway.stages.keeping import Keeper
    from embedway.types import Space, Vectors

#: Making keys of so much, and reading so many entries, takes a millisecond; more goes to a thread.
_INLINE_TEXTS, _INLINE_CHARACTERS = 600, 500_000


class Read(NamedTuple):
    """What is known of keys: vectors, float32 (n, full width), and what is told of each.

    `damaged` holds the keys of entries that are not as they were written, `invalid` those of entries whose vectors
    cannot be right. All of them are missing. `entries` is what the store gave. (A tuple is made in a third of a
    dataclass's time, and each query makes one.)
    """

    vectors: Vectors
    metas: list[Meta | None]
    damaged: list[bytes]
    invalid: list[bytes]
    entries: list[bytes | None]

    @property
    def missing(self) -> list[int]:
        """Positions of what is not known."""
        return [position for position, meta in enumerate(self.metas) if meta is None]


class Lookup:
    """Finds entries in a cache, and what is on its way there.

    Entries of `codecs` are served. `seals` are those of the current secret and of the one before it, where there are
    any.
    """

    def __init__(self, keeper: Keeper, cache: Cache, codecs: Sequence[CodecName], seals: Sequence[Seal]) -> None:
        self._keeper = keeper
        self._cache = cache
        self._codecs = codecs
        self._seal = seals[0] if seals else None
        self._former = seals[1] if len(seals) > 1 else None

    async def keys(self, texts: Sequence[str], maker: KeyMaker) -> tuple[list[bytes], list[bytes]]:
        """The key of each text in the store, and its key under the previous secret, if there is one."""

        def made() -> tuple[list[bytes], list[bytes]]:
            keys = maker.keys(texts)
            if self._seal is None:
                return keys, []
            return self._seal.names(keys), self._former.names(keys) if self._former is not None else []

        if len(texts) > _INLINE_TEXTS or sum(map(len, texts)) > _INLINE_CHARACTERS:
            return await asyncio.to_thread(made)
        return made()

    async def read(self, group: Group, keys: list[bytes], space: Space, former: Sequence[bytes] = ()) -> Read:
        """What is stored, or computed and on its way there; `former` are the keys under the previous secret."""
        # Taken before the cache is asked: what is stored meanwhile is not yet in its answer, and no longer here then.
        known = self._keeper.fresh
        fresh = {position: known[key] for position, key in enumerate(keys) if key in known} if known else {}
        read = await self._decoded(group, keys, space, self._seal)
        for position, (vector, meta) in fresh.items():
            if read.metas[position] is None:
                read.vectors[position], read.metas[position] = vector, meta
        missing = read.missing if former else []
        if missing:
            await self._add_former(read, group, keys, space, {position: former[position] for position in missing})
        return read

    async def _add_former(
        self, read: Read, group: Group, keys: list[bytes], space: Space, former: Mapping[int, bytes]
    ) -> None:
        """Add what is stored under the previous secret, by position, and have it stored under the current one too."""
        assert self._seal is not None  # noqa: S101  a previous secret comes with a current one
        old = await self._decoded(group, list(former.values()), space, self._former)
        mac, copies = self._seal.mac(group), []
        for place, position in enumerate(former):
            meta, entry = old.metas[place], old.entries[place]
            if meta is not None and entry is not None:
                read.vectors[position], read.metas[position] = old.vectors[place], meta
                copies.append((keys[position], signed_anew(entry, keys[position], mac)))
        read.damaged.extend(old.damaged)
        read.invalid.extend(old.invalid)
        if copies:
            self._keeper.copy(group, copies)

    async def _decoded(self, group: Group, keys: list[bytes], space: Space, seal: Seal | None) -> Read:
        """What is stored, and can be right."""
        entries = await self._cache.get_many(group, keys)
        vectors = np.empty((len(keys), space.dimensions), np.float32)

        def read() -> Read:
            mac = seal.mac(group) if seal is not None else None
            metas = decode(keys, entries, space.dimensions, vectors, normalized=space.normalized, mac=mac)
            unknown = [row for row, meta in enumerate(metas) if meta is None or meta.codec not in self._codecs]
            damaged = [keys[row] for row in unknown if metas[row] is None and entries[row] is not None]
            for row in unknown:
                metas[row] = None
            invalid = _invalid(metas, vectors, space) if unknown else bad_rows(vectors, space)
            for row in invalid:
                metas[row] = None
            return Read(vectors, metas, damaged, [keys[row] for row in invalid], entries)

        return await asyncio.to_thread(read) if len(keys) > _INLINE_TEXTS else read()


def _invalid(metas: Sequence[Meta | None], vectors: Vectors, space: Space) -> list[int]:
    """The rows that were found and cannot be right; those of missing ones hold nothing."""
    found = [row for row, meta in enumerate(metas) if meta is not None]
    return [found[place] for place in bad_rows(vectors[found], space)] if found else []
