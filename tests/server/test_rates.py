"""Limits per minute of keys. One suite for every store."""

import asyncio
import contextlib
import math
import random

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from async_tests import in_loop
from clocks import Clock
from embedway import Config
from embedway.errors import KeyLimitError, LedgerError
from embedway.server.caller import Caller
from embedway.server.local_rates import LocalRates
from embedway.server.rate_stores import open_rates
from embedway.server.rates import MinuteLimits, correct_tokens, full_at, limits_of, take_tokens
from embedway.server.redis_rates import RedisRates


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["file", "redis", "redis cluster"])
def rates(request, tmp_path, clock):
    """Return a function that opens the same limits."""
    if request.param == "file":
        return lambda: LocalRates(tmp_path / "rates", clock=clock)
    url = request.getfixturevalue("valkey_cluster" if "cluster" in request.param else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return lambda: RedisRates(url, cluster="cluster" in request.param, clock=clock)


def run(rates, work):
    async def whole():
        one, other = rates(), rates()
        try:
            return await work(one, other)
        finally:
            await one.aclose()
            await other.aclose()

    return asyncio.run(whole())


def test_a_minute_of_requests_can_be_taken_at_once_and_then_steadily(rates, clock):
    limits = MinuteLimits(60, None)

    async def work(one, other):
        waits = [await (one, other)[number % 2].take("web", 1, 10**9, limits) for number in range(60)]
        assert waits == [0] * 60
        assert await one.take("web", 1, 0, limits) == pytest.approx(1.0)
        assert await other.take("another", 1, 0, limits) == 0
        clock.now += 0.75
        assert await one.take("web", 1, 0, limits) == pytest.approx(0.25)
        clock.now += 0.25
        assert await other.take("web", 1, 0, limits) == 0
        assert await other.take("web", 1, 0, limits) == pytest.approx(1.0)
        clock.now += 3600
        assert [await one.take("web", 1, 0, limits) for _ in range(60)] == [0] * 60
        assert await one.take("web", 1, 0, limits) > 0

    run(rates, work)


def test_a_refused_call_takes_nothing(rates):
    limits = MinuteLimits(10, 1000)

    async def work(one, _):
        assert await one.take("web", 1, 900, limits) == 0
        for _ in range(50):
            assert await one.take("web", 1, 200, limits) == pytest.approx(6.0)  # 100 tokens at 1000 a minute
        assert await one.take("web", 1, 100, limits) == 0
        for _ in range(8):
            assert await one.take("web", 1, 0, limits) == 0
        assert await one.take("web", 1, 0, limits) == pytest.approx(6.0)

    run(rates, work)


def test_actual_tokens_replace_the_estimate(rates, clock):
    limits = MinuteLimits(None, 600)

    async def work(one, other):
        assert await one.take("web", 1, 500, limits) == 0
        await other.correct("web", -400, limits)  # it had 100
        assert await one.take("web", 1, 500, limits) == 0
        await other.correct("web", 1200, limits)  # it had 1,700: a debt of two minutes
        assert await one.take("web", 1, 1, limits) == pytest.approx(120.1)
        clock.now += 120
        assert await one.take("web", 1, 1, limits) == pytest.approx(0.1)
        clock.now += 0.1
        assert await one.take("web", 1, 1, limits) == 0
        # What is given back after a pause gives no more than a full bucket.
        clock.now += 3600
        await one.correct("web", -600, limits)
        assert await one.take("web", 1, 600, limits) == 0
        assert await one.take("web", 1, 600, limits) == pytest.approx(60)

    run(rates, work)


def test_more_than_a_minute_of_tokens_is_never_accepted(rates):
    async def work(one, _):
        assert math.isinf(await one.take("web", 1, 601, MinuteLimits(5, 600)))
        assert await one.take("web", 1, 600, MinuteLimits(5, 600)) == 0

    run(rates, work)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0, 20), st.integers(-50, 200)), min_size=1, max_size=40),
    st.integers(1, 100),
    st.integers(300, 1000),
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_calls_after_the_told_wait_are_accepted_and_a_minute_is_never_exceeded(
    rates, clock, calls, requests_limit, tokens_limit
):
    limits, name = MinuteLimits(requests_limit, tokens_limit), f"key {random.random()}"

    async def work(one, other):
        taken = []
        for tokens, pause_s, more in calls:
            clock.now += pause_s
            wait_s = await one.take(name, 1, tokens, limits)
            if wait_s > 0.001:
                clock.now += wait_s - 0.001
                assert 0 < await other.take(name, 1, tokens, limits) <= 0.001 + 1e-5
                clock.now += 0.001 + 1e-5
                assert await other.take(name, 1, tokens, limits) == 0
            elif wait_s:
                continue
            charged = max(more, -tokens)
            taken.append((clock.now, tokens + charged))
            await one.correct(name, charged, limits)
        for start, _ in taken:
            within = [tokens for at, tokens in taken if start <= at < start + 60]
            # A bucket and one minute's refill, and the debt of the last call.
            assert len(within) <= 2 * requests_limit + 1
            assert sum(within) <= 2 * tokens_limit + 501

    run(rates, work)


