"""Looking vectors up before they are computed, and keeping what was: hits, misses, single flight, and their counts."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.cache.base import Group
from embedway.cache.codec import Meta, decode, encode
from embedway.cache.key import KeyMaker
from embedway.stages.flights import Flights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.cache.base import Cache
    from embedway.cache.codec import CodecName
    from embedway.errors import EmbedwayError
    from embedway.types import EmbedRequest, Space, Vectors

#: Making keys and reading entries of so many texts takes a millisecond; more goes to a thread.
_INLINE_TEXTS = 600
#: How often it is looked whether another process has stored what it computes.
_POLL_S = 0.02


@dataclass(slots=True)
class Counts:
    """What a cache did for a model, since the process began."""

    hits: int = 0
    misses: int = 0
    #: Texts that another caller was computing already.
    shared: int = 0
    stored: int = 0
    damaged: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of all texts that were looked up; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@dataclass(slots=True)
class Made:
    """Vectors of texts, float32 (n, full width), what is told of each, and why one has none.

    A text has a meta or an error. `storable` is False for vectors that depend on their batch.
    """

    vectors: Vectors
    metas: list[Meta | None]
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    storable: bool = True


@dataclass(slots=True)
class Recalled(Made):
    """The same with where it came from."""

    hits: int = 0
    tokens_saved: int = 0


class Recall:
    """A cache with the callers that wait for it."""

    def __init__(
        self,
        cache: Cache,
        *,
        codec: CodecName = "f32",
        zstd: bool = False,
        lease_s: float = 10.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.cache = cache
        self._lease_s = lease_s
        self._sleep = sleep
        self._told: dict[str, Counts] = {}
        self.counts: dict[str, Counts] = {}
        self._codec: CodecName = codec
        self._zstd = zstd
        self._flights: Flights[tuple[Vectors, Meta]] = Flights()

    async def vectors(
        self,
        texts: Sequence[str],
        maker: KeyMaker,
        group: Group,
        space: Space,
        compute: Callable[[list[int]], Awaitable[Made]],
    ) -> Recalled:
        """The vectors of unique texts: found, or computed here, or by another caller who began before.

        `compute` is asked for the texts of some positions, and its result has their order.
        """
        counts = self.counts.setdefault(group.model, Counts())
        many = len(texts) > _INLINE_TEXTS
        keys = await asyncio.to_thread(maker.keys, texts) if many else maker.keys(texts)
        landed = self._flights.landed
        entries = await self.cache.get_many(group, keys)
        found = Recalled(np.empty((len(texts), space.dimensions), np.float32), [])
        arguments = (entries, space.dimensions, found.vectors)
        found.metas = await asyncio.to_thread(decode, *arguments) if many else decode(*arguments)
        missing = [row for row, meta in enumerate(found.metas) if meta is None]
        found.hits = len(texts) - len(missing)
        found.tokens_saved = sum(meta.tokens for meta in found.metas if meta is not None)
        counts.hits += found.hits
        counts.misses += len(missing)
        counts.tokens_saved += found.tokens_saved
        damaged = [keys[row] for row in missing if entries[row] is not None]
        if damaged:
            counts.damaged += len(damaged)
            await self.cache.delete_many(group, damaged)
        while missing:
            since, landed = landed, self._flights.landed
            missing = await self._round(missing, keys, group=group, found=found, compute=compute, since=since)
        return found

    async def aclose(self) -> None:
        """Tell the cache what was counted, and close it."""
        fresh = {}
        for model, counts in self.counts.items():
            told = asdict(self._told.get(model, Counts()))
            numbers = {name: number - told[name] for name, number in asdict(counts).items() if number != told[name]}
            if numbers:
                fresh[model] = numbers
            self._told[model] = replace(counts)
        await self.cache.add_counts(fresh)
        await self.cache.aclose()

    async def _round(
        self,
        missing: list[int],
        keys: list[bytes],
        *,
        group: Group,
        found: Recalled,
        compute: Callable[[list[int]], Awaitable[Made]],
        since: int,
    ) -> list[int]:
        """Compute what nobody else computes, wait for the rest, and give what is missing still.

        `since` is how many results had landed when the missing ones were looked up.
        """
        own, others = self._flights.claim([keys[row] for row in missing])
        rows = [missing[position] for position in own]
        try:
            # Another caller may have stored some after they were looked up here, and before they were claimed.
            if rows and self._flights.landed != since:
                rows = await self._looked_up_again(rows, keys, group, found)
            still = await self._leased(rows, keys, group, found, compute) if rows else []
        finally:
            # Nobody waits for ever: what has not landed is somebody else's to compute.
            for position in own:
                self._flights.abandon(keys[missing[position]])
        for position, going in others:
            row = missing[position]
            result = await asyncio.shield(going)
            if result is None:
                still.append(row)
            else:
                self.counts[group.model].shared += 1
                found.vectors[row], found.metas[row] = result
        return still

    async def _leased(
        self,
        rows: list[int],
        keys: list[bytes],
        group: Group,
        found: Recalled,
        compute: Callable[[list[int]], Awaitable[Made]],
    ) -> list[int]:
        """Compute rows that no other process computes, wait for the others, and give what is missing still."""
        if not self.cache.leases:
            await self._computed(rows, keys, group, found, compute)
            return []
        granted = await self.cache.lease(group, [keys[row] for row in rows], self._lease_s)
        mine = [row for row, free in zip(rows, granted, strict=True) if free]
        theirs = [row for row, free in zip(rows, granted, strict=True) if not free]
        if mine:
            leased = [keys[row] for row in mine]
            renewing = asyncio.create_task(self._renewed(group, leased))
            try:
                # Another process may have stored some after they were looked up here, and given its lease back.
                mine = await self._looked_up_again(mine, keys, group, found)
                if mine:
                    await self._computed(mine, keys, group, found, compute)
            finally:
                renewing.cancel()
                await asyncio.shield(self.cache.release(group, leased))
        if theirs:
            await self._waited(theirs, keys, group, found)
        return [row for row in theirs if found.metas[row] is None]

    async def _renewed(self, group: Group, keys: list[bytes]) -> None:
        """Hold leases for as long as the computing takes: only those of a process that ended run out."""
        while True:
            await self._sleep(self._lease_s / 3)
            await self.cache.lease(group, keys, self._lease_s)

    async def _computed(
        self,
        rows: list[int],
        keys: list[bytes],
        group: Group,
        found: Recalled,
        compute: Callable[[list[int]], Awaitable[Made]],
    ) -> None:
        """Compute rows, keep them, and land them."""
        made = await compute(rows)
        await self._keep(rows, made, keys, group)
        for position, row in enumerate(rows):
            meta = made.metas[position]
            if meta is None:
                found.errors[row] = made.errors[position]
                found.vectors[row] = np.nan
            else:
                found.vectors[row], found.metas[row] = made.vectors[position], meta
                self._flights.land(keys[row], (made.vectors[position], meta))

    async def _waited(self, rows: list[int], keys: list[bytes], group: Group, found: Recalled) -> None:
        """Wait until other processes have stored rows, or gave up a lease of theirs, or let it run out."""
        waiting = rows
        while waiting:
            await self._sleep(_POLL_S)
            waiting = await self._looked_up_again(waiting, keys, group, found)
            if not waiting:
                return
            wanted = [keys[row] for row in waiting]
            granted = await self.cache.lease(group, wanted, self._lease_s)
            if any(granted):
                # Their leader is gone, or stored nothing. The next round takes what is missing in the usual way.
                await self.cache.release(group, [key for key, free in zip(wanted, granted, strict=True) if free])
                return

    async def _looked_up_again(self, rows: list[int], keys: list[bytes], group: Group, found: Recalled) -> list[int]:
        """Which of the rows are still missing; the others land."""
        entries = await self.cache.get_many(group, [keys[row] for row in rows])
        vectors = np.empty((len(rows), found.vectors.shape[1]), np.float32)
        metas = decode(entries, vectors.shape[1], vectors)
        still = []
        for position, row in enumerate(rows):
            meta = metas[position]
            if meta is None:
                still.append(row)
            else:
                found.vectors[row], found.metas[row] = vectors[position], meta
                self.counts[group.model].shared += 1
                self._flights.land(keys[row], (vectors[position], meta))
        return still

    async def _keep(self, rows: Sequence[int], made: Made, keys: Sequence[bytes], group: Group) -> None:
        if not made.storable:
            return
        good = [position for position, meta in enumerate(made.metas) if meta is not None]
        metas = [meta for meta in made.metas if meta is not None]
        arguments = (made.vectors[good], metas, self._codec)
        if len(good) > _INLINE_TEXTS:
            entries = await asyncio.to_thread(encode, *arguments, zstd=self._zstd)
        else:
            entries = encode(*arguments, zstd=self._zstd)
        items = [(keys[rows[position]], entry) for position, entry in zip(good, entries, strict=True)]
        await self.cache.put_many(group, items)
        self.counts[group.model].stored += len(items)


def key_maker(request: EmbedRequest, space: Space, *, variant: str, max_tokens: int, namespace: str) -> KeyMaker:
    """The maker of a request's keys; `space` is that of the full width."""
    return KeyMaker(
        space,
        variant=variant,
        input_type=request.input_type,
        on_overflow=request.on_overflow,
        max_tokens=max_tokens,
        namespace=namespace,
    )


def group_of(space: Space, model: str, namespace: str) -> Group:
    """What a request's entries are counted and cleared by."""
    return Group(model, space.id, namespace)


def only(request: EmbedRequest, texts: tuple[str, ...]) -> EmbedRequest:
    """The request for some of its texts."""
    return replace(request, texts=texts, refused={})
