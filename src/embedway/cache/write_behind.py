"""Write-behind: computed vectors are stored in the background while their callers continue."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from embedway.cache.codec import encode
from embedway.concurrency import compute_in_thread
from embedway.errors import EmbedwayError
from embedway.store_failures import StoreFailure
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import CacheDetails
from embedway.third_party import place_of
from embedway.types import TextMeta, Vectors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    from embedway.cache.base import CacheStore, Group
    from embedway.cache.secret_keys import SecretKeys
    from embedway.types import CodecName

#: Vector, float32 (full width,), and the facts of its text.
ReadyVector: TypeAlias = tuple[Vectors, TextMeta]

#: Maximum entries encoded on the event loop, which takes a few milliseconds. Larger chunks go to a thread.
_INLINE_ENTRIES = 600
#: Time for which vectors wait to share a write, in seconds. A write slows the next query by a tenth.
_GATHER_S = 0.025
#: Maximum entries per write. A file shared with other processes is locked during a write.
_MOST_ENTRIES = 2000


class Lease:
    """Lease on cache keys: no other process computes them while it is renewed."""

    def __init__(
        self,
        cache: CacheStore,
        group: Group,
        keys: Iterable[bytes],
        *,
        seconds: float,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._cache = cache
        self._group = group
        self._seconds = seconds
        self._sleep = sleep
        self._left = set(keys)
        #: Keys that are released only after they are stored.
        self._kept: set[bytes] = set()
        # A key must not be released and renewed at the same time.
        self._turn = asyncio.Lock()
        self._renewing = asyncio.create_task(self._renew())

    def keep(self, keys: Iterable[bytes]) -> None:
        """Hold these keys until they are stored, even if the other keys are released."""
        self._kept.update(keys)

    async def give_back(self, keys: Iterable[bytes] | None = None) -> None:
        """Release keys so that others can compute them; by default all except those passed to `keep`."""
        async with self._turn:
            given = list(self._left.intersection(keys) if keys is not None else self._left - self._kept)
            self._left.difference_update(given)
            if not self._left:
                self._renewing.cancel()
            await self._cache.release(self._group, given)

    async def _renew(self) -> None:
        """Renew the lease during the computation, so that only leases of an ended process expire."""
        while True:
            await self._sleep(self._seconds / 3)
            async with self._turn:
                await self._cache.lease(self._group, list(self._left), self._seconds)


@dataclass(eq=False, slots=True)
class _Chunk:
    """Vectors that are stored in one write."""

    group: Group
    computed: dict[bytes, ReadyVector] = field(default_factory=dict)
    leases: set[Lease] = field(default_factory=set)
    #: Requests that computed the vectors, for hooks.
    requests: list[int | None] = field(default_factory=list)
    #: Set if the vectors must be stored without waiting for others.
    is_due: asyncio.Event = field(default_factory=asyncio.Event)

    async def gather(self) -> None:
        """Wait briefly for more vectors. A cancellation, as at the end of the event loop, only ends the wait."""
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_GATHER_S):
                await self.is_due.wait()


class WriteBehind:
    """Stores vectors in the background. Those of a group that arrive within 25 ms or during a write share one write."""

    def __init__(
        self,
        cache: CacheStore,
        *,
        codec: CodecName,
        zstd: bool,
        seal: SecretKeys | None = None,
        on_stored: Callable[[Group, int], None],
        hooks: Hooks | None = None,
    ) -> None:
        self._cache = cache
        self._seal = seal
        self._codec: CodecName = codec
        self._zstd = zstd
        self._on_stored = on_stored
        self._hooks = Hooks() if hooks is None else hooks
        #: Vectors that are not yet stored.
        self.unstored: dict[bytes, ReadyVector] = {}
        self._gathering: dict[Group, _Chunk] = {}
        self._is_closing = False
        self._order = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(
        self,
        group: Group,
        computed: Mapping[bytes, ReadyVector],
        lease: Lease | None = None,
        request: int | None = None,
    ) -> None:
        """Queue vectors for storage; release their lease afterwards. `request` is the operation that computed them."""
        if not computed:
            return
        self.unstored.update(computed)
        chunk = self._gathering.get(group)
        if chunk is None or len(chunk.computed) >= _MOST_ENTRIES:
            chunk = self._gathering[group] = _Chunk(group)
            self.in_background(self._store(chunk))
        chunk.computed.update(computed)
        chunk.requests.append(request)
        if lease is not None:
            lease.keep(computed)
            chunk.leases.add(lease)
        if lease is not None or len(chunk.computed) >= _MOST_ENTRIES or self._is_closing:
            chunk.is_due.set()  # another process waits for it, it is full, or the cache is closing

    def copy(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Queue encoded entries for storage: those of the previous secret, re-signed with the current one."""
        self.in_background(self._copy(group, items))

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background; it ends before the cache is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Wait until all vectors queued so far are stored."""
        for chunk in self._gathering.values():
            chunk.is_due.set()
        if self._tasks:
            await asyncio.wait(self._tasks)  # cancelling the caller does not cancel the tasks

    async def finish(self) -> None:
        """Wait until everything is stored. Later vectors are stored at once."""
        self._is_closing = True
        while self._tasks:
            await self.settle()

    async def _store(self, chunk: _Chunk) -> None:
        try:
            await chunk.gather()
            async with self._order:
                self._close_chunk(chunk)
                is_large = len(chunk.computed) > _INLINE_ENTRIES
                entries = await compute_in_thread(self._encode, chunk) if is_large else self._encode(chunk)
                items = list(zip(chunk.computed, entries, strict=True))
                model = chunk.group.model
                with self._hooks.merged_operation(chunk.requests, CacheDetails, "store", model, len(items)):
                    stored = await self._cache.put_many(chunk.group, items)
                self._on_stored(chunk.group, stored)
        except Exception as error:  # noqa: BLE001  no caller waits for it, so it is counted
            self._count_failure(error)
        finally:
            self._close_chunk(chunk)
            for key, result in chunk.computed.items():
                if self.unstored.get(key) is result:
                    del self.unstored[key]
            for lease in chunk.leases:
                await lease.give_back(chunk.computed)

    def _close_chunk(self, chunk: _Chunk) -> None:
        """Stop adding vectors to a chunk."""
        if self._gathering.get(chunk.group) is chunk:
            del self._gathering[chunk.group]

    async def _copy(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            for start in range(0, len(items), _MOST_ENTRIES):
                async with self._order:
                    await self._cache.put_many(group, items[start : start + _MOST_ENTRIES])
        except Exception as error:  # noqa: BLE001  no caller waits for it, so it is counted
            self._count_failure(error)

    def _count_failure(self, error: Exception) -> None:
        if isinstance(error, EmbedwayError):  # of a store that is not ours, or of a missing library
            self._cache.errors.count("write", StoreFailure(type(error).__name__, str(error), ""))
        else:
            reason = f"vectors cannot be encoded ({place_of(error)})"
            self._cache.errors.count("write", StoreFailure("encoding", reason, ""))

    def _encode(self, chunk: _Chunk) -> list[bytes]:
        vectors = np.array([vector for vector, _ in chunk.computed.values()], np.float32)
        metas = [meta for _, meta in chunk.computed.values()]
        mac = self._seal.mac(chunk.group) if self._seal is not None else None
        return encode(list(chunk.computed), vectors, metas, self._codec, zstd=self._zstd, mac=mac)
