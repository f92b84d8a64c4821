"""Ledger on a small server that it shares with the cache: full, or with a policy that deletes keys."""

import asyncio
import contextlib
import logging

import pytest
import redis

from embedway import AsyncEmbedder, Config
from embedway.errors import LedgerError
from embedway.ledger.base import Limit, Purpose
from embedway.ledger.redis import RedisLedger
from inside import forget_servers
from valkey_server import start_valkey

MAXMEMORY = 6 * 2**20


@pytest.fixture
def small(tmp_path, request):
    """Return a client of a server with 6 MB, and its URL. The parameter is its policy."""
    server = start_valkey(tmp_path, config={"maxmemory": "6mb", "maxmemory-policy": request.param, "save": ""})
    try:
        with contextlib.closing(redis.Redis(port=server.port)) as client:
            forget_servers()
            yield client, f"redis://127.0.0.1:{server.port}"
    finally:
        server.stop()
        forget_servers()


def settings_on(url, **more):
    overrides = {
        "models.m": {"name": "acme/m", "dimensions": 768, "max_tokens": 20, "price_usd_per_million_tokens": "1"},
        "routes.r": {"model": "acme/m", "provider": "fake", "options": {"width": "768"}},
        "budgets.b": {"usd": "5"},
        "cache.backend": "redis",
        "cache.url": url,
        "ledger.backend": "redis",
        "ledger.url": url,
        **more,
    }
    return Config.load(environ={}, overrides=overrides)


def fill(client):
    """Fill a server until it refuses writes."""
    with contextlib.suppress(redis.exceptions.OutOfMemoryError):
        for number in range(10_000):
            client.set(f"other:{number}", bytes(2000))


@pytest.mark.parametrize("small", ["noeviction"], indirect=True)
def test_the_cache_leaves_room_for_the_ledger_on_a_small_server(small, caplog):
    client, url = small

    async def main():
        async with AsyncEmbedder(config=settings_on(url)) as embedder:
            for start in range(0, 6000, 300):
                texts = [f"text {number}" for number in range(start, start + 300)]
                result = await embedder.embed(texts, model="acme/m")
                assert not result.receipt.notes

    asyncio.run(main())
    assert client.info("memory")["used_memory"] < MAXMEMORY
    assert client.dbsize() > 200
    assert [record.levelname for record in caplog.records if "same Redis server" in record.getMessage()] == ["WARNING"]
    assert "cannot be written" not in caplog.text


@pytest.mark.parametrize("small", ["noeviction"], indirect=True)
def test_a_full_server_is_an_error_that_names_the_setting(small):
    client, url = small
    fill(client)

    async def main():
        async with AsyncEmbedder(config=settings_on(url)) as embedder:
            await embedder.embed(["a text"], model="acme/m")

    with pytest.raises(LedgerError, match="its memory is full; nothing is spent without it: raise its maxm") as raised:
        asyncio.run(main())
    assert "set cache.url to another one" in str(raised.value)


@pytest.mark.parametrize("small", ["noeviction"], indirect=True)
def test_a_full_server_stops_no_call_that_only_caches(small, caplog):
    client, url = small
    fill(client)

    async def main():
        async with AsyncEmbedder(config=settings_on(url, **{"ledger.backend": "none", "budgets": {}})) as embedder:
            for _ in range(3):
                result = await embedder.embed(["a text"], model="acme/m")
                assert result.vectors.shape == (1, 768)

    asyncio.run(main())
    assert len([one for one in caplog.records if "cannot be written: its memory is full" in one.getMessage()]) == 1


@pytest.mark.parametrize("small", ["allkeys-lru"], indirect=True)
def test_deleted_spending_is_an_error_until_it_is_confirmed(small, caplog):
    client, url = small

    async def main():
        ledger = RedisLedger(url)
        limits = [Limit("b", 10**9, "*", "total", hard=True)]
        purpose = Purpose("acme/m")
        await ledger.reserve(purpose, 1000, limits, lease_s=60, texts=1)
        assert len([one for one in caplog.records if "maxmemory-policy" in one.getMessage()]) == 1
        keys = ["{embedway:ledger}:" + name for name in ("accounts", "meta", "format")]
        number = 0
        while client.exists(keys[0]):
            client.touch(*keys[1:])  # used more recently than the accounts
            client.set(f"other:{number}", bytes(2000))
            number += 1
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"embedway budget confirm|was removed, emptied"):
                await ledger.reserve(purpose, 1000, limits, lease_s=60, texts=1)
        await ledger.aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())


@pytest.mark.parametrize("key", ["accounts", "limits", "meta"])
def test_a_missing_key_refuses_spending_until_it_is_confirmed(valkey, key):
    async def main():
        with contextlib.closing(redis.Redis.from_url(valkey)) as client:
            client.flushall()
            ledger, purpose = RedisLedger(valkey), Purpose("acme/m")
            await ledger.set_limit(Limit("b", 10**9, "*", "total", hard=True))
            await ledger.reserve(purpose, 1000, [], lease_s=60, texts=1)
            client.delete("{embedway:ledger}:" + key)
            await ledger.aclose()
            ledger = RedisLedger(valkey)  # as in a process that starts later
            for _ in range(2):
                with pytest.raises(LedgerError, match="lost spending or budgets"):
                    await ledger.reserve(purpose, 1000, [], lease_s=60, texts=1)
            assert await ledger.confirm() is None
            await ledger.reserve(purpose, 1000, [], lease_s=60, texts=1)
            await ledger.aclose()

    asyncio.run(main())


def test_a_removed_budget_is_no_loss(valkey):
    async def main():
        with contextlib.closing(redis.Redis.from_url(valkey)) as client:
            client.flushall()
        ledger = RedisLedger(valkey)
        await ledger.set_limit(Limit("b", 10**9, "*", "total", hard=True))
        assert await ledger.remove_limit("b")
        await ledger.reserve(Purpose("acme/m"), 1000, [], lease_s=60, texts=1)
        await ledger.aclose()

    asyncio.run(main())
