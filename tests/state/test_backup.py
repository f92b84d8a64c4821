"""Backups: complete, consistent during bookings, and restored into a state in use; then spending needs confirmation."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
import redis

import state_places
from batch_stores import a_batch, content_of, put_file
from embedway.config import Config
from embedway.errors import BudgetExceededError, LedgerError, StateError, UsageError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Limit, Refused, Restored, Settlement
from embedway.ledger.budgets import Budgets
from embedway.ledger.records import Record
from embedway.server.batches.base import Listing
from embedway.server.batches.opening import open_batch_store
from embedway.state import redis as state_redis
from embedway.state import sqlite as state_sqlite
from embedway.state.archive import open_archive
from embedway.state.backup import back_up, parts_of, restore
from embedway.state.databases import BatchesPart
from embedway.state.trust import TrustPart
from state_places import NOON, PURPOSE, spend

THEN, LATER = NOON + 100, NOON + 5000


def made(place, tmp_path, name="state.zip", **options):
    return back_up(place.parts, tmp_path / name, clock=lambda: THEN, **options).file


def restored(place, file, **options):
    return restore(place.parts, file, clock=lambda: LATER, **options)


def test_what_is_backed_up_is_restored(place, tmp_path):
    place.fill()
    before = place.look()
    file = made(place, tmp_path)
    place.spend(1000)
    place.trust({})
    assert place.look() != before
    done = restored(place, file, overwrite=True)
    assert place.look() == before
    assert (done.created, done.to_confirm) == (THEN, True)
    assert {name.split(".")[0] for name in done.places} == {"ledger", "pins", "trust"}


def test_state_that_is_gone_is_restored(place, tmp_path):
    place.fill()
    before, file = place.look(), made(place, tmp_path)
    for path in place.folder.iterdir():
        path.unlink()
    if place.url is not None:
        with contextlib.closing(redis.Redis.from_url(place.url)) as client:
            client.flushall()
    assert restored(place, file).kept is None
    assert place.look() == before


def test_records_are_replaced_by_those_of_the_backup_and_leases_are_no_content(place, tmp_path):
    async def lease():
        records = place.records()
        assert await records.lease("baseline", "docs", 1e6)
        await records.aclose()

    async def change():
        records = place.records()
        await records.put(Record("baseline", "later", "{}"))
        await records.remove("baseline", "docs | ü")
        await records.remove("key", "web")
        await records.aclose()

    asyncio.run(lease())
    (part,) = [one for one in place.parts if one.name.startswith("ledger")]
    with part.begin() as transaction:
        assert transaction.is_empty()
    place.fill()
    before, file = place.look()["records"], made(place, tmp_path)
    assert [record.name for record in before] == ["docs | ü", "web"]
    asyncio.run(change())
    assert [record.name for record in place.look()["records"]] == ["later"]
    restored(place, file, overwrite=True)
    assert place.look()["records"] == before


def test_what_is_replaced_is_kept_and_can_be_restored_itself(place, tmp_path):
    place.fill()
    file = made(place, tmp_path)
    place.spend(1000)
    place.trust({"/b/embedway.toml": "cd" * 32})
    replaced = place.look()
    kept = [restored(place, file, overwrite=True).kept for _ in range(2)]
    assert kept[0] != kept[1]
    assert {stat.S_IMODE(one.stat().st_mode) for one in kept} == {0o600}
    restored(place, kept[0], overwrite=True)
    assert place.look() == replaced


def test_state_that_is_there_is_replaced_only_where_that_is_asked_for(place, tmp_path):
    place.fill()
    file = made(place, tmp_path)
    place.spend(1000)
    before = place.look()
    with pytest.raises(UsageError, match=r"state already exists .* use --overwrite"):
        restored(place, file)
    assert place.look() == before
    assert asyncio.run(mark_of(place)) is None


async def mark_of(place):
    ledger = place.ledger()
    try:
        return await ledger.restored()
    finally:
        await ledger.aclose()


def test_a_backup_of_nothing_is_an_error(place, tmp_path):
    with pytest.raises(UsageError, match="there is nothing to back up"):
        made(place, tmp_path)
    assert not (tmp_path / "state.zip").exists()


# ------------------------------------------------------------- the file


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_backup_is_private_and_replaces_a_file_only_where_that_is_asked_for(files, tmp_path, umask):
    files.fill()
    before = os.umask(umask)
    try:
        file = made(files, tmp_path, "folder/state.zip")
    finally:
        os.umask(before)
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    file.write_text("mine")
    with pytest.raises(UsageError, match="already exists: choose another file, or use --overwrite"):
        made(files, tmp_path, "folder/state.zip")
    assert file.read_text() == "mine"
    made(files, tmp_path, "folder/state.zip", overwrite=True)
    with open_archive(file) as archive:
        assert list(archive.manifest.parts) == ["trust.json", "pins.sqlite", "ledger.sqlite"]
    assert [one.name for one in file.parent.iterdir()] == ["state.zip"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_backup_never_replaces_a_pipe_or_a_link_to_one(files, tmp_path):
    files.fill()
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UsageError, match="is a device, a pipe or a socket"):
            made(files, tmp_path, path.name, overwrite=True)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()


def test_a_backup_is_never_written_over_what_it_is_of(files, tmp_path):
    files.fill()
    before = files.look()
    parts = [*files.parts, BatchesPart(files.folder / "batches.sqlite")]
    databases = [
        f"{name}.sqlite{ending}"
        for name in ("ledger", "pins", "batches")
        for ending in ("", "-wal", "-shm", "-journal")
    ]
    for name in (*databases, "trust.json", ".trust.lock"):
        with pytest.raises(UsageError, match="is a file to be backed up, or belongs to one"):
            back_up(parts, files.folder / name, overwrite=True)
    assert files.look() == before


def test_a_backup_is_never_written_over_the_log_of_what_a_link_leads_to(files, tmp_path):
    files.fill()
    real = tmp_path / "elsewhere" / "books"
    real.parent.mkdir()
    (files.folder / "ledger.sqlite").rename(real)
    (files.folder / "ledger.sqlite").symlink_to(real)
    before = files.look()
    for file in (real, files.folder / "ledger.sqlite", real.with_name("books-wal")):
        with pytest.raises(UsageError, match="belongs to one"):
            back_up(files.parts, file, overwrite=True)
    assert files.look() == before


@pytest.mark.parametrize("what", ["link", "folder"])
def test_a_trust_lock_that_is_not_a_file_is_an_error_and_nothing_is_restored(files, tmp_path, what):
    files.fill()
    file = made(files, tmp_path)
    files.spend(1000)
    before, lock = files.look(), files.folder / ".trust.lock"
    (tmp_path / "mine").write_text("my only copy")
    lock.unlink(missing_ok=True)
    {"link": lambda: lock.symlink_to(tmp_path / "mine"), "folder": lock.mkdir}[what]()
    with pytest.raises(StateError, match=r"\.trust\.lock: cannot be locked: .*; its lock must be a separate file"):
        restored(files, file, overwrite=True)
    assert files.look() == before
    assert (tmp_path / "mine").read_text() == "my only copy"


def test_a_disk_that_fails_is_a_state_error(files, tmp_path, monkeypatch):
    files.fill()
    file = made(files, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for work in (lambda: made(files, tmp_path, "more.zip"), lambda: restored(files, file, overwrite=True)):
        with pytest.raises(StateError, match=r"the backup cannot be written or restored: .*No such file or directory"):
            work()


def test_a_file_in_an_archive_is_complete_without_its_log(files, tmp_path):
    files.fill()
    with zipfile.ZipFile(made(files, tmp_path)) as archive:
        archive.extract("ledger.sqlite", tmp_path / "out")
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "ledger.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT COUNT(*) FROM entries").fetchone() == (3,)
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["ledger.sqlite"]


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_trust_is_a_file_or_nothing(tmp_path, what):
    path = tmp_path / "trust.json"
    (tmp_path / "secret").write_text("not to be copied")
    {"link": lambda: path.symlink_to("secret"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[what]()
    with pytest.raises(StateError, match=r"trust\.json: (cannot be read|is not a (regular )?file|is no file)"):
        TrustPart(path).snapshot(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def gateway_settings(tmp_path):
    """Return settings of a gateway with all its state in a folder."""
    folder = tmp_path / "gateway"
    paths = {"ledger.path": folder / "ledger.sqlite", "pins.path": folder / "pins.sqlite"}
    return Config.load([], environ={}, overrides={**paths, "server.state_directory": folder / "server"})


def in_store(config, work):
    """Run an asynchronous function with the store of files and batches."""

    async def main():
        store = open_batch_store(config)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(main())


async def add_some(store):
    file = await put_file(store, b"lines")
    assert await store.add_batch(a_batch(file, await store.now()), 5) == "added"
    return file


async def everything(store):
    listing = Listing("", 100)
    files, batches = await store.list_files(listing), await store.list_batches(listing)
    contents = [await content_of(store, file.id) for file in files.items]
    return files, batches, contents, await store.open_batches(), await store.used_bytes("")


def test_files_and_batches_are_backed_up_and_restored(gateway_settings, tmp_path):
    in_store(gateway_settings, add_some)
    before = in_store(gateway_settings, everything)
    assert before[2] == [b"lines"]
    parts = parts_of(gateway_settings, tmp_path / "trust")
    done = back_up(parts, tmp_path / "state.zip")
    assert done.places["batches.sqlite"] == str(tmp_path / "gateway" / "server" / "batches.sqlite")
    in_store(gateway_settings, add_some)
    assert in_store(gateway_settings, everything) != before
    assert restore(parts, tmp_path / "state.zip", overwrite=True).kept is not None
    assert in_store(gateway_settings, everything) == before


def test_files_and_batches_are_restored_where_none_were(gateway_settings, tmp_path):
    in_store(gateway_settings, add_some)
    before = in_store(gateway_settings, everything)
    parts = parts_of(gateway_settings, tmp_path / "trust")
    back_up(parts, tmp_path / "state.zip")
    shutil.rmtree(tmp_path / "gateway")
    assert not restore(parts, tmp_path / "state.zip").to_confirm  # no ledger was in it
    assert in_store(gateway_settings, everything) == before


def test_files_and_batches_on_the_server_of_the_ledger_are_no_part(gateway_settings, tmp_path):
    in_store(gateway_settings, add_some)
    back_up(parts_of(gateway_settings, tmp_path / "trust"), tmp_path / "state.zip")
    ledger = gateway_settings.ledger.model_copy(update={"backend": "redis", "url": "redis://127.0.0.1:1"})
    shared = gateway_settings.model_copy(update={"ledger": ledger})
    assert "batches.sqlite" not in {part.name for part in parts_of(shared, tmp_path / "trust")}
    with pytest.raises(UsageError, match=r"contains batches of the backend sqlite, but ledger\.backend is another"):
        restore(parts_of(shared, tmp_path / "trust"), tmp_path / "state.zip")


# ------------------------------------------------------------- backups during bookings


def sums(file, folder):
    """Return the accounts in a backup, and the sums of its entries."""
    with open_archive(file) as archive:
        archive.extract("ledger.sqlite", folder / f"{file.name}.sqlite")
    with contextlib.closing(sqlite3.connect(folder / f"{file.name}.sqlite")) as connection:
        accounts = connection.execute("SELECT spent, held FROM accounts WHERE period = 'total'").fetchall()
        (entries,) = connection.execute("SELECT SUM(spent), SUM(reserved + sent) FROM entries").fetchall()
        return set(accounts), entries


def test_a_backup_while_threads_book_is_a_state_that_was(files, tmp_path):
    files.fill()
    stop, failed = threading.Event(), []

    def book(number):
        async def work():
            ledger = files.ledger()
            while not stop.is_set():
                entry = await ledger.reserve(PURPOSE, 5, (), lease_s=60, texts=number)
                if isinstance(entry, Refused):
                    await ledger.set_limit(Limit("alle €", 10**15, warn_at=(1,)))
                    continue
                await ledger.send(entry, 3, ())
                await ledger.close(entry)
            await ledger.aclose()

        try:
            asyncio.run(work())
        except Exception as error:  # noqa: BLE001  the test reports it
            failed.append(error)

    threads = [threading.Thread(target=book, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        found = [sums(made(files, tmp_path, f"{number}.zip"), tmp_path) for number in range(25)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    for accounts, entries in found:
        assert accounts == {entries}
    spent = [entries[0] for _, entries in found]
    assert spent == sorted(spent)
    assert len(set(spent)) > 5


BOOKING = """
import asyncio, sys
from embedway.ledger.base import Purpose
from embedway.ledger.sqlite import SqliteLedger

