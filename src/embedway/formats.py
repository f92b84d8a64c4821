"""The kinds of SQLite files that are ours, and how a file is recognised before SQLite opens it.

A file is ours where its header holds the application id of its kind. Files of version 1 had none: they are recognised
by their tables and columns. Anything else may be a user's own file. It is never opened for writing, moved or deleted,
and neither are files beside it that SQLite would take for its own. Looking at a file changes no byte of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of SQLite file: `PRAGMA application_id`, the setting of its path, and the tables of version 1."""

    name: str
    application_id: int
    setting: str
    #: Columns with their types, by table; empty where no version was ever without an application id.
    unstamped: Mapping[str, str]


#: The application ids are ASCII: `eWCa`, `eWLe`, `eWPi`, `eWKe`.
CACHE = Kind(
    "cache",
    0x65574361,
    "cache.path",
    {
        "groups": "id INTEGER, name TEXT, model TEXT, space_id TEXT, namespace TEXT",
        "entries": "id INTEGER, key BLOB, grp INTEGER, created REAL, used REAL, value BLOB",
        "counts": "model TEXT, name TEXT, number INTEGER",
        "cleared": "id INTEGER, times INTEGER",
    },
)
LEDGER = Kind(
    "ledger",
    0x65574C65,
    "ledger.path",
    {
        "entries": (
            "id TEXT, opened REAL, closed REAL, state TEXT, model TEXT, route TEXT, collection TEXT, api_key TEXT, "
            "texts INTEGER, hits INTEGER, tokens INTEGER, reserved INTEGER, sent INTEGER, spent INTEGER, "
            "estimated INTEGER, unsure INTEGER, saved INTEGER, unpriced INTEGER, lease_until REAL"
        ),
        "accounts": "scope TEXT, period TEXT, spent INTEGER, held INTEGER, saved INTEGER",
        "limits": "name TEXT, nanousd INTEGER, scope TEXT, period TEXT, hard INTEGER, warn_at TEXT",
        "warnings": "name TEXT, period TEXT, nanousd INTEGER, level INTEGER",
    },
)
PINS = Kind("pins", 0x65575069, "pins.path", {"pins": "collection TEXT, pin TEXT"})
#: The gateway's keys. No file of it exists yet; the id is kept for it.
KEYS = Kind("keys", 0x65574B65, "", {})
KINDS = (CACHE, LEDGER, PINS, KEYS)

_HEADER = b"SQLite format 3\0"
_HEADER_BYTES = 100
_USER_VERSION, _APPLICATION_ID = slice(60, 64), slice(68, 72)
_WAL = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
#: The version of the index of a write-ahead log, in the byte order of whoever wrote it.
_SHM = tuple((3_007_000).to_bytes(4, order) for order in ("little", "big"))
_SHM_HEADER_BYTES = 136
_LARGEST_PAGE = 65_536
BESIDE = ("-wal", "-shm", "-journal")
#: A file that is being written while it is looked at may not make sense; it does a moment later.
_LOOKS, _LOOK_AGAIN_S = 5, 0.02
#: What is not yet moved out of a log is no more than some megabytes, unless somebody reads for long.
_MOST_COPIED_BYTES = 256 * 2**20


def check(path: Path, kind: Kind) -> bool:
    """Whether there is a file of this kind; False for none yet, or an empty one. Changes nothing.

    Raises ConfigError for what is not ours, or is another kind of ours, and OSError where it cannot be read.
    """
    size = _size(path, kind)
    real = path.resolve()  # SQLite keeps its files beside the one that a link leads to
    found = _look(real) if size else "empty"
    if found is not kind and found != "empty":
        whose = f"the file of embedway's {found.name}, not" if isinstance(found, Kind) else "not a file"
        raise _error(path, kind, f"is {whose} of embedway's {kind.name}")
    for ending in BESIDE:
        if not is_sqlites(beside(real, ending), ending):
            raise _error(path, kind, f"has a file {real.name}{ending} beside it that SQLite did not write")
    return found is kind


def is_ours(path: Path, kind: Kind) -> bool:
    """Whether a file can still be recognised as one of this kind, damaged or not."""
    try:
        return _look(path.resolve()) is kind
    except OSError:
        return False


def is_sqlites(path: Path, ending: str) -> bool:
    """Whether a file beside a database is one that SQLite wrote, or is not there. Raises OSError."""
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
    return start.startswith(_SHM) or (state.st_size % 4096 == 0 and not any(start))


