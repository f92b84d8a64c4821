"""Contract suite for every cache backend."""

import asyncio
import hashlib

import pytest

from embedway.cache.base import CacheFilter, Group
from stored import read_entries

GROUP, OTHER = Group("m", "m@1/4"), Group("m", "m@1/4", "tenant")
THIRD = Group("n", "n@2/4")


def key(n):
    return hashlib.blake2b(str(n).encode(), digest_size=32).digest()


def items(numbers, size=40):
    return [(key(n), bytes([n % 256]) * size) for n in numbers]


def run(make, steps, **options):
    async def main():
        cache = make(**options)
        try:
            return await steps(cache)
        finally:
            await cache.aclose()

    return asyncio.run(main())


def test_what_was_put_is_got_in_the_order_asked(make):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(1200)))
        asked = [7, 5000, 1199, 7, 0, 6000]
        found = await read_entries(cache, GROUP, [key(n) for n in asked])
        assert found == [bytes([n % 256]) * 40 if n < 1200 else None for n in asked]
        assert await read_entries(cache, GROUP, []) == []
        await cache.put_many(GROUP, [])
        assert (cache.errors.failed_reads, cache.errors.failed_writes) == (0, 0)

    run(make, steps)


def test_a_second_put_replaces(make):
    async def steps(cache):
        await cache.put_many(GROUP, [(key(1), b"old" * 20)])
        await cache.put_many(GROUP, [(key(1), b"new" * 30)])
        assert await read_entries(cache, GROUP, [key(1)]) == [b"new" * 30]
        (held,) = await cache.group_sizes()
        assert (held.group, held.entries) == (GROUP, 1)
        assert held.bytes >= 90

    run(make, steps)


def test_entries_are_counted_and_cleared_by_group(make):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(5)))
        await cache.put_many(OTHER, items(range(10, 13)))
        await cache.put_many(THIRD, items(range(20, 22)))
        assert {held.group: held.entries for held in await cache.group_sizes()} == {GROUP: 5, OTHER: 3, THIRD: 2}
        assert await cache.clear(CacheFilter(namespace="tenant")) == 3
        assert await cache.clear(CacheFilter(model="nobody")) == 0
        assert await read_entries(cache, OTHER, [key(10)]) == [None]
        assert None not in await read_entries(cache, GROUP, [key(n) for n in range(5)])
        assert await cache.clear(CacheFilter(space_id="n@2/4", model="n")) == 2
        assert await cache.clear(CacheFilter()) == 5
        assert await cache.group_sizes() == []
        await cache.put_many(GROUP, items(range(2)))
        assert [held.entries for held in await cache.group_sizes()] == [2]

    run(make, steps)


def test_old_entries_are_cleared_by_age(make, clock):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(3)))
        clock.now += 100
        await cache.put_many(GROUP, items(range(3, 5)))
        assert await cache.clear(CacheFilter(older_than_s=50)) == 3
        assert await read_entries(cache, GROUP, [key(0), key(4)]) == [None, b"\4" * 40]

    run(make, steps)


def test_a_space_is_cleared_at_every_size_and_no_other(make):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(3)))
        await cache.put_many(THIRD, items(range(20, 22)))
        assert await cache.clear(CacheFilter(space_id="m@2/4")) == 0
        assert await cache.clear(CacheFilter(space_id="m@1/2")) == 3
        assert [held.group for held in await cache.group_sizes()] == [THIRD]

    run(make, steps)


def test_an_entry_is_as_old_as_it_is_wherever_it_was_read_from(make, clock, backend):
    async def put(cache):
        await cache.put_many(GROUP, items(range(3)))

    async def later(cache):
        clock.now += 100
        found = await cache.get_many(GROUP, [key(0), key(5)])
        if backend == "memory":
            assert found == [None, None]
            return
        assert found == [(b"\0" * 40, clock.now - 100), None]
        clock.now += 10
        assert await cache.clear(CacheFilter(older_than_s=50)) == 3
        assert await read_entries(cache, GROUP, [key(0)]) == [None]

    run(make, put)
    run(make, later)


def test_what_another_process_has_cleared_is_soon_found_no_more(make, clock, backend):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(3)))
        assert None not in await read_entries(cache, GROUP, [key(0)])
        before = await cache.generation()
        other = cache if backend == "memory" else make()
        assert await other.clear(CacheFilter(model="nobody")) == 0
        assert await other.clear(CacheFilter()) == 3
        if other is not cache:
            await other.aclose()
        assert await cache.generation() != before
        clock.now += 1
        assert await read_entries(cache, GROUP, [key(0)]) == [None]
        await cache.put_many(GROUP, items(range(3)))
        clock.now += 1
        assert None not in await read_entries(cache, GROUP, [key(0)])

    run(make, steps)


def test_what_is_deleted_is_a_miss(make):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(3)))
        await cache.delete_many(GROUP, [key(1), key(99)])
        assert await read_entries(cache, GROUP, [key(0), key(1), key(2)]) == [b"\0" * 40, None, b"\2" * 40]

    run(make, steps)


def test_what_was_acknowledged_is_there_after_a_restart(make, backend):
    async def put(cache):
        await cache.put_many(GROUP, items(range(50)))

    async def get(cache):
        return await read_entries(cache, GROUP, [key(n) for n in range(50)])

    run(make, put)
    found = run(make, get)
    assert found == ([None] * 50 if backend == "memory" else [entry for _, entry in items(range(50))])


