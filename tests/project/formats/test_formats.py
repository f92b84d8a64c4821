"""Files of past versions are read and stamped, with unchanged content; those of later versions are refused."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import redis

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.cache.base import Group
from embedway.cache.codec import decode
from embedway.cache.sqlite import SqliteCache
from embedway.errors import CacheError, ConfigError, LedgerError
from embedway.ledger.base import Limit, Purpose
from embedway.ledger.pins import new_pin, read_pin
from embedway.ledger.records import Record
from embedway.ledger.redis import RedisLedger
from embedway.ledger.redis_pins import RedisPins
from embedway.ledger.redis_records import RedisRecords
from embedway.ledger.sqlite import SqliteLedger
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.ledger.sqlite_records import SqliteRecords
from embedway.providers.fake import vector_of
from stored import read_entries, some_entries

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected-v1.json").read_text("utf-8"))
SERVICE = "text-embedding-3-small"
LEDGERS = ["sqlite", "redis"]


def clock():
    return EXPECTED["clock"]


@pytest.fixture
def old(tmp_path):
    """Return a function that copies an old file."""

    def copied(name):
        return Path(shutil.copy(HERE / name, tmp_path / name))

    return copied


@pytest.fixture
def server(valkey):
    """Return an empty server, with a client."""
    with contextlib.closing(redis.Redis.from_url(valkey, decode_responses=True)) as client:
        client.flushall()
        yield valkey, client


def load(client, name):
    """Load the data of an old version into a server."""
    for key, held in json.loads((HERE / name).read_text("utf-8")).items():
        if held["type"] == "hash":
            client.hset(key, mapping=held["value"])
        else:
            client.zadd(key, dict(held["value"]))


def stamp(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


# ------------------------------------------------------------- the cache


def test_unsafe_entries_of_a_version_1_cache_are_dropped_and_logged_once(old, caplog):
    path = old("cache-v1.sqlite")

    async def look():
        cache = SqliteCache(path, 2**30)
        held, counts, generation = await cache.group_sizes(), await cache.counts(), await cache.generation()
        samples = {one.group: await some_entries(cache, one.group, 9) for one in held}
        await cache.aclose()
        return held, counts, generation, samples

    # Entries of the catalog's local models are dropped; those of services, user-defined ones too, stay.
    before = [one for one in EXPECTED["cache"]["held"] if one["model"] in {SERVICE, "acme/m"}]
    for told in (1, 0):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "embedway.cache"):
            held, counts, generation, samples = asyncio.run(look())
        assert len(caplog.records) == told
        assert "4 of its 10 vectors are dropped" in caplog.text or not told
        assert [(one.group.model, one.group.namespace, one.entries) for one in held] == [
            (one["model"], one["namespace"], one["entries"]) for one in before
        ]
        # The counts remain valid, and the memory tier in front of it is emptied.
        assert counts == EXPECTED["cache"]["counts"]
        assert generation == 1
        for group, pairs in samples.items():
            keys, entries = zip(*pairs, strict=True)
            width = int(group.space_id.rpartition("/")[2])
            out = np.empty((len(pairs), width), np.float32)
            assert None not in decode(keys, entries, width, out, normalized=True), group
    assert stamp(path) == 2


def test_entries_of_a_service_in_a_cache_of_version_1_are_hits(old):
    server = OpenAIServer()
    server.width = 1536
    texts = [f"a text kept as {codec}" for codec in ("f32", "f16", "i8", "zstd")]

    async def main():
        async with server.running():
            route = {"model": SERVICE, "provider": "openai", "base_url": f"{server.url}/v1", "api_key": KEY}
            # Entries with the same loss as the requested codec are used.
            given = {"routes.r": route, "cache.path": str(old("cache-v1.sqlite")), "cache.codec": "i8"}
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=given)) as embedder:
                return await embedder.embed(texts, model=SERVICE)

    result = asyncio.run(main())
    assert (result.receipt.cache_hits, server.bodies) == (4, [])
    wanted = np.stack([vector_of(text, 1536) for text in texts])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (np.sum(result.vectors * wanted, axis=1) > 0.9995).all()


def test_a_large_cache_of_version_1_gives_its_free_pages_back(old):
    path = old("cache-v1.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (local,) = connection.execute("SELECT id FROM groups WHERE model LIKE '%MiniLM%'").fetchone()
        rows = ((f"{n:032}".encode(), local, bytes(1500)) for n in range(5000))
        connection.executemany("INSERT INTO entries (key, grp, created, used, value) VALUES (?, ?, 1.0, 1.0, ?)", rows)
        connection.commit()
    assert path.stat().st_size > 5_000_000

    async def look():
        cache = SqliteCache(path, 2**30)
        held = await cache.group_sizes()
        await cache.aclose()
        return sum(one.entries for one in held)

    assert asyncio.run(look()) == 6
    assert path.stat().st_size < 200_000


def test_of_a_cache_with_many_entries_of_services_only_the_others_go(old):
    path = old("cache-v1.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (service,) = connection.execute("SELECT MIN(id) FROM groups WHERE model = ?", (SERVICE,)).fetchone()
        rows = ((f"{n:032}".encode(), service, b"entry") for n in range(100))
        connection.executemany("INSERT INTO entries (key, grp, created, used, value) VALUES (?, ?, 1.0, 1.0, ?)", rows)
        connection.commit()

    async def look():
        cache = SqliteCache(path, 2**30)
        held = await cache.group_sizes()
        await cache.aclose()
        return [(one.group.model, one.entries) for one in held]

    assert asyncio.run(look()) == [(SERVICE, 104), (SERVICE, 1), ("acme/m", 1)]


def newer_cache(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 1700217697")
        connection.execute("PRAGMA user_version = 9")


def users_file(path):
    path.write_text("my only copy")


@pytest.mark.parametrize("tiered", [True, False])
@pytest.mark.parametrize(
    ("make", "error"),
    [(newer_cache, CacheError), (users_file, ConfigError)],
    ids=["newer", "foreign"],
)
def test_an_unusable_cache_is_an_error_of_every_call_and_closing_is_quiet(tmp_path, make, error, tiered):
    path = tmp_path / "v.sqlite"
    make(path)
    before = path.read_bytes()
    given = {
        "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 20},
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "cache.path": str(path),
        "cache.tiered": tiered,
    }

    async def main():
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=given)) as embedder:
            calls = (
                *(lambda: embedder.embed(["one"], model="acme/m"), lambda: embedder.embed(["one"], model="acme/m")),
                *(lambda: embedder.embed(["two", "three"], model="acme/m"), embedder.cache.stats),
                *(embedder.cache.clear, lambda: embedder.cache.verify(["one"], model="acme/m")),
            )
            for call in calls:
                with pytest.raises(error, match=r"v\.sqlite"):
                    await call()

    asyncio.run(main())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["v.sqlite"]


def test_a_cache_that_a_users_file_replaces_is_reported_and_the_file_stays_unchanged(tmp_path):
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26)
        await cache.put_many(Group("m", "m@1/4"), [(b"a" * 32, b"1")])
        path.unlink()
        path.write_text("my only copy\n" * 100)
        for _ in range(3):
            with pytest.raises(ConfigError, match="is not a file of embedway's cache"):
                await cache.get_many(Group("m", "m@1/4"), [b"a" * 32])
        assert await cache.add_counts({"m": {"hits": 1}}) is False
        await cache.aclose()

    asyncio.run(main())
    assert path.read_text() == "my only copy\n" * 100


def test_a_cache_that_is_written_over_meanwhile_is_not_moved(tmp_path):
    """The file has the same inode and a user's content: nothing shows that it was a cache."""
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26)
        await cache.put_many(Group("m", "m@1/4"), [(bytes([n]) * 32, bytes(3000)) for n in range(200)])
        await cache.aclose()
        cache = SqliteCache(path, 2**26)
        await cache.get_many(Group("m", "m@1/4"), [bytes([1]) * 32])
        path.write_bytes(b"my only copy\n" * 1000)
        with contextlib.suppress(ConfigError):
            for n in range(200):
                assert await read_entries(cache, Group("m", "m@1/4"), [bytes([n]) * 32]) == [None]
        with pytest.raises(ConfigError):
            await cache.group_sizes()
        await cache.aclose()
        assert cache.errors.set_aside == 0

    asyncio.run(main())
    assert path.read_bytes() == b"my only copy\n" * 1000
    assert not list(tmp_path.glob("*.damaged-*"))


