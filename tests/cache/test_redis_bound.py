"""Bound on the entries in Redis: least recently used entries go first, over all processes, and only ours."""

import asyncio
import contextlib
import itertools

import pytest
import redis

from embedway.cache.base import CacheFilter, Group
from embedway.cache.redis import RedisCache
from embedway.cache.redis_bound import _idle_longer
from embedway.cache.redis_server import BYTES, TRIMMING
from inside import measure_with
from stored import read_entries

GROUP = Group("m", "m@1/4")
MIB = 2**20
_numbers = itertools.count()


def entries(count, size=3000):
    return [(next(_numbers).to_bytes(32, "big"), bytes(size)) for _ in range(count)]


@pytest.fixture(params=["one server", "cluster"])
def is_cluster(request):
    return request.param == "cluster"


@pytest.fixture
def server(request, is_cluster):
    """Return a client of an empty server, its URL, and a function that makes caches of it."""
    url = request.getfixturevalue("valkey_cluster" if is_cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
        yield client, lambda most, **options: RedisCache(url, most, cluster=is_cluster, **options)


def used(client):
    return sum(client.memory_usage(name, samples=0) for name in client.scan_iter("embedway:*:*:*"))


@pytest.mark.parametrize("keyed", [False, True])
def test_the_entries_of_several_processes_stay_below_the_bound(server, keyed):
    client, make = server

    async def main():
        caches = [make(MIB, keyed=keyed), make(MIB, keyed=keyed)]
        for number in range(12):
            assert await caches[number % 2].put_many(GROUP, entries(100)) == 100
            assert used(client) <= MIB
        assert used(client) > MIB // 2
        assert sum(cache.errors.evictions for cache in caches) == 1200 - sum(
            one.entries for one in await caches[0].group_sizes()
        )
        for cache in caches:
            await cache.aclose()

    asyncio.run(main())
    assert not client.exists(TRIMMING)


def test_entries_without_a_count_are_measured(server):
    """An earlier version wrote them, or another program deleted the count or wrote another value there."""
    client, make = server

    async def main():
        for value in (None, "junk", "-99999999999", str(2**63 - 1)):
            unbounded = make(64 * MIB)
            await unbounded.put_many(GROUP, entries(600))
            await unbounded.aclose()
            client.delete(BYTES)
            if value is not None:
                client.set(BYTES, value)
            cache = make(MIB)
            assert await cache.put_many(GROUP, entries(1)) == 1
            assert used(client) <= MIB
            await cache.aclose()

    asyncio.run(main())


def test_other_keys_and_statistics_stay(server):
    client, make = server

    async def main():
        client.set("{other}:key", bytes(2 * MIB))
        cache = make(MIB)
        await cache.add_counts({"m": {"hits": 3}})
        for _ in range(10):
            await cache.put_many(GROUP, entries(100))
        assert (await cache.counts())["m"] == {"hits": 3}
        assert client.strlen("{other}:key") == 2 * MIB
        assert await cache.clear(CacheFilter()) > 100
        assert await cache.group_sizes() == []
        await cache.put_many(GROUP, entries(1))
        assert int(client.get(BYTES)) < 10_000
        await cache.aclose()

    asyncio.run(main())


def test_while_another_process_makes_room_nothing_passes_the_bound(server):
    client, make = server

    async def main():
        cache = make(MIB)
        await cache.put_many(GROUP, entries(1))
        client.set(TRIMMING, b"another", px=60_000)
        assert [await cache.put_many(GROUP, entries(200)) for _ in range(5)] == [200, 200, 0, 0, 0]
        assert cache.errors.evictions == 600
        assert client.get(TRIMMING) == b"another"
        client.delete(TRIMMING)
        assert await cache.put_many(GROUP, entries(100)) == 100
        assert used(client) <= MIB
        await cache.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["text", "hash", "long"])
