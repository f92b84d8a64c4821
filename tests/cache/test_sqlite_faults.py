"""A SQLite file that is full, locked, damaged or removed: no wrong vector, no failed request, and counters show it."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from embedway import AsyncEmbedder
from embedway.cache.base import CacheFilter
from embedway.cache.codec import decode
from embedway.cache.sqlite import SqliteCache
from embedway.errors import CacheError, ConfigError
from embedway.providers.fake import vector_of
from faulty_caches import GROUP, MODEL, TEXTS, clocked, config_for, embedded
from inside import (
    cache_of,
    counters_of,
    on_reader,
    on_writer,
    store_of,
    variables,
    writing_connection,
)
from stored import read_entries, some_entries


@pytest.fixture(autouse=True)
def patient_cache():
    """Use the cache's own timeouts."""


def test_the_disk_is_full(tmp_path, clock):
    async def main():
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(tmp_path / "v.sqlite"))) as embedder:
            cache = clocked(embedder, clock)
            await embedded(embedder)
            connection = writing_connection(cache)
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own error for a full disk
            many = [f"more {n}" for n in range(2000)]
            await embedded(embedder, many)
            assert cache.errors.failed_writes > 0
            assert cache.errors.last.reason == "the disk is full"
            assert (await embedded(embedder)).cache_hits == 40
            assert counters_of(embedder).stored < 100
            connection.execute("PRAGMA max_page_count = 1000000")
            clock.now += 10
            await embedded(embedder, many)
            assert (await embedded(embedder, many)).cache_hits == 2000

    asyncio.run(main())


#: A process whose files cannot grow beyond 100 kB: the system itself refuses the write.
CRAMPED = """
import asyncio, json, resource, signal, sys
import numpy as np
from embedway import AsyncEmbedder, Config
from embedway.errors import RuntimeUnavailableError
from embedway.providers.fake import vector_of
from inside import settle, store_of

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

async def main():
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=json.loads(sys.argv[1]))) as embedder:
        for n in range(5):
            texts = [f"text {n} {i}" for i in range(500)]
            result = await embedder.embed(texts, model="acme/m")
            np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
        await settle(embedder)
        print(store_of(embedder).errors.failed_writes)

asyncio.run(main())
"""


def test_the_system_refuses_to_write(tmp_path):
    overrides = {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "cache.backend": "sqlite",
        "cache.path": str(tmp_path / "v.sqlite"),
        "ledger.backend": "none",
    }
    command = [sys.executable, "-c", CRAMPED, json.dumps(overrides)]
    ran = subprocess.run(command, env=variables(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("no folder")

    async def main():
        async with AsyncEmbedder(
            config=config_for(backend="sqlite", path=str(tmp_path / "file" / "v.sqlite"))
        ) as embedder:
            assert (await embedded(embedder)).cache_hits == 0
            assert (await embedded(embedder)).cache_hits == 0
            assert store_of(embedder).errors.failed_reads == 2

    asyncio.run(main())


@pytest.mark.parametrize("before", [True, False])
def test_a_file_that_another_process_has_locked(tmp_path, clock, monkeypatch, before):
    monkeypatch.setattr("embedway.cache.sqlite_connection.BUSY_S", 0.05)
    path = tmp_path / "v.sqlite"

    async def main():
        config = config_for(backend="sqlite", path=str(path))
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder, TEXTS[:20])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            if before:
                other.execute("PRAGMA locking_mode = EXCLUSIVE")  # no other process may even read
            async with AsyncEmbedder(config=config) as embedder:
                cache = clocked(embedder, clock)
                if not before:
                    await embedded(embedder, TEXTS[:10])
                other.execute("BEGIN EXCLUSIVE")
                receipt = await embedded(embedder)
                assert receipt.cache_hits == (0 if before else 20)
                failed = cache.errors.failed_writes
                assert failed > 0
                assert cache.errors.last.reason == "another program has locked it"
                await embedded(embedder)
                assert cache.errors.failed_writes > failed
                other.execute("ROLLBACK")
                other.close()
                clock.now += 10
                await embedded(embedder)
                assert (await embedded(embedder)).cache_hits == 40

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["header", "pages", "empty"])
def test_a_damaged_file_is_set_aside(tmp_path, damage):
    path = tmp_path / "v.sqlite"
    config = config_for(backend="sqlite", path=str(path))

    async def first():
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder, [f"text {n}" for n in range(500)])

    async def second():
        async with AsyncEmbedder(config=config) as embedder:
            receipt = await embedded(embedder)
            assert (await embedded(embedder)).cache_hits == 40
            return receipt.cache_hits, store_of(embedder).errors

    asyncio.run(first())
    good = path.read_bytes()
    if damage == "header":
        # The rest of the file still identifies itself as SQLite and as the cache's.
        path.write_bytes(good[:16] + bytes(52) + good[68:72] + bytes(28) + good[100:])
    elif damage == "pages":
        chance = np.random.default_rng(1)
        path.write_bytes(good[:4096] + chance.integers(0, 256, len(good) - 4096, np.uint8).tobytes())
    else:
        path.write_bytes(b"")
    hits, troubles = asyncio.run(second())
    assert hits == 0
    aside = list(tmp_path.glob("v.sqlite.damaged-*"))
    assert len(aside) == troubles.set_aside == (0 if damage == "empty" else 1)