def test_concurrent_calls_take_exactly_one_bucket(rates):
    limits = MinuteLimits(100, None)

    async def work(one, other):
        waits = await asyncio.gather(*((one, other)[number % 2].take("web", 1, 0, limits) for number in range(250)))
        assert waits.count(0) == 100

    run(rates, work)


@in_loop
async def test_a_caller_gets_an_error_with_the_time_to_come_back(tmp_path):
    clock = Clock()
    rates = LocalRates(tmp_path / "rates", clock=clock)
    caller = Caller("web", requests_per_minute=2, tokens_per_minute=1000)
    await take_tokens(rates, caller, 400)
    await correct_tokens(rates, caller, estimated=400, actual=1000)
    with pytest.raises(
        KeyLimitError, match="allows 2 requests and 1,000 tokens in a minute; try again in 6 s"
    ) as caught:
        await take_tokens(rates, caller, 100)
    assert caught.value.retry_after_s == pytest.approx(6.0)
    with pytest.raises(KeyLimitError, match="has about 1,001 tokens, and its key allows 1,000 in a minute") as caught:
        await take_tokens(rates, caller, 1001)
    assert caught.value.retry_after_s is None
    free = Caller("free")
    assert limits_of(free) is None
    for _ in range(10):
        await take_tokens(rates, free, 10**9)
    await correct_tokens(rates, free, estimated=1, actual=10**9)
    # A failed call costs no tokens.
    clock.now += 60
    await take_tokens(rates, caller, 1000)
    await correct_tokens(rates, caller, estimated=1000, actual=0)
    await take_tokens(rates, caller, 1000)
    await rates.aclose()


def test_the_math_has_no_rounding_waits():
    full, now = 0.0, 123456.789
    for _ in range(7):
        full, wait_s = full_at(full, now, 1, 60 / 7)
        assert wait_s == 0
    assert full_at(full, now, 1, 60 / 7)[1] == pytest.approx(60 / 7)
    assert full_at(0.0, now, 5, 0.0) == (now, 0.0)


def test_the_ledgers_backend_chooses_the_store(tmp_path):
    def config(backend):
        return Config.load(environ={}, overrides={"ledger.backend": backend})

    async def work():
        for backend, kind in (("sqlite", LocalRates), ("none", LocalRates), ("redis", RedisRates)):
            rates = open_rates(config(backend), tmp_path / "rates")
            assert isinstance(rates, kind)
            await rates.aclose()

    asyncio.run(work())


@in_loop
async def test_a_server_that_fails_is_named_without_its_password(caplog):
    rates = RedisRates("redis://:correct-horse@127.0.0.1:9/0")
    with pytest.raises(LedgerError, match="the limits of API keys in Redis at") as caught:
        await rates.take("web", 1, 1, MinuteLimits(1, 1))
    assert "correct-horse" not in str(caught.value)
    # A finished call does not fail.
    await correct_tokens(rates, Caller("web", tokens_per_minute=5), estimated=1, actual=2)
    assert "the tokens of a call stay as estimated: the limits of API keys in Redis" in caplog.text
    assert "correct-horse" not in caplog.text
    await rates.aclose()