def _is_unfinished_journal(start: bytes) -> bool:
    """Whether a journal begins so before it is on the disk, or after a transaction that kept the file.

    Its magic and count of pages are zeros then; a random number, a count, and two sizes follow, or zeros.
    """
    sizes = [int.from_bytes(start[at : at + 4], "big") for at in (20, 24)]
    return not any(start[:12]) and all(size & (size - 1) == 0 and size <= _LARGEST_PAGE for size in sizes)


def beside(path: Path, ending: str) -> Path:
    """The file that SQLite keeps beside a database."""
    return path.with_name(path.name + ending)


def uri(path: Path, mode: str) -> str:
    """The address of a file for `sqlite3.connect(uri=True)`, such as `file:/a%20b?mode=ro`."""
    return f"file:{quote(os.fsencode(path))}?{mode}"


def tables_of(connection: sqlite3.Connection) -> dict[str, str] | None:
    """Columns with their types, by table; None where there is anything but plain tables and their indexes."""
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    rows = connection.execute(query).fetchall()
    plain = {"table": ("CREATE TABLE ",), "index": ("CREATE INDEX ", "CREATE UNIQUE INDEX ")}
    if not all(kind in plain and str(sql).startswith(plain[kind]) for kind, _, sql in rows):
        return None
    return {name: ", ".join(_columns(connection, name)) for kind, name, _ in rows if kind == "table"}


def of_tables(tables: Mapping[str, str]) -> Kind | None:
    """The kind that a file without an application id is of.

    Version 1 made its tables one by one: where its process was killed meanwhile, some of them are missing.
    """
    for kind in KINDS:
        if tables and tables.items() <= kind.unstamped.items():
            return kind
    return None


def by_application_id(number: int) -> Kind | None:
    """The kind with an application id."""
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
    """The kind of a file that is not empty; `empty` for a database with nothing in it, None for a foreign file."""
    head = _start(path, _HEADER_BYTES)
    for _ in range(_LOOKS):
        found = _look_once(path, head)
        before, head = head, _start(path, _HEADER_BYTES)
        if found is not None or head == before:
            return found
    return None


def _look_once(path: Path, head: bytes) -> Kind | str | None:
    """The same for a file that begins so, unless another process writes it meanwhile."""
    if not head:
        return "empty"  # removed a moment ago
    if not head.startswith(_HEADER) or len(head) < _HEADER_BYTES:
        return None
    number = int.from_bytes(head[_APPLICATION_ID], "big")
    return by_application_id(number) if number else _look_unstamped(path, head)


def _look_unstamped(path: Path, head: bytes) -> Kind | str | None:
    # Immutable: SQLite makes no files beside it, takes no locks and rolls nothing back.
    tables = _tables(path)
    if tables is None or any(head[_USER_VERSION]):
        return None
    kind = of_tables(tables)
    if kind is not None and tables == kind.unstamped:
        return kind
    if (not tables or kind is not None) and _start(beside(path, "-wal"), 1):
        return _look_with_log(path)
    return kind or (None if tables else "empty")


def _look_with_log(path: Path) -> Kind | str | None:
    """The same for a file of which some may still be in the write-ahead log, as its process left it that was killed.

    SQLite would make or change files beside it, so it looks at a copy.
    """
    log = beside(path, "-wal")
    if not is_sqlites(log, "-wal"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        try:
            if max(path.stat().st_size, log.stat().st_size) > _MOST_COPIED_BYTES:
                return None
            # The log first: what is moved out of it meanwhile is then in both.
            shutil.copyfile(log, beside(copy, "-wal"))
            shutil.copyfile(path, copy)
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                (number,) = connection.execute("PRAGMA application_id").fetchone()
                tables = tables_of(connection)
        except (sqlite3.Error, FileNotFoundError):
            return None
    if number:
        return by_application_id(number)
    return None if tables is None else of_tables(tables) or (None if tables else "empty")


def _tables(path: Path) -> dict[str, str] | None:
    for attempt in range(_LOOKS):
        try:
            with contextlib.closing(sqlite3.connect(uri(path, "mode=ro&immutable=1"), uri=True)) as connection:
                return tables_of(connection)
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
    advice = (
        f"nothing was changed; set {kind.setting} to another path"
        if kind.setting
        else "nothing was changed; move it away"
    )
    return ConfigError(f"{message}; {advice}", where=str(path), key=kind.setting)