def test_any_bit_of_a_file_flipped_gives_no_wrong_vector(tmp_path):
    """Bits in pages of keys, entries and SQLite itself: every hit is right, and most entries are hits."""
    path, texts, chance = tmp_path / "v.sqlite", TEXTS[:30], np.random.default_rng(3)
    wanted = np.array([vector_of(text, 16) for text in texts])

    async def fill():
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(path))) as embedder:
            await embedded(embedder, texts)
            cache, (held,) = store_of(embedder), await store_of(embedder).group_sizes()
            pairs = await some_entries(cache, held.group, 30)
            keys = [key for key, _ in pairs]
            vectors = np.empty((30, 16), np.float32)
            metas = decode(keys, [entry for _, entry in pairs], 16, vectors)
            assert sorted(np.abs(wanted - vector).max(axis=1).argmin() for vector in vectors) == list(range(30))
            return keys, metas, vectors

    keys, metas, vectors = asyncio.run(fill())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_entries_1'"
        (page,), (size,) = connection.execute(query).fetchone(), connection.execute("PRAGMA page_size").fetchone()
    good = path.read_bytes()
    index = [place for place in range((page - 1) * size, page * size) if good[place]]
    flips = [*chance.choice(index, 250), *chance.integers(0, len(good), 250)]

    async def look(number, place):
        folder = tmp_path / f"flip{number}"
        folder.mkdir()
        bad = bytearray(good)
        bad[place] ^= 1 << int(chance.integers(8))
        (folder / "v.sqlite").write_bytes(bad)
        cache = SqliteCache(folder / "v.sqlite", 2**30)
        try:
            entries = await read_entries(cache, GROUP, keys)
        except (ConfigError, CacheError):
            # The bits that identify the file's owner and version.
            assert place < 16 or 60 <= place < 64 or 68 <= place < 72
            assert (folder / "v.sqlite").read_bytes() == bad
            return 0
        finally:
            await cache.aclose()
        out = np.empty((30, 16), np.float32)
        found = decode(keys, entries, 16, out)
        for row, meta in enumerate(found):
            assert meta is None or (meta == metas[row] and np.array_equal(out[row], vectors[row])), place
        return sum(meta is not None for meta in found)

    async def main():
        return [await look(number, place) for number, place in enumerate(flips)]

    found = asyncio.run(main())
    assert np.mean(found) > 20
    assert min(found) < 30


