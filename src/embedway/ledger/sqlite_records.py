"""Records in the ledger's SQLite file. Every statement commits separately."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from embedway.errors import LedgerError
from embedway.ledger.base import RESTORE
from embedway.ledger.continuity import FileWatch, ReplacedFileError
from embedway.ledger.records import CLOCK_SLACK_S, LARGEST_PACKED, check_name, pack, read_time, unpack
from embedway.ledger.sqlite_formats import LEDGER, RECORDS_SINCE
from embedway.sqlite import version_in
from embedway.sqlite_thread import SqliteThread
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Connection

    from embedway.ledger.records import Record, RecordKind

#: A larger value is not read.
_DOCUMENT = f"CASE WHEN length(document) <= {LARGEST_PACKED} THEN document END"
_GET = f"SELECT {_DOCUMENT}, changed FROM records WHERE kind = ? AND name = ?"  # noqa: S608  a constant
_ALL = f"SELECT name, {_DOCUMENT}, changed FROM records WHERE kind = ? ORDER BY name"  # noqa: S608  a constant
_NAMES = "SELECT name, changed FROM records WHERE kind = ? ORDER BY name"
_PUT = """
INSERT INTO records (kind, name, document, changed) VALUES (?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET document = excluded.document, changed = excluded.changed
"""
_REMOVE = "DELETE FROM records WHERE kind = ? AND name = ?"
#: Takes a lease unless it is taken. One that begins in the future was taken while the clock was ahead.
_LEASE = """
INSERT INTO leases (kind, name, taken, lease_s) VALUES (:kind, :name, :now, :lease_s)
ON CONFLICT (kind, name) DO UPDATE SET taken = excluded.taken, lease_s = excluded.lease_s
WHERE NOT (leases.taken <= :now + :slack AND :now < leases.taken + leases.lease_s)
"""


class SqliteRecords:
    """Records in a file, safe for concurrent processes. `clock` returns seconds since 1970.

    The file is the ledger's. This is another connection to it, because a transaction of the ledger must not wait for a
    large document to be compressed. Reading creates no file, and migrates none of a version without records.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._where = str(path)
        self._clock = clock
        self._watch = FileWatch(path)
        self._file = SqliteThread(
            "embedway-records", path, LEDGER, self._fail, pragmas=("synchronous = FULL",), watch=self._watch
        )

    async def get(self, kind: RecordKind, name: str) -> Record | None:
        check_name(name)
        if await self._is_missing():
            return None
        return await self._file.submit(self._file.use, self._get, kind, name)

    async def put(self, record: Record) -> Record:
        packed = await self._file.submit(pack, record)
        return await self._file.submit(self._file.use, self._put, record, packed)

    async def remove(self, kind: RecordKind, name: str) -> bool:
        check_name(name)
        if await self._is_missing():
            return False
        return await self._file.submit(self._file.use, self._remove, kind, name)

    async def all(self, kind: RecordKind) -> list[Record]:
        if await self._is_missing():
            return []
        return await self._file.submit(self._file.use, self._all, kind)

    async def names(self, kind: RecordKind) -> list[tuple[str, float]]:
        if await self._is_missing():
            return []
        return await self._file.submit(self._file.use, self._names, kind)

    async def lease(self, kind: RecordKind, name: str, lease_s: float) -> bool:
        check_name(name)
        return await self._file.submit(self._file.use, self._lease, kind, name, lease_s)

    async def aclose(self) -> None:
        await self._file.aclose()
        self._watch.forget()

    async def _is_missing(self) -> bool:
        """Return whether there is no file yet, or one of a version without records."""
        if self._watch.seen.place is not None:  # this process has opened it
            return False
        return await asyncio.to_thread(lambda: version_in(self._path, LEDGER) < RECORDS_SINCE)

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, ReplacedFileError):
            raise LedgerError(
                f"the records in {self._path} cannot be used: the file {error} while this process used it, so records "
                "may be missing from it; put the original back, or restart this process to use the file as it is"
            ) from None
        why = explain_file(error, setting="ledger.path", repair=RESTORE)
        raise LedgerError(f"the records in {self._path} cannot be used: {why}") from error

    def _get(self, connection: Connection, kind: RecordKind, name: str) -> Record | None:
        row = connection.execute(_GET, (kind, name)).fetchone()
        if row is None:
            return None
        document, changed = row
        return unpack(kind, name, document, changed, self._where)

    def _put(self, connection: Connection, record: Record, packed: bytes) -> Record:
        now = self._clock()
        connection.execute(_PUT, (record.kind, record.name, packed, now))
        return replace(record, changed=now)

    def _remove(self, connection: Connection, kind: RecordKind, name: str) -> bool:
        return connection.execute(_REMOVE, (kind, name)).rowcount > 0

    def _all(self, connection: Connection, kind: RecordKind) -> list[Record]:
        rows = connection.execute(_ALL, (kind,)).fetchall()
        return [unpack(kind, name, document, changed, self._where) for name, document, changed in rows]

    def _names(self, connection: Connection, kind: RecordKind) -> list[tuple[str, float]]:
        rows = connection.execute(_NAMES, (kind,)).fetchall()
        return [(name, read_time(kind, name, changed, self._where)) for name, changed in rows]

    def _lease(self, connection: Connection, kind: RecordKind, name: str, lease_s: float) -> bool:
        values = {"kind": kind, "name": name, "now": self._clock(), "lease_s": lease_s, "slack": CLOCK_SLACK_S}
        return connection.execute(_LEASE, values).rowcount > 0
