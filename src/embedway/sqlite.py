"""SQLite files that many processes share: made private, recognised, stamped, and brought up to the present version.

A file of ours holds its kind in `PRAGMA application_id` and its version in `PRAGMA user_version`. An older version is
migrated in one transaction when a process first opens it: of several that race, one migrates and the others wait; a
crash leaves the old version whole.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from embedway import files, formats
from embedway.errors import ConfigError, EmbedwayError, newer_version

R = TypeVar("R")

#: How many seconds one waits for another that writes.
BUSY_S = 30.0
_AGAIN_S = 0.01

#: A step from one version to the next, inside the transaction. It may give what is to be done after the commit.
Migration: TypeAlias = Callable[[sqlite3.Connection, Path], Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a kind of file, as this version of the package writes it.

    `schema` makes what is missing of `version`, statement by statement. `migrations` holds the step from each older
    version to the next. `newer` is the error for a file of a version that is not known yet.
    """

    kind: formats.Kind
    version: int
    schema: tuple[str, ...]
    newer: type[EmbedwayError]
    migrations: Mapping[int, Migration] = field(default_factory=dict)


def connect(
    path: Path, form: Format, *pragmas: str, extra: tuple[str, ...] = (), busy_s: float = BUSY_S
) -> sqlite3.Connection:
    """Open a file in WAL mode, made with its folder where it is missing; every statement commits by itself.

    `extra` are statements that an option of the caller asks for beside the schema, such as an index. The connection may
    be used from one thread at a time, whichever. Raises ConfigError for a file that is not of this kind, `form.newer`
    for a newer version, OSError and sqlite3.Error.
    """
    formats.check(path, form.kind)
    files.make_private_folder(path.parent)
    files.create_private_file(path)
    connection = sqlite3.connect(
        formats.uri(path, "mode=rw"), uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False
    )
    try:
        until = time.monotonic() + busy_s
        afterwards = _while_locked(lambda: _bring_up(connection, path, form), until)
        _while_locked(lambda: connection.execute("PRAGMA journal_mode = WAL"), until)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        for statement in extra:
            connection.execute(statement)
        if afterwards is not None:
            # The stamp is then in the file itself, where it is looked for when the file is damaged.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            for work in afterwards:
                work()
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(connection: sqlite3.Connection, path: Path, form: Format) -> int:
    """The version of what a connection sees: 0 for nothing yet. Raises ConfigError and `form.newer`."""
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if number == form.kind.application_id:
        if version > form.version:
            raise form.newer(
                f"{path} "
                + newer_version(
                    version,
                    form.version,
                    of=f"embedway's {form.kind.name}",
                    otherwise=f"name another file ({form.kind.setting})",
                )
            )
        if version >= 1:
            return int(version)
    elif not number:
        schema = formats.schema_of(connection)
        if schema and formats.of_schema(schema) is form.kind:
            return 1
        if schema == frozenset() and not version:
            return 0
    raise ConfigError(
        f"is not a file of embedway's {form.kind.name}; nothing was changed; name another file",
        where=str(path),
        key=form.kind.setting,
    )


def _bring_up(connection: sqlite3.Connection, path: Path, form: Format) -> list[Callable[[], None]] | None:
    """Make, stamp or migrate a file; None where it is of the present version already."""
    # One snapshot, or another process might migrate the file between two of its facts.
    with _transaction(connection, "DEFERRED"):
        if version_of(connection, path, form) == form.version and _is_stamped(connection):
            return None
    afterwards = []
    with _transaction(connection, "IMMEDIATE"):
        # Looked at again: another process may have been first.
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
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
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


def _while_locked(work: Callable[[], R], until: float) -> R:
    """Try until a time. While another changes the journal, SQLite says at once that the file is locked."""
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