async def work():
    ledger = SqliteLedger(__import__("pathlib").Path(sys.argv[1]))
    for line in sys.stdin:
        entry = await ledger.reserve(Purpose("m", "docs", "team"), int(line), (), lease_s=60, texts=1)
        if isinstance(entry, str):
            await ledger.send(entry, int(line), ())
            await ledger.close(entry)
        print("booked" if isinstance(entry, str) else "refused", flush=True)
    await ledger.aclose()

asyncio.run(work())
"""


def test_a_restore_reaches_processes_that_have_the_ledger_open(files, tmp_path):
    path = files.folder / "ledger.sqlite"
    files.fill()
    file = made(files, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", BOOKING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:

        def spend_there(nanousd):
            other.stdin.write(f"{nanousd}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        assert spend_there(100) == "booked"
        inode = path.stat().st_ino
        restored(files, file, overwrite=True)
        assert path.stat().st_ino == inode
        assert spend_there(100) == "refused"

        async def confirm():
            ledger = files.ledger()
            assert await ledger.confirm() == Restored(THEN, LATER)
            await ledger.aclose()

        asyncio.run(confirm())
        assert spend_there(7) == "booked"
        other.stdin.close()
        assert other.wait(60) == 0
    standing = next(one for one in files.look()["standings"] if one.limit.name == "alle €")
    assert (standing.spent, standing.held) == (307, 70)


def test_a_process_that_is_killed_while_it_restores_leaves_what_was_there(files, tmp_path):
    files.fill()
    file = made(files, tmp_path)
    files.spend(1000)
    before = files.look()
    for point in ("stage", "commit"):
        code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(state_places.__file__).parent)!r}]
from pathlib import Path
from state_places import Place
from embedway.state import sqlite as state_sqlite
from embedway.state.backup import restore

good = state_sqlite._SqliteTransaction.{point}
def killed(self, *arguments):
    if {point!r} == "stage":
        good(self, *arguments)
    self.connection.execute("PRAGMA cache_spill = 1")
    os.kill(os.getpid(), signal.SIGKILL)
state_sqlite._SqliteTransaction.{point} = killed
restore(Place(Path({str(files.folder)!r})).parts, Path({str(file)!r}), overwrite=True)
"""
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as other:
            assert other.wait(60) == -signal.SIGKILL, other.stderr.read()
        assert files.look() == before
    restored(files, file, overwrite=True)
    assert files.look() != before


