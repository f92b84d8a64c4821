"""The cache that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.cache.codec import open_zstd
from embedway.cache.memory import MemoryCache
from embedway.cache.tiers import Tiers

if TYPE_CHECKING:
    from embedway.cache.base import Cache
    from embedway.config import Config

_MIB = 2**20


def open_cache(config: Config) -> Cache | None:
    """The cache of `[cache]`, None for none. Nothing is read or connected yet.

    Raises RuntimeUnavailableError for a library that is missing.
    """
    settings = config.cache
    ttl_s = settings.ttl_s
    if settings.backend == "none":
        return None
    if settings.zstd:
        open_zstd()
    memory = MemoryCache(settings.memory_mib * _MIB, ttl_s=ttl_s)
    if settings.backend == "memory":
        return memory
    behind: Cache
    if settings.backend == "sqlite":
        from embedway.cache.sqlite import SqliteCache  # noqa: PLC0415  what is not asked for is not loaded

        behind = SqliteCache(settings.path, settings.disk_mib * _MIB, ttl_s=ttl_s)
    else:
        from embedway.cache.redis import RedisCache  # noqa: PLC0415

        behind = RedisCache(settings.url.get_secret_value(), ttl_s=ttl_s, cluster=settings.cluster)
    return Tiers(memory, behind) if settings.tiered else behind
