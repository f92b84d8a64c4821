"""Our SQLite files are private, stamped and migrated once; other files stay unchanged."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from embedway import files, formats, sqlite
from embedway.cache.sqlite_format import CREATED_INDEX
from embedway.cache.sqlite_format import FORMAT as CACHE
from embedway.errors import CacheError, ConfigError, LedgerError
from embedway.ledger.sqlite_formats import LEDGER, PINS

OLD = Path(__file__).parent / "project" / "formats"
FORMS = {"cache": CACHE, "ledger": LEDGER, "pins": PINS}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def stamp(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))


def content(path):
    """Return all rows of all tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(tables)}  # noqa: S608


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------- new files


def test_a_new_file_is_stamped_and_private_with_all_that_lies_beside_it(tmp_path, form, umask):
    tmp_path.chmod(0o755)
    path = tmp_path / "one" / "two" / "file.sqlite"
    with contextlib.closing(sqlite.connect(path, form)) as connection:
        connection.execute("CREATE TABLE more (x)")
        assert sorted(one.name for one in path.parent.iterdir()) == [
            f"file.sqlite{end}" for end in ("", "-shm", "-wal")
        ]
        assert {mode(one) for one in path.parent.iterdir()} == {0o600}
    assert (mode(path.parent), mode(path.parent.parent), mode(tmp_path)) == (0o700, 0o700, 0o755)
    assert stamp(path) == (form.kind.application_id, form.version)


def test_what_exists_keeps_its_mode(tmp_path, umask):
    tmp_path.chmod(0o755)
    path = tmp_path / "pins.sqlite"
    path.touch()
    path.chmod(0o640)
    sqlite.connect(path, PINS).close()
    assert (mode(path), mode(tmp_path)) == (0o640, 0o755)