def test_a_restoration_that_fails_before_it_replaces_anything_leaves_no_backup(files, tmp_path, monkeypatch):
    files.fill()
    file = made(files, tmp_path)

    def fail(*_):
        raise StateError("no", file=file)

    monkeypatch.setattr(state_sqlite._SqliteTransaction, "stage", fail)  # noqa: SLF001  its step
    with pytest.raises(StateError):
        restored(files, file, overwrite=True)
    assert list(files.folder.glob("state-before-restore-*")) == []


def test_a_restoration_reports_that_all_is_replaced(files, tmp_path):
    files.fill()
    file = made(files, tmp_path)
    seen = []
    restored(files, file, overwrite=True, on_commit=lambda: seen.append(files.look()))
    assert seen == [files.look()]


def test_what_is_booked_while_a_server_is_restored_is_not_lost_unseen(server, tmp_path):
    server.fill()
    file = made(server, tmp_path)
    (part,) = [one for one in server.parts if one.name == "ledger.redis.json"]
    with open_archive(file) as archive:
        archive.extract(part.name, tmp_path / "ledger.json")
    with part.begin() as transaction:
        transaction.snapshot(tmp_path / "kept.json")
        server.spend(1000)
        before = server.look()
        transaction.stage(tmp_path / "ledger.json", Restored(THEN, LATER))
        with pytest.raises(StateError, match="was changed by another process, and is not replaced: try again"):
            transaction.commit()
    assert server.look() == before


