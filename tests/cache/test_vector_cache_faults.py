"""Faults of a cache: no wrong vector, no failed request, and the counters report it."""

import asyncio
import sys

import pytest

from embedway import AsyncEmbedder
from embedway.cache.memory import MemoryCache
from embedway.cache.sqlite import SqliteCache
from embedway.errors import RuntimeUnavailableError
from faulty_caches import GROUP, config_for, embedded
from inside import (
    store_of,
)
from stored import read_entries


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_was_used_least_recently_goes_first_and_the_bound_holds(tmp_path, clock, kind):
    bound, path = 2**20, tmp_path / "v.sqlite"

    async def main():
        cache = MemoryCache(bound, clock=clock) if kind == "memory" else SqliteCache(path, bound, clock=clock)
        often = [bytes([255, n]) * 16 for n in range(20)]
        await cache.put_many(GROUP, [(key, bytes(3000)) for key in often])
        for n in range(100):
            clock.now += 4000  # times of use are updated once an hour
            keys = [bytes([n, i]) * 16 for i in range(10)]
            await cache.put_many(GROUP, [(key, bytes(3000)) for key in keys])
            assert None not in await read_entries(cache, GROUP, often)
        held = await cache.group_sizes()
        assert sum(one.bytes for one in held) <= bound
        assert sum(one.entries for one in held) > 200
        assert cache.errors.evictions == 1020 - sum(one.entries for one in held)
        assert await read_entries(cache, GROUP, [bytes([0, 0]) * 16]) == [None]
        await cache.aclose()

    asyncio.run(main())
    if kind == "sqlite":
        assert path.stat().st_size < 1.5 * bound


def test_an_entry_larger_than_the_whole_cache_is_not_kept(tmp_path, clock):
    async def main():
        for cache in (MemoryCache(10_000, clock=clock), SqliteCache(tmp_path / "v.sqlite", 100_000, clock=clock)):
            await cache.put_many(GROUP, [(b"k" * 32, bytes(200_000))])
            assert await cache.group_sizes() == []
            await cache.aclose()

    asyncio.run(main())


def test_what_cannot_be_written_as_an_entry_is_counted(tmp_path, monkeypatch):
    async def main():
        async with AsyncEmbedder(
            config=config_for(backend="sqlite", path=str(tmp_path / "v.sqlite"), zstd=True)
        ) as embedder:
            await embedded(embedder, ["kept"])
            monkeypatch.setitem(sys.modules, "zstandard", None)
            assert (await embedded(embedder, ["kept", "lost"])).cache_hits == 0
            assert store_of(embedder).errors.failed_writes == 1
            return await embedder.cache.stats()

    assert asyncio.run(main()).total.damaged == 1


def test_a_library_that_is_missing_is_said_when_the_cache_is_opened(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RuntimeUnavailableError, match=r"embedway\[zstd\]"):
        AsyncEmbedder(config=config_for(backend="sqlite", path=str(tmp_path / "v.sqlite"), zstd=True))
    AsyncEmbedder(config=config_for(backend="none", zstd=True))


def test_entries_used_while_the_clock_was_ahead_are_evicted_like_others(tmp_path, clock):
    async def main():
        cache = SqliteCache(tmp_path / "v.sqlite", 200_000, clock=clock)
        clock.now += 30 * 86_400
        await cache.put_many(GROUP, [(bytes([1, n]) * 16, bytes(1000)) for n in range(120)])
        clock.now -= 30 * 86_400
        newest = []
        for n in range(200):
            newest = [(bytes([2, n]) * 16, bytes(1000))]
            await cache.put_many(GROUP, newest)
            clock.now += 1
            assert (await cache.get_many(GROUP, [newest[0][0]])) != [None]
        held = [stored is not None for stored in await cache.get_many(GROUP, [bytes([1, n]) * 16 for n in range(120)])]
        await cache.aclose()
        assert sum(held) < 30

    asyncio.run(main())
