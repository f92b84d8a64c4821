"""Model behind the cache, with the same interface as the model. Only misses are computed, at full width."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from embedway.cache.base import Group
from embedway.cache.errors import failed_lookup
from embedway.cache.key import KeyMaker
from embedway.cache.write_behind import Lease
from embedway.compute import Computed, Computes
from embedway.errors import (
    BadVectorsError,
    BatchError,
    DeadlineError,
    EmbedwayError,
    InputError,
    NoRouteError,
    RefusedInputError,
    UpstreamError,
    with_row,
)
from embedway.telemetry.hooks import current_operation
from embedway.telemetry.operations import CacheDetails, WaitDetails
from embedway.vectors import to_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.cache.single_flight import FlightResult
    from embedway.cache.vector_cache import VectorCache
    from embedway.cache.write_behind import ReadyVector
    from embedway.compute import ComputeRequest
    from embedway.types import InputType, Overflow, Space, TextMeta, Vectors

#: Callers wait for the store when more computed texts than this are not yet stored.
_MOST_UNSTORED = 20_000
#: Polling interval while another process computes, in seconds.
_POLL_S = 0.02
#: Errors caused by the text itself: every caller of this text gets the same error.
_OWN_ERRORS = (RefusedInputError, InputError)
#: Errors of computing. After two such failures of other callers, each waiting caller computes the text itself.
#: Otherwise callers would wait for one another's failures.
_COMPUTING_ERRORS = (UpstreamError, NoRouteError, BadVectorsError, BatchError, DeadlineError)
_MOST_FAILURES = 1


class Cacheable(Computes, Protocol):
    """The part of a model that the cache uses."""

    name: str
    space: Space
    max_tokens: int
    variant: str

    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        """Return the price of `tokens` tokens in nano-dollars; None if unknown."""


class CachedModel:
    """Reads vectors from the cache, waits for those that others compute, and computes and stores the rest."""

    def __init__(self, model: Cacheable, cache: VectorCache, namespace: str) -> None:
        self._model = model
        self._cache = cache
        self.group = Group(model.name, model.space.id, namespace)
        self.counts = cache.counters.of(model.name)
        self._makers: dict[tuple[InputType, Overflow], KeyMaker] = {}

    async def compute(self, request: ComputeRequest) -> Computed:
        """Look texts up and compute the missing ones; see `Computes.compute`."""
        cache, full = self._cache, self._model.space
        maker = self._maker(request)
        failed_lookup.set(None)
        with cache.hooks.operation(CacheDetails, "lookup", self.group.model, len(request.texts)) as outcome:
            keys, former = await cache.lookup.keys(request.texts, maker)
            resolved = cache.flights.resolved
            read = await cache.lookup.read(self.group, keys, full, former)
            missing = read.missing
            outcome.cache_hits = len(keys) - len(missing)
        found = Computed({"dense": read.vectors}, read.metas, hits=len(request.texts) - len(missing), origin="cache")
        if found.hits:
            found.saved_tokens = sum(meta.tokens for meta in found.metas if meta is not None)
        self.counts.hits += found.hits
        self.counts.misses += len(missing)
        self.counts.tokens_saved += found.saved_tokens
        if read.damaged or read.invalid:
            await cache.remove(self.group, read)
        if request.outcome is not None:
            request.outcome.cache_hits = found.hits
        if missing:
            through = _ReadThrough(self, self._model, cache, keys, request, found)
            await through.complete(missing, resolved)
            note = cache.store.errors.receipt_note(len(missing))
            if note is not None:
                found.bill = replace(found.bill, notes=(*found.bill.notes, note))
        if found.saved_tokens:
            found.saved_nanousd = self._model.cost_nanousd(found.saved_tokens, full.dimensions) or 0
        if cache.is_lossy:
            found.lossy_hits = sum(meta.codec != "f32" for meta in found.metas if meta is not None)
        if cache.counters.is_due():
            cache.writes.in_background(cache.counters.save())
        if request.space.dimensions != full.dimensions:
            found.blocks = {"dense": to_size(read.vectors, request.space)}
        return found

    async def peek(self, request: ComputeRequest, *, strict: bool = True) -> tuple[Vectors, list[TextMeta | None], int]:
        """Return the stored vectors and facts of texts, and the number of damaged or invalid entries.

        Counts and computes nothing. Raises CacheError if the cache cannot be read. Without `strict`, all texts are then
        missing, as for a request.
        """
        cache = self._cache
        failed = cache.store.errors.failed_reads
        keys, former = await cache.lookup.keys(request.texts, self._maker(request))
        with cache.store.errors.unlogged() if strict else contextlib.nullcontext():
            read = await cache.lookup.read(self.group, keys, self._model.space, former)
        if strict:
            cache.raise_if_more(failed, cache.store.errors.failed_reads, "read")
        return read.vectors, read.metas, len(read.damaged) + len(read.invalid)

    async def forget(self, request: ComputeRequest) -> int:
        """Delete the entries of texts and return their number. Raises CacheError if the cache fails."""
        cache, errors = self._cache, self._cache.store.errors
        failed = errors.failed_reads + errors.failed_writes
        keys, former = await cache.lookup.keys(request.texts, self._maker(request))
        with errors.unlogged():
            found = await cache.store.get_many(self.group, [*keys, *former])
            await cache.store.delete_many(self.group, [*keys, *former])
        cache.raise_if_more(failed, errors.failed_reads + errors.failed_writes, "changed")
        return sum(entry is not None for entry in found)

    def _maker(self, request: ComputeRequest) -> KeyMaker:
        # Each single query needs a key maker, and creating one takes a tenth of the time of a hit.
        kind = request.input_type, request.on_overflow
        maker = self._makers.get(kind)
        if maker is None:
            maker = self._makers[kind] = KeyMaker(
                self._model.space,
                variant=self._model.variant,
                input_type=request.input_type,
                on_overflow=request.on_overflow,
                max_tokens=self._model.max_tokens,
                namespace=self.group.namespace,
            )
        return maker


@dataclass(slots=True)
class _ReadThrough:
    """Request with misses: its texts are computed here, by another caller, or by another process."""

    cached: CachedModel
    model: Cacheable
    cache: VectorCache
    keys: list[bytes]
    request: ComputeRequest
    found: Computed
    #: Keys that this request computes, with the futures that other callers wait for.
    own: dict[bytes, asyncio.Future[FlightResult[ReadyVector]]] = field(default_factory=dict)
    #: Failures of other callers to compute a text, by row.
    failures: dict[int, int] = field(default_factory=dict)

    async def complete(self, missing: list[int], resolved: int) -> None:
        """Compute rows or wait for them until none is missing. `resolved` is the flights' counter before the lookup."""
        while missing:
            since, resolved = resolved, self.cache.flights.resolved
            missing = await self._round(missing, since)

    async def _round(self, missing: list[int], since: int) -> list[int]:
        """Compute unclaimed rows, wait for the others, and return the rows that are still missing.

        `since` is the flights' `resolved` counter at the time of the lookup.
        """
        flights = self.cache.flights
        alone = [row for row in missing if self.failures.get(row, 0) > _MOST_FAILURES]
        shared = [row for row in missing if self.failures.get(row, 0) <= _MOST_FAILURES]
        own, others = flights.claim([self.keys[row] for row in shared])
        rows = [shared[position] for position, _ in own]
        self.own = {self.keys[shared[position]]: flight for position, flight in own}
        failed = False
        try:
            # Another caller may have stored some rows between this lookup and this claim.
            rows += alone
            if rows and flights.resolved != since:
                rows = await self._look_up_again(rows)
            still = await self._compute_leased(rows) if rows else []
        except _COMPUTING_ERRORS as error:
            # The error of one text does not speak against the others, so callers that wait for them share them again.
            failed = error.row is None
            raise
        finally:
            # No caller may wait forever: a key without a result is released for another caller to compute.
            for key, flight in self.own.items():
                if not flight.done():
                    flights.abandon(key, flight, failed=failed)
        if not others:
            return still
        if not all(going.done() for _, going in others):
            with self.cache.hooks.operation(WaitDetails, "shared"):
                # It cancels nothing that it waits for.
                await asyncio.wait({going for _, going in others})
        for position, going in others:
            row, ended = shared[position], going.result()
            if ended.result is not None:
                self._share(row, ended.result)
            elif ended.error is not None:
                self._give_up(row, ended.error)
            else:
                self.failures[row] = self.failures.get(row, 0) + ended.failed
                still.append(row)
        return still

    async def _compute_leased(self, rows: list[int]) -> list[int]:
        """Compute rows that no other process computes, wait for the others, and return those that are still missing."""
        store = self.cache.store
        if not store.supports_leases:
            await self._compute(rows)
            return []
        granted = await self._lease(rows)
        mine = [row for row in rows if self.keys[row] in granted]
        theirs = [row for row in rows if self.keys[row] not in granted]
        if mine:
            lease = Lease(store, self.cached.group, granted, seconds=self.cache.lease_s, sleep=self.cache.sleep)
            try:
                # Another process may have stored some rows after this lookup and released its lease.
                still = await self._look_up_again(mine)
                if still:
                    await self._compute(still, lease)
            finally:
                await asyncio.shield(lease.give_back())
        if theirs:
            await self._wait_for_processes(theirs)
        return [row for row in theirs if self.found.metas[row] is None]

    async def _lease(self, rows: Sequence[int]) -> set[bytes]:
        """Lease the rows that no other process computes, and return their keys.

        If the caller is cancelled before the store answers, granted leases are released.
        """
        cache, keys = self.cache, [self.keys[row] for row in rows]
        granting = asyncio.create_task(cache.store.lease(self.cached.group, keys, cache.lease_s))

        async def give_back() -> None:
            free = await granting
            await cache.store.release(self.cached.group, [key for key, mine in zip(keys, free, strict=True) if mine])

        try:
            free = await asyncio.shield(granting)
        except asyncio.CancelledError:
            await asyncio.shield(cache.writes.in_background(give_back()))
            raise
        return {key for key, mine in zip(keys, free, strict=True) if mine}

    async def _compute(self, rows: list[int], lease: Lease | None = None) -> None:
        """Compute rows. Each ready result is passed on at once and stored in the background."""
        cache, found, vectors_found = self.cache, self.found, self.found.blocks["dense"]
        # Vectors arrive in other operations, such as an attempt for several callers.
        keys, operation = [self.keys[row] for row in rows], current_operation.get()

        def take_ready(
            positions: Sequence[int], vectors: Vectors, metas: Sequence[TextMeta], *, storable: bool = True
        ) -> None:
            vectors_found[[rows[position] for position in positions]] = vectors
            results = {}
            for position, vector, meta in zip(positions, vectors, metas, strict=True):
                results[keys[position]] = vector, meta
                found.metas[rows[position]] = meta
            if storable:
                cache.writes.put(self.cached.group, results, lease, operation)
                if self.request.on_ready is not None:
                    self.request.on_ready([rows[position] for position in positions], vectors, metas)
            for key, result in results.items():
                cache.flights.resolve(key, result)

        try:
            request = self.request if rows == list(range(len(self.keys))) else self.request.only(rows)
            # Vectors are stored at full width, whatever size the caller requested.
            computed = await self.model.compute(replace(request, space=self.model.space, on_ready=take_ready))
        except EmbedwayError as error:
            # The row is None if the error is not about one of these texts.
            place = error.row if error.row is not None or len(rows) > 1 else 0
            if place is not None and isinstance(error, _OWN_ERRORS):
                cache.flights.fail(keys[place], error)
            if error.row is None:
                raise
            raise with_row(error, rows[error.row]) from error.__cause__
        self._finish(rows, computed, take_ready)
        if len(cache.writes.unstored) > _MOST_UNSTORED:
            await cache.settle()

    def _finish(self, rows: list[int], computed: Computed, take_ready: Callable[..., None]) -> None:
        """Collect the results that were not reported as ready, the errors and the bill."""
        found = self.found
        left = [position for position, row in enumerate(rows) if found.metas[row] is None]
        ready = [
            (position, meta)
            for position in left
            if position not in computed.errors and (meta := computed.metas[position]) is not None
        ]
        if ready:
            chosen = [position for position, _ in ready]
            take_ready(
                chosen, computed.blocks["dense"][chosen], [meta for _, meta in ready], storable=computed.storable
            )
        for position, error in computed.errors.items():
            self._give_up(rows[position], error)
            self._end(self.keys[rows[position]], error)
        found.bill += computed.bill
        found.tokenize_s += computed.tokenize_s
        found.compute_s += computed.compute_s

    def _end(self, key: bytes, error: EmbedwayError) -> None:
        """Report the error of a text to the callers that wait for it."""
        flight = self.own.get(key)
        if isinstance(error, _OWN_ERRORS):
            self.cache.flights.fail(key, error)
        elif flight is not None:
            self.cache.flights.abandon(key, flight, failed=isinstance(error, _COMPUTING_ERRORS))

    def _share(self, row: int, result: ReadyVector) -> None:
        """Use a result of another caller or process."""
        self.found.blocks["dense"][row], self.found.metas[row] = result
        self.cached.counts.shared += 1
        self.found.shared += 1
        if self.request.outcome is not None:
            self.request.outcome.shared = self.found.shared
        self.cached.counts.tokens_saved += result[1].tokens
        self.found.saved_tokens += result[1].tokens

    def _give_up(self, row: int, error: EmbedwayError) -> None:
        self.found.errors[row] = with_row(error, row)
        self.found.blocks["dense"][row] = float("nan")

    async def _wait_for_processes(self, rows: list[int]) -> None:
        """Wait until other processes have stored rows, released a lease, or let it expire."""
        with self.cache.hooks.operation(WaitDetails, "lease"):
            while rows:
                await self.cache.sleep(_POLL_S)
                rows = await self._look_up_again(rows)
                if not rows:
                    return
                granted = await self._lease(rows)
                if granted:
                    # The holder is gone or stored nothing. The next round computes the missing rows as usual.
                    await self.cache.store.release(self.cached.group, list(granted))
                    return

    async def _look_up_again(self, rows: list[int]) -> list[int]:
        """Read the rows that are stored by now, and return those that are still missing."""
        cache = self.cache
        read = await cache.lookup.read(self.cached.group, [self.keys[row] for row in rows], self.model.space)
        if read.damaged or read.invalid:
            await cache.remove(self.cached.group, read)
        for position, row in enumerate(rows):
            meta = read.metas[position]
            if meta is not None:
                self._share(row, (read.vectors[position], meta))
                cache.flights.resolve(self.keys[row], (read.vectors[position], meta))
        return [rows[position] for position in read.missing]