@pytest.mark.parametrize("bound", [{"MOST_BYTES": 1000}, {"MOST_KEYS": 5}])
def test_a_server_with_too_much_data_is_an_error_that_names_its_own_tools(server, tmp_path, monkeypatch, bound):
    server.fill()
    for name, value in bound.items():
        monkeypatch.setattr(state_redis, name, value)
    with pytest.raises(StateError, match=r"ledger in Redis: contains more than .* the server's own tools"):
        made(server, tmp_path)
    assert not (tmp_path / "state.zip").exists()


def test_a_backup_of_another_backend_is_an_error(files, server, tmp_path):
    server.fill()
    with pytest.raises(UsageError, match=r"contains pins of the backend redis, but pins\.backend is another one"):
        restored(files, made(server, tmp_path))


# ------------------------------------------------------------- spending after a restore


@pytest.fixture
def unconfirmed(place, tmp_path):
    """Return the place of a restored ledger with a hard limit."""
    place.fill()
    restored(place, made(place, tmp_path), overwrite=True)
    return place


def with_ledger(place, work):
    async def whole():
        ledger = place.ledger()
        try:
            return await work(ledger)
        finally:
            await ledger.aclose()

    return asyncio.run(whole())


def test_restored_budgets_refuse_to_spend_until_they_are_confirmed(unconfirmed):
    mark = Restored(THEN, LATER)

    async def work(ledger):
        assert await ledger.restored() == mark
        before = await ledger.totals()
        for nanousd in (0, 1, None):
            refused = await ledger.reserve(PURPOSE, nanousd, (), lease_s=60, texts=1)
            assert isinstance(refused, Refused)
            assert (refused.limit.name, refused.left, refused.restored) == ("alle €", 10_000 - 370, mark)
        assert await ledger.totals() == before
        assert await ledger.confirm() == mark
        assert await ledger.restored() is None
        assert await ledger.confirm() is None
        await spend(ledger, 5)

    with_ledger(unconfirmed, work)


