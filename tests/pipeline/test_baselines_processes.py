"""Baselines, quarantines and schedules of two embedders that share a ledger in Redis."""

import asyncio
import contextlib
import logging

import pytest
import redis

from async_tests import in_loop
from drift_faults import real_vectors, rotated, unchanged
from drifting_server import DriftingServer, config_of, settings_of
from embedway import AsyncEmbedder
from inside import engine_of

FIRST = "harbour"
TEXTS_OF_A_CHECK = 198


@pytest.fixture(scope="module")
def vectors(default_model_directory):
    return real_vectors(default_model_directory)


@pytest.fixture
def servers(vectors):
    made = [DriftingServer(vectors), DriftingServer(vectors)]
    yield made
    for server in made:
        server.close()


@pytest.fixture
def client(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        yield client


@pytest.fixture
def pair(servers, tmp_path, valkey, client):
    """Return two embedders: the first one puts routes in quarantine, the second one only warns."""

    def embedder(on_drift):
        ledger = {"backend": "redis", "url": valkey}
        # The schedule begins after 500 s.
        quality = {"on_drift": on_drift, "check_every_s": 1000}
        return AsyncEmbedder(config=config_of(servers, tmp_path, ledger=ledger, quality=quality))

    del client
    return embedder("quarantine"), embedder("warn")


async def route_of(embedder):
    return (await embedder.embed(FIRST)).receipt.routes[0]


async def comes_to(embedder, route):
    """Return whether calls use a route, after a refresh in the background."""
    for _ in range(200):
        if await route_of(embedder) == route:
            return True
    return False


@pytest.fixture
def always_due(monkeypatch):
    """Let the states be read again at each call, from now on."""
    return lambda: monkeypatch.setattr("embedway.quality.quarantine.REFRESH_S", 0.0)


@in_loop
async def test_a_baseline_is_shared(servers, pair):
    async with pair[0] as one, pair[1] as other:
        await one.quality.baseline()
        assert (await other.quality.check()).passed
        servers[1].fault = rotated
        assert [found.verdict for found in (await other.quality.check()).routes] == ["passed", "drifted"]
        assert await other.quality.remove_baseline("m")
        assert await one.quality.baselines() == []


@in_loop
async def test_a_quarantine_and_its_end_are_shared(servers, pair, always_due):
    async with pair[0] as one, pair[1] as other:
        await one.quality.baseline()
        assert await route_of(other) == "routes.r0"
        servers[0].fault = rotated
        assert (await one.quality.check()).routes[0].quarantined
        assert await route_of(one) == "routes.r1"
        # The states were read a moment ago.
        assert await route_of(other) == "routes.r0"
        always_due()
        assert await comes_to(other, "routes.r1")
        # It only warns of its own findings, and ends no quarantine of others.
        assert (await other.quality.check()).routes[0].quarantined
        assert await other.quality.release(route="routes.r0") == ["routes.r0"]
        assert await route_of(other) == "routes.r0"
        assert await comes_to(one, "routes.r0")


@in_loop
async def test_of_two_schedules_one_checks_and_both_obey(servers, pair, always_due):
    async with pair[0] as one, pair[1] as other:
        await one.quality.baseline()
        assert await route_of(one) == await route_of(other) == "routes.r0"
        servers[0].fault = rotated
        before = servers[0].texts
        schedules = [engine_of(embedder).schedule for embedder in (one, other)]
        for schedule in schedules:
            await schedule.run_once()
        assert servers[0].texts == before + TEXTS_OF_A_CHECK
        always_due()
        assert await comes_to(one, "routes.r1")
        assert await comes_to(other, "routes.r1")
        servers[0].fault = unchanged
        assert (await other.quality.check()).passed
        assert await comes_to(one, "routes.r0")


@in_loop
async def test_schedules_at_the_same_moment_check_once(servers, pair):
    async with pair[0] as one, pair[1] as other:
        await one.quality.baseline()
        await other.embed(FIRST)
        before = servers[0].texts
        schedules = [engine_of(embedder).schedule for embedder in (one, other)]
        await asyncio.gather(*(schedule.run_once() for schedule in schedules))
        assert servers[0].texts == before + TEXTS_OF_A_CHECK


@in_loop
async def test_a_read_without_changes_is_one_small_command(servers, pair, client):
    def reads():
        return client.info("commandstats")["cmdstat_eval"]["calls"]

    async with pair[0] as one:
        await one.quality.baseline()
        servers[0].fault = rotated
        await one.quality.check()
        quarantines = engine_of(one).environment.quarantines
        before = reads()
        for _ in range(5):
            await quarantines.read()
        assert reads() == before + 5


@in_loop
async def test_a_server_that_is_down_stops_no_call_and_is_logged_once(servers, tmp_path, caplog, always_due):
    free = settings_of(servers, tmp_path)["models"]["m"] | {"price_usd_per_million_tokens": "0"}
    ledger = {"backend": "redis", "url": "redis://127.0.0.1:1/0"}
    config = config_of(servers, tmp_path, ledger=ledger, models={"m": free})
    with caplog.at_level(logging.WARNING, "embedway.quality"):
        async with AsyncEmbedder(config=config) as embedder:
            for _ in range(3):
                assert await route_of(embedder) == "routes.r0"
                always_due()
    assert caplog.text.count("quarantines of routes cannot be read") == 1
