"""Kinds of embedway's SQLite files, and their detection before SQLite opens a file.

A file is ours if its header contains the application ID of its kind. Files of version 1 have none: they are recognized
by the exact statements that created their tables and indexes. Any other file may be a user's own. It is never opened
for writing, moved or deleted, nor are files beside it that SQLite would treat as its own. Detection changes no byte of
a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from embedway import files, unfinished
from embedway.errors import ConfigError
from embedway.sqlite_open import OPENING, connect, opened_kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of SQLite file: `PRAGMA application_id`, the setting of its path, and the schema of version 1."""

    name: str
    application_id: int
    setting: str
    #: Statements of version 1, in the order of execution; empty if all versions have an application ID.
    unstamped: tuple[str, ...] = ()
    #: Statements added by an option of version 1.
    options: tuple[str, ...] = ()

    @property
    def schema(self) -> tuple[str, ...]:
        """Statements of version 1; each creates what is missing."""
        return tuple(re.sub("^CREATE (TABLE|INDEX) ", r"CREATE \1 IF NOT EXISTS ", one) for one in self.unstamped)


#: The application IDs are ASCII: `eWCa`, `eWLe`, `eWPi`, `eWBa`.
CACHE = Kind(
    "cache",
    0x65574361,
    "cache.path",
    (
        "CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE, model TEXT, space_id TEXT, namespace TEXT)",
        (
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB UNIQUE, grp INTEGER, created REAL, used REAL, "
            "value BLOB)"
        ),
        "CREATE TABLE counts (model TEXT, name TEXT, number INTEGER, PRIMARY KEY (model, name))",
        "CREATE TABLE cleared (id INTEGER PRIMARY KEY CHECK (id = 1), times INTEGER)",
        "CREATE INDEX entries_used ON entries (used)",
    ),
    ("CREATE INDEX entries_created ON entries (created)",),
)
LEDGER = Kind(
    "ledger",
    0x65574C65,
    "ledger.path",
    (
        (
            "CREATE TABLE entries (id TEXT PRIMARY KEY, opened REAL NOT NULL, closed REAL, state TEXT NOT NULL, "
            "model TEXT NOT NULL, route TEXT NOT NULL DEFAULT '', collection TEXT NOT NULL, api_key TEXT NOT NULL, "
            "texts INTEGER NOT NULL, hits INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, "
            "reserved INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, spent INTEGER NOT NULL DEFAULT 0, "
            "estimated INTEGER NOT NULL DEFAULT 0, unsure INTEGER NOT NULL DEFAULT 0, "
            "saved INTEGER NOT NULL DEFAULT 0, unpriced INTEGER NOT NULL DEFAULT 0, lease_until REAL)"
        ),
        "CREATE INDEX entries_open ON entries (lease_until) WHERE state = 'open'",
        "CREATE INDEX entries_opened ON entries (opened)",
        (
            "CREATE TABLE accounts (scope TEXT NOT NULL, period TEXT NOT NULL, spent INTEGER NOT NULL DEFAULT 0, "
            "held INTEGER NOT NULL DEFAULT 0, saved INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (scope, period))"
        ),
        (
            "CREATE TABLE limits (name TEXT PRIMARY KEY, nanousd INTEGER NOT NULL, scope TEXT NOT NULL, "
            "period TEXT NOT NULL, hard INTEGER NOT NULL, warn_at TEXT NOT NULL)"
        ),
        (
            "CREATE TABLE warnings (name TEXT NOT NULL, period TEXT NOT NULL, nanousd INTEGER NOT NULL, "
            "level INTEGER NOT NULL, PRIMARY KEY (name, period, nanousd))"
        ),
    ),
)
PINS = Kind("pins", 0x65575069, "pins.path", ("CREATE TABLE pins (collection TEXT PRIMARY KEY, pin TEXT NOT NULL)",))
#: The gateway's keys. No such file exists yet; the ID is reserved.
#: The gateway's files and batches.
BATCHES = Kind("batches", 0x65574261, "server.state_directory")
KINDS = (CACHE, LEDGER, PINS, BATCHES)

_HEADER = b"SQLite format 3\0"
_HEADER_BYTES = 100
_USER_VERSION, _APPLICATION_ID = slice(60, 64), slice(68, 72)
_WAL = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
#: Version of the index of a write-ahead log, in the byte order of the machine that wrote it.
_SHM = tuple((3_007_000).to_bytes(4, order) for order in ("little", "big"))
_SHM_HEADER_BYTES, _SHM_CUT_BYTES = 136, 3
_LARGEST_PAGE = 65_536
BESIDE = ("-wal", "-shm", "-journal")
#: Maximum checks of a file, and the pause between them. A file may be inconsistent while another process writes it.
_LOOKS, _LOOK_AGAIN_S = 5, 0.02
#: Maximum size of a copied file. A log has at most some megabytes not yet checkpointed, unless a reader runs for long.
_MOST_COPIED_BYTES = 256 * 2**20