def test_limits_of_the_settings_refuse_too_and_without_a_hard_one_nothing_is_refused(unconfirmed):
    async def work(ledger):
        await ledger.remove_limit("alle €")
        await spend(ledger, 5)
        own = Limit("own", 10**9, "model:m")
        refused = await ledger.reserve(PURPOSE, 1, (own,), lease_s=60, texts=1)
        assert (refused.limit, refused.restored) == (own, Restored(THEN, LATER))
        soft = Limit("own", 10**9, "model:m", hard=False)
        assert isinstance(await ledger.reserve(PURPOSE, 1, (soft,), lease_s=60, texts=1), str)

    with_ledger(unconfirmed, work)


@pytest.mark.parametrize("own", [True, False])
def test_an_entry_that_is_open_sends_nothing_until_the_books_are_confirmed(place, tmp_path, own):
    limit = Limit("all", 1000)

    async def reserve(ledger):
        if own:
            await ledger.set_limit(limit)
        return await ledger.reserve(PURPOSE, 10, () if own else (limit,), lease_s=1e6, texts=1)

    entry = with_ledger(place, reserve)
    restored(place, made(place, tmp_path), overwrite=True)

    async def send(ledger):
        before = await ledger.totals(), await ledger.entries()
        for nanousd in (0, 10, 15):
            refused = await ledger.send(entry, nanousd, () if own else (limit,))
            assert (refused.limit, refused.restored) == (limit, Restored(THEN, LATER))
        assert (await ledger.totals(), await ledger.entries()) == before
        await ledger.confirm()
        assert await ledger.send(entry, 10, () if own else (limit,)) is None

    with_ledger(place, send)


