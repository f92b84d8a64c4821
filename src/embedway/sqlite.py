"""SQLite files shared by several processes: private, stamped with a format, and migrated to its current version.

A file stores its kind in `PRAGMA application_id` and its version in `PRAGMA user_version`. The first process that opens
a file of an older version migrates it in one transaction, while other processes wait. A crash leaves the old version
intact.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from embedway import files, formats
from embedway.errors import ConfigError, EmbedwayError, newer_version
from embedway.sqlite_open import note_log

R = TypeVar("R")

#: Timeout for another connection's write, in seconds.
BUSY_S = 30.0
_RETRY_S = 0.01

#: Migration from one version to the next, inside the transaction. It may return work for after the commit.
Migration: TypeAlias = Callable[[sqlite3.Connection, Path], Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class Format:
    """Format of a kind of file, as written by this version of the package.

    `schema` creates missing tables and indexes of `version`, statement by statement. `migrations` contains the step
    from each older version to the next. `newer_error` is the error for a file of a newer version.
    """

    kind: formats.Kind
    version: int
    schema: tuple[str, ...]
    newer_error: type[EmbedwayError]
    migrations: Mapping[int, Migration] = field(default_factory=dict)


def connect(
    path: Path, form: Format, *pragmas: str, extra: tuple[str, ...] = (), busy_s: float = BUSY_S
) -> sqlite3.Connection:
    """Open a file in WAL mode and autocommit mode. A missing file is created, with its folder.

    `extra` are statements for an option of the caller, such as an index. Any thread may use the connection, one at a
    time. Raises ConfigError for a file that is not of this kind, `form.newer_error` for a newer version, OSError and
    sqlite3.Error.
    """
    files.make_private_folder(path.parent)
    # Another process must not rename a damaged file until this one has opened the files beside it.
    with files.locked_folder(path.parent, busy_s):
        connection, afterwards = _open(path, form, busy_s)
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        for statement in extra:
            connection.execute(statement)
        if afterwards is not None:
            # The stamp is then in the main file, where it is read if the file is damaged.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            for work in afterwards:
                work()
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path, form: Format, busy_s: float) -> tuple[sqlite3.Connection, list[Callable[[], None]] | None]:
    connection = formats.open_checked(path, form.kind, create=True, timeout_s=busy_s)
    try:
        until = time.monotonic() + busy_s
        afterwards = _retry_while_locked(lambda: _migrate(connection, path, form), until)
        _retry_while_locked(lambda: connection.execute("PRAGMA journal_mode = WAL"), until)
        _check_tables(connection, form)
        note_log(connection)
    except BaseException:
        connection.close()
        raise
    return connection, afterwards


class SchemaError(sqlite3.DatabaseError):
    """A file of ours whose tables another program changed. To SQLite it is a damaged file."""

    def __init__(self) -> None:
        super().__init__("its tables are not those of this version, or have views or triggers")
        self.sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def _check_tables(connection: sqlite3.Connection, form: Format) -> None:
    """Raise SchemaError unless there are the tables of the format, and no views or triggers."""
    found, wanted = formats.tables_of(connection), _tables_of_schema(form.schema)
    if found is None or any(found.get(table) != columns for table, columns in wanted.items()):
        raise SchemaError


@functools.cache
def _tables_of_schema(schema: tuple[str, ...]) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        for statement in schema:
            fresh.execute(statement)
        return formats.tables_of(fresh) or {}


def version_of(connection: sqlite3.Connection, path: Path, form: Format) -> int:
    """Return the version of a connection's file; 0 for an empty file. Raises ConfigError and `form.newer_error`."""
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if number == form.kind.application_id:
        if version > form.version:
            whose, otherwise = f"embedway's {form.kind.name}", f"set {form.kind.setting} to another file"
            message = newer_version(version, form.version, of=whose, otherwise=otherwise)
            raise form.newer_error(f"{path} {message}")
        if version >= 1:
            return int(version)
    elif not number:
        schema = formats.schema_of(connection)
        if schema and formats.of_schema(schema) is form.kind:
            return 1
        if schema == frozenset() and not version:
            return 0
    raise ConfigError(
        f"is not a file of embedway's {form.kind.name}; nothing was changed; choose another file",
        where=str(path),
        key=form.kind.setting,
    )


def version_in(path: Path, form: Format) -> int:
    """Return the version of a file, without changing it; 0 if it is missing or empty.

    A file that cannot be read counts as one of the current version: opening it says what is wrong.
    """
    try:
        if not path.exists():
            return 0
        with contextlib.closing(formats.open_checked(path, form.kind, create=False, timeout_s=BUSY_S)) as connection:
            return version_of(connection, path, form)
    except (EmbedwayError, OSError, sqlite3.Error):
        return form.version


def _migrate(connection: sqlite3.Connection, path: Path, form: Format) -> list[Callable[[], None]] | None:
    """Create, stamp or migrate a file, and return the work for after the commit; None if there is nothing to do."""
    # In one snapshot, because another process might migrate the file between the two reads.
    with transaction(connection, "DEFERRED"):
        if version_of(connection, path, form) == form.version and _is_stamped(connection):
            return None
    afterwards = []
    with transaction(connection):
        # Checked again: another process may have been first.
        version = version_of(connection, path, form)
        if not (version == form.version and _is_stamped(connection)):
            for step in range(version, form.version) if version else ():
                done = form.migrations[step](connection, path)
                if done is not None:
                    afterwards.append(done)
            for statement in form.schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {form.kind.application_id}")
            connection.execute(f"PRAGMA user_version = {form.version}")
    return afterwards


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit the changes of the block, or roll them back after an error."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


def _is_stamped(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA application_id").fetchone()[0])


def _retry_while_locked(work: Callable[[], R], until: float) -> R:
    """Retry until a time. While another process changes the journal mode, SQLite raises without waiting."""
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_RETRY_S)
