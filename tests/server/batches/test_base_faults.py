"""Stores that are damaged, foreign, of a newer version, or not there."""

import contextlib
import sqlite3

import pytest
import redis

from async_tests import in_loop
from batch_stores import a_batch, content_of, empty_server, open_stores, put_file
from clocks import Clock
from embedway.errors import ConfigError, StateError
from embedway.server.batches.base import Listing
from embedway.server.batches.contents import read_content
from embedway.server.batches.redis import PREFIX, RedisBatchStore
from valkey_server import start_valkey


@pytest.fixture
def server(valkey):
    empty_server(valkey)
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        yield client
    empty_server(valkey)


@contextlib.asynccontextmanager
async def opened(kind, folder, url=""):
    (store,) = open_stores(kind, folder, url, Clock())
    try:
        yield store
    finally:
        await store.aclose()


async def is_refused(store, file, match):
    batch = a_batch(file, 1_000_000.0)
    calls = (
        lambda: store.get_file("a", file.id),
        lambda: store.list_files(Listing("a", 10)),
        store.open_batches,
        lambda: store.add_batch(batch, 10),
        lambda: store.used_bytes("a"),
        lambda: store.segments(file.id),
        lambda: store.sweep(10),
    )
    for call in calls:
        with pytest.raises((StateError, ConfigError), match=match) as raised:
            await call()
        assert "SECRET" not in str(raised.value)


@in_loop
async def test_a_foreign_file_is_not_touched(tmp_path):
    path = tmp_path / "batches.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
    before = path.read_bytes()
    file = None
    async with opened("sqlite", tmp_path / "other") as store:
        file = await put_file(store, tenant="a")
    async with opened("sqlite", tmp_path) as store:
        await is_refused(store, file, "not a file of embedway's batches")
    assert path.read_bytes() == before


@in_loop
async def test_a_newer_version_is_told(tmp_path, server, valkey):
    async with opened("sqlite", tmp_path) as store:
        file = await put_file(store, tenant="a")
    with contextlib.closing(sqlite3.connect(tmp_path / "batches.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 9")
    async with opened("sqlite", tmp_path) as store:
        await is_refused(store, file, "has version 9")
    server.set(f"{PREFIX}format", "9")
    async with opened("redis", tmp_path, valkey) as store:
        await is_refused(store, file, "has version 9")
    assert server.get(f"{PREFIX}format") == b"9"


@in_loop
async def test_a_file_with_other_tables_is_refused(tmp_path):
    async with opened("sqlite", tmp_path) as store:
        file = await put_file(store, tenant="a")
    with contextlib.closing(sqlite3.connect(tmp_path / "batches.sqlite")) as connection:
        connection.execute("ALTER TABLE items ADD COLUMN SECRET")
        connection.commit()
    async with opened("sqlite", tmp_path) as store:
        await is_refused(store, file, "damaged")


@in_loop
async def test_bytes_that_are_no_database_are_refused(tmp_path):
    async with opened("sqlite", tmp_path) as store:
        file = await put_file(store, bytes(100_000), tenant="a")
    path = tmp_path / "batches.sqlite"
    data = bytearray(path.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    path.write_bytes(data)
    async with opened("sqlite", tmp_path) as store:
        await is_refused(store, file, r"server\.state_directory")


@in_loop
async def test_keys_of_other_types_are_told(tmp_path, server, valkey):
    async with opened("redis", tmp_path, valkey) as store:
        file = await put_file(store, tenant="a")
        for key in server.scan_iter(f"{PREFIX}*"):
            if not key.endswith(b"format"):
                server.delete(key)
                server.set(key, "SECRET")
        for name in ("open", "usage", "due", f"segments:{file.id}", f"item:{file.id}", "list:file:a"):
            server.set(f"{PREFIX}{name}", "SECRET")
        await is_refused(store, file, "no version writes")


@pytest.mark.parametrize("wrong", [b"SECRET", b"", b"\xff\xff"])
@in_loop
async def test_invalid_values_are_told(tmp_path, server, valkey, wrong):
    async with opened("redis", tmp_path, valkey) as store:
        file = await put_file(store, tenant="a")
        server.hset(f"{PREFIX}usage", "a", wrong)
        server.hset(f"{PREFIX}segments:{file.id}", "0", wrong)
        server.hset(f"{PREFIX}item:{file.id}", "document", wrong or b"{}")
        for call in (store.segments(file.id), store.get_file("a", file.id), store.list_files(Listing("a", 5))):
            with pytest.raises(StateError, match="no version writes") as raised:
                await call
            assert "SECRET" not in str(raised.value)
        if wrong:
            with pytest.raises(StateError, match="no version writes"):
                await store.used_bytes("a")


@in_loop
async def test_a_chunk_that_is_missing_or_shorter_ends_a_download(tmp_path):
    async with opened("sqlite", tmp_path) as store:
        file = await put_file(store, bytes(1_200_000), tenant="a")
    with contextlib.closing(sqlite3.connect(tmp_path / "batches.sqlite")) as connection:
        connection.execute("UPDATE chunks SET data = x'00' WHERE number = 1")
        connection.commit()
    async with opened("sqlite", tmp_path) as store:
        with pytest.raises(StateError, match="another size"):
            [data async for data in read_content(store, await store.segments(file.id))]
    with contextlib.closing(sqlite3.connect(tmp_path / "batches.sqlite")) as connection:
        connection.execute("DELETE FROM chunks WHERE number = 1")
        connection.commit()
    async with opened("sqlite", tmp_path) as store:
        with pytest.raises(StateError):
            [data async for data in read_content(store, await store.segments(file.id))]


@in_loop
async def test_a_removed_file_is_made_anew(tmp_path):
    async with opened("sqlite", tmp_path) as store:
        await put_file(store, tenant="a")
        for path in tmp_path.iterdir():
            path.unlink()
        file = await put_file(store, tenant="a")
        assert (await store.list_files(Listing("a", 10))).items == (file,)
    async with opened("sqlite", tmp_path) as store:
        assert await content_of(store, file.id) == b"line\n"


@in_loop
async def test_a_server_that_is_gone_is_told_without_its_password():
    store = RedisBatchStore("redis://:SECRET@127.0.0.1:1/0")
    with pytest.raises(StateError, match=r"Redis at 127\.0\.0\.1:1") as raised:
        await store.open_batches()
    assert "SECRET" not in str(raised.value)
    await store.aclose()


@in_loop
async def test_a_server_without_memory_refuses_an_upload(tmp_path):
    server = start_valkey(tmp_path, config={"maxmemory": "8mb", "maxmemory-policy": "noeviction"})
    try:
        store = RedisBatchStore(f"redis://127.0.0.1:{server.port}")
        with pytest.raises(StateError, match="its memory is full"):
            await put_file(store, bytes(12_000_000), tenant="a")
        await store.aclose()
    finally:
        server.stop()


@in_loop
async def test_a_cluster_has_all_keys_in_one_slot(valkey_cluster):
    store = RedisBatchStore(valkey_cluster, cluster=True)
    file = await put_file(store, bytes(1_000_000), tenant="a")
    batch = a_batch(file, await store.now())
    assert await store.add_batch(batch, 10) == "added"
    assert await content_of(store, file.id) == bytes(1_000_000)
    await store.aclose()