def test_without_a_hard_limit_an_open_entry_goes_on_in_restored_books(place, tmp_path):
    async def reserve(ledger):
        return await ledger.reserve(PURPOSE, 10, (), lease_s=1e6, texts=1)

    entry = with_ledger(place, reserve)
    restored(place, made(place, tmp_path), overwrite=True)

    async def send(ledger):
        assert await ledger.send(entry, 10, (Limit("soft", 1000, hard=False),)) is None
        await ledger.settle(entry, Settlement(10, 10, 3, "reported"), ())
        await ledger.close(entry)
        (total, *_) = await ledger.totals()
        assert (total.spent, total.held) == (10, 0)

    with_ledger(place, send)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(("kind", "cost"), [("reported", 60), ("unsure", 70), ("unbilled", 0), ("reported", 100)])
def test_what_was_sent_after_the_backup_is_booked_with_what_it_cost(place, tmp_path, kind, cost, ended):
    """The books contain 20 that are under way, but not the other 50."""

    async def begin(ledger):
        entry = await ledger.reserve(PURPOSE, 70, (), lease_s=1e6, texts=1)
        await ledger.send(entry, 20, ())
        return entry

    entry = with_ledger(place, begin)
    file = made(place, tmp_path)
    with_ledger(place, lambda ledger: ledger.send(entry, 50, ()))
    restored(place, file, overwrite=True)

    async def settle(ledger):
        if ended:
            await ledger.close(entry)
        await ledger.settle(entry, Settlement(70, cost, 3, kind), ())
        (total, *_), (one,) = await ledger.totals(), await ledger.entries()
        assert min(total.held, one.sent, one.reserved, one.unsure) >= 0
        await ledger.close(entry)
        (total, *_), (one,) = await ledger.totals(), await ledger.entries()
        assert (total.spent, total.held, one.spent, one.sent, one.reserved) == (cost, 0, cost, 0, 0)

    with_ledger(place, settle)


def test_unconfirmed_books_keep_their_age(place, tmp_path):
    place.fill()
    restored(place, made(place, tmp_path), overwrite=True)
    later = back_up(place.parts, tmp_path / "later.zip", clock=lambda: THEN + 1000).file
    restore(place.parts, later, overwrite=True, clock=lambda: LATER + 9)
    assert asyncio.run(mark_of(place)) == Restored(THEN, LATER + 9)


def test_the_error_says_what_to_do(unconfirmed):
    async def work(ledger):
        budgets = Budgets(ledger)
        with pytest.raises(BudgetExceededError) as told:
            await budgets.open(CallBudget(PURPOSE), lambda tokens, _: tokens, tokens=5, texts=1)
        await budgets.aclose()
        return str(told.value)

    told = with_ledger(unconfirmed, work)
    assert "restored from a backup of 2026-11-23T12:01:40+00:00" in told
    for command in ("budget show", "budget set NAME USD", "budget confirm"):
        assert f"`embedway {command}`" in told


def test_a_mark_that_cannot_be_read_refuses(files, tmp_path):
    files.fill()
    with contextlib.closing(sqlite3.connect(files.folder / "ledger.sqlite")) as connection:
        connection.execute("INSERT INTO meta VALUES ('restored', '{}')")
        connection.commit()
    with pytest.raises(LedgerError, match="mark of a restored backup cannot be read"):
        files.spend(1)


def test_many_backups_at_once_have_one_name_each(files, tmp_path):
    files.fill()
    start, done = threading.Barrier(4), []

    def back():
        start.wait()
        with contextlib.suppress(UsageError):
            done.append(made(files, tmp_path))

    threads = [threading.Thread(target=back) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