# ------------------------------------------------------------- the ledger and the pins


@pytest.fixture(params=LEDGERS)
def old_ledger(request, old):
    """Return a ledger of version 1, and its reported numbers."""
    if request.param == "sqlite":
        return SqliteLedger(old("ledger-v1.sqlite"), clock=clock), EXPECTED["ledger"]
    url, client = request.getfixturevalue("server")
    load(client, "redis-ledger-v1.json")
    return RedisLedger(url, clock=clock), EXPECTED["redis_ledger"]


def test_a_ledger_of_version_1_says_what_it_said(old_ledger):
    ledger, told = old_ledger

    async def main():
        assert await ledger.restored() is None
        assert [one.to_json() for one in await ledger.standings()] == told["standings"]
        assert [dataclasses.asdict(one) for one in await ledger.totals()] == told["totals"]
        # `failed` is newer.
        entries = [{**one.to_json(), "id": "", "failed": None} for one in await ledger.entries()]
        assert entries == [{**one, "failed": None} for one in told["entries"]]
        # Warnings are not sent again, and the open entry stays open.
        assert await ledger.send(told["open_entry"], 10_000, ()) is None
        await ledger.close(told["open_entry"])
        spent = next(one for one in await ledger.standings() if one.limit.name == "all")
        assert (spent.spent, spent.held) == (told["totals"][0]["spent"] + 25_000, 0)
        await ledger.aclose()

    asyncio.run(main())


