"""Every ledger, with a real file and a real Valkey."""

import asyncio
import contextlib

import pytest
import redis

from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger

#: 2026-11-23 12:00:00 UTC.
NOON = 1795435200.0


class Clock:
    """Wall clock and monotonic clock: with `now += s`, time passes; `jump` changes the wall clock alone."""

    def __init__(self):
        self.now = NOON
        self.jumped = 0.0

    def __call__(self):
        return self.now

    def ticks(self):
        return self.now - self.jumped

    def jump(self, seconds):
        self.now += seconds
        self.jumped += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, tmp_path, clock, request):
    """Return a function that makes ledgers over the same storage."""
    if kind == "sqlite":
        return lambda: SqliteLedger(tmp_path / "state" / "ledger.sqlite", clock=clock, ticks=clock.ticks)
    cluster = kind == "redis cluster"
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return lambda: RedisLedger(url, cluster=cluster, clock=clock, ticks=clock.ticks)


@pytest.fixture
def run(make):
    """Run a coroutine function with a ledger, and close it."""

    def ran(work):
        async def whole():
            ledger = make()
            try:
                return await work(ledger)
            finally:
                await ledger.aclose()

        return asyncio.run(whole())

    return ran
