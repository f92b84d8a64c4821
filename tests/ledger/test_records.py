"""Records that processes share. One suite for every store."""

import asyncio
import base64
import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import redis

from embedway import Config
from embedway.errors import LedgerError, UsageError
from embedway.ledger import records as records_module
from embedway.ledger.opening import open_records
from embedway.ledger.records import LARGEST_DOCUMENT, Record
from embedway.ledger.redis_records import RedisRecords
from embedway.ledger.sqlite import SqliteLedger
from embedway.ledger.sqlite_records import SqliteRecords
from memory_records import MemoryRecords

FIELD = "baseline|docs"


@pytest.fixture(params=["sqlite", "redis", "redis cluster", "memory"])
def kind(request):
    return request.param


@pytest.fixture
def url(kind, request):
    """Return the URL of an empty server; None for other kinds."""
    if "redis" not in kind:
        return None
    url = request.getfixturevalue("valkey_cluster" if kind == "redis cluster" else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return url


@pytest.fixture
def records(kind, url, tmp_path, clock):
    """Return a function that opens the same records."""
    if kind == "memory":
        memory = MemoryRecords(clock)
        return lambda: memory
    if kind == "sqlite":
        return lambda: SqliteRecords(tmp_path / "state" / "ledger.sqlite", clock=clock)
    return lambda: RedisRecords(url, cluster=kind == "redis cluster", clock=clock)


def run(records, work):
    async def whole():
        one, other = records(), records()
        try:
            return await work(one, other)
        finally:
            await one.aclose()
            await other.aclose()

    return asyncio.run(whole())


@pytest.mark.parametrize("old", [None, "ledger-v1.sqlite", "ledger-v2.sqlite"])
def test_reading_creates_and_migrates_no_file(tmp_path, old):
    path = tmp_path / "state" / "ledger.sqlite"
    if old is not None:
        path.parent.mkdir()
        shutil.copy(Path(__file__).parents[1] / "project" / "formats" / old, path)
    before = path.read_bytes() if old else None

    async def work(one, other):
        assert await one.get("quarantine", "x") is None
        assert await one.names("quarantine") == await one.all("quarantine") == []
        assert not await one.remove("quarantine", "x")
        assert (path.read_bytes() if path.exists() else None) == before
        await other.put(Record("quarantine", "x", "{}"))
        assert [name for name, _ in await one.names("quarantine")] == ["x"]

    run(lambda: SqliteRecords(path), work)


NAMES = ["a|b", "größe 東京 🜁", "with\nlines and 'quotes' %", "nul \0 inside", "baseline|docs"]


def test_a_record_is_returned_as_it_was_put(records, clock):
    async def work(one, other):
        assert await one.get("baseline", "docs") is None
        for name in NAMES:
            put = Record("baseline", name, json.dumps({"name": name, "text": "naïve 東"}, ensure_ascii=False))
            stored = await one.put(put)
            assert stored == Record(put.kind, name, put.document, clock.now)
            assert await other.get("baseline", name) == stored
            assert await other.get("quarantine", name) is None
        assert [name for name, _ in await other.names("baseline")] == sorted(NAMES)

    run(records, work)


def test_a_later_record_replaces_an_earlier_one(records, clock):
    async def work(one, other):
        await one.put(Record("equivalence", "docs", '{"n": 1}', changed=5))
        clock.now += 10
        await other.put(Record("equivalence", "docs", '{"n": 2}'))
        assert await one.get("equivalence", "docs") == Record("equivalence", "docs", '{"n": 2}', clock.now)
        assert await one.names("equivalence") == [("docs", clock.now)]

    run(records, work)


def test_a_removed_record_is_gone(records):
    async def work(one, other):
        await one.put(Record("baseline", "docs", "{}"))
        await one.put(Record("quarantine", "docs", "[]"))
        assert await other.remove("baseline", "docs")
        assert not await one.remove("baseline", "docs")
        assert await one.get("baseline", "docs") is None
        assert await one.names("baseline") == []
        assert (await one.get("quarantine", "docs")).document == "[]"

    run(records, work)


def test_all_and_names_are_of_one_kind_and_in_order(records, clock):
    async def work(one, other):
        assert await one.all("quarantine") == []
        for name in ("b", "ä", "a", "B"):
            await one.put(Record("quarantine", name, json.dumps(name)))
        await one.put(Record("baseline", "c", "{}"))
        names = ["B", "a", "b", "ä"]
        assert await other.all("quarantine") == [
            Record("quarantine", name, json.dumps(name), clock.now) for name in names
        ]
        assert await other.names("quarantine") == [(name, clock.now) for name in names]

    run(records, work)


def test_a_lease_is_taken_by_one_until_it_ends(records, clock):
    async def work(one, other):
        assert await one.lease("baseline", "docs", 60)
        assert not await one.lease("baseline", "docs", 60)
        assert not await other.lease("baseline", "docs", 1)
        assert await other.lease("baseline", "others", 60)
        assert await other.lease("quarantine", "docs", 60)
        clock.now += 59.5
        assert not await other.lease("baseline", "docs", 60)
        clock.now += 1
        assert await other.lease("baseline", "docs", 60)
        assert not await one.lease("baseline", "docs", 60)
        # A lease is no record.
        assert await one.names("baseline") == []

    run(records, work)


def test_of_many_that_want_a_lease_one_gets_it(records):
    async def work(one, other):
        taken = await asyncio.gather(*(store.lease("baseline", "docs", 60) for store in (one, other) * 10))
        assert sum(taken) == 1

    run(records, work)


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_a_lease_from_before_the_clock_was_set_back_ends(records, clock):
    async def work(one, other):
        clock.now += 86_400
        assert await one.lease("baseline", "docs", 3600)
        clock.now -= 1  # clocks are adjusted by small steps
        assert not await other.lease("baseline", "docs", 3600)
        clock.now -= 86_400
        assert await other.lease("baseline", "docs", 3600)

    run(records, work)


def large_document(megabytes=5):
    """Return a document that compresses badly."""
    return json.dumps({"rows": base64.b64encode(random.Random(5).randbytes(megabytes * 786_432)).decode()})


def test_large_documents(records, clock):
    document = large_document()
    assert len(document) > 5 * 2**20

    async def work(one, other):
        await one.put(Record("baseline", "large", document))
        await one.put(Record("baseline", "small", "{}"))
        assert (await other.get("baseline", "large")).document == document
        assert [len(one.document) for one in await other.all("baseline")] == [len(document), 2]
        assert await other.names("baseline") == [("large", clock.now), ("small", clock.now)]

    run(records, work)


# ------------------------------------------------------------- what no store can contain

STORES = pytest.mark.parametrize("kind", ["sqlite", "redis", "redis cluster"], indirect=True)


@STORES
def test_what_cannot_be_stored_is_refused(records):
    async def work(one, _):
        for record, match in (
            (Record("baseline", "docs", '"' + "a" * LARGEST_DOCUMENT + '"'), r"'docs' has 67,108,866 bytes: store at"),
            (Record("baseline", "docs", '"\ud800"'), "document of the baseline record 'docs' is not Unicode"),
            (Record("baseline", "", "{}"), "'' is no name of a record"),
            (Record("baseline", "\ud800", "{}"), "is no name of a record"),
        ):
            with pytest.raises(UsageError, match=match):
                await one.put(record)
        for call in (one.get("baseline", ""), one.remove("baseline", "\ud800"), one.lease("baseline", "", 1)):
            with pytest.raises(UsageError, match="is no name of a record"):
                await call
        assert await one.names("baseline") == []

    run(records, work)


@STORES
@pytest.mark.parametrize("what", ["text", "cut", "more", "no zlib", "not UTF-8", "bomb"])
def test_a_damaged_document_is_named(records, kind, url, tmp_path, what, monkeypatch):
    packed = zlib.compress(b'{"a": "' + b"b" * 500 + b'"}')
    if what == "bomb":
        monkeypatch.setattr(records_module, "LARGEST_DOCUMENT", 400)
    value = {
        "text": "tekst", "cut": packed[:-5], "more": packed + b"!", "no zlib": b"\0\1\2", "bomb": packed,
        "not UTF-8": zlib.compress(b"\xff"),
    }[what]  # fmt: skip

    async def work(one, other):
        await one.put(Record("baseline", "docs", "{}"))
        await one.put(Record("baseline", "others", "[]"))
        damage(kind, url, tmp_path, value)
        for call in (other.get("baseline", "docs"), other.all("baseline")):
            with pytest.raises(LedgerError, match=r"baseline record 'docs' in .* is damaged: create it again, or rest"):
                await call
        assert (await other.get("baseline", "others")).document == "[]"
        await other.put(Record("baseline", "docs", "[1]"))
        assert (await one.get("baseline", "docs")).document == "[1]"

    run(records, work)


def damage(kind, url, tmp_path, value):
    """Replace the stored document of `docs`."""
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as connection, connection:
            connection.execute("UPDATE records SET document = ? WHERE name = 'docs'", (value,))
        return
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        written = value if isinstance(value, str) else base64.b64encode(value)
        client.hset("{embedway:ledger}:records", FIELD, written)


@STORES
@pytest.mark.parametrize("value", ["yesterday", "-1", "inf", ""])
def test_a_damaged_time_is_named(records, kind, url, tmp_path, value):
    async def work(one, other):
        await one.put(Record("baseline", "docs", "{}"))
        if kind == "sqlite":
            with contextlib.closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite")) as connection, connection:
                stored = float(value) if value in {"-1", "inf"} else value
                connection.execute("UPDATE records SET changed = ?", (stored,))
        else:
            with contextlib.closing(redis.Redis.from_url(url)) as client:
                client.hset("{embedway:ledger}:changed", FIELD, value)
        for call in (other.get("baseline", "docs"), other.names("baseline")):
            with pytest.raises(LedgerError, match=r"baseline record 'docs' in .* is damaged"):
                await call

    run(records, work)


# ------------------------------------------------------------- stores in use

CHILD = """
import asyncio, json, sys
from embedway.ledger.records import Record
from embedway.ledger.redis_records import RedisRecords
from embedway.ledger.sqlite_records import SqliteRecords
from pathlib import Path

async def work(place, mine):
    one = RedisRecords(place) if "://" in place else SqliteRecords(Path(place))
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    for number in range(40):
        await one.put(Record("baseline", f"{mine} {number}", json.dumps(number)))
        await one.put(Record("baseline", "shared", json.dumps([mine] * 999)))
        assert len(set(json.loads((await one.get("baseline", "shared")).document))) == 1
        taken += await one.lease("baseline", f"lease {number}", 600)
    await one.aclose()
    print(taken, flush=True)

asyncio.run(work(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_processes_share_records_and_leases(records, kind, url, tmp_path):
    place = url or str(tmp_path / "state" / "ledger.sqlite")
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, place, name], stdin=-1, stdout=-1, text=True) for name in "ab"
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    taken = [int(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum(taken) == 40

    async def work(one, _):
        assert len(await one.names("baseline")) == 81
        assert {(await one.get("baseline", f"{name} 7")).document for name in "ab"} == {"7"}

    run(records, work)


@STORES
def test_a_closed_store_opens_again(records):
    async def work(one, other):
        await one.put(Record("baseline", "docs", "{}"))
        await one.aclose()
        await one.aclose()
        assert (await one.get("baseline", "docs")).document == "{}"

    run(records, work)


def file_records(tmp_path):
    return lambda: SqliteRecords(tmp_path / "ledger.sqlite")


def test_a_file_removed_while_in_use_is_an_error(tmp_path):
    async def work(one, _):
        await one.put(Record("baseline", "docs", "{}"))
        for path in tmp_path.glob("ledger.sqlite*"):
            path.unlink()
        for call in (one.put(Record("baseline", "docs", "{}")), one.get("baseline", "docs")):
            with pytest.raises(LedgerError, match="file was removed while this process used it, so records may be"):
                await call
        assert not (tmp_path / "ledger.sqlite").exists()

    run(file_records(tmp_path), work)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "ledger.sqlite").mkdir()

    async def work(one, _):
        with pytest.raises(Exception, match=r"ledger\.path|a folder, not a file"):
            await one.get("baseline", "docs")

    run(file_records(tmp_path), work)


def test_tables_changed_by_another_program_are_an_error(tmp_path):
    async def create(one, _):
        await one.put(Record("baseline", "docs", "{}"))

    run(file_records(tmp_path), create)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE records ADD COLUMN mine")

    async def work(one, _):
        with pytest.raises(LedgerError, match=r"records in .* cannot be used: .* damaged: .*restore"):
            await one.get("baseline", "docs")

    run(file_records(tmp_path), work)


def test_a_ledger_and_records_use_one_file_at_once(tmp_path):
    async def work(one, other):
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        document = large_document(1)
        await asyncio.gather(
            *(one.put(Record("baseline", str(number), document)) for number in range(4)),
            *(ledger.totals() for _ in range(20)),
            *(other.names("baseline") for _ in range(4)),
        )
        await one.aclose()  # the ledger still has the file open
        await ledger.totals()
        await ledger.aclose()
        assert len(await other.all("baseline")) == 4

    run(file_records(tmp_path), work)


def test_a_server_that_is_down_is_an_error():
    async def work(one, _):
        for call in (one.get("baseline", "docs"), one.put(Record("baseline", "docs", "{}")), one.names("baseline")):
            with pytest.raises(LedgerError, match=r"records in Redis at 127\.0\.0\.1:1 cannot be used: .*ledger\.url"):
                await call

    run(lambda: RedisRecords("redis://:secret@127.0.0.1:1"), work)


def test_a_newer_version_on_a_server_is_refused(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        client.set("{embedway:ledger}:format", 99)

        async def work(one, _):
            with pytest.raises(LedgerError, match="the ledger in Redis has version 99"):
                await one.put(Record("baseline", "docs", "{}"))

        run(lambda: RedisRecords(valkey), work)
        assert client.keys() == [b"{embedway:ledger}:format"]


def test_records_on_a_server_have_its_time_and_do_not_expire(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()

        async def work(one, other):
            before, stored = client.time(), await one.put(Record("baseline", "docs", "{}"))
            after = client.time()
            assert before[0] + before[1] / 1e6 <= stored.changed <= after[0] + after[1] / 1e6
            assert await other.get("baseline", "docs") == stored
            assert await one.lease("baseline", "docs", 1e6)

        run(lambda: RedisRecords(valkey), work)
        assert {client.ttl(key) for key in client.scan_iter()} == {-1}


# ------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("backend", "expected"), [("sqlite", SqliteRecords), ("redis", RedisRecords), ("none", type(None))]
)
def test_the_ledger_s_backend_is_opened(backend, expected, tmp_path):
    overrides = {"ledger.backend": backend, "ledger.path": str(tmp_path / "ledger.sqlite")}
    found = open_records(Config.load(environ={}, overrides=overrides))
    assert type(found) is expected
    assert list(tmp_path.iterdir()) == []
