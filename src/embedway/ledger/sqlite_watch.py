"""Checks of a ledger in SQLite at each transaction: its identity, its file, and jumps of the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.ledger.base import RESTORED
from embedway.ledger.continuity import CHANGES, IDENTITY_RECORD, FileWatch, LedgerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Connection

#: Change of the wall clock against the monotonic clock that counts as a jump, in seconds.
_JUMP_S = 2.0
#: All that a transaction checks first, in one statement: the thread needs the interpreter's lock after each one.
_LOOK = f"""
SELECT (SELECT value FROM meta WHERE name = '{IDENTITY_RECORD}'), (SELECT value FROM meta WHERE name = '{CHANGES}'),
    EXISTS (SELECT 1 FROM meta WHERE name = '{RESTORED}'),
    EXISTS (SELECT 1 FROM entries WHERE state = 'open' AND lease_until IS NULL),
    (SELECT MIN(lease_until) FROM entries WHERE state = 'open'),
    (SELECT MAX(lease_until) FROM entries WHERE state = 'open')
"""  # noqa: S608  constants
_RESTART = "UPDATE entries SET lease_until = ? WHERE state = 'open' AND lease_until != ?"
_SHORTEN = "UPDATE entries SET lease_until = ? WHERE state = 'open' AND lease_until > ?"
_WRITE = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class LedgerWatch(FileWatch):
    """Checks of a ledger at the start of each transaction.

    Leases end by the wall clock. If it jumps, or the machine was suspended or rebooted, all open leases restart:
    running processes renew theirs, and those of ended processes expire one lease later. A lease that was not renewed
    does not restart again. All processes of a machine have the same monotonic clock.
    """

    def __init__(self, path: Path, clock: Callable[[], float], ticks: Callable[[], float]) -> None:
        super().__init__(path)
        self._what = f"the ledger {path}"
        self._clock = clock
        self._ticks = ticks
        self._identity = LedgerIdentity("")
        self._written = ""
        self._changes = 0
        #: Whether the ledger was restored, and whether a lease may have to be ended or shortened.
        self.is_restored = False
        self.has_odd_leases = False

    def begin(self, connection: Connection) -> None:
        """Check the ledger, and count the transaction. Raises LedgerError."""
        written, changes, restored, has_none, first, last = connection.execute(_LOOK).fetchone()
        identity = self._read(written)
        self._changes = int(changes or 0)
        self.seen.check(identity, self._changes, self._what)
        now = self._clock()
        self.is_restored = bool(restored)
        latest = now + identity.lease_s + _JUMP_S
        # Texts are greater than numbers in SQLite, and were not written by us.
        is_current = first is None or (isinstance(last, int | float) and now <= first and last <= latest)
        self.has_odd_leases = bool(has_none) or not is_current
        offset_s = now - self._ticks()
        if identity.offset_s is None:
            identity = replace(identity, offset_s=offset_s)
        elif abs(offset_s - identity.offset_s) > _JUMP_S:
            until = now + identity.lease_s
            connection.execute(_RESTART, (until, identity.restarted_until))
            self.has_odd_leases = True
            identity = replace(identity, offset_s=offset_s, restarted_until=until)
        self._changes += 1
        connection.execute(_WRITE, (CHANGES, str(self._changes)))
        self._write(connection, identity)

    def lease(self, connection: Connection, lease_s: float) -> None:
        """Remember the longest lease."""
        if lease_s > self._identity.lease_s:
            self._write(connection, replace(self._identity, lease_s=lease_s))

    def shorten(self, connection: Connection, now: float) -> None:
        """Restart leases that end later than the longest lease can: they were written while the clock was ahead."""
        latest = now + self._identity.lease_s
        connection.execute(_SHORTEN, (latest, latest + _JUMP_S))

    def commit(self) -> None:
        """Remember the ledger's state after a transaction."""
        self.note()
        self.seen.accept(self._identity.id, self._changes, self._what)

    def _read(self, written: object) -> LedgerIdentity:
        if written is None:
            return LedgerIdentity.new()
        return self._identity if written == self._written else LedgerIdentity.read(written)

    def _write(self, connection: Connection, identity: LedgerIdentity) -> None:
        if identity is self._identity:
            return  # the row is unchanged, as in most transactions
        self._identity, self._written = identity, identity.written()
        connection.execute(_WRITE, (IDENTITY_RECORD, self._written))
