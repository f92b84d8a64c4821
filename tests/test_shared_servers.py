"""Warnings about servers that several parts use: once in a process, without passwords."""

import asyncio
import contextlib
import logging

import pytest
import redis
import redis.asyncio

from embedway import AsyncEmbedder, Config
from embedway.shared_servers import CacheUse, ServerFacts, note_use, read_facts
from inside import forget_servers

URL = "redis://user:hunter2@cache.example.com:6379/0"


@pytest.fixture(autouse=True)
def warnings(caplog):
    """Return a function that returns the warnings so far."""
    forget_servers()
    caplog.set_level(logging.INFO, "embedway.redis")
    yield lambda: [record.getMessage() for record in caplog.records if record.name == "embedway.redis"]
    forget_servers()


def test_the_cache_with_the_ledger_is_one_warning(warnings):
    facts = ServerFacts(("id",))
    for _ in range(3):
        note_use("cache", URL, facts)
        note_use("ledger", URL.replace("cache.example.com", "10.0.0.1"), facts)
    (line,) = warnings()
    assert line.startswith("the cache and the ledger use the same Redis server at 10.0.0.1:6379: ")
    assert "hunter2" not in line


def test_servers_of_their_own_are_no_warning(warnings):
    note_use("cache", URL, ServerFacts(("one",), 10**9, "allkeys-lru"))
    note_use("ledger", URL, ServerFacts(("other",), 10**9, "noeviction"))
    note_use("pins", URL, ServerFacts(("other",), 10**9, "volatile-lru"))
    assert warnings() == []


def test_without_info_the_address_decides(warnings):
    note_use("cache", URL, ServerFacts())
    note_use("ledger", URL.replace("cache.", "ledger."), ServerFacts())
    assert warnings() == []
    note_use("pins", URL, ServerFacts())
    assert len(warnings()) == 1


def test_a_policy_that_deletes_any_key_is_one_warning(warnings):
    for part in ("ledger", "pins", "ledger"):
        note_use(part, URL, ServerFacts(("id",), 10**6, "allkeys-lfu"))
    (line,) = warnings()
    assert "is allkeys-lfu: when it is full, it may delete spending and budgets" in line


@pytest.mark.parametrize("facts", [ServerFacts(("id",), 0, "allkeys-lru"), ServerFacts(("id",), 10**6, "noeviction")])
def test_a_policy_without_a_limit_or_without_deletion_is_no_warning(warnings, facts):
    note_use("ledger", URL, facts)
    assert warnings() == []


@pytest.mark.parametrize(
    ("maxmemory", "policy", "use", "said"),
    [
        (0, "noeviction", CacheUse(2**26, expires=True), "set its maxmemory, and its maxmemory-policy to volatile-lru"),
        (2**29, "noeviction", CacheUse(2**32, expires=True), "set cache.redis_mib to 256 or less"),
        (2**29, "noeviction", CacheUse(2**28, expires=True), None),
        (2**29, "noeviction", CacheUse(2**26, expires=True), None),
        (2**29, "volatile-lru", CacheUse(2**32, expires=True), None),
        (2**29, "volatile-lru", CacheUse(2**32, expires=False), "set cache.redis_mib to 256 or less"),
        (0, "", CacheUse(2**26, expires=True), "allow the command INFO"),
        (10**6, "noeviction", CacheUse(2**26, expires=True), "raise its maxmemory"),
    ],
)
@pytest.mark.parametrize("is_cache_first", [True, False])
def test_a_shared_server_is_a_warning_until_its_advice_is_followed(
    warnings, is_cache_first, maxmemory, policy, use, said
):
    facts = ServerFacts(("id",), maxmemory, policy)
    noted = [("cache", URL, facts, use), ("ledger", URL, facts)]
    for arguments in noted if is_cache_first else reversed(noted):
        note_use(*arguments)
    assert len(warnings()) == (said is not None)
    assert said is None or said in warnings()[0]


def test_a_policy_that_deletes_is_the_only_warning_about_a_shared_server(warnings):
    facts = ServerFacts(("id",), 10**9, "allkeys-lru")
    note_use("cache", URL, facts, CacheUse(2**32, expires=True))
    note_use("ledger", URL, facts)
    (line,) = warnings()
    assert "or to volatile-lru if the cache shares the server" in line


def test_the_facts_of_real_servers(valkey, valkey_cluster):
    async def main():
        for client in (redis.asyncio.Redis.from_url(valkey), redis.asyncio.RedisCluster.from_url(valkey_cluster)):
            facts = await read_facts(client)
            assert len(facts.run_ids) == 1
            assert (facts.maxmemory, facts.policy) == (0, "noeviction")
            await client.aclose()

    asyncio.run(main())


def test_an_embedder_warns_once_about_its_own_server(valkey, warnings):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
    overrides = {
        "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"},
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "cache.backend": "redis",
        "cache.url": f"{valkey}/1",
        "ledger.backend": "redis",
        "ledger.url": valkey.replace("127.0.0.1", "localhost"),
    }

    async def main():
        for number in range(2):
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
                await embedder.embed([f"text {number}"], model="acme/m")

    asyncio.run(main())
    assert len(warnings()) == 1