@pytest.mark.parametrize("whose", ["reader", "writer"])
def test_a_read_never_waits_for_a_lock(tmp_path, clock, whose):
    async def main():
        path = tmp_path / "v.sqlite"
        cache = SqliteCache(path, 2**26, clock=clock)
        keys = [bytes([n]) * 32 for n in range(5)]
        await cache.put_many(GROUP, [(key, b"entry") for key in keys])
        await cache.get_many(GROUP, keys)
        clock.now += 4000  # its times of use are due for an update
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            put = None
            if whose == "writer":
                put = asyncio.ensure_future(cache.put_many(GROUP, [(b"x" * 32, b"entry")]))
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            for _ in range(3):
                began = loop.time()
                assert await read_entries(cache, GROUP, keys) == [b"entry"] * 5
                assert loop.time() - began < 1  # the timeout for a lock is twice as long
            assert cache.errors.failed_reads == 0
            assert put is None or not put.done()
            other.execute("ROLLBACK")
        if put is not None:
            assert await put == 1
        await cache.get_many(GROUP, keys)
        await cache.aclose()
        with contextlib.closing(sqlite3.connect(path)) as other:
            used = [row[0] for row in other.execute("SELECT used FROM entries")]
            assert used == [clock.now] * len(used)

    asyncio.run(main())


def test_a_file_that_is_removed_is_created_again_and_loses_nothing_after_that(tmp_path):
    path = tmp_path / "v.sqlite"

    async def main():
        cache, other = SqliteCache(path, 2**26), SqliteCache(path, 2**26)
        await cache.put_many(GROUP, [(b"a" * 32, b"1")])
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        assert await cache.put_many(GROUP, [(b"b" * 32, b"2")]) == 1
        assert await read_entries(other, GROUP, [b"a" * 32, b"b" * 32]) == [None, b"2"]
        assert await read_entries(cache, GROUP, [b"b" * 32]) == [b"2"]
        await cache.aclose()
        await other.put_many(GROUP, [(b"c" * 32, b"3")])
        await other.aclose()
        third = SqliteCache(path, 2**26)
        assert await read_entries(third, GROUP, [b"b" * 32, b"c" * 32]) == [b"2", b"3"]
        await third.aclose()

    asyncio.run(main())


