"""Lookup of cache entries: keys, decoding, and the same checks as for new vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedway.cache.codec import decode, re_sign
from embedway.concurrency import compute_in_thread
from embedway.vectors import bad_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.cache.base import CacheStore, Group
    from embedway.cache.key import KeyMaker
    from embedway.cache.secret_keys import SecretKeys
    from embedway.cache.write_behind import WriteBehind
    from embedway.types import CodecName, Space, TextMeta, Vectors

#: Limits for keys and entries processed on the event loop, which takes about a millisecond. More goes to a thread.
_INLINE_TEXTS, _INLINE_CHARACTERS = 600, 500_000


class Read(NamedTuple):
    """Result of a lookup: vectors, float32 (n, full width), and the facts of each text.

    `missing` contains the positions without a vector, `damaged` the keys of entries that changed since they were
    written, and `invalid` the keys of entries with invalid vectors. Damaged and invalid ones are also missing. (A tuple
    is created in a third of the time of a dataclass, and each query creates one.)
    """

    vectors: Vectors
    metas: list[TextMeta | None]
    missing: list[int]
    damaged: list[bytes]
    invalid: list[bytes]


class Lookup:
    """Reads entries from a cache, and vectors that are not yet stored there.

    Only entries of `codecs` are used. `seals` are the keys of the current secret and of the previous one, if any.
    """

    def __init__(
        self, writes: WriteBehind, cache: CacheStore, codecs: Sequence[CodecName], seals: Sequence[SecretKeys]
    ) -> None:
        self._writes = writes
        self._cache = cache
        self._codecs = codecs
        self._seal = seals[0] if seals else None
        self._former = seals[1] if len(seals) > 1 else None

    async def keys(self, texts: Sequence[str], maker: KeyMaker) -> tuple[list[bytes], list[bytes]]:
        """Return the key of each text in the store, and its key under the previous secret, if there is one."""
        if len(texts) > _INLINE_TEXTS or sum(map(len, texts)) > _INLINE_CHARACTERS:
            return await compute_in_thread(self._keys, texts, maker)
        return self._keys(texts, maker)

    def _keys(self, texts: Sequence[str], maker: KeyMaker) -> tuple[list[bytes], list[bytes]]:
        keys = maker.keys(texts)
        if self._seal is None:
            return keys, []
        return self._seal.entry_names(keys), self._former.entry_names(keys) if self._former is not None else []

    async def read(self, group: Group, keys: list[bytes], space: Space, former: Sequence[bytes] = ()) -> Read:
        """Read stored vectors and those waiting to be stored; `former` are the keys under the previous secret."""
        # Read before the cache: a vector that is stored in between would otherwise be found in neither.
        known = self._writes.unstored
        fresh = {position: known[key] for position, key in enumerate(keys) if key in known} if known else {}
        _, read = await self._load(group, keys, space, self._seal)
        if fresh and read.missing:
            for position, (vector, meta) in fresh.items():
                if read.metas[position] is None:
                    read.vectors[position], read.metas[position] = vector, meta
            read = read._replace(missing=_missing(read.metas))
        if former and read.missing:
            return await self._with_former(read, group, keys, space, former)
        return read

    async def _load(
        self, group: Group, keys: list[bytes], space: Space, seal: SecretKeys | None
    ) -> tuple[list[bytes | None], Read]:
        entries = [stored and stored[0] for stored in await self._cache.get_many(group, keys)]
        if len(keys) > _INLINE_TEXTS:
            return entries, await compute_in_thread(self._decode, group, keys, entries, space, seal)
        return entries, self._decode(group, keys, entries, space, seal)

    async def _with_former(
        self, read: Read, group: Group, keys: list[bytes], space: Space, former: Sequence[bytes]
    ) -> Read:
        """Add the vectors stored under the previous secret, and queue them for storage under the current one."""
        assert self._seal is not None  # noqa: S101  a previous secret implies a current one
        names = [former[position] for position in read.missing]
        entries, old = await self._load(group, names, space, self._former)
        mac, copies = self._seal.mac(group), []
        for position, vector, meta, entry in zip(read.missing, old.vectors, old.metas, entries, strict=True):
            if meta is not None and entry is not None:
                read.vectors[position], read.metas[position] = vector, meta
                copies.append((keys[position], re_sign(entry, keys[position], mac)))
        if copies:
            self._writes.copy(group, copies)
        damaged, invalid = read.damaged + old.damaged, read.invalid + old.invalid
        return Read(read.vectors, read.metas, _missing(read.metas), damaged, invalid)

    def _decode(
        self,
        group: Group,
        keys: Sequence[bytes],
        entries: Sequence[bytes | None],
        space: Space,
        seal: SecretKeys | None,
    ) -> Read:
        """Decode entries and drop invalid vectors."""
        vectors = np.empty((len(keys), space.dimensions), np.float32)
        mac = seal.mac(group) if seal is not None else None
        metas = decode(keys, entries, space.dimensions, vectors, normalized=space.normalized, mac=mac)
        missing = [row for row, meta in enumerate(metas) if meta is None or meta.codec not in self._codecs]
        damaged = [keys[row] for row in missing if metas[row] is None and entries[row] is not None]
        for row in missing:
            metas[row] = None
        if len(missing) == len(keys):
            return Read(vectors, metas, missing, damaged, [])
        invalid = _invalid(metas, vectors, space) if missing else bad_rows(vectors, space)
        if invalid:
            for row in invalid:
                metas[row] = None
            missing = _missing(metas)
        return Read(vectors, metas, missing, damaged, [keys[row] for row in invalid])


def _missing(metas: Sequence[TextMeta | None]) -> list[int]:
    return [row for row, meta in enumerate(metas) if meta is None]


def _invalid(metas: Sequence[TextMeta | None], vectors: Vectors, space: Space) -> list[int]:
    """Return the rows with an invalid vector; rows of missing entries are undefined and skipped."""
    found = [row for row, meta in enumerate(metas) if meta is not None]
    return [found[place] for place in bad_rows(vectors[found], space)] if found else []
