"""Read-through vector cache with single flight and write-behind, shared by all callers of a process.

`wrap` puts it in front of a model (`cached_model.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from embedway.cache.cached_model import CachedModel
from embedway.cache.codec import CODECS
from embedway.cache.factory import open_cache_store, open_secret_keys
from embedway.cache.lookup import Lookup
from embedway.cache.single_flight import SingleFlight
from embedway.cache.stats import ClearResult, Counters
from embedway.cache.write_behind import ReadyVector, WriteBehind
from embedway.errors import CacheError
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import StoreErrorDetails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.cache.base import CacheFilter, CacheStore, Group
    from embedway.cache.cached_model import Cacheable
    from embedway.cache.errors import Action
    from embedway.cache.lookup import Read
    from embedway.cache.secret_keys import SecretKeys
    from embedway.cache.stats import CacheStats
    from embedway.config import Config
    from embedway.types import CodecName

_log = logging.getLogger("embedway.cache")

#: Maximum number of pairs of a model and a tenant in memory.
_MOST_TENANTS = 1000


class VectorCache:
    """Read-through cache over one store, with single flight and write-behind.

    `namespace` is that of the default tenant. Every tenant has a namespace of its own, and with it keys, entries,
    leases and flights of its own.
    """

    def __init__(
        self,
        store: CacheStore,
        *,
        namespace: str = "",
        codec: CodecName = "f32",
        zstd: bool = False,
        lease_s: float = 10.0,
        seals: Sequence[SecretKeys] = (),
        hooks: Hooks | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the cache. `seals` are the keys of the current secret and of the previous one, if any."""
        self.store = store
        self.namespace = namespace
        self.lease_s = lease_s
        self.hooks = Hooks() if hooks is None else hooks
        self.sleep = sleep
        store.errors.on_failure = self._report_failure
        self.counters = Counters(store, clock)
        self.flights: SingleFlight[ReadyVector] = SingleFlight()
        seal = seals[0] if seals else None
        self.writes = WriteBehind(store, codec=codec, zstd=zstd, seal=seal, on_stored=self._on_stored, hooks=self.hooks)
        self.is_lossy = codec != CODECS[0]
        # Only entries at least as precise as those written now are used.
        self.lookup = Lookup(self.writes, store, CODECS[: CODECS.index(codec) + 1], seals)
        self._wrapped: dict[Cacheable, CachedModel] = {}
        #: Those of other tenants, the most recently used ones last. They have no state, so that any can be dropped.
        self._tenants: OrderedDict[tuple[Cacheable, str], CachedModel] = OrderedDict()

    def wrap(self, model: Cacheable, tenant: str = "") -> CachedModel:
        """Return the model with this cache in front of it, in the namespace of a tenant."""
        if tenant:
            return self._wrap_for(model, tenant)
        wrapped = self._wrapped.get(model)
        if wrapped is None:
            wrapped = self._wrapped[model] = CachedModel(model, self, self.namespace)
        return wrapped

    def _wrap_for(self, model: Cacheable, tenant: str) -> CachedModel:
        wrapped = self._tenants.pop((model, tenant), None) or CachedModel(
            model, self, namespace_of(tenant, self.namespace)
        )
        self._tenants[model, tenant] = wrapped
        if len(self._tenants) > _MOST_TENANTS:
            self._tenants.popitem(last=False)
        return wrapped

    async def settle(self) -> None:
        """Wait until all vectors computed so far are stored."""
        await self.writes.settle()

    async def aclose(self) -> None:
        """Store unstored vectors, save the counts, and close the store."""
        await self.writes.finish()
        await self.counters.save()
        await self.writes.finish()  # vectors of calls that ended meanwhile
        await self.store.aclose()

    async def stats(self) -> CacheStats:
        """Return the content and use of the cache. Raises CacheError if it cannot be read."""
        await self.settle()
        failed = self.store.errors.failed_reads
        with self.store.errors.unlogged():
            stats = await self.counters.stats()
        self.raise_if_more(failed, self.store.errors.failed_reads, "read")
        return stats

    async def clear(self, which: CacheFilter) -> ClearResult:
        """Delete entries. Raises CacheError if the cache cannot be read or written."""
        await self.settle()
        errors = self.store.errors
        failed = errors.failed_reads + errors.failed_writes
        with errors.unlogged():
            before = sum(size.entries for size in await self.store.group_sizes() if which.matches(size.group))
            gone = await self.store.clear(which)
        self.raise_if_more(failed, errors.failed_reads + errors.failed_writes, "cleared")
        return ClearResult(before, max(0, before - gone))

    def raise_if_more(self, before: int, now: int, done: str) -> None:
        """Raise CacheError if the number of store failures has grown."""
        if now > before:
            errors = self.store.errors
            raise CacheError(f"{errors.name} cannot be {done}: {errors.last or 'it failed recently'}")

    async def remove(self, group: Group, read: Read) -> None:
        """Delete and count entries that are damaged or invalid."""
        counts = self.counters.of(group.model)
        counts.damaged += len(read.damaged)
        counts.invalid += len(read.invalid)
        if read.invalid:
            _log.warning(
                "the cache contained %d invalid vectors of %s (not finite, zeros, or not of length 1); "
                "they are recomputed",
                len(read.invalid),
                group.model,
            )
        await self.store.delete_many(group, [*read.damaged, *read.invalid])

    def _report_failure(self, action: Action, kind: str) -> None:
        self.hooks.event(StoreErrorDetails, "cache", action, kind)

    def _on_stored(self, group: Group, entries: int) -> None:
        self.counters.by_model[group.model].stored += entries
        # Texts that were looked up before this write, and are claimed after it, are looked up again.
        self.flights.resolved += 1


def namespace_of(tenant: str, namespace: str) -> str:
    """Return the namespace of a tenant's entries: `@TENANT/NAMESPACE`; the given one for the default tenant.

    No setting begins with `@`, and no tenant contains `/`, so no two tenants have the same one.
    """
    return f"@{tenant}/{namespace}" if tenant else namespace


def open_vector_cache(config: Config, hooks: Hooks | None = None) -> VectorCache | None:
    """Open the configured cache; None for `none`. Nothing is read or connected yet. Raises as `open_cache_store`."""
    store, settings = open_cache_store(config), config.cache
    if store is None:
        return None
    return VectorCache(
        store,
        namespace=settings.namespace,
        codec=settings.codec,
        zstd=settings.zstd,
        lease_s=settings.lease_s,
        seals=open_secret_keys(settings),
        hooks=hooks,
    )
