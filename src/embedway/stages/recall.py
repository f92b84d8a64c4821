"""Looking vectors up before they are computed, and keeping what was: hits, misses, single flight, and their counts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.cache.base import Group
from embedway.cache.codec import Meta, decode, encode
from embedway.cache.key import KeyMaker
from embedway.cache.stats import NO_MODEL, CacheStats, Cleared, read_stats
from embedway.errors import CacheError
from embedway.stages.flights import Flights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from embedway.cache.base import Cache, Which
    from embedway.cache.codec import CodecName
    from embedway.errors import EmbedwayError
    from embedway.types import EmbedRequest, Space, Vectors

#: Making keys and reading entries of so many texts takes a millisecond; more goes to a thread.
_INLINE_TEXTS = 600
#: So many computed texts may wait to be stored before callers wait for it too.
_MOST_FRESH = 20_000
#: How often the cache is told what was counted: what a process that is killed loses.
_TELL_S = 60.0
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

    keys: list[bytes]
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cache = cache
        self._lease_s = lease_s
        self._sleep = sleep
        self._told: dict[str, dict[str, int]] = {}
        self._clock = clock
        self._told_at = clock()
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
        # Taken before the cache is asked: what is stored meanwhile is not yet in its answer, and no longer here then.
        fresh = {row: self._fresh[key] for row, key in enumerate(keys) if key in self._fresh} if self._fresh else {}
        entries = await self.cache.get_many(group, keys)
        found = Recalled(np.empty((len(texts), space.dimensions), np.float32), [])
        arguments = (entries, space.dimensions, found.vectors)
        found.metas = await asyncio.to_thread(decode, *arguments) if many else decode(*arguments)
        missing = [row for row, meta in enumerate(found.metas) if meta is None]
        damaged = [keys[row] for row in missing if entries[row] is not None]
        for row in fresh.keys() & set(missing):
            found.vectors[row], found.metas[row] = fresh[row]
        missing = [row for row in missing if row not in fresh]
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
        if self._clock() - self._told_at > _TELL_S:
            self._told_at = self._clock()
            self._beside(self._tell())
        return found

    async def settle(self) -> None:
        """Wait until all that was computed is stored."""
        while self._storing:
            await asyncio.gather(*self._storing, return_exceptions=True)

    async def aclose(self) -> None:
        """Store what is not stored yet, tell the cache what was counted, and close it."""
        await self.settle()
        await self._tell()
        await self.cache.aclose()

    async def stats(self) -> CacheStats:
        """What the cache holds and what it was good for, until now.

        Raises CacheError where it cannot be read.
        """
        await self.settle()
        failed = self.cache.troubles.failed_reads
        stats = await read_stats(self.cache, self._untold())
        self._raise_if_more(failed, self.cache.troubles.failed_reads, "read")
        return stats

    async def clear(self, which: Which) -> Cleared:
        """Forget entries. Raises CacheError where the cache cannot be read or written."""
        await self.settle()
        troubles = self.cache.troubles
        failed = troubles.failed_reads + troubles.failed_writes
        before = sum(held.entries for held in await self.cache.held() if which.takes(held.group))
        gone = await self.cache.clear(which)
        self._raise_if_more(failed, troubles.failed_reads + troubles.failed_writes, "cleared")
        return Cleared(before, before - gone)

    async def peek(
        self, texts: Sequence[str], maker: KeyMaker, group: Group, space: Space
    ) -> tuple[Vectors, list[Meta | None], int]:
        """What is stored for texts, and how many entries are damaged; counts and computes nothing."""
        await self.settle()
        failed = self.cache.troubles.failed_reads
        entries = await self.cache.get_many(group, await asyncio.to_thread(maker.keys, texts))
        self._raise_if_more(failed, self.cache.troubles.failed_reads, "read")
        vectors = np.empty((len(texts), space.dimensions), np.float32)
        metas = await asyncio.to_thread(decode, entries, space.dimensions, vectors)
        damaged = sum(entry is not None and meta is None for entry, meta in zip(entries, metas, strict=True))
        return vectors, metas, damaged

    def _raise_if_more(self, before: int, now: int, done: str) -> None:
        if now > before:
            raise CacheError(f"the cache cannot be {done}: {self.cache.troubles.last or 'it failed a moment ago'}")

    def _untold(self) -> dict[str, dict[str, int]]:
        """What was counted since the cache was last told."""
        now = {model: asdict(counts) for model, counts in self.counts.items()}
        troubles = asdict(self.cache.troubles)
        del troubles["last"]
        now[NO_MODEL] = troubles
        told = {model: self._told.get(model, {}) for model in now}
        fresh = {
            model: {name: number - told[model].get(name, 0) for name, number in numbers.items()}
            for model, numbers in now.items()
        }
        return {model: some for model, numbers in fresh.items() if (some := {n: v for n, v in numbers.items() if v})}

    async def _tell(self) -> None:
        fresh = self._untold()
        for model, numbers in fresh.items():
            told = self._told.setdefault(model, {})
            for name, number in numbers.items():
                told[name] = told.get(name, 0) + number
        self._told_at = self._clock()
        await self.cache.add_counts(fresh)

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
                found.vectors[row], found.metas[row] = result
                self._share(group, found, result[1])
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
            lease = _Lease(leased, asyncio.create_task(self._renewed(group, leased)))
            try:
                # Another process may have stored some after they were looked up here, and given its lease back.
                computed = await self._looked_up_again(mine, keys, group, found)
                if computed:
                    await self._computed(computed, keys, group, found, compute, lease=lease)
            finally:
                if not lease.handed:
                    await asyncio.shield(self._given_back(group, lease))
        if theirs:
            await self._waited(theirs, keys, group, found)
        return [row for row in theirs if found.metas[row] is None]

    async def _given_back(self, group: Group, lease: _Lease) -> None:
        lease.renewing.cancel()
        await self.cache.release(group, lease.keys)

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
        task = self._beside(self._stored(fresh, group, lease))
        if len(self._fresh) > _MOST_FRESH:
            await asyncio.shield(task)

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done while callers go on, and before the cache is closed."""
        task = asyncio.create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def _stored(self, fresh: dict[bytes, tuple[Vectors, Meta]], group: Group, lease: _Lease | None) -> None:
        """Store what was computed, and give leases back."""
        vectors = np.array([vector for vector, _ in fresh.values()], np.float32)
        arguments = (vectors, [meta for _, meta in fresh.values()], self._codec)
        try:
            if len(fresh) > _INLINE_TEXTS:
                entries = await asyncio.to_thread(encode, *arguments, zstd=self._zstd)
            else:
                entries = encode(*arguments, zstd=self._zstd)
            stored = await self.cache.put_many(group, list(zip(fresh, entries, strict=True)))
            self.counts[group.model].stored += stored
        finally:
            for key, result in fresh.items():
                if self._fresh.get(key) is result:
                    del self._fresh[key]
            # What was looked for before it was stored, and is claimed after that, is looked for again.
            self._flights.landed += 1
            if lease is not None:
                await self._given_back(group, lease)

    def _share(self, group: Group, found: Recalled, meta: Meta) -> None:
        counts = self.counts[group.model]
        counts.shared += 1
        counts.tokens_saved += meta.tokens
        found.tokens_saved += meta.tokens

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
                self._share(group, found, known)
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
