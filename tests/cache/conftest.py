"""Every cache backend, with real files and a real Valkey."""

import contextlib

import pytest
import redis

from clocks import Clock
from embedway.cache.base import REFRESH_SHARE, Group
from embedway.cache.memory import MemoryCache
from embedway.cache.redis import RedisCache
from embedway.cache.sqlite import SqliteCache
from embedway.cache.tiered import TieredCache

GROUP = Group("m", "m@1/4")
MIB = 2**20


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        "redis",
        "redis keyed",
        "redis cluster",
        "redis cluster keyed",
        "memory over sqlite",
        "memory over redis",
    ]
)
def backend(request):
    return request.param


@pytest.fixture
def make(backend, tmp_path, clock, request):
    """Return a function that makes caches over the same storage."""
    cluster, keyed = "cluster" in backend, "keyed" in backend
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey") if "redis" in backend else None
    if url is not None:
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushall()

    def made(**options):
        ttl_s, refresh = options.get("ttl_s"), options.get("refresh", False)
        if backend == "memory":
            return MemoryCache(64 * MIB, clock=clock, ttl_s=ttl_s, refresh=refresh)
        front = MemoryCache(64 * MIB, clock=clock, ttl_s=ttl_s * REFRESH_SHARE if refresh else ttl_s)
        if "sqlite" in backend:
            behind = SqliteCache(tmp_path / "c" / "v.sqlite", 64 * MIB, clock=clock, **options)
        else:
            behind = RedisCache(url, clock=clock, cluster=cluster, keyed=keyed, **options)
        return TieredCache(front, behind, refresh=refresh, clock=clock) if backend.startswith("memory over") else behind

    return made
