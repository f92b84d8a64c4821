"""The ledger and the pins in SQLite, as parts of a backup.

Rows are restored, not pages. A transaction locks the live file from before its rows are backed up until the new rows
are written, so that no concurrent booking is lost unnoticed. No table, index or trigger of an untrusted file is copied.
The file itself stays, so that processes that have it open see the complete new content.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway import formats, sqlite
from embedway.errors import EmbedwayError
from embedway.ledger.base import RESTORED
from embedway.ledger.continuity import CHANGES, IDENTITY_RECORD, LedgerIdentity
from embedway.ledger.pins import read_pin
from embedway.ledger.sqlite_accounts import limits, restored
from embedway.state.databases import DatabasePart, check_database, database_errors, reading
from embedway.state.parts import LATEST, BadPartError, check_limit, check_record, earliest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.ledger.base import Restored
    from embedway.state.parts import Transaction

#: SQLite types of values that a column may contain, by its declared type.
_VALUES = {"TEXT": "'text'", "INTEGER": "'integer'", "REAL": "'real', 'integer'", "BLOB": "'blob'"}
#: Columns that may be NULL. SQLite also allows NULL in a primary key of text.
_OPTIONAL = {"closed", "lease_until"}
#: As many digits as a server's part may have.
_MOST_NANOUSD = 10**18 - 1
_LATEST_LEASE = "SELECT MAX(lease_until) FROM entries WHERE state = 'open'"
#: Columns with the values 0 or 1.
_FLAGS = {"hard", "unpriced"}
_BAD_ENTRIES = f"""
SELECT COUNT(*) FROM entries WHERE state NOT IN ('open', 'done', 'expired')
OR NOT opened BETWEEN 0 AND {LATEST} OR NOT COALESCE(closed, 0) BETWEEN 0 AND {LATEST}
OR NOT COALESCE(lease_until, 0) BETWEEN 0 AND {LATEST}
"""  # noqa: S608  a constant


@dataclass(frozen=True, slots=True)
class SqlitePart(DatabasePart):
    """SQLite file of the ledger or of the pins."""

    form: sqlite.Format

    @property
    @override
    def kind(self) -> formats.Kind:
        return self.form.kind

    @override
    def connect(self) -> sqlite3.Connection:
        return sqlite.connect(self.path, self.form)

    def check(self, source: Path) -> None:
        check_database(source, self.kind, self.form.version)
        try:
            # This file is our own copy, so an older version is migrated to the current one.
            with contextlib.closing(sqlite.connect(source, self.form)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                _check_tables(connection, self.form)
                if self.kind is formats.LEDGER:
                    _check_ledger(connection)
                else:
                    for row in connection.execute("SELECT collection, pin FROM pins"):
                        read_pin(*row)
        except EmbedwayError as error:
            raise BadPartError(f"cannot be used: {error}") from None
        except sqlite.SchemaError:
            raise BadPartError("has other tables than those of this version") from None
        except (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError):
            raise BadPartError("contains invalid rows") from None

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        with database_errors(self.path):
            connection = sqlite.connect(self.path, self.form, "synchronous = FULL")
        with contextlib.closing(connection):
            with database_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteTransaction(self, connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


@dataclass(slots=True)
class _SqliteTransaction:
    part: SqlitePart
    connection: sqlite3.Connection

    def is_empty(self) -> bool:
        # The records of a ledger's identity are not content, nor are leases.
        tables = (formats.tables_of(self.connection) or {}).keys() - {"leases"}
        marked = {
            table: f" WHERE name != '{IDENTITY_RECORD}' AND name != '{CHANGES}'" if table == "meta" else ""
            for table in tables
        }
        return not any(
            self.connection.execute(f"SELECT 1 FROM {table}{where} LIMIT 1").fetchone()  # noqa: S608
            for table, where in marked.items()
        )

    def snapshot(self, to: Path) -> bool:
        # Uses another connection, which does not see uncommitted changes.
        return self.part.snapshot(to)

    def stage(self, source: Path, mark: Restored) -> None:
        with database_errors(self.part.path), contextlib.closing(reading(source)) as restored:
            replaced = self._identity()
            for table, columns in (formats.tables_of(self.connection) or {}).items():
                names = ", ".join(column.partition(" ")[0] for column in columns.split(", "))
                marks = ", ".join("?" * (names.count(",") + 1))
                self.connection.execute(f"DELETE FROM {table}")  # noqa: S608  names of our own tables
                rows = restored.execute(f"SELECT {names} FROM {table} ORDER BY rowid")  # noqa: S608
                self.connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608
            if self.part.kind is formats.LEDGER:
                row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (RESTORED,)).fetchone()
                written = earliest(mark, row[0] if row else None).written()
                (latest,) = self.connection.execute(_LATEST_LEASE).fetchone()
                identity = LedgerIdentity.new(replaced, lease_s=max(0.0, (latest or 0.0) - mark.restored_at))
                meta = [(RESTORED, written), (IDENTITY_RECORD, identity.written())]
                self.connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)
                self.connection.execute("DELETE FROM meta WHERE name = ?", (CHANGES,))

    def _identity(self) -> LedgerIdentity | None:
        """Return the identity of the ledger that is replaced; None if it has no readable one."""
        if self.part.kind is not formats.LEDGER:
            return None
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (IDENTITY_RECORD,)).fetchone()
        with contextlib.suppress(EmbedwayError):
            return None if row is None else LedgerIdentity.read(row[0])
        return None

    def commit(self) -> None:
        with database_errors(self.part.path):
            self.connection.execute("COMMIT")


def _check_tables(connection: sqlite3.Connection, form: sqlite.Format) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        for statement in form.schema:
            fresh.execute(statement)
        wanted, schema = formats.tables_of(fresh) or {}, formats.schema_of(fresh)
    if formats.schema_of(connection) != schema:
        raise BadPartError("has other tables than those of this version")
    for table, columns in wanted.items():
        for column in columns.split(", "):
            if connection.execute(f"SELECT COUNT(*) FROM {table} WHERE {_wrong(column)}").fetchone() != (0,):  # noqa: S608
                raise BadPartError("contains invalid rows")
        for _ in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608  texts that are not UTF-8 raise
            pass


def _wrong(column: str) -> str:
    """Return the condition of rows with an invalid value in a column."""
    name, _, kind = column.partition(" ")
    kinds = _VALUES[kind] + (", 'null'" if name in _OPTIONAL else "")
    wrong = f"typeof({name}) NOT IN ({kinds})"
    if kind == "INTEGER":
        # No amount is negative: amounts that are reserved or under way are never below 0.
        wrong += f" OR {name} NOT BETWEEN 0 AND {1 if name in _FLAGS else _MOST_NANOUSD}"
    return wrong


def _check_ledger(connection: sqlite3.Connection) -> None:
    if connection.execute(_BAD_ENTRIES).fetchone() != (0,):
        raise BadPartError("contains invalid entries")
    for limit in limits(connection):
        check_limit(limit)
    restored(connection)  # raises for an unreadable mark
    for kind, name, changed in connection.execute("SELECT kind, name, changed FROM records").fetchall():
        # One at a time: a document may have 64 MiB.
        query = "SELECT document FROM records WHERE kind = ? AND name = ?"
        (document,) = connection.execute(query, (kind, name)).fetchone()
        check_record(kind, name, document, changed)
