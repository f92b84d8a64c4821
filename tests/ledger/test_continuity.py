"""A ledger that a running process loses spends nothing more, and jumps of the clock move no money."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway import formats
from embedway.errors import LedgerError
from embedway.ledger.base import Limit, Purpose, Refused, Settlement
from embedway.ledger.continuity import LedgerIdentity
from embedway.ledger.pins import new_pin
from embedway.ledger.redis import LEDGER_KEYS, RedisLedger
from embedway.ledger.redis_pins import RedisPins
from embedway.ledger.remembered_pins import RememberedPins
from embedway.ledger.sqlite import SqliteLedger
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.state.backup import back_up, restore
from embedway.types import Space
from inside import another_process
from state_places import Place

MODEL = Purpose("m")
LIMIT = [Limit("b", 100)]
SMALL = Space("small", "service:small", 8, "service", normalized=True)
LARGE = Space("large", "service:large", 16, "service", normalized=True)


async def spend(ledger, nanousd):
    entry = await ledger.reserve(MODEL, nanousd, LIMIT, lease_s=60, texts=1)
    if not isinstance(entry, Refused):
        await ledger.send(entry, nanousd, LIMIT)
        await ledger.settle(entry, Settlement(nanousd, nanousd, 1, "reported"), LIMIT)
        await ledger.close(entry)
    return entry


async def standing(ledger):
    (one,) = await ledger.standings(LIMIT)
    return one.spent, one.held


# ---- several ledgers of one process


def test_an_idle_ledger_does_not_remember_the_log_of_one_that_was_closed(tmp_path):
    async def main():
        idle, first = SqliteLedger(tmp_path / "l"), SqliteLedger(tmp_path / "l")
        await spend(first, 10)
        await first.aclose()  # SQLite removes the log with the last connection
        second = SqliteLedger(tmp_path / "l")
        await spend(second, 20)
        assert await standing(second) == (30, 0)
        await spend(idle, 5)
        await second.aclose()
        assert await standing(idle) == (35, 0)
        await idle.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before it is opened", "before its first read"])
@pytest.mark.parametrize("others", [False, True])
def test_a_ledger_that_opens_while_the_last_other_one_closes_is_used(tmp_path, monkeypatch, moment, others):
    """The log goes with the other one, or with another program that closes next: after this one checked the file."""
    path = tmp_path / "l"

    async def main():
        loop = asyncio.get_running_loop()
        first, second = SqliteLedger(path), SqliteLedger(path)
        await spend(first, 10)
        program = sqlite3.connect(path, check_same_thread=False)
        if others:
            program.execute("SELECT * FROM meta").fetchall()

        def close_others():
            (tmp_path / "inode").hardlink_to(tmp_path / "l-wal")  # so that the next log has another one
            asyncio.run_coroutine_threadsafe(first.aclose(), loop).result(60)
            program.close()
            assert not (tmp_path / "l-wal").exists()

        calls = []
        real = formats.open_checked

        def open_checked(*arguments, **options):
            calls.append(True)
            if moment == "before it is opened":
                close_others()
            connection = real(*arguments, **options)
            if moment == "before its first read":
                close_others()
            return connection

        with monkeypatch.context() as patched:
            patched.setattr(formats, "open_checked", open_checked)
            await spend(second, 20)
        assert calls == [True]
        await spend(second, 30)
        assert await standing(second) == (60, 0)
        (tmp_path / "l-wal").unlink()  # still noticed
        with pytest.raises(LedgerError, match="lost its write-ahead log"):
            await spend(second, 1)
        await second.aclose()

    asyncio.run(main())


# ---- clocks


@pytest.mark.parametrize("seconds", [3600, 30 * 86_400, -86_400, -30 * 86_400])
def test_a_jump_of_the_clock_ends_no_lease_and_keeps_no_dead_one(make, clock, seconds):
    async def main():
        one, other = make(), make()
        await other.totals()
        entry = await one.reserve(MODEL, 60, LIMIT, lease_s=60, texts=1)
        dead = await one.reserve(MODEL, 30, LIMIT, lease_s=60, texts=1)
        assert isinstance(dead, str)
        await one.send(entry, 60, LIMIT)
        clock.now += 1
        clock.jump(seconds)
        assert isinstance(await other.reserve(MODEL, 20, LIMIT, lease_s=60, texts=1), Refused)
        for _ in range(4):
            clock.now += 19
            await one.renew([entry], 60)
            await other.expire()
        assert await standing(other) == (0, 60)
        await one.settle(entry, Settlement(60, 50, 1, "reported"), LIMIT)
        await one.close(entry)
        assert await standing(other) == (50, 0)
        clock.jump(-seconds)
        assert await standing(one) == (50, 0)
        await one.aclose()
        await other.aclose()

    asyncio.run(main())


def test_a_reservation_from_the_future_ends_for_a_process_that_starts_later(make, clock):
    async def main():
        one = make()
        clock.jump(30 * 86_400)
        assert isinstance(await one.reserve(MODEL, 100, LIMIT, lease_s=60, texts=1), str)
        await one.aclose()
        clock.jump(-30 * 86_400)
        other = make()
        assert await standing(other) == (0, 100)
        clock.now += 61
        assert await standing(other) == (0, 0)
        await other.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("jumps", [(70, 70), (30 * 86_400, -30 * 86_400), (-86_400, 86_400)])
def test_a_clock_that_jumps_again_and_again_keeps_no_dead_reservation(make, clock, jumps):
    async def main():
        one, other = make(), make()
        await other.totals()
        await one.reserve(MODEL, 100, LIMIT, lease_s=60, texts=1)
        await one.aclose()
        for jump in jumps:
            clock.jump(jump)
            clock.now += 1
            await other.expire()
        clock.now += 61
        assert await standing(other) == (0, 0)
        await other.aclose()

    asyncio.run(main())


def test_a_call_stays_in_its_day_whatever_the_clock_does(make, clock):
    daily = [Limit("b", 100, period="day")]

    async def main():
        ledger = make()
        entry = await ledger.reserve(MODEL, 100, daily, lease_s=60, texts=1)
        clock.now += 43_200  # midnight
        clock.jump(-10)
        await ledger.send(entry, 100, daily)
        clock.now += 20
        await ledger.settle(entry, Settlement(100, 100, 1, "reported"), daily)
        assert isinstance(await ledger.reserve(MODEL, 100, daily, lease_s=60, texts=1), str)
        clock.jump(-40)
        assert isinstance(await ledger.reserve(MODEL, 1, daily, lease_s=60, texts=1), Refused)
        await ledger.aclose()

    asyncio.run(main())


# ---- files


def remove(path):
    for ending in ("", "-wal", "-shm"):
        formats.beside(path, ending).unlink(missing_ok=True)


def older_copy(path, copy):
    remove(path)
    shutil.copyfile(copy, path)


def older_content(path, copy):
    """Replace the content by SQLite, so that the file stays."""
    with contextlib.closing(sqlite3.connect(copy)) as source, contextlib.closing(sqlite3.connect(path)) as target:
        source.backup(target)


def another_content(path, copy):
    del copy
    with contextlib.closing(sqlite3.connect(path)) as target:
        target.executescript("DELETE FROM meta; DELETE FROM entries; DELETE FROM accounts")


def remove_folder(path, copy):
    del copy
    shutil.rmtree(path.parent)


LOSSES = {
    "removed": lambda path, copy: remove(path),
    "folder removed": remove_folder,
    "older copy": older_copy,
    "older content": older_content,
    "other content": another_content,
    "log removed": lambda path, copy: formats.beside(path, "-wal").unlink(),
    "index removed": lambda path, copy: formats.beside(path, "-shm").unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_spent_after_the_file_was_lost(tmp_path, loss):
    path, copy = tmp_path / "state" / "ledger.sqlite", tmp_path / "copy.sqlite"

    async def main():
        ledger = SqliteLedger(path)
        await spend(ledger, 30)
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        open_one = await ledger.reserve(MODEL, 10, LIMIT, lease_s=60, texts=1)
        await spend(ledger, 30)
        LOSSES[loss](path, copy)
        for _ in range(2):
            for call in (spend(ledger, 10), ledger.send(open_one, 10, LIMIT), ledger.standings(LIMIT)):
                with pytest.raises(LedgerError, match=r"ledger\.sqlite .* while this process used it.*restart this"):
                    await call
        # Another user in this process knows it too.
        second = SqliteLedger(path)
        with pytest.raises(LedgerError, match="while this process used it"):
            await spend(second, 10)
        await second.aclose()
        await ledger.aclose()
        assert loss != "removed" or not path.exists()

    asyncio.run(main())


def test_a_file_that_is_put_back_is_used_again(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def main():
        ledger = SqliteLedger(path)
        await spend(ledger, 30)
        path.rename(tmp_path / "away")
        with pytest.raises(LedgerError, match="was removed while this process used it"):
            await spend(ledger, 30)
        (tmp_path / "away").rename(path)
        await spend(ledger, 30)
        assert await standing(ledger) == (60, 0)
        await ledger.aclose()

    asyncio.run(main())


def test_a_process_that_starts_later_uses_the_ledger_that_is_there(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def main():
        for _ in range(2):
            ledger = SqliteLedger(path)
            await spend(ledger, 30)
            assert await standing(ledger) == (30, 0)
            await ledger.aclose()
            remove(path)

    asyncio.run(main())


def test_other_processes_that_use_the_ledger_are_no_replacement(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def main():
        ledger = SqliteLedger(path)
        for _ in range(3):
            await spend(ledger, 10)
            other = SqliteLedger(path)
            await other.set_limit(Limit("x", 10**6))
            await spend(other, 10)
            await other.aclose()
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert (await standing_of(ledger)) == 60
        await ledger.aclose()

    async def standing_of(ledger):
        return (await ledger.totals())[0].spent

    asyncio.run(main())


SPENDER = """
import asyncio, pathlib, sys
from embedway.ledger.sqlite import SqliteLedger

