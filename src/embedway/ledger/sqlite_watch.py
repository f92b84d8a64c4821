"""Watch over a ledger in SQLite: its identity, its file, and jumps of the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.ledger.continuity import BOOKS, CHANGES, Books, FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Connection

#: Change of the wall clock against the monotonic clock that counts as a jump, in seconds.
_JUMP_S = 2.0
_READ = f"SELECT name, value FROM meta WHERE name IN ('{BOOKS}', '{CHANGES}')"  # noqa: S608  constants
_RESTART = "UPDATE entries SET lease_until = ? WHERE state = 'open' AND lease_until != ?"
_SHORTEN = "UPDATE entries SET lease_until = ? WHERE state = 'open' AND lease_until > ?"
_WRITE = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class LedgerWatch(FileWatch):
    """Watch over a ledger, at the start of each transaction.

    Leases end by the wall clock. If it jumps, or the machine was suspended or started again, all open leases restart:
    living processes renew theirs, and those of dead processes expire once more. A lease restarts once before it is
    renewed. All processes of a machine have the same monotonic clock.
    """

    def __init__(self, path: Path, clock: Callable[[], float], ticks: Callable[[], float]) -> None:
        super().__init__(path)
        self._what = f"the ledger {path}"
        self._clock = clock
        self._ticks = ticks
        self._books = Books("")
        self._written = ""
        self._changes = 0

    def begin(self, connection: Connection) -> None:
        """Check and count the transaction. Raises LedgerError."""
        rows = dict(connection.execute(_READ).fetchall())
        books = self._read(rows.get(BOOKS))
        self._changes = int(rows.get(CHANGES, 0))
        self.seen.check(books, self._changes, self._what)
        now = self._clock()
        offset_s = now - self._ticks()
        if books.offset_s is None:
            books = replace(books, offset_s=offset_s)
        elif abs(offset_s - books.offset_s) > _JUMP_S:
            until = now + books.lease_s
            connection.execute(_RESTART, (until, books.restarted_until))
            books = replace(books, offset_s=offset_s, restarted_until=until)
        self._changes += 1
        connection.execute(_WRITE, (CHANGES, str(self._changes)))
        self._write(connection, books)

    def lease(self, connection: Connection, lease_s: float) -> None:
        """Remember the longest lease."""
        if lease_s > self._books.lease_s:
            self._write(connection, replace(self._books, lease_s=lease_s))

    def shorten(self, connection: Connection, now: float) -> None:
        """Restart leases that end later than any lease does: they were written while the clock was ahead."""
        latest = now + self._books.lease_s
        connection.execute(_SHORTEN, (latest, latest + _JUMP_S))

    def commit(self) -> None:
        """Remember the ledger's state after a transaction."""
        self.note()
        self.seen.accept(self._books.id, self._changes, self._what)

    def _read(self, written: object) -> Books:
        if written is None:
            return Books.new()
        return self._books if written == self._written else Books.read(written)

    def _write(self, connection: Connection, books: Books) -> None:
        if books is self._books:
            return  # the row is unchanged, as in most transactions
        self._books, self._written = books, books.written()
        connection.execute(_WRITE, (BOOKS, self._written))
