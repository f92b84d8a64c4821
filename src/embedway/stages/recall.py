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
#: So many computed texts may wait to be stored before callers wait for it too.
_MOST_FRESH = 20_000
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


@dataclass(slots=True)
class _Lease:
    """Keys that no other process computes, as long as they are renewed."""

    renewing: asyncio.Task[None]
    #: Whether storing gives it back.
    handed: bool = False


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
        #: What was computed and is not yet stored.
        self._fresh: dict[bytes, tuple[Vectors, Meta]] = {}
        self._storing: set[asyncio.Task[None]] = set()

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
        damaged = [keys[row] for row in missing if entries[row] is not None]
        missing = [row for row in missing if not self._is_fresh(row, keys, found)]
        found.hits = len(texts) - len(missing)
        found.tokens_saved = sum(meta.tokens for meta in found.metas if meta is not None)
        counts.hits += found.hits
        counts.misses += len(missing)
        counts.tokens_saved += found.tokens_saved
        if damaged:
            counts.damaged += len(damaged)
            await self.cache.delete_many(group, damaged)
        while missing:
            since, landed = landed, self._flights.landed
            missing = await self._round(missing, keys, group=group, found=found, compute=compute, since=since)
        return found

    async def settle(self) -> None:
        """Wait until all that was computed is stored."""
        while self._storing:
            await asyncio.gather(*self._storing, return_exceptions=True)

    async def aclose(self) -> None:
        """Store what is not stored yet, tell the cache what was counted, and close it."""
        await self.settle()
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
            lease = _Lease(asyncio.create_task(self._renewed(group, [keys[row] for row in mine])))
            try:
                # Another process may have stored some after they were looked up here, and given its lease back.
                computed = await self._looked_up_again(mine, keys, group, found)
                if computed:
                    await self._computed(computed, keys, group, found, compute, lease=lease)
            finally:
                if not lease.handed:
                    await asyncio.shield(self._given_back(group, [keys[row] for row in mine], lease))
        if theirs:
            await self._waited(theirs, keys, group, found)
        return [row for row in theirs if found.metas[row] is None]

    async def _given_back(self, group: Group, keys: list[bytes], lease: _Lease) -> None:
        lease.renewing.cancel()
        await self.cache.release(group, keys)

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
        *,
        lease: _Lease | None = None,
    ) -> None:
        """Compute rows and land them. They are stored while the caller goes on."""
        made = await compute(rows)
        fresh: dict[bytes, tuple[Vectors, Meta]] = {}
        for position, row in enumerate(rows):
            meta = made.metas[position]
            if meta is None:
                found.errors[row] = made.errors[position]
                found.vectors[row] = np.nan
            else:
                found.vectors[row], found.metas[row] = made.vectors[position], meta
                fresh[keys[row]] = made.vectors[position], meta
        if made.storable:
            self._fresh.update(fresh)
        for key, result in fresh.items():
            self._flights.land(key, result)
        if not made.storable or not fresh:
            return
        if lease is not None:
            lease.handed = True
        task = asyncio.create_task(self._stored(fresh, group, lease))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        if len(self._fresh) > _MOST_FRESH:
            await asyncio.shield(task)

    async def _stored(self, fresh: dict[bytes, tuple[Vectors, Meta]], group: Group, lease: _Lease | None) -> None:
        """Store what was computed, and give leases back."""
        vectors = np.array([vector for vector, _ in fresh.values()], np.float32)
        arguments = (vectors, [meta for _, meta in fresh.values()], self._codec)
        try:
            if len(fresh) > _INLINE_TEXTS:
                entries = await asyncio.to_thread(encode, *arguments, zstd=self._zstd)
            else:
                entries = encode(*arguments, zstd=self._zstd)
            await self.cache.put_many(group, list(zip(fresh, entries, strict=True)))
            self.counts[group.model].stored += len(fresh)
        finally:
            for key, result in fresh.items():
                if self._fresh.get(key) is result:
                    del self._fresh[key]
            # What was looked for before it was stored, and is claimed after that, is looked for again.
            self._flights.landed += 1
            if lease is not None:
                await self._given_back(group, list(fresh), lease)

    def _is_fresh(self, row: int, keys: list[bytes], found: Recalled) -> bool:
        """Whether a row was computed and is not yet stored; then it is found."""
        fresh = self._fresh.get(keys[row])
        if fresh is None:
            return False
        found.vectors[row], found.metas[row] = fresh
        return True

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
            if meta is None and not self._is_fresh(row, keys, found):
                still.append(row)
                continue
            if meta is not None:
                found.vectors[row], found.metas[row] = vectors[position], meta
            if (known := found.metas[row]) is not None:
                self.counts[group.model].shared += 1
                self._flights.land(keys[row], (found.vectors[row], known))
        return still


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