def test_a_lock_of_another_program_is_replaced(server, kind):
    client, make = server

    async def main():
        cache = make(MIB)
        if kind == "hash":
            client.hset(TRIMMING, "a", "b")
        else:
            client.set(TRIMMING, b"x", px=10**9 if kind == "long" else None)
        for _ in range(6):
            assert await cache.put_many(GROUP, entries(100)) == 100
        assert used(client) <= MIB
        assert not client.exists(TRIMMING)
        await cache.aclose()

    asyncio.run(main())


def test_what_others_store_during_a_measurement_stays_counted(server):
    client, make = server

    async def main():
        first, second = make(64 * MIB), make(64 * MIB)
        await second.put_many(GROUP, entries(10))
        await measure_with(first, lambda: second.put_many(GROUP, entries(100)))
        assert int(client.get(BYTES)) >= used(client)
        for cache in (first, second):
            await cache.aclose()

    asyncio.run(main())


def test_a_clearing_during_a_measurement_leaves_no_wrong_count(server):
    client, make = server

    async def main():
        first, second = make(64 * MIB), make(64 * MIB)
        await second.put_many(GROUP, entries(100))

        async def clear():
            await second.clear(CacheFilter())
            await second.put_many(GROUP, entries(10))

        await measure_with(first, clear)
        assert not client.exists(BYTES)
        await second.put_many(GROUP, entries(10))
        assert used(client) <= int(client.get(BYTES)) < 2 * used(client)
        for cache in (first, second):
            await cache.aclose()

    asyncio.run(main())


def test_the_lock_of_another_process_stays_after_a_long_deletion(server):
    client, make = server

    async def main():
        cache = make(MIB)

        async def expire():
            client.set(TRIMMING, b"another", px=60_000)

        await measure_with(cache, expire)
        assert client.get(TRIMMING) == b"another"
        await cache.aclose()

    asyncio.run(main())


def test_a_count_that_is_too_high_is_corrected(server):
    """Entries expired, or a process ended before it corrected the count."""
    client, make = server

    async def main():
        cache = make(MIB)
        await cache.put_many(GROUP, entries(10))
        client.set(BYTES, 50 * MIB)
        assert await cache.put_many(GROUP, entries(10)) == 10
        assert used(client) <= int(client.get(BYTES)) < 2 * used(client)
        assert len(list(client.scan_iter(f"*{GROUP.id}:*"))) == 20
        await cache.aclose()

    asyncio.run(main())


def test_an_entry_larger_than_the_bound_is_not_kept(server):
    _, make = server

    async def main():
        cache = make(10_000)
        ((key, entry),) = entries(1, 200_000)
        await cache.put_many(GROUP, [(key, entry)])
        assert await read_entries(cache, GROUP, [key]) == [None]
        await cache.aclose()

    asyncio.run(main())


def test_the_longest_idle_entries_go_first():
    assert _idle_longer({0: 100, 10: 50, 20: 30}, 10) == 20
    assert _idle_longer({0: 100, 10: 50, 20: 30}, 30) == 20
    assert _idle_longer({0: 100, 10: 50, 20: 30}, 31) == 10
    assert _idle_longer({0: 100, 10: 50, 20: 30}, 180) == 0
    assert _idle_longer({}, 5) == 0


def test_a_user_without_measuring_commands_has_a_bound(valkey):
    """MEMORY and INFO are often not allowed; sizes are then assumed."""
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        client.execute_command(
            "ACL", "SETUSER", "cache", "on", ">pw", "~embedway:*", "+@all", "-memory", "-info", "-object"
        )

        async def main():
            cache = RedisCache(valkey.replace("//", "//cache:pw@"), MIB)
            for _ in range(10):
                assert await cache.put_many(GROUP, entries(100)) == 100
            assert used(client) <= MIB
            assert cache.errors.failed_writes == 0
            await cache.aclose()

        try:
            asyncio.run(main())
        finally:
            client.execute_command("ACL", "DELUSER", "cache")
