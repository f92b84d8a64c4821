"""Faults of a cache: no wrong vector, no failed request, and the counters tell."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import redis

from embedway import AsyncEmbedder, Config
from embedway.cache.base import CacheFilter, Group
from embedway.cache.codec import decode
from embedway.cache.memory import MemoryCache
from embedway.cache.redis import RedisCache
from embedway.cache.sqlite import SqliteCache
from embedway.errors import CacheError, ConfigError, RuntimeUnavailableError
from embedway.providers.fake import vector_of
from inside import (
    cache_of,
    counters_of,
    on_reader,
    on_writer,
    server_of,
    set_store_clock,
    settle,
    store_of,
    variables,
    writing_connection,
)
from stored import read_entries, some_entries
from valkey_server import start_cluster, start_valkey

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20}
GROUP = Group("m", "m@1/4")
TEXTS = [f"text {n}" for n in range(40)]


@pytest.fixture(autouse=True)
def patient_cache():
    """These tests are of the cache's own timeouts."""


def config_for(**cache):
    overrides = {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "cache.tiered": False,
        **{f"cache.{name}": value for name, value in cache.items()},
    }
    return Config.load(environ={}, overrides=overrides)


def clocked(embedder, clock):
    """The store of an embedder's cache, with a time of its own."""
    set_store_clock(store_of(embedder), clock)
    return store_of(embedder)


async def embedded(embedder, texts=TEXTS):
    """The receipt, of vectors that are right."""
    result = await embedder.embed(texts, model="acme/m")
    await settle(embedder)
    np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
    return result.receipt


def test_valkey_stopped_and_started_again_under_load(tmp_path, clock):
    async def main(first):
        port = first.port
        async with AsyncEmbedder(config=config_for(backend="redis", url=f"redis://127.0.0.1:{port}")) as embedder:
            cache = clocked(embedder, clock)
            done, stopping = [], asyncio.Event()

            async def load(n):
                while not stopping.is_set():
                    await embedded(embedder, [f"{n} {len(done) % 50}", *TEXTS[n : n + 5]])
                    done.append(n)

            async def reach(count):
                while len(done) < count:  # noqa: ASYNC110  the loads make it true, a turn of the loop at a time
                    await asyncio.sleep(0)

            loads = [asyncio.create_task(load(n)) for n in range(8)]
            await reach(200)
            assert cache.errors.failed_reads == 0
            await asyncio.to_thread(first.stop)
            await reach(len(done) + 200)
            assert cache.errors.failed_reads > 0
            second = await asyncio.to_thread(start_valkey, tmp_path, port=port)
            try:
                failed = -1
                while failed != cache.errors.failed_reads:  # a call that began before may fail, and rest again
                    failed = cache.errors.failed_reads
                    clock.now += 10
                    await reach(len(done) + 200)
                stopping.set()
                await asyncio.gather(*loads)
                failed = cache.errors.failed_reads
                assert (await embedded(embedder)).cache_hits >= 12
                assert (await embedded(embedder)).cache_hits == 40
                assert cache.errors.failed_reads == failed
                (held,) = await cache.group_sizes()
                assert (held.group.model, held.entries >= 40) == ("acme/m", True)
            finally:
                second.stop()

    first = start_valkey(tmp_path)
    try:
        asyncio.run(main(first))
    finally:
        if first.is_running():
            first.stop()


@pytest.mark.parametrize("listening", [True, False])
def test_a_server_that_does_not_answer_costs_one_wait_and_no_request(listening, clock):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(100)

        async def main():
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                cache = clocked(embedder, clock)
                asked, client = [], server_of(cache).client.hget  # the first command of all
                server_of(cache).client.hget = lambda *names: asked.append(names) or client(*names)
                for _ in range(20):
                    assert (await embedded(embedder)).cache_hits == 0
                assert len(asked) == 1
                assert cache.errors.failed_reads >= 20
                assert cache.errors.failed_writes >= 20
                clock.now += 10
                await embedded(embedder)
                assert len(asked) == 2

        asyncio.run(asyncio.wait_for(main(), 30))