def test_a_private_file_is_written_whole_or_not_at_all(tmp_path, umask):
    path = tmp_path / "folder" / "file"
    files.write_private_whole(path, b"first", overwrite=False)
    assert (path.read_bytes(), mode(path), mode(path.parent)) == (b"first", 0o600, 0o700)
    with pytest.raises(FileExistsError):
        files.write_private_whole(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    files.write_private_whole(path, b"third")
    assert (path.read_bytes(), mode(path)) == (b"third", 0o600)
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_many_open_a_new_file_at_once(tmp_path, form):
    for number in range(10):
        path = tmp_path / "sub" / f"{number}.sqlite"
        assert at_once(8, lambda path=path: sqlite.connect(path, form).close()) == []
        assert stamp(path) == (form.kind.application_id, form.version)


def at_once(count, work):
    """Run a function in several threads at the same time, and return the errors."""
    start, failed = threading.Barrier(count), []

    def begin():
        start.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001  the test reports it
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


# ------------------------------------------------------------- older and newer versions


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_version_1_is_stamped_when_it_is_opened(tmp_path, name):
    path = tmp_path / "old.sqlite"
    shutil.copy(OLD / f"{name}-v1.sqlite", path)
    assert stamp(path) == (0, 0)
    before = content(path)
    sqlite.connect(path, FORMS[name]).close()
    assert stamp(path) == (FORMS[name].kind.application_id, FORMS[name].version)
    if name != "cache":  # its migration drops entries
        assert {table: rows for table, rows in content(path).items() if table in before} == before


def test_a_file_of_version_1_whose_tables_are_in_the_log_alone_is_recognised(tmp_path, form):
    """Its process was killed before SQLite moved anything out of the log."""
    path, killed = tmp_path / "live.sqlite", tmp_path / "killed.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in form.kind.unstamped:
            connection.execute(statement)
        for ending in ("", "-wal"):
            shutil.copy(formats.beside(path, ending), formats.beside(killed, ending))
    with contextlib.closing(sqlite3.connect(f"file:{killed}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
    sqlite.connect(killed, form).close()
    assert stamp(killed) == (form.kind.application_id, form.version)


def test_a_file_of_version_1_that_was_never_finished_is_taken(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(LEDGER.kind.unstamped[0])
    sqlite.connect(path, LEDGER).close()
    assert set(content(path)) == {"entries", "accounts", "limits", "warnings", "meta", "records", "leases"}


def test_a_newer_version_is_refused_and_named(tmp_path, form):
    path = tmp_path / "newer.sqlite"
    sqlite.connect(path, form).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {form.version + 7}")
    before = snapshot(tmp_path)
    error = CacheError if form is CACHE else LedgerError
    with pytest.raises(error, match=rf"newer\.sqlite has version {form.version + 7} .* up to {form.version}"):
        sqlite.connect(path, form)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", FORMS)
def test_two_processes_that_race_migrate_once(tmp_path, name):
    for number in range(5):
        path = tmp_path / f"{number}.sqlite"
        shutil.copy(OLD / f"{name}-v1.sqlite", path)
        code = (
            "import sys; from pathlib import Path; from test_sqlite import FORMS; from embedway import sqlite;"
            f"sys.stdin.read(1); sqlite.connect(Path({str(path)!r}), FORMS[{name!r}]).close()"
        )
        started = [child(code, stdin=subprocess.PIPE) for _ in range(2)]
        for one in started:
            one.stdin.write(b"x")
            one.stdin.flush()
        told = [one.communicate(timeout=60)[1].decode() for one in started]
        assert [one.returncode for one in started] == [0, 0], told
        assert sum("is migrated from version 1" in text for text in told) == (name == "cache")
        assert stamp(path) == (FORMS[name].kind.application_id, FORMS[name].version)


@pytest.mark.parametrize("name", FORMS)
def test_killed_in_the_middle_of_a_migration_leaves_the_old_version_whole(tmp_path, name):
    path = tmp_path / "old.sqlite"
    shutil.copy(OLD / f"{name}-v1.sqlite", path)
    before = content(path)
    code = f"""
import dataclasses, os, signal
from pathlib import Path
from test_sqlite import FORMS
from embedway import sqlite

form = FORMS[{name!r}]
def step(connection, path):
    form.migrations[1](connection, path)
    connection.execute("PRAGMA cache_spill = 1")
    os.kill(os.getpid(), signal.SIGKILL)
sqlite.connect(Path({str(path)!r}), dataclasses.replace(form, migrations={{1: step}}))
"""
    with child(code) as killed:
        assert killed.wait(60) == -signal.SIGKILL, killed.stderr.read()
    assert (content(path), stamp(path)) == (before, (0, 0))
    sqlite.connect(path, FORMS[name]).close()
    assert stamp(path) == (FORMS[name].kind.application_id, FORMS[name].version)


def child(code, **options):
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.PIPE, **options)


# ------------------------------------------------------------- files of other programs


def snapshot(folder):
    """Return every file below a folder with its bytes, mode and time of change; links are listed as links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(state.st_mode) else None
        found[path.relative_to(folder)] = (state.st_mode, state.st_mtime_ns, state.st_size, data)
    return found


def text(path):
    path.write_text("my only copy\n" * 50)


def text_with_files_beside(path):
    text(path)
    for ending in formats.BESIDE:
        formats.beside(path, ending).write_text("another file of mine")


def foreign_database(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, note TEXT)")
        connection.execute("INSERT INTO entries (note) VALUES ('mine')")
        connection.commit()


def foreign_database_with_an_application_id(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 252006673")
        connection.execute("PRAGMA user_version = 1")


def foreign_database_with_a_user_version_alone(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")


def foreign_database_in_use(path):
    """All its data is in the log, as after a killed process."""
    live = path.with_name("elsewhere")
    live.mkdir()
    with contextlib.closing(sqlite3.connect(live / "db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (note TEXT)")
        for ending in ("", "-wal", "-shm"):
            shutil.copy(formats.beside(live / "db", ending), formats.beside(path, ending))


def foreign_database_with_a_hot_journal(path):
    """Its transaction was interrupted: SQLite rolls it back when it is opened."""
    live = path.with_name("elsewhere")
    live.mkdir()
    foreign_database(live / "db")
    with contextlib.closing(sqlite3.connect(live / "db", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO entries (note) VALUES (?)", [("x" * 3000,)] * 100)
        for ending in ("", "-journal"):
            shutil.copy(formats.beside(live / "db", ending), formats.beside(path, ending))


def our_tables_and_one_more(path):
    shutil.copy(OLD / "ledger-v1.sqlite", path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def our_tables_and_a_view(path):
    shutil.copy(OLD / "pins-v1.sqlite", path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIEW mine AS SELECT * FROM pins")


def header_alone(path):
    path.write_bytes(b"SQLite format 3\0")


def header_gone(path):
    good = (OLD / "cache-v1.sqlite").read_bytes()
    path.write_bytes(bytes(100) + good[100:])


def empty_with_a_file_beside(path):
    path.touch()
    path.with_name(path.name + "-wal").write_text("another file of mine")


def missing_with_a_file_beside(path):
    path.with_name(path.name + "-shm").write_text("another file of mine")


def missing_with_a_journal_beside(path):
    path.with_name(path.name + "-journal").write_text("diary")


def missing_with_a_folder_beside(path):
    path.with_name(path.name + "-wal").mkdir()


def ours_with_a_file_beside(path):
    # The file is the cache's; for the ledger and the pins it is also of another kind.
    shutil.copy(OLD / "cache-v1.sqlite", path)
    path.with_name(path.name + "-wal").write_text("another file of mine")


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def dangling(path):
    path.symlink_to("nowhere")


def looping(path):
    path.symlink_to(path.name)


def link_to_a_text(path):
    text(path.with_name("elsewhere.txt"))
    path.symlink_to("elsewhere.txt")


def a_table_like_the_cache_s(path):
    made_by(path, "CREATE TABLE cleared (id INTEGER, times INTEGER)")


def a_table_like_the_pins(path):
    made_by(path, "CREATE TABLE pins (collection TEXT, pin TEXT)")


def a_table_of_the_cache_alone(path):
    made_by(path, "CREATE TABLE cleared (id INTEGER PRIMARY KEY CHECK (id = 1), times INTEGER)")


def pins_with_an_index(path):
    shutil.copy(OLD / "pins-v1.sqlite", path)
    made_by(path, "CREATE UNIQUE INDEX mine ON pins (pin)")


def made_by(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)


def missing_with_a_journal_of_zeros(path):
    formats.beside(path, "-journal").write_bytes(bytes(5000))


def empty_with_a_journal_of_zeros(path):
    path.touch()
    formats.beside(path, "-journal").write_bytes(bytes(512))


def missing_with_a_journal_s_magic(path):
    formats.beside(path, "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"user" * 100)


def missing_with_an_index_of_zeros(path):
    formats.beside(path, "-shm").write_bytes(bytes(8192))


def missing_with_a_log(path):
    """The database is missing; its remaining data is in the log."""
    foreign_database_in_use(path)
    path.unlink()


def empty_with_a_log(path):
    missing_with_a_log(path)
    path.touch()


def missing_with_a_journal_of_pages(path):
    """The database is missing; the pages that a transaction saved remain."""
    foreign_database_with_a_hot_journal(path)
    path.unlink()


FOREIGN = [
    *(
        text,
        text_with_files_beside,
        foreign_database,
        foreign_database_with_an_application_id,
        header_alone,
        header_gone,
    ),
    *(foreign_database_with_a_user_version_alone, foreign_database_in_use, foreign_database_with_a_hot_journal),
    *(our_tables_and_one_more, our_tables_and_a_view, empty_with_a_file_beside, missing_with_a_file_beside),
    *(missing_with_a_journal_beside, missing_with_a_folder_beside, ours_with_a_file_beside),
    *(folder, pipe, dangling, looping, link_to_a_text),
    *(a_table_like_the_cache_s, a_table_like_the_pins, a_table_of_the_cache_alone, pins_with_an_index),
    *(missing_with_a_journal_of_zeros, missing_with_a_journal_s_magic, missing_with_an_index_of_zeros),
    *(missing_with_a_log, empty_with_a_log, missing_with_a_journal_of_pages, empty_with_a_journal_of_zeros),
]


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_files_of_other_programs_are_an_error_and_stay_unchanged(tmp_path, form, make):
    path = tmp_path / "thesis.txt"
    make(path)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match="nothing was changed") as told:
        sqlite.connect(path, form)
    assert (told.value.where, told.value.key) == (str(path), f"{form.kind.name}.path")
    assert snapshot(tmp_path) == before


def test_a_socket_is_not_ours(tmp_path, form):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(ConfigError, match="is a pipe, a socket or a device"):
            sqlite.connect(tmp_path / "s", form)


def test_a_device_is_not_ours(form):
    with pytest.raises(ConfigError, match="is a pipe, a socket or a device"):
        sqlite.connect(Path("/dev/null"), form)


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("other", FORMS)
def test_another_kind_of_ours_is_named(tmp_path, form, other, stamped):
    if FORMS[other] is form:
        return
    path = tmp_path / "file.sqlite"
    shutil.copy(OLD / f"{other}-v1.sqlite", path)
    if stamped:
        sqlite.connect(path, FORMS[other]).close()
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=rf"is the file of embedway's {other}, not of embedway's {form.kind.name}"):
        sqlite.connect(path, form)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("again", [True, False])
def test_a_new_file_whose_process_was_killed_in_its_first_transaction_is_created_again(tmp_path, form, again):
    path = tmp_path / "new.sqlite"
    code = f"""
import dataclasses, os, signal
from pathlib import Path
from test_sqlite import FORMS
from embedway import sqlite

form = FORMS[{form.kind.name!r}]
path = Path({str(path)!r})
class Killed(tuple):
    def __iter__(self):
        yield from tuple.__iter__(self)
        os.kill(os.getpid(), signal.SIGKILL)
sqlite.connect(path, dataclasses.replace(form, schema=Killed(form.schema)))
"""
    for _ in range(1 + again):
        with child(code) as killed:
            assert killed.wait(60) == -signal.SIGKILL, killed.stderr.read()
        assert path.stat().st_size == 0
        assert formats.beside(path, "-journal").stat().st_size > 0
    sqlite.connect(path, form).close()
    assert stamp(path) == (form.kind.application_id, form.version)


@pytest.mark.parametrize("size", [3, 4096])
def test_an_unused_index_of_the_log_is_not_a_third_party_file(tmp_path, form, size):
    """SQLite first truncates it to three bytes. A process may be killed then, or another may open the file."""
    path = tmp_path / "ours.sqlite"
    sqlite.connect(path, form).close()
    formats.beside(path, "-shm").write_bytes(bytes(size))
    sqlite.connect(path, form).close()
    assert stamp(path) == (form.kind.application_id, form.version)


def test_a_cache_of_version_1_with_an_index_of_times_is_recognised(tmp_path):
    path = tmp_path / "old.sqlite"
    shutil.copy(OLD / "cache-v1.sqlite", path)
    made_by(path, CREATED_INDEX)
    sqlite.connect(path, CACHE).close()
    assert stamp(path) == (CACHE.kind.application_id, CACHE.version)


def test_an_empty_file_and_a_database_with_nothing_in_it_are_taken(tmp_path, form):
    (tmp_path / "empty").touch()
    with contextlib.closing(sqlite3.connect(tmp_path / "bare")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert (tmp_path / "bare").stat().st_size == 4096
    for name in ("empty", "bare"):
        sqlite.connect(tmp_path / name, form).close()
        assert stamp(tmp_path / name) == (form.kind.application_id, form.version)


def test_a_link_to_a_file_of_ours_is_followed(tmp_path, form):
    sqlite.connect(tmp_path / "real", form).close()
    (tmp_path / "link").symlink_to("real")
    sqlite.connect(tmp_path / "link", form).close()
    assert (tmp_path / "link").is_symlink()


def test_files_that_sqlite_is_using_are_its_own(tmp_path, form):
    """Open the file many times while others write to it and restart its log."""
    path, stop = tmp_path / "file.sqlite", threading.Event()
    sqlite.connect(path, form).close()

    def write():
        while not stop.is_set():
            with contextlib.closing(sqlite.connect(path, form)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS more (x)")
                connection.execute("INSERT INTO more VALUES (1)")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(200):
            sqlite.connect(path, form).close()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