def check(path: Path, kind: Kind) -> bool:
    """Return whether there is a file of this kind; False if it is missing or empty. Changes nothing.

    Raises ConfigError for a file that is not ours, or is ours of another kind, and OSError if it cannot be read.
    """
    with OPENING:
        opened = opened_kind(path)
        if opened not in {None, kind.name}:
            raise _error(path, kind, f"is the file of embedway's {opened}, not of embedway's {kind.name}")
        return opened is not None or _check_closed(path, kind)


def _check_closed(path: Path, kind: Kind) -> bool:
    """Check a file to which this process has no connection; see `check`."""
    for attempt in range(_LOOKS):
        size = _size(path, kind)
        real = path.resolve()  # SQLite keeps its files beside the target of a link
        found = _look(real) if size else "empty"
        if found is not kind and found != "empty":
            whose = f"the file of embedway's {found.name}, not" if isinstance(found, Kind) else "not a file"
            raise _error(path, kind, f"is {whose} of embedway's {kind.name}")
        foreign = next((ending for ending in BESIDE if not _belongs(beside(real, ending), ending, size)), None)
        if foreign is None:
            return found is kind
        if attempt + 1 == _LOOKS:
            what = "that SQLite did not write" if size else "although it is empty; delete that file if it is not needed"
            raise _error(path, kind, f"has a file {real.name}{foreign} beside it {what}")
        time.sleep(_LOOK_AGAIN_S)  # another process may be creating or changing the files
    raise AssertionError  # the last check returns or raises


def is_ours(path: Path, kind: Kind) -> bool:
    """Return whether a file can be recognized as one of this kind, even if damaged."""
    try:
        with OPENING:
            opened = opened_kind(path)
            return opened == kind.name if opened is not None else _look(path.resolve()) is kind
    except OSError:
        return False


def open_checked(path: Path, kind: Kind, *, create: bool = False, timeout_s: float) -> sqlite3.Connection:
    """Open a file of this kind in autocommit mode, or a new one with `create`. Any thread may use the connection.

    Raises as `check`, and sqlite3.Error.
    """
    with OPENING:
        check(path, kind)
        if create:
            files.create_private_file(path)
        return connect(path, uri(path, "mode=rw"), kind.name, timeout_s)


def _belongs(path: Path, ending: str, size: int) -> bool:
    """Return whether a file beside a database of `size` bytes is part of it, or missing.

    No file is part of an empty database, except the journal of its first transaction: from a process that is creating
    it now, or was killed meanwhile.
    """
    if not is_sqlites(path, ending):
        return False
    if size:
        return True
    start = _start(path, _LARGEST_PAGE + 1)
    return not start or (ending == "-journal" and _is_first_journal(start))


def _is_first_journal(data: bytes) -> bool:
    """Return whether a journal is that of a database's first transaction: a header that fills a sector, and no page.

    Its magic and page count are followed by a random number, the previous number of pages (0), the sector size and the
    page size.
    """
    before, sector, page = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20, 24))
    known = data.startswith(_JOURNAL) or not any(data[:12])
    sizes = all(size & (size - 1) == 0 and 512 <= size <= _LARGEST_PAGE for size in (sector, page))
    return known and before == 0 and sizes and len(data) == sector and not any(data[28:])