def test_entries_in_valkey_have_the_time_to_live_that_was_set(valkey):
    async def main():
        cache = RedisCache(valkey, ttl_s=60.0)
        await cache.put_many(Group("ttl", "m@1/4"), [(b"k" * 32, b"entry")])
        await cache.aclose()

    asyncio.run(main())
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        (name,) = client.scan_iter(f"embedway:v1:{Group('ttl', 'm@1/4').id}:*")
        assert 50_000 < client.pttl(name) <= 60_000


def test_a_valkey_that_is_full_refuses_and_reads_go_on(tmp_path):
    with contextlib.ExitStack() as stack:
        server = start_valkey(tmp_path)
        stack.callback(server.stop)
        url = f"redis://127.0.0.1:{server.port}"
        client = stack.enter_context(contextlib.closing(redis.Redis.from_url(url)))

        async def main():
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                cache = store_of(embedder)
                await embedded(embedder, TEXTS[:20])
                client.config_set("maxmemory", 1)
                assert (await embedded(embedder)).cache_hits == 20
                assert cache.errors.failed_writes > 0
                client.config_set("maxmemory", 0)
                assert (await embedded(embedder)).cache_hits == 20
                assert (await embedded(embedder)).cache_hits == 40

        asyncio.run(main())


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
            assert cache.errors.last == "OperationalError: database or disk is full"
            assert (await embedded(embedder)).cache_hits == 40
            assert counters_of(embedder).stored < 100
            connection.execute("PRAGMA max_page_count = 1000000")
            clock.now += 10
            await embedded(embedder, many)
            assert (await embedded(embedder, many)).cache_hits == 2000

    asyncio.run(main())


#: A process whose files may not grow beyond 100 kB: the system refuses the write itself.
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
                other.execute("PRAGMA locking_mode = EXCLUSIVE")  # nobody else may even read
            async with AsyncEmbedder(config=config) as embedder:
                cache = clocked(embedder, clock)
                if not before:
                    await embedded(embedder, TEXTS[:10])
                other.execute("BEGIN EXCLUSIVE")
                receipt = await embedded(embedder)
                assert receipt.cache_hits == (0 if before else 20)
                failed = cache.errors.failed_writes
                assert failed > 0
                assert "locked" in cache.errors.last
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
        # What is left says that it is a SQLite file, and the cache's.
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


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_was_used_least_recently_goes_first_and_the_bound_holds(tmp_path, clock, kind):
    bound, path = 2**20, tmp_path / "v.sqlite"

    async def main():
        cache = MemoryCache(bound, clock=clock) if kind == "memory" else SqliteCache(path, bound, clock=clock)
        often = [bytes([255, n]) * 16 for n in range(20)]
        await cache.put_many(GROUP, [(key, bytes(3000)) for key in often])
        for n in range(100):
            clock.now += 4000  # times of use are noted once an hour
            keys = [bytes([n, i]) * 16 for i in range(10)]
            await cache.put_many(GROUP, [(key, bytes(3000)) for key in keys])
            assert None not in await read_entries(cache, GROUP, often)
        held = await cache.group_sizes()
        assert sum(one.bytes for one in held) <= bound
        assert sum(one.entries for one in held) > 200
        assert cache.errors.evictions == 1020 - sum(one.entries for one in held)
        assert await read_entries(cache, GROUP, [bytes([0, 0]) * 16]) == [None]
        await cache.aclose()

    asyncio.run(main())
    if kind == "sqlite":
        assert path.stat().st_size < 1.5 * bound


def test_an_entry_larger_than_the_whole_cache_is_not_kept(tmp_path, clock):
    async def main():
        for cache in (MemoryCache(10_000, clock=clock), SqliteCache(tmp_path / "v.sqlite", 100_000, clock=clock)):
            await cache.put_many(GROUP, [(b"k" * 32, bytes(200_000))])
            assert await cache.group_sizes() == []
            await cache.aclose()

    asyncio.run(main())


def test_any_bit_of_a_file_flipped_gives_no_wrong_vector(tmp_path):
    """Pages of keys, of entries and of SQLite itself: what is found is right, and most is found."""
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
            # The bits that tell whose file it is, and of which version.
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
        clock.now += 4000  # its times of use are to be noted anew
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
                assert loop.time() - began < 1  # a lock is waited for twice as long
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