@pytest.fixture(params=LEDGERS)
def old_pins(request, old):
    """Return pins of version 1."""
    if request.param == "sqlite":
        return SqlitePins(old("pins-v1.sqlite"), clock=clock)
    url, client = request.getfixturevalue("server")
    load(client, "redis-pins-v1.json")
    return RedisPins(url, clock=clock)


def test_pins_of_version_1_are_kept_to(old_pins):
    async def main():
        found = {pin.collection: pin for pin in await old_pins.all()}
        assert set(found) == {"articles", "claimed"}
        for told in EXPECTED["pins"]:
            pin = found[told["collection"]]
            assert (pin.model, pin.since, pin.claim) == (told["model"], told["since"], told["claim"])
            facts = pin.space.to_json()
            assert {name: facts[name] for name in told["space"]} == told["space"]
        other = new_pin("articles", "other", dataclasses.replace(found["articles"].space, model="other"), "x")
        assert await old_pins.claim(other, 60) == found["articles"]
        await old_pins.aclose()

    asyncio.run(main())


def test_what_is_on_a_server_is_stamped_at_the_first_call(server):
    url, client = server
    load(client, "redis-ledger-v1.json")
    load(client, "redis-pins-v1.json")
    assert [client.get(f"{{embedway:{what}}}:format") for what in ("ledger", "pins")] == [None, None]

    async def main():
        for store, call in ((RedisLedger(url), "limits"), (RedisPins(url), "all")):
            await getattr(store, call)()
            await store.aclose()

    asyncio.run(main())
    assert [client.get(f"{{embedway:{what}}}:format") for what in ("ledger", "pins")] == ["3", "2"]


def test_a_ledger_of_version_2_has_records_after_its_migration(old):
    path = old("ledger-v2.sqlite")
    assert stamp(path) == 2

    async def main():
        records, ledger = SqliteRecords(path), SqliteLedger(path)
        assert await records.all("baseline") == []
        await records.put(Record("baseline", "docs", "{}"))
        assert (await records.get("baseline", "docs")).document == "{}"
        (limit,), (entry,) = await ledger.limits(), await ledger.entries()
        assert (limit.name, limit.nanousd, entry.model, entry.spent) == ("alle €", 10_000, "m", 300)
        await records.aclose()
        await ledger.aclose()

    asyncio.run(main())
    assert stamp(path) == 3


