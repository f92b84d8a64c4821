"""Limits on a server: its clock is used, and entries expire."""

import contextlib

import redis

from async_tests import in_loop
from embedway.server.rates import MinuteLimits
from embedway.server.redis_rates import RedisRates


@in_loop
async def test_the_servers_time_is_used_and_entries_expire(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        rates = RedisRates(valkey)
        limits = MinuteLimits(6, 600)
        assert [await rates.take("web", 1, 0, limits) for _ in range(6)] == [0] * 6
        assert 9 < await rates.take("web", 1, 0, limits) <= 10
        (key,) = client.keys()
        assert key == b"embedway:rates:web"
        assert 59_000 < client.pttl(key) <= 61_001
        await rates.correct("web", 6000, limits)
        assert 599_000 < client.pttl(key) <= 601_001
        await rates.aclose()


@in_loop
async def test_invalid_values_of_others_count_as_full_buckets(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        client.hset("embedway:rates:web", mapping={"requests": "nonsense", "tokens": ""})
        rates = RedisRates(valkey)
        assert await rates.take("web", 1, 1, MinuteLimits(1, 1)) == 0
        assert await rates.take("web", 1, 1, MinuteLimits(1, 1)) > 0
        await rates.aclose()
