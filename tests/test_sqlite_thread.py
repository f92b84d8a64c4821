"""One thread with a connection to a SQLite file: shared transactions, errors, and replaced files."""

import asyncio
import contextlib
import sqlite3

import pytest

from embedway import formats, sqlite_thread
from embedway.errors import ConfigError
from embedway.ledger.sqlite_formats import PINS
from embedway.sqlite_thread import SqliteThread


class FailedError(Exception):
    """Error of SQLite or the disk, as raised by the user of a thread."""


def fail(error):
    raise FailedError(str(error)) from error


def add(connection, name):
    connection.execute("INSERT INTO pins VALUES (?, '')", (name,))
    return name


def names(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT collection FROM pins ORDER BY rowid")]


def test_calls_that_wait_share_a_transaction(tmp_path):
    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        await file.transact(add, "first")
        statements = []
        file.connection.set_trace_callback(statements.append)
        assert await asyncio.gather(*(file.transact(add, f"n{n}") for n in range(50))) == [f"n{n}" for n in range(50)]
        await file.aclose()
        # The thread may start the first call before the others wait.
        assert 1 <= statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") < 10

    asyncio.run(main())
    assert names(tmp_path / "f") == ["first", *(f"n{n}" for n in range(50))]


def test_a_call_that_is_not_urgent_shares_the_transaction_of_the_next_call(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_thread, "LATER_S", 3600.0)

    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        await file.transact(add, "first")
        statements = []
        file.connection.set_trace_callback(statements.append)
        later = [asyncio.create_task(file.transact_later(add, name)) for name in ("b", "a")]
        await asyncio.sleep(0)
        assert await file.transact(add, "c") == "c"
        assert await asyncio.gather(*later) == ["b", "a"]
        assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 1
        last = asyncio.create_task(file.transact_later(add, "last"))
        await asyncio.sleep(0)
        await file.aclose()
        assert await last == "last"

    asyncio.run(main())
    assert names(tmp_path / "f") == ["first", "b", "a", "c", "last"]


def test_a_call_that_is_not_urgent_is_run_without_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_thread, "LATER_S", 0.0)

    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        assert [await file.transact_later(add, name) for name in ("a", "b")] == ["a", "b"]
        await file.aclose()

    asyncio.run(main())


def test_more_calls_than_a_transaction_takes_are_all_answered_whoever_goes(tmp_path):
    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        tasks = [asyncio.create_task(file.transact(add, f"n{n}")) for n in range(400)]
        await asyncio.sleep(0)
        for task in tasks[::7]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await file.transact(add, "last")
        await file.aclose()
        assert all(found[n] == f"n{n}" for n in range(400) if n % 7)

    asyncio.run(main())
    # A call that was made is not withdrawn.
    assert names(tmp_path / "f") == [*(f"n{n}" for n in range(400)), "last"]


def test_a_call_that_fails_leaves_nothing_and_fails_no_other(tmp_path):
    def add_and_fail(connection):
        add(connection, "lost")
        raise RuntimeError("mine")

    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        calls = [(add, "a"), (add_and_fail,), (add, "b"), (add, "a"), (add, "c")]
        found = await asyncio.gather(*(file.transact(*call) for call in calls), return_exceptions=True)
        await file.aclose()
        assert [found[0], found[2], found[4]] == ["a", "b", "c"]
        assert isinstance(found[1], RuntimeError)
        assert isinstance(found[3], FailedError)

    asyncio.run(main())
    assert names(tmp_path / "f") == ["a", "b", "c"]


def test_what_an_error_means_is_up_to_its_user(tmp_path):
    async def main():
        told = []
        file = SqliteThread("test", tmp_path / "f", PINS, lambda error: told.append(type(error)))
        assert await file.submit(file.use, sqlite3.Connection.execute, "no SQL") is None
        assert await file.transact(sqlite3.Connection.execute, "no SQL") is None
        assert await file.submit(file.use, add, "a") == "a"
        await file.aclose()
        assert told == [sqlite3.OperationalError] * 2
        (tmp_path / "g").write_text("no database")
        foreign = SqliteThread("test", tmp_path / "g", PINS, told.append)
        for call in (foreign.submit(foreign.use, add, "a"), foreign.transact(add, "a")):
            with pytest.raises(ConfigError, match="not a file of embedway's pins"):
                await call
        await foreign.aclose()

    asyncio.run(main())


def test_a_transaction_that_a_call_leaves_open_is_rolled_back_after_its_error(tmp_path):
    def begin_and_fail(connection):
        connection.execute("BEGIN IMMEDIATE")
        add(connection, "lost")
        connection.execute("no SQL")

    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        with pytest.raises(FailedError):
            await file.submit(file.use, begin_and_fail)
        await file.submit(file.use, add, "kept")
        await file.aclose()

    asyncio.run(main())
    assert names(tmp_path / "f") == ["kept"]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_removed_or_replaced_is_opened_again_on_request(tmp_path, replaced):
    path = tmp_path / "f"

    async def main():
        file = SqliteThread("test", path, PINS, fail)
        await file.submit(file.use, add, "old")
        await file.submit(file.reopen_if_replaced)
        connection = file.connection
        assert connection is not None
        for ending in ("", *formats.BESIDE):
            formats.beside(path, ending).unlink(missing_ok=True)
        if replaced:
            other = SqliteThread("test", path, PINS, fail)
            await other.submit(other.use, add, "other")
            await other.aclose()
        await file.submit(file.use, add, "into the removed file")
        assert file.connection is connection
        await file.submit(file.reopen_if_replaced)
        await file.submit(file.use, add, "new")
        await file.aclose()

    asyncio.run(main())
    assert names(path) == (["other", "new"] if replaced else ["new"])


def test_calls_that_come_while_the_file_is_closed_open_it_again(tmp_path):
    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)

        async def call(who):
            for number in range(100):
                await file.transact(add, f"{who} {number}")
                await file.submit(file.use, add, f"{who} {number} alone")

        async def close():
            for _ in range(100):
                await file.aclose()

        await asyncio.gather(call("a"), call("b"), close())
        await file.aclose()
        assert file.connection is None

    asyncio.run(asyncio.wait_for(main(), 60))
    assert len(names(tmp_path / "f")) == 400


def test_a_failed_call_without_a_caller_is_not_logged(tmp_path, caplog):
    async def main():
        file = SqliteThread("test", tmp_path / "f", PINS, fail)
        file.submit(file.use, sqlite3.Connection.execute, "no SQL")
        await file.aclose()

    asyncio.run(main())
    assert caplog.records == []