@pytest.mark.parametrize("version", [None, "2"])
def test_records_are_added_to_an_older_ledger_on_a_server(server, version):
    """The ledger is not taken for one that lost its spending."""
    url, client = server
    load(client, "redis-ledger-v1.json")

    async def main():
        records, ledger = RedisRecords(url), RedisLedger(url, clock=clock)
        if version is not None:
            await ledger.limits()
            client.set("{embedway:ledger}:format", version)
        await records.put(Record("baseline", "docs", "{}"))
        assert (await records.get("baseline", "docs")).document == "{}"
        assert isinstance(await ledger.reserve(Purpose("m"), 0, (), lease_s=60, texts=1), str)
        await records.aclose()
        await ledger.aclose()

    asyncio.run(main())
    assert client.get("{embedway:ledger}:format") == "3"


def test_a_ledger_of_version_2_on_a_server_that_lost_its_identity_is_detected(server):
    url, client = server
    load(client, "redis-ledger-v1.json")

    async def main():
        ledger = RedisLedger(url, clock=clock)
        await ledger.limits()
        client.delete("{embedway:ledger}:meta")
        client.set("{embedway:ledger}:format", "2")
        await ledger.aclose()
        ledger = RedisLedger(url, clock=clock)
        with pytest.raises(LedgerError, match="lost spending or budgets"):
            await ledger.reserve(Purpose("m"), 0, (), lease_s=60, texts=1)
        await ledger.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(("stamped", "named"), [("4", "4"), ("12", "12"), ("two\r\n$9", "two___9")])
def test_a_newer_server_is_refused_and_nothing_on_it_changes(server, stamped, named):
    url, client = server
    client.set("{embedway:ledger}:format", stamped)
    client.set("{embedway:pins}:format", stamped)

    async def main():
        ledger, pins, records = RedisLedger(url), RedisPins(url), RedisRecords(url)
        calls = (
            ledger.reserve(Purpose("m"), 1, (), lease_s=60, texts=1),
            *(ledger.set_limit(Limit("all", 5)), ledger.standings(), ledger.restored(), ledger.confirm()),
            *(pins.get("docs"), pins.all(), pins.remove("docs")),
            *(records.put(Record("baseline", "docs", "{}")), records.names("baseline")),
        )
        for call in calls:
            with pytest.raises(LedgerError, match=rf"in Redis has version {named}, .* up to [23]: use the newer"):
                await call
        await ledger.aclose()
        await records.aclose()
        await pins.aclose()

    asyncio.run(main())
    assert sorted(client.keys()) == ["{embedway:ledger}:format", "{embedway:pins}:format"]
    assert client.get("{embedway:ledger}:format") == stamped


def test_two_versions_share_a_server(server):
    """The older version writes without a check of the stamp, and its data is read."""
    url, client = server

    async def main():
        pins, ledger = RedisPins(url, clock=clock), RedisLedger(url, clock=clock)
        load(client, "redis-pins-v1.json")
        (articles,) = [pin for pin in await pins.all() if not pin.claim]
        load(client, "redis-ledger-v1.json")
        before = await ledger.totals()
        await pins.confirm(dataclasses.replace(articles, collection="ours"))
        load(client, "redis-pins-v1.json")  # simulates another write of version 1
        assert {pin.collection for pin in await pins.all()} == {"articles", "claimed", "ours"}
        assert await ledger.totals() == before
        await pins.aclose()
        await ledger.aclose()

    asyncio.run(main())
    assert json.loads(client.hget("{embedway:pins}", "ours"))["version"] == 2


def test_a_pin_of_a_newer_version_is_refused_and_named():
    written = json.dumps({"version": 3, "model": "m", "space": {}, "since": 1, "claim": "", "future": True})
    with pytest.raises(LedgerError, match=r"the pin of collection 'docs' has version 3, .* up to 2: use the newer"):
        read_pin("docs", written)


@pytest.mark.parametrize("change", [{"version": 0}, {"version": "2"}, {"version": True}, {"future": 1}])
def test_nothing_in_a_pin_is_ignored(change):
    pin = next(one for one in EXPECTED["pins"] if not one["claim"])
    facts = {name: value for name, value in pin.items() if name != "collection"}
    assert read_pin("docs", json.dumps(facts)).model == pin["model"]
    with pytest.raises(LedgerError, match="cannot be read by this version"):
        read_pin("docs", json.dumps({**facts, **change}))