def is_sqlites(path: Path, ending: str) -> bool:
    """Return whether a file beside a database was written by SQLite, or is missing. Raises OSError."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(state.st_mode):
        return False
    start = _start(path, _SHM_HEADER_BYTES)
    if not start:
        return True  # or the last process that used it has just removed it
    if ending == "-wal":
        return start.startswith(_WAL)
    if ending == "-journal":
        return start.startswith(_JOURNAL) or _is_unfinished_journal(start)
    # Zeros before its first use: whole pages, and initially the size to which SQLite truncates it.
    unused = state.st_size % 4096 == 0 or state.st_size == _SHM_CUT_BYTES
    return start.startswith(_SHM) or (unused and not any(start))


def _is_unfinished_journal(start: bytes) -> bool:
    """Return whether a journal has the header from before a sync, or after a transaction that retained the file.

    Its magic and page count are then zeros, followed by a random number, a count, and two sizes, or zeros.
    """
    sizes = [int.from_bytes(start[at : at + 4], "big") for at in (20, 24)]
    return not any(start[:12]) and all(size & (size - 1) == 0 and size <= _LARGEST_PAGE for size in sizes)


def beside(path: Path, ending: str) -> Path:
    """Return the path of the file that SQLite keeps beside a database."""
    return path.with_name(path.name + ending)


def uri(path: Path, mode: str) -> str:
    """Return the URI of a file for `sqlite3.connect(uri=True)`, such as `file:/a%20b?mode=ro`."""
    return f"file:{quote(os.fsencode(path))}?{mode}"


def tables_of(connection: sqlite3.Connection) -> dict[str, str] | None:
    """Return columns with their types, by table; None unless there are only plain tables and their indexes."""
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    rows = connection.execute(query).fetchall()
    plain = {"table": ("CREATE TABLE ",), "index": ("CREATE INDEX ", "CREATE UNIQUE INDEX ")}
    if not all(kind in plain and str(sql).startswith(plain[kind]) for kind, _, sql in rows):
        return None
    return {name: ", ".join(_columns(connection, name)) for kind, name, _ in rows if kind == "table"}


def schema_of(connection: sqlite3.Connection) -> frozenset[str] | None:
    """Return the statements that created the tables and indexes, with normalized spaces; None for other objects."""
    if tables_of(connection) is None:
        return None
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return frozenset(_plain(sql) for (sql,) in rows)


def of_schema(schema: frozenset[str]) -> Kind | None:
    """Return the kind of a file without an application ID.

    Version 1 ran its statements one by one. If its process was killed meanwhile, the last of them are missing.
    """
    for kind in KINDS:
        own = schema - {_plain(one) for one in kind.options}
        if own and own == {_plain(one) for one in kind.unstamped[: len(own)]}:
            return kind
    return None


def _plain(statement: str) -> str:
    """Normalize the spaces of a statement, and remove those inside parentheses. SQLite stores it as it was written."""
    return " ".join(statement.split()).replace("( ", "(").replace(" )", ")")


def by_application_id(number: int) -> Kind | None:
    """Return the kind with an application ID."""
    return next((kind for kind in KINDS if kind.application_id == number), None)


def _size(path: Path, kind: Kind) -> int:
    try:
        state = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise _error(path, kind, "is a link to a file that does not exist") from None
        return 0
    except OSError:
        if path.is_symlink():
            raise _error(path, kind, "is a link that cannot be followed") from None
        raise
    if not stat.S_ISREG(state.st_mode):
        what = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, a socket or a device"
        raise _error(path, kind, f"is {what}, not a file")
    return state.st_size


def _look(path: Path) -> Kind | str | None:
    """Return the kind of a file that is not empty; `empty` for an empty database, None for any other file."""
    head = _start(path, _HEADER_BYTES)
    for _ in range(_LOOKS):
        found = _look_once(path, head)
        before, head = head, _start(path, _HEADER_BYTES)
        if found is not None or head == before:
            return found
    return None


def _look_once(path: Path, head: bytes) -> Kind | str | None:
    """Return the kind of a file with this header; it may be wrong while another process writes the file."""
    if not head:
        return "empty"  # just removed
    if not head.startswith(_HEADER) or len(head) < _HEADER_BYTES:
        return None
    number = int.from_bytes(head[_APPLICATION_ID], "big")
    return by_application_id(number) if number else _look_unstamped(path, head)


def _look_unstamped(path: Path, head: bytes) -> Kind | str | None:
    # Immutable: SQLite creates no files beside it, takes no locks and rolls nothing back.
    schema = _schema(path)
    if schema is None or any(head[_USER_VERSION]):
        return None
    kind = of_schema(schema)
    if kind is not None and len(schema) >= len(kind.unstamped):
        return kind
    if (not schema or kind is not None) and _start(beside(path, "-wal"), 1):
        return _look_with_log(path)
    return kind or (None if schema else "empty")


def _look_with_log(path: Path) -> Kind | str | None:
    """Return the kind of a file with a write-ahead log, which a killed process may have left.

    SQLite would create or change files beside it, so it opens a copy.
    """
    log = beside(path, "-wal")
    if not is_sqlites(log, "-wal"):
        return None
    with unfinished.temporary_folder() as folder:
        copy = folder / "copy"
        try:
            if max(path.stat().st_size, log.stat().st_size) > _MOST_COPIED_BYTES:
                return None
            # The log first: pages checkpointed meanwhile are then in both files.
            shutil.copyfile(log, beside(copy, "-wal"))
            shutil.copyfile(path, copy)
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                (number,) = connection.execute("PRAGMA application_id").fetchone()
                schema = schema_of(connection)
        except (sqlite3.Error, FileNotFoundError):
            return None
    if number:
        return by_application_id(number)
    return None if schema is None else of_schema(schema) or (None if schema else "empty")


def _schema(path: Path) -> frozenset[str] | None:
    for attempt in range(_LOOKS):
        try:
            with contextlib.closing(sqlite3.connect(uri(path, "mode=ro&immutable=1"), uri=True)) as connection:
                return schema_of(connection)
        except sqlite3.Error:
            if attempt + 1 < _LOOKS:
                time.sleep(_LOOK_AGAIN_S)
    return None


def _columns(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    query = "SELECT name, type, hidden FROM pragma_table_xinfo(?)"
    for name, kind, hidden in connection.execute(query, (table,)):
        yield f"{name} {kind}" + (" generated" if hidden else "")


def _start(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(count)
    except FileNotFoundError:
        return b""


def _error(path: Path, kind: Kind, message: str) -> ConfigError:
    advice = f"set {kind.setting} to another path" if kind.setting else "move it away"
    return ConfigError(f"{message}; nothing was changed; {advice}", where=str(path), key=kind.setting)