def test_a_file_is_set_aside_only_where_it_is_damaged(tmp_path):
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26)
        await cache.put_many(GROUP, [(b"a" * 32, b"1")])

        def against_the_rules(connection):
            connection.execute("INSERT INTO entries (key) VALUES (?)", (b"a" * 32,))

        def wrongly_written(connection):
            connection.execute("SELECT ?", ())

        assert await on_writer(cache, against_the_rules) is None
        assert await on_reader(cache, wrongly_written) is None
        assert (cache.errors.failed_writes, cache.errors.failed_reads) == (1, 1)
        await cache.aclose()
        assert cache.errors.set_aside == 0
        again = SqliteCache(path, 2**26)
        assert await read_entries(again, GROUP, [b"a" * 32]) == [b"1"]
        await again.aclose()

    asyncio.run(main())
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_two_that_find_a_file_damaged_set_it_aside_once(tmp_path):
    path = tmp_path / "v.sqlite"

    async def fill():
        cache = SqliteCache(path, 2**26)
        await cache.put_many(GROUP, [(bytes([n]) * 32, bytes(2000)) for n in range(100)])
        await cache.aclose()

    asyncio.run(fill())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:4096] + b"no page at all, and long enough to look at" * 5000)

    async def main():
        caches = [SqliteCache(path, 2**26) for _ in range(3)]
        both = [call for cache in caches for call in (cache.get_many(GROUP, [b"a" * 32]), cache.group_sizes())]
        await asyncio.gather(*both)
        await asyncio.gather(*(cache.put_many(GROUP, [(bytes([n]) * 32, b"1")]) for n, cache in enumerate(caches)))
        await asyncio.gather(*(cache.put_many(GROUP, [(bytes([n]) * 32, b"1")]) for n, cache in enumerate(caches)))
        assert await read_entries(caches[0], GROUP, [bytes([n]) * 32 for n in range(3)]) == [b"1"] * 3
        for cache in caches:
            await cache.aclose()
        return sum(cache.errors.set_aside for cache in caches)

    assert asyncio.run(main()) == 1
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_what_is_cleared_or_too_old_leaves_the_disk(tmp_path, clock):
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26, clock=clock, ttl_s=60.0)
        await cache.put_many(GROUP, [(bytes([n % 256, n // 256]) * 16, bytes(2000)) for n in range(1000)])
        clock.now += 61
        for n in range(2):
            await cache.put_many(GROUP, [(bytes([n]) * 32, bytes(2000))])
        count = await on_reader(cache, lambda connection: connection.execute("SELECT COUNT(*) FROM entries").fetchone())
        await cache.clear(CacheFilter())
        await cache.aclose()
        return count

    assert asyncio.run(main()) == (2,)
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("ttl_s", [None, 60.0])
def test_entries_are_indexed_by_age_only_where_they_get_too_old(tmp_path, clock, ttl_s):
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26, clock=clock, ttl_s=ttl_s)
        await cache.put_many(GROUP, [(bytes(32), bytes(2000))])
        await cache.aclose()

    asyncio.run(main())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT id FROM entries WHERE created < 1").fetchall()
    assert any("entries_created" in str(row) for row in plan) == (ttl_s is not None)


def test_counts_that_could_not_be_stored_are_stored_later(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("embedway.cache.sqlite_connection.BUSY_S", 0.05)
    path = tmp_path / "v.sqlite"

    async def main():
        config = config_for(backend="sqlite", path=str(path))
        async with AsyncEmbedder(config=config) as embedder:
            clocked(embedder, clock)
            await embedded(embedder)
            await embedded(embedder)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await cache_of(embedder).counters.save()
                other.execute("ROLLBACK")
            clock.now += 10
            stats = await embedder.cache.stats()
            assert (stats.total.hits, stats.total.misses, stats.failed_writes) == (40, 40, 1)
        async with AsyncEmbedder(config=config) as embedder:
            stats = await embedder.cache.stats()
            assert (stats.total.hits, stats.total.misses, stats.failed_writes) == (40, 40, 1)

    asyncio.run(main())


def test_a_clock_that_goes_back_does_not_turn_the_cache_off(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("embedway.cache.sqlite_connection.BUSY_S", 0.05)
    path = tmp_path / "v.sqlite"

    async def main():
        cache = SqliteCache(path, 2**26, clock=clock)
        assert await cache.put_many(GROUP, [(b"k" * 32, b"v")]) == 1
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert await cache.put_many(GROUP, [(b"x" * 32, b"v")]) == 0
            other.execute("ROLLBACK")
        clock.now -= 86_400
        assert await cache.put_many(GROUP, [(b"x" * 32, b"v")]) == 1
        await cache.aclose()

    asyncio.run(main())


SPOILED = [
    "UPDATE counts SET number = 'many'",
    "UPDATE counts SET model = x'ff', name = NULL",
    "UPDATE counts SET number = -5",
    "INSERT OR REPLACE INTO cleared VALUES (1, 'often')",
    "UPDATE groups SET model = NULL, space_id = 7, namespace = x'ff'",
    "UPDATE entries SET created = 'today', used = NULL",
    "UPDATE entries SET grp = 'none'",
    "DROP TABLE counts",
    "ALTER TABLE entries RENAME TO others",
    "ALTER TABLE groups RENAME COLUMN model TO name_of_model",
    "ALTER TABLE cleared RENAME TO others; CREATE VIEW cleared AS SELECT * FROM others",
    "CREATE TRIGGER spoil BEFORE INSERT ON entries BEGIN SELECT RAISE(FAIL, 'no'); END",
    "CREATE TRIGGER spoil AFTER INSERT ON counts BEGIN DELETE FROM entries; END",
]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("spoil", SPOILED)
def test_what_others_wrote_into_the_file_fails_no_request(tmp_path, spoil, is_open):
    path = tmp_path / "v.sqlite"

    async def main():
        config = config_for(backend="sqlite", path=str(path), tiered=True)
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder)
        async with AsyncEmbedder(config=config) as embedder:
            if is_open:
                await embedded(embedder, TEXTS[:3])
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.executescript(spoil)
            await embedded(embedder)
            for work in (embedder.cache.stats, embedder.cache.clear):
                with contextlib.suppress(CacheError):
                    await work()
            await embedded(embedder)
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder)
            await embedded(embedder, ["another text"])
            assert (await embedder.cache.stats()).total.entries > 0

    asyncio.run(main())