async def main():
    ledger = SqliteLedger(pathlib.Path(sys.argv[1]))
    print((await ledger.totals())[0].held)
    await ledger.aclose()

asyncio.run(main())
"""


def test_a_second_ledger_of_a_process_hides_no_spending_from_others(tmp_path):
    """Closing any descriptor of a file releases the locks of a process, and the log was then deleted by others."""
    path = tmp_path / "ledger.sqlite"

    def seen_by_another():
        return int(subprocess.run([sys.executable, "-c", SPENDER, path], check=True, capture_output=True).stdout)

    async def main():
        one, two = SqliteLedger(path), SqliteLedger(path)
        for held, ledger in ((10, one), (20, two), (30, one), (40, two)):
            await ledger.reserve(MODEL, 10, LIMIT, lease_s=600, texts=1)
            assert seen_by_another() == held
        await one.aclose()
        await two.aclose()

    asyncio.run(main())


# ---- servers


@pytest.fixture
def server(valkey):
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        yield client


def flush(server, _url, _before):
    server.flushall()


def flush_and_use(server, url, _before):
    server.flushall()

    async def main():
        ledger = RedisLedger(url)
        await spend(ledger, 1)
        await ledger.aclose()

    with another_process():
        asyncio.run(main())


def put_older(server, _url, before):
    server.flushall()
    for key, value in before.items():
        server.restore(key, 0, value)


@pytest.mark.parametrize("loss", [flush, put_older, flush_and_use])
def test_nothing_is_spent_after_a_server_was_emptied_or_put_back(server, valkey, loss):
    async def main():
        ledger = RedisLedger(valkey)
        await spend(ledger, 30)
        before = {key: server.dump(key) for key in server.keys("*")}
        entry = await ledger.reserve(MODEL, 10, LIMIT, lease_s=60, texts=1)
        await asyncio.to_thread(loss, server, valkey, before)
        for _ in range(2):
            for call in (spend(ledger, 10), ledger.send(entry, 10, LIMIT), ledger.renew([entry], 60)):
                with pytest.raises(LedgerError, match=r"the ledger in Redis was .* while this process used it"):
                    await call
        # Another user in this process knows it too.
        second = RedisLedger(valkey)
        with pytest.raises(LedgerError, match="while this process used it"):
            await spend(second, 10)
        await second.aclose()
        await ledger.aclose()
        later = RedisLedger(valkey)
        assert isinstance(await spend(later, 10), str)
        await later.aclose()

    asyncio.run(main())


# ---- a restored ledger


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_restored_ledger_is_seen_and_used_again_after_it_is_confirmed(kind, tmp_path, request, caplog):
    url = None
    if kind == "redis":
        request.getfixturevalue("server")
        url = request.getfixturevalue("valkey")
    place = Place(tmp_path, url)

    async def main():
        ledger = place.ledger()
        await spend(ledger, 30)
        await asyncio.to_thread(back_up, place.parts, tmp_path / "b.zip")
        await spend(ledger, 30)
        for _ in range(2):
            await asyncio.to_thread(restore, place.parts, tmp_path / "b.zip", overwrite=True)
        assert (await spend(ledger, 10)).restored is not None
        assert caplog.text.count("was restored from a backup while this process used it") == 1
        await ledger.confirm()
        await spend(ledger, 10)
        assert await standing(ledger) == (40, 0)
        await ledger.aclose()

    asyncio.run(main())


# ---- pins


@pytest.fixture
def pin_stores(kind, tmp_path, request):
    """Return a function that opens pins, and one that loses all of them."""
    if kind == "sqlite":
        path = tmp_path / "pins.sqlite"
        yield lambda place: RememberedPins(SqlitePins(path), place), lambda: wipe(path)
        return
    cluster = kind == "redis cluster"
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
        yield lambda place: RememberedPins(RedisPins(url, cluster=cluster), place), client.flushall


def wipe(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM pins")


def test_a_pin_that_vanished_lets_no_other_space_be_written(pin_stores):
    make, lose = pin_stores

    async def main():
        pins, other = make("one process"), make("another")
        await pins.confirm(await pins.claim(new_pin("docs", "small", SMALL, "a"), 60))
        assert (await other.get("docs")).space == SMALL
        lose()
        for store in (pins, other):
            with pytest.raises(LedgerError, match="its pin is gone"):
                await store.get("docs")
            with pytest.raises(LedgerError, match="Nothing is written in another space"):
                await store.claim(new_pin("docs", "large", LARGE, "b"), 60)
        later = make("a later one")
        await later.confirm(await later.claim(new_pin("docs", "large", LARGE, "c"), 60))
        with pytest.raises(LedgerError, match=f"now names the space {LARGE.id}"):
            await pins.get("docs")
        # A removal by this process is meant.
        await pins.remove("docs")
        assert await pins.get("docs") is None
        for store in (pins, other, later):
            await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("loss", ["removed", "older copy", "log removed"])
def test_pins_whose_file_was_lost_are_not_used(tmp_path, loss):
    path, copy = tmp_path / "pins.sqlite", tmp_path / "copy.sqlite"

    async def main():
        pins = SqlitePins(path)
        await pins.all()
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        await pins.confirm(await pins.claim(new_pin("docs", "small", SMALL, "a"), 60))
        LOSSES[loss](path, copy)
        with pytest.raises(LedgerError, match=r"the pins in .* while this process used it"):
            await pins.claim(new_pin("docs", "large", LARGE, "b"), 60)
        await pins.aclose()

    asyncio.run(main())


def test_a_claim_from_the_future_blocks_nobody(kind, tmp_path, request, clock):
    if kind == "sqlite":
        pins = SqlitePins(tmp_path / "pins.sqlite", clock=clock)
    else:
        cluster = kind == "redis cluster"
        url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushall()
        pins = RedisPins(url, cluster=cluster, clock=clock)

    async def main():
        clock.jump(3 * 86_400)
        await pins.claim(new_pin("docs", "small", SMALL, "a"), 60)
        clock.jump(-3 * 86_400)
        assert await pins.get("docs") is None
        assert (await pins.claim(new_pin("docs", "large", LARGE, "b"), 60)).space == LARGE
        await pins.aclose()

    asyncio.run(main())


# ---- values that no version writes

VALUES = [None, "abc", b"\xff\xfe", -5, 2**62, 1.5, float("inf"), "", "nan", "[]", '{"a": 1}', "1e999", "[" * 3000]
NOT_TIMED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


async def use(ledger, entry):
    """Call every method, and return the number of LedgerErrors. Any other error is raised."""
    errors = 0
    calls = (
        lambda: ledger.reserve(MODEL, 10, LIMIT, lease_s=60, texts=1),
        lambda: ledger.send(entry, 10, LIMIT),
        lambda: ledger.settle(entry, Settlement(10, 1, 1, "reported"), LIMIT),
        lambda: ledger.standings(LIMIT),
        ledger.totals,
        ledger.entries,
        ledger.limits,
        ledger.restored,
        ledger.expire,
        lambda: ledger.close(entry),
    )
    for call in calls:
        try:
            found = await call()
            for one in found if isinstance(found, list) else ():
                one.to_json() if hasattr(one, "to_json") else None
        except LedgerError:
            errors += 1
    return errors


async def begun(ledger):
    entry = await ledger.reserve(MODEL, 50, LIMIT, lease_s=60, texts=1)
    await ledger.send(entry, 20, LIMIT)
    await ledger.set_limit(Limit("x", 500, period="day"))
    await ledger.settle(entry, Settlement(20, 15, 3, "reported"), LIMIT)
    return entry


@settings(max_examples=60, **NOT_TIMED)
@given(st.randoms(use_true_random=False), st.booleans())
def test_values_of_others_in_the_file_are_ledger_errors(tmp_path_factory, chance, reopen):
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"

    async def main():
        ledger = SqliteLedger(path)
        entry = await begun(ledger)
        with contextlib.closing(sqlite3.connect(path)) as other, contextlib.suppress(sqlite3.Error), other:
            table = chance.choice(["entries", "accounts", "limits", "warnings", "meta"])
            columns = [row[1] for row in other.execute(f"PRAGMA table_info({table})")]
            other.execute(f"UPDATE {table} SET {chance.choice(columns)} = ?", (chance.choice(VALUES),))  # noqa: S608
        if reopen:
            await ledger.aclose()
            ledger = SqliteLedger(path)
        await use(ledger, entry)
        await ledger.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE accounts SET spent = -1000",
        "UPDATE accounts SET spent = 'nothing'",
        "UPDATE limits SET nanousd = 'nan'",
        "UPDATE meta SET value = '{}'",
        "ALTER TABLE accounts RENAME TO others; CREATE VIEW accounts AS SELECT * FROM others",
        "CREATE TRIGGER free AFTER UPDATE ON accounts BEGIN UPDATE accounts SET spent = 0; END",
        "ALTER TABLE accounts DROP COLUMN held",
    ],
)
def test_a_spoiled_file_allows_no_spending(tmp_path, spoil):
    path = tmp_path / "ledger.sqlite"

    async def main():
        ledger = SqliteLedger(path)
        await begun(ledger)
        await ledger.aclose()
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.executescript(spoil)
        ledger = SqliteLedger(path)
        with pytest.raises(LedgerError):
            await spend(ledger, 1)
        await ledger.aclose()

    asyncio.run(main())


@settings(max_examples=60, **NOT_TIMED)
@given(st.randoms(use_true_random=False))
def test_values_of_others_on_the_server_are_ledger_errors(server, valkey, chance):
    server.flushall()

    async def main():
        ledger, pins = RedisLedger(valkey), RedisPins(valkey)
        entry = await begun(ledger)
        await pins.confirm(await pins.claim(new_pin("docs", "small", SMALL, "a"), 60))
        key = chance.choice(sorted(server.keys("*")))
        value = str(chance.choice(VALUES)).encode("latin-1")
        kind = server.type(key)
        if chance.random() < 0.2:
            server.delete(key)
            server.rpush(key, value)
        elif kind == b"hash":
            server.hset(key, chance.choice(sorted(server.hgetall(key))), chance.choice([value, b"\xff\xfe"]))
        elif kind == b"zset":
            server.zadd(key, {server.zrange(key, 0, -1)[0]: chance.choice([-1, 1e18, float("inf")])})
        else:
            server.set(key, value)
        await use(ledger, entry)
        for call in (pins.get("docs"), pins.claim(new_pin("docs", "large", LARGE, "b"), 60)):
            with contextlib.suppress(LedgerError):
                assert (await call).space == SMALL
        with contextlib.suppress(LedgerError):
            await pins.all()
        await ledger.aclose()
        await pins.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("value", ["-1000", "nan", "1e1", "0x0", "", "nothing"])
def test_a_spoiled_amount_on_the_server_allows_no_spending(server, valkey, value):
    async def main():
        ledger = RedisLedger(valkey)
        await begun(ledger)
        server.hset(LEDGER_KEYS[3], "*|total|spent", value)
        with pytest.raises(LedgerError, match="contains values that no version writes"):
            await spend(ledger, 1)
        await ledger.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "written", ["", "{}", "[]", "null", '{"id": 5, "before": []}', '{"id": "a", "before": 7}', "["]
)
def test_an_identity_that_cannot_be_read_is_an_error(written):
    with pytest.raises(LedgerError, match="cannot be read"):
        LedgerIdentity.read(written)
    books = LedgerIdentity("a", ("b", "c"), 1.5, 60.0)
    assert LedgerIdentity.read(books.written()) == books
