"""Looking vectors up before they are computed, and keeping what was: hits, misses, single flight, and their counts."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedway.cache.base import Group
from embedway.cache.codec import CODECS
from embedway.cache.key import KeyMaker
from embedway.cache.lookup import Lookup, Read
from embedway.cache.single_flight import Ended, SingleFlight
from embedway.cache.stats import STORE_COUNTS, CacheStats, ClearResult, read_stats
from embedway.cache.write_behind import Computed, Lease, WriteBehind
from embedway.errors import (
    BadVectorsError,
    BatchError,
    CacheError,
    DeadlineError,
    InputError,
    NoRouteError,
    RefusedInputError,
    UpstreamError,
)
from embedway.types import TextMeta, Vectors

if TYPE_CHECKING:
    from embedway.cache.base import CacheFilter, CacheStore
    from embedway.cache.secret_keys import SecretKeys
    from embedway.errors import EmbedwayError
    from embedway.types import CodecName, EmbedRequest, InputType, Overflow, Space

_log = logging.getLogger("embedway.cache")

#: So many computed texts may wait to be stored before callers wait for it too.
_MOST_FRESH = 20_000
#: How often the cache is told what was counted: what a process that is killed loses.
_TELL_S = 60.0
#: How often it is looked whether another process has stored what it computes.
_POLL_S = 0.02
#: Errors that are a text's own: whoever asks for it would hear the same.
_OWN_ERRORS = (RefusedInputError, InputError)
#: Errors of computing. What failed so for a caller, and for the next, is computed by all the others at once: they would
#: wait for one another's failures.
_COMPUTING_ERRORS = (UpstreamError, NoRouteError, BadVectorsError, BatchError, DeadlineError)
_MOST_FAILURES = 1


@dataclass(slots=True)
class Counts:
    """What a cache did for a model, since the process began."""

    hits: int = 0
    misses: int = 0
    #: Texts that another caller was computing already.
    shared: int = 0
    stored: int = 0
    damaged: int = 0
    #: Entries with a right checksum and a vector that cannot be right.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0


@dataclass(slots=True)
class Made:
    """Vectors of texts, float32 (n, full width), what is told of each, and why one has none.

    A text has a meta or an error. `storable` is False for vectors that depend on their batch.
    """

    vectors: Vectors
    metas: list[TextMeta | None]
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    storable: bool = True


#: Takes the vectors (k, full width) of some of the texts, by position, and what is told of them.
Landed: TypeAlias = Callable[[Sequence[int], Vectors, Sequence[TextMeta]], None]
#: Computes the texts of some positions. `Landed` may be given those that are ready, checked and storable, whatever is
#: to come of the others; what it was not given is taken from the result, which has the order of the positions.
Compute: TypeAlias = Callable[[list[int], Landed], Awaitable[Made]]


@dataclass(slots=True)
class Recalled(Made):
    """The same with where it came from."""

    hits: int = 0
    #: Vectors that a lossy codec kept.
    lossy_hits: int = 0
    tokens_saved: int = 0


@dataclass(slots=True)
class _Asked:
    """One call of `VectorCache.vectors`, under way."""

    keys: list[bytes]
    group: Group
    space: Space
    compute: Compute
    found: Recalled
    #: What others wait for.
    flights: dict[bytes, asyncio.Future[Ended[Computed]]] = field(default_factory=dict)
    #: How often computing failed for another caller, by row.
    failures: dict[int, int] = field(default_factory=dict)

    def keys_of(self, rows: Sequence[int]) -> list[bytes]:
        """The keys of rows."""
        return [self.keys[row] for row in rows]

    def take(self, row: int, result: Computed) -> None:
        """A row is there."""
        self.found.vectors[row], self.found.metas[row] = result

    def give_up(self, row: int, error: EmbedwayError) -> None:
        """A row has an error."""
        self.found.errors[row] = error
        self.found.vectors[row] = np.nan


class VectorCache:
    """A cache with the callers that wait for it."""

    def __init__(
        self,
        cache: CacheStore,
        *,
        codec: CodecName = "f32",
        zstd: bool = False,
        lease_s: float = 10.0,
        seals: Sequence[SecretKeys] = (),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seals` are those of the current secret and of the one before it, where there are any."""
        self.cache = cache
        self._lease_s = lease_s
        self._sleep = sleep
        self._told: dict[str, dict[str, int]] = {}
        self._telling = asyncio.Lock()
        self._clock = clock
        self._told_at = clock()
        self.counts: dict[str, Counts] = {}
        self._flights: SingleFlight[Computed] = SingleFlight()
        seal = seals[0] if seals else None
        self._keeper = WriteBehind(cache, codec=codec, zstd=zstd, seal=seal, on_stored=self._on_stored)
        self._is_lossy = codec != CODECS[0]
        # Entries are served that lose no more than what is written.
        self._lookup = Lookup(self._keeper, cache, CODECS[: CODECS.index(codec) + 1], seals)

    async def vectors(
        self, texts: Sequence[str], maker: KeyMaker, group: Group, space: Space, compute: Compute
    ) -> Recalled:
        """The vectors of unique texts: found, or computed here, or by another caller who began before."""
        counts = self.counts.setdefault(group.model, Counts())
        keys, former = await self._lookup.keys(texts, maker)
        landed = self._flights.landed
        read = await self._lookup.read(group, keys, space, former)
        found = Recalled(read.vectors, read.metas)
        asked = _Asked(keys, group, space, compute, found)
        missing = read.missing
        found.hits = len(texts) - len(missing)
        found.tokens_saved = sum(meta.tokens for meta in found.metas if meta is not None)
        counts.hits += found.hits
        counts.misses += len(missing)
        counts.tokens_saved += found.tokens_saved
        if read.damaged or read.invalid:
            await self._removed(group, read)
        while missing:
            since, landed = landed, self._flights.landed
            missing = await self._round(asked, missing, since)
        if self._is_lossy:
            found.lossy_hits = sum(meta.codec != "f32" for meta in found.metas if meta is not None)
        if self._clock() - self._told_at > _TELL_S:
            self._told_at = self._clock()
            self._keeper.beside(self._tell())
        return found

    async def settle(self) -> None:
        """Wait until all that was computed before is stored."""
        await self._keeper.settle()

    async def aclose(self) -> None:
        """Store what is not stored yet, tell the cache what was counted, and close it."""
        await self._keeper.finish()
        await self._tell()
        await self.cache.aclose()

    async def stats(self) -> CacheStats:
        """What the cache holds and what it was good for, until now.

        Raises CacheError where it cannot be read.
        """
        await self.settle()
        failed = self.cache.errors.failed_reads
        async with self._telling:
            stats = await read_stats(self.cache, self._untold())
        self._raise_if_more(failed, self.cache.errors.failed_reads, "read")
        return stats

    async def clear(self, which: CacheFilter) -> ClearResult:
        """Forget entries. Raises CacheError where the cache cannot be read or written."""
        await self.settle()
        troubles = self.cache.errors
        failed = troubles.failed_reads + troubles.failed_writes
        before = sum(held.entries for held in await self.cache.group_sizes() if which.matches(held.group))
        gone = await self.cache.clear(which)
        self._raise_if_more(failed, troubles.failed_reads + troubles.failed_writes, "cleared")
        return ClearResult(before, max(0, before - gone))

    async def peek(
        self, texts: Sequence[str], maker: KeyMaker, group: Group, space: Space, *, strict: bool = True
    ) -> tuple[Vectors, list[TextMeta | None], int]:
        """What is known of texts, and how many entries are damaged or invalid; counts and computes nothing.

        Raises CacheError where the cache cannot be read; without `strict`, nothing is known then, as for a request.
        """
        failed = self.cache.errors.failed_reads
        keys, former = await self._lookup.keys(texts, maker)
        read = await self._lookup.read(group, keys, space, former)
        if strict:
            self._raise_if_more(failed, self.cache.errors.failed_reads, "read")
        return read.vectors, read.metas, len(read.damaged) + len(read.invalid)

    def _raise_if_more(self, before: int, now: int, done: str) -> None:
        if now > before:
            raise CacheError(f"the cache cannot be {done}: {self.cache.errors.last or 'it failed a moment ago'}")

    def _untold(self) -> dict[str, dict[str, int]]:
        """What was counted since the cache was last told."""
        now = {model: asdict(counts) for model, counts in self.counts.items()}
        troubles = asdict(self.cache.errors)
        del troubles["last"]
        now[STORE_COUNTS] = troubles
        told = {model: self._told.get(model, {}) for model in now}
        fresh = {
            model: {name: number - told[model].get(name, 0) for name, number in numbers.items()}
            for model, numbers in now.items()
        }
        return {model: some for model, numbers in fresh.items() if (some := {n: v for n, v in numbers.items() if v})}

    async def _tell(self) -> None:
        async with self._telling:
            fresh = self._untold()
            self._told_at = self._clock()
            if not await self.cache.add_counts(fresh):
                return  # it is told the next time
            for model, numbers in fresh.items():
                told = self._told.setdefault(model, {})
                for name, number in numbers.items():
                    told[name] = told.get(name, 0) + number

    def _on_stored(self, group: Group, entries: int) -> None:
        self.counts[group.model].stored += entries
        # What was looked for before it was stored, and is claimed after that, is looked for again.
        self._flights.landed += 1

    async def _removed(self, group: Group, read: Read) -> None:
        """Delete what is damaged or invalid, and count it."""
        counts = self.counts[group.model]
        counts.damaged += len(read.damaged)
        counts.invalid += len(read.invalid)
        if read.invalid:
            _log.warning(
                "the cache held %d vectors of %s that cannot be right (not finite, zeros, or not of length 1); "
                "they are computed anew",
                len(read.invalid),
                group.model,
            )
        await self.cache.delete_many(group, [*read.damaged, *read.invalid])

    async def _round(self, asked: _Asked, missing: list[int], since: int) -> list[int]:
        """Compute what nobody else computes, wait for the rest, and give what is missing still.

        `since` is how many results had landed when the missing ones were looked up.
        """
        alone = [row for row in missing if asked.failures.get(row, 0) > _MOST_FAILURES]
        shared = [row for row in missing if asked.failures.get(row, 0) <= _MOST_FAILURES]
        own, others = self._flights.claim(asked.keys_of(shared))
        rows = [shared[position] for position, _ in own]
        asked.flights = {asked.keys[shared[position]]: flight for position, flight in own}
        failed = False
        try:
            # Another caller may have stored some after they were looked up here, and before they were claimed.
            rows += alone
            if rows and self._flights.landed != since:
                rows = await self._looked_up_again(asked, rows)
            still = await self._leased(asked, rows) if rows else []
        except _COMPUTING_ERRORS:
            failed = True
            raise
        finally:
            # Nobody waits for ever: what has not landed is somebody else's to compute.
            for key, flight in asked.flights.items():
                self._flights.abandon(key, flight, failed=failed)
        for position, going in others:
            row = shared[position]
            ended = await asyncio.shield(going)
            if ended.result is not None:
                asked.take(row, ended.result)
                self._share(asked, ended.result[1])
            elif ended.error is not None:
                asked.give_up(row, ended.error)
            else:
                asked.failures[row] = asked.failures.get(row, 0) + ended.failed
                still.append(row)
        return still

    async def _leased(self, asked: _Asked, rows: list[int]) -> list[int]:
        """Compute rows that no other process computes, wait for the others, and give what is missing still."""
        if not self.cache.supports_leases:
            await self._computed(asked, rows)
            return []
        granted = await self._granted(asked.group, asked.keys_of(rows))
        mine = [row for row in rows if asked.keys[row] in granted]
        theirs = [row for row in rows if asked.keys[row] not in granted]
        if mine:
            lease = Lease(self.cache, asked.group, granted, seconds=self._lease_s, sleep=self._sleep)
            try:
                # Another process may have stored some after they were looked up here, and given its lease back.
                computed = await self._looked_up_again(asked, mine)
                if computed:
                    await self._computed(asked, computed, lease)
            finally:
                await asyncio.shield(lease.give_back())
        if theirs:
            await self._waited(asked, theirs)
        return [row for row in theirs if asked.found.metas[row] is None]

    async def _granted(self, group: Group, keys: list[bytes]) -> set[bytes]:
        """The keys that no other process computes; they are leased now.

        When the caller is cancelled before the answer is here, what it grants is given back.
        """
        granting = asyncio.create_task(self.cache.lease(group, keys, self._lease_s))

        async def returned() -> None:
            free = await granting
            await self.cache.release(group, [key for key, mine in zip(keys, free, strict=True) if mine])

        try:
            free = await asyncio.shield(granting)
        except asyncio.CancelledError:
            await asyncio.shield(self._keeper.beside(returned()))
            raise
        return {key for key, mine in zip(keys, free, strict=True) if mine}

    async def _computed(self, asked: _Asked, rows: list[int], lease: Lease | None = None) -> None:
        """Compute rows. What is ready lands at once, and is stored while the caller goes on."""
        keys, found = asked.keys_of(rows), asked.found

        def land(
            positions: Sequence[int], vectors: Vectors, metas: Sequence[TextMeta], *, storable: bool = True
        ) -> None:
            found.vectors[[rows[position] for position in positions]] = vectors
            results = {}
            for position, vector, meta in zip(positions, vectors, metas, strict=True):
                results[keys[position]] = vector, meta
                found.metas[rows[position]] = meta
            if storable:
                self._keeper.keep(asked.group, results, lease)
            for key, result in results.items():
                self._flights.land(key, result)

        try:
            made = await asked.compute(rows, land)
        except _OWN_ERRORS as refusal:
            if len(rows) == 1:
                self._flights.fail(keys[0], refusal)
            raise
        left = [position for position, row in enumerate(rows) if found.metas[row] is None]
        ready = [(position, meta) for position in left if (meta := made.metas[position]) is not None]
        chosen = [position for position, _ in ready]
        land(chosen, made.vectors[chosen], [meta for _, meta in ready], storable=made.storable)
        for position, error in made.errors.items():
            asked.give_up(rows[position], error)
            self._end(asked, keys[position], error)
        if len(self._keeper.fresh) > _MOST_FRESH:
            await self.settle()

    def _end(self, asked: _Asked, key: bytes, error: EmbedwayError) -> None:
        """Tell those who wait for a text what became of it."""
        flight = asked.flights.get(key)
        if isinstance(error, _OWN_ERRORS):
            self._flights.fail(key, error)
        elif flight is not None:
            self._flights.abandon(key, flight, failed=isinstance(error, _COMPUTING_ERRORS))

    def _share(self, asked: _Asked, meta: TextMeta) -> None:
        counts = self.counts[asked.group.model]
        counts.shared += 1
        counts.tokens_saved += meta.tokens
        asked.found.tokens_saved += meta.tokens

    async def _waited(self, asked: _Asked, rows: list[int]) -> None:
        """Wait until other processes have stored rows, or gave up a lease of theirs, or let it run out."""
        waiting = rows
        while waiting:
            await self._sleep(_POLL_S)
            waiting = await self._looked_up_again(asked, waiting)
            if not waiting:
                return
            granted = await self._granted(asked.group, asked.keys_of(waiting))
            if granted:
                # Their leader is gone, or stored nothing. The next round takes what is missing in the usual way.
                await self.cache.release(asked.group, list(granted))
                return

    async def _looked_up_again(self, asked: _Asked, rows: list[int]) -> list[int]:
        """Which of the rows are still missing; the others land."""
        read = await self._lookup.read(asked.group, asked.keys_of(rows), asked.space)
        if read.damaged or read.invalid:
            await self._removed(asked.group, read)
        for position, row in enumerate(rows):
            meta = read.metas[position]
            if meta is not None:
                asked.take(row, (read.vectors[position], meta))
                self._share(asked, meta)
                self._flights.land(asked.keys[row], (read.vectors[position], meta))
        return [rows[position] for position in read.missing]


def key_maker(request: EmbedRequest, space: Space, *, variant: str, max_tokens: int, namespace: str) -> KeyMaker:
    """The maker of a request's keys; `space` is that of the full width."""
    return _key_maker(space, variant, (request.input_type, request.on_overflow), max_tokens, namespace)


@functools.lru_cache(maxsize=256)
def _key_maker(
    space: Space, variant: str, asked: tuple[InputType, Overflow], max_tokens: int, namespace: str
) -> KeyMaker:
    # Every lone query needs one, and making it takes a tenth of the time of a hit.
    input_type, on_overflow = asked
    return KeyMaker(
        space,
        variant=variant,
        input_type=input_type,
        on_overflow=on_overflow,
        max_tokens=max_tokens,
        namespace=namespace,
    )


def group_of(space: Space, model: str, namespace: str) -> Group:
    """What a request's entries are counted and cleared by."""
    return Group(model, space.id, namespace)


def only(request: EmbedRequest, texts: tuple[str, ...]) -> EmbedRequest:
    """The request for some of its texts."""
    return replace(request, texts=texts, refused={})