def test_a_file_that_is_removed_is_begun_anew_and_loses_nothing_after_that(tmp_path):
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


def test_counts_that_could_not_be_told_are_told_later(tmp_path, clock, monkeypatch):
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
                await cache_of(embedder).counters.tell()
                other.execute("ROLLBACK")
            clock.now += 10
            stats = await embedder.cache.stats()
            assert (stats.total.hits, stats.total.misses, stats.failed_writes) == (40, 40, 1)
        async with AsyncEmbedder(config=config) as embedder:
            stats = await embedder.cache.stats()
            assert (stats.total.hits, stats.total.misses, stats.failed_writes) == (40, 40, 1)

    asyncio.run(main())


def test_what_cannot_be_written_as_an_entry_is_counted(tmp_path, monkeypatch):
    async def main():
        async with AsyncEmbedder(
            config=config_for(backend="sqlite", path=str(tmp_path / "v.sqlite"), zstd=True)
        ) as embedder:
            await embedded(embedder, ["kept"])
            monkeypatch.setitem(sys.modules, "zstandard", None)
            assert (await embedded(embedder, ["kept", "lost"])).cache_hits == 0
            assert store_of(embedder).errors.failed_writes == 1
            return await embedder.cache.stats()

    assert asyncio.run(main()).total.damaged == 1


def test_a_library_that_is_missing_is_said_when_the_cache_is_opened(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RuntimeUnavailableError, match=r"embedway\[zstd\]"):
        AsyncEmbedder(config=config_for(backend="sqlite", path=str(tmp_path / "v.sqlite"), zstd=True))
    AsyncEmbedder(config=config_for(backend="none", zstd=True))


@pytest.mark.parametrize("listening", [True, False])
def test_a_cluster_that_does_not_answer_fails_no_request(listening, clock):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(100)

        async def main():
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url, cluster=True)) as embedder:
                cache = clocked(embedder, clock)
                loop = asyncio.get_running_loop()
                began = loop.time()
                for _ in range(5):
                    assert (await embedded(embedder)).cache_hits == 0
                assert loop.time() - began < 5
                assert cache.errors.failed_reads >= 5
                assert cache.errors.failed_writes >= 5

        asyncio.run(asyncio.wait_for(main(), 30))


def test_a_cluster_whose_node_stops_fails_no_request(tmp_path, clock):
    server = start_cluster(tmp_path)
    try:

        async def main():
            url = f"redis://127.0.0.1:{server.port}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url, cluster=True)) as embedder:
                cache = clocked(embedder, clock)
                await embedded(embedder)
                assert (await embedded(embedder)).cache_hits == 40
                await asyncio.to_thread(server.stop)
                for _ in range(3):
                    clock.now += 10
                    assert (await embedded(embedder)).cache_hits == 0
                assert cache.errors.failed_reads >= 3

        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        if server.is_running():
            server.stop()


def test_a_slow_server_costs_a_large_request_one_wait(clock):
    """It answers each time just before a timeout would end it."""
    asked = []

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(2**20):
                if b"HGET" in data.upper():
                    writer.write(b"$-1\r\n")  # no stamp
                    continue
                if b"MGET" not in data.upper():
                    writer.write(b"+OK\r\n" * max(1, data.upper().count(b"CLIENT")))
                    continue
                while data.count(b"embedway:v1") < 500:
                    data += await reader.read(2**20)
                asked.append(len(data))
                await asyncio.sleep(0.9)
                writer.write(b"*500\r\n" + b"$-1\r\n" * 500)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        cache = RedisCache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2", clock=clock)
        found = await read_entries(cache, GROUP, [n.to_bytes(32) for n in range(5000)])
        assert found == [None] * 5000
        assert cache.errors.failed_reads == 1
        await cache.get_many(GROUP, [bytes(32)])
        assert (cache.errors.failed_reads, 1 <= len(asked) <= 2) == (2, True)
        await cache.aclose()
        server.close()

    asyncio.run(asyncio.wait_for(main(), 30))