def test_entries_are_forgotten_after_their_time(make, clock, backend):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(3)))
        if "redis" in backend:
            return  # the server uses its own clock; the fault tests check the expiry it receives
        clock.now += 59
        assert None not in await read_entries(cache, GROUP, [key(0)])
        clock.now += 2
        assert await read_entries(cache, GROUP, [key(0), key(2)]) == [None, None]
        assert await cache.group_sizes() == []
        await cache.put_many(GROUP, items(range(10, 12)))
        assert [held.entries for held in await cache.group_sizes()] == [2]
        clock.now += 61
        assert await cache.clear(CacheFilter()) == 0

    run(make, steps, ttl_s=60.0)


def test_reading_does_not_make_an_entry_younger(make, clock, backend):
    async def put(cache):
        await cache.put_many(GROUP, items(range(3)))

    async def steps(cache):
        clock.now += 59
        assert await read_entries(cache, GROUP, [key(0)]) == ([None] if backend == "memory" else [b"\0" * 40])
        clock.now += 2
        # The server uses its own clock, and it is read on a miss of the memory tier.
        assert await read_entries(cache, GROUP, [key(0)]) == [b"\0" * 40 if "redis" in backend else None]

    run(make, put, ttl_s=60.0)
    run(make, steps, ttl_s=60.0)


def test_a_hit_starts_the_time_to_live_again_if_that_is_set(make, clock, backend):
    async def steps(cache):
        if "redis" in backend:
            return  # the server uses its own clock; see test_redis.py
        await cache.put_many(GROUP, items(range(2)))
        for _ in range(5):
            clock.now += 50
            assert await read_entries(cache, GROUP, [key(0)]) == [b"\0" * 40]
            await cache.add_counts({"m": {"hits": 1}})  # SQLite writes the times of use before
        assert await read_entries(cache, GROUP, [key(1)]) == [None]
        assert [held.entries for held in await cache.group_sizes()] == [1]
        # The age is that since storing.
        assert await cache.clear(CacheFilter(older_than_s=200)) == 1

    run(make, steps, ttl_s=60.0, refresh=True)


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1700])
def test_batches_of_every_size(make, count):
    async def steps(cache):
        await cache.put_many(GROUP, items(range(count)))
        found = await read_entries(cache, GROUP, [key(n) for n in reversed(range(count))])
        assert found == [entry for _, entry in reversed(items(range(count)))]

    run(make, steps)


def test_many_at_once_do_not_mix(make):
    async def steps(cache):
        async def one(n):
            await cache.put_many(GROUP, items(range(n * 10, n * 10 + 10)))
            return await read_entries(cache, GROUP, [key(i) for i in range(n * 10, n * 10 + 10)])

        found = await asyncio.gather(*(one(n) for n in range(20)))
        for n, entries in enumerate(found):
            assert entries == [entry for _, entry in items(range(n * 10, n * 10 + 10))]

    run(make, steps)


def test_counts_are_kept_by_model(make, backend):
    async def count(cache):
        await cache.add_counts({"m": {"hits": 3, "misses": 1}, "": {"evictions": 2}})
        assert await cache.add_counts({"m": {"hits": 2}})
        assert await cache.add_counts({})

    async def read(cache):
        return (await cache.counts()).get("m")

    run(make, count)
    assert run(make, read) == (None if backend == "memory" else {"hits": 5, "misses": 1})


def test_a_lease_belongs_to_one_process_until_it_is_released(make, backend):
    keys = [key(n) for n in range(700)]

    async def steps(first):
        second = make()
        assert await first.lease(GROUP, keys, 60) == [True] * 700
        assert await first.lease(GROUP, keys[:3], 60) == [True] * 3  # restarts the lease
        others = await second.lease(GROUP, keys, 60)
        assert others == [not first.supports_leases] * 700
        await second.release(GROUP, keys)
        assert await second.lease(GROUP, keys[:1], 60) == [not first.supports_leases]
        await first.release(GROUP, keys)
        assert await second.lease(GROUP, keys, 60) == [True] * 700
        assert await second.lease(OTHER, keys[:2], 60) == [True] * 2
        await second.release(GROUP, keys)
        await second.release(OTHER, keys)
        await second.aclose()

    assert ("redis" in backend) == make().supports_leases
    run(make, steps)


@pytest.mark.parametrize("ahead", [120, 30 * 86_400])
def test_an_entry_from_the_future_does_not_live_longer_than_its_time(make, clock, backend, ahead):
    async def steps(cache):
        if "redis" in backend:
            return  # the server uses its own clock
        clock.now += ahead
        await cache.put_many(GROUP, items(range(3)))
        clock.now -= ahead
        assert await read_entries(cache, GROUP, [key(0), key(2)]) == [None, None]
        assert await cache.group_sizes() == []
        await cache.put_many(GROUP, items(range(5, 6)))
        # It was deleted by the write, and is not found when its time comes.
        clock.now += ahead + 1
        assert await read_entries(cache, GROUP, [key(0), key(2)]) == [None, None]

    run(make, steps, ttl_s=60.0)


def test_an_entry_from_the_future_is_cleared_by_age(make, clock):
    async def steps(cache):
        clock.now += 30 * 86_400
        await cache.put_many(GROUP, items(range(3)))
        clock.now -= 30 * 86_400
        await cache.put_many(GROUP, items(range(5, 7)))
        assert await cache.clear(CacheFilter(older_than_s=3600)) == 3
        assert await cache.clear(CacheFilter()) == 2

    run(make, steps)
