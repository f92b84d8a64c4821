"""Entries in a SQLite file: shared by processes of this machine, bounded in bytes, the least recently used go first.

Read in batches on a thread of its own. Times of use are noted at most once an hour for an entry, so that reading does
not write. A file that is damaged is set aside, and a new one begun. One that cannot be opened, written or read, because
it is locked or the disk is full, is left alone for a while, so that no more than one request waits for it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any, TypeVar

from embedway import sqlite
from embedway.cache.base import Group, Held, Troubles, Which
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

R = TypeVar("R")

#: Below SQLite's own limit on parameters of a statement in every version.
_BATCH = 500
_REFRESH_S = 3600.0
#: How long a write waits for another process's.
_BUSY_S = 2.0
#: How long writes (or reads) are not tried after one failed.
_REST_S = 5.0
#: A table with rowids reads faster than one without.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE, model TEXT, space_id TEXT, namespace TEXT);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, key BLOB UNIQUE, grp INTEGER, created REAL, used REAL, value BLOB
);
CREATE TABLE IF NOT EXISTS counts (model TEXT, name TEXT, number INTEGER, PRIMARY KEY (model, name));
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
"""


class SqliteCache:
    """A file of entries."""

    def __init__(
        self, path: Path, max_bytes: int, *, ttl_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.troubles = Troubles()
        self.leases = False
        self._path = path
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        #: Until when reads (True) and writes (False) rest.
        self._rests = {True: 0.0, False: 0.0}

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        del group  # keys differ already
        found: list[bytes | None] | None = await self._call(self._get, list(keys), reading=True)
        return found if found is not None else [None] * len(keys)

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`."""
        return (await self._call(self._put, group, list(items)) or 0) if items else 0

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        del group
        if keys:
            await self._call(self._delete, list(keys))

    async def held(self) -> list[Held]:
        """See `Cache.held`."""
        return await self._call(self._held, reading=True) or []

    async def clear(self, which: Which) -> int:
        """See `Cache.clear`."""
        return await self._call(self._clear, which) or 0

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        return await self._call(self._sample, group, count, reading=True) or []

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """See `Cache.add_counts`."""
        rows = [(model, name, number) for model, numbers in counts.items() for name, number in numbers.items()]
        if rows:
            await self._call(self._add_counts, rows)

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `Cache.counts`."""
        return await self._call(self._counts, reading=True) or {}

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """All: processes that share a file may compute the same text at the same time, once each."""
        del group, seconds
        return [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Nothing to give back."""

    async def aclose(self) -> None:
        """Close the file."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.call(self._close)
            worker.close()

    async def _call(self, function: Callable[..., R], *arguments: Any, reading: bool = False) -> R | None:
        """Call on the file's thread; None where SQLite fails, which is counted."""
        if self._worker is None:
            self._worker = Worker("embedway-cache")
        return await self._worker.call(self._guarded, function, arguments, reading)

    def _guarded(self, function: Callable[..., R], arguments: tuple[Any, ...], reading: bool) -> R | None:
        if self._clock() < self._rests[reading]:
            self.troubles.failed_reads += reading
            self.troubles.failed_writes += not reading
            return None
        try:
            return function(*arguments)
        except (sqlite3.Error, OSError) as error:
            self._note(error, reading=reading)
            return None

    def _note(self, error: Exception, *, reading: bool) -> None:
        self.troubles.failed_reads += reading
        self.troubles.failed_writes += not reading
        self.troubles.last = f"{type(error).__name__}: {error}"
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        with contextlib.suppress(sqlite3.Error):
            if self._connection is not None and self._connection.in_transaction:
                self._connection.rollback()
        if damaged:
            self._set_aside()
            return
        self._rests[reading] = self._clock() + _REST_S
        if self._connection is None:  # it could not be opened
            self._rests[not reading] = self._rests[reading]

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            # A power cut may lose the last entries, and never damages the file; they can be computed again.
            pragmas = ("synchronous = NORMAL", "mmap_size = 1073741824")
            self._connection = sqlite.connect(self._path, *pragmas, schema=_SCHEMA, busy_s=_BUSY_S)
            self._inode = self._path.stat().st_ino
        return self._connection

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        connection, now = self._open(), self._clock()
        oldest = now - self._ttl_s if self._ttl_s is not None else -1.0
        found: dict[bytes, bytes] = {}
        stale: list[tuple[float, int]] = []
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value, id, used FROM entries WHERE key IN ({marks}) AND created > ?"  # noqa: S608
            for key, value, row, used in connection.execute(query, (*some, oldest)):
                found[key] = value
                if used < now - _REFRESH_S:
                    stale.append((now, row))
        if stale:
            with contextlib.suppress(sqlite3.OperationalError), connection:  # it is only a hint for what goes first
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("UPDATE entries SET used = ? WHERE id = ?", stale)
        return [found.get(key) for key in keys]

    def _put(self, group: Group, items: list[tuple[bytes, bytes]]) -> int:
        connection, now = self._open(), self._clock()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            number = self._number(connection, group)
            connection.executemany(
                "INSERT OR REPLACE INTO entries (key, grp, created, used, value) VALUES (?, ?, ?, ?, ?)",
                [(key, number, now, now, entry) for key, entry in items],
            )
            self._make_room(connection)
        return len(items)

    def _number(self, connection: sqlite3.Connection, group: Group) -> int:
        """The group's row. Another process may have cleared the table: it is looked up every time."""
        row = (group.id, group.model, group.space_id, group.namespace)
        connection.execute("INSERT OR IGNORE INTO groups (name, model, space_id, namespace) VALUES (?, ?, ?, ?)", row)
        (number,) = connection.execute("SELECT id FROM groups WHERE name = ?", (group.id,)).fetchone()
        return int(number)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        while self._bytes(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
            some = max(1, count // 20)
            if not count:
                return
            gone = connection.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used, id LIMIT ?)", (some,)
            )
            self.troubles.evictions += gone.rowcount

    def _bytes(self, connection: sqlite3.Connection) -> int:
        """What the file's pages in use hold: told by SQLite at once, where a sum would read them all."""
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _delete(self, keys: list[bytes]) -> None:
        connection = self._open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def _held(self) -> list[Held]:
        query = """
            SELECT g.model, g.space_id, g.namespace, COUNT(*), SUM(LENGTH(e.value) + LENGTH(e.key))
            FROM entries e JOIN groups g ON g.id = e.grp GROUP BY g.id ORDER BY g.id
        """
        rows = self._open().execute(query)
        return [Held(Group(model, space, namespace), count, size) for model, space, namespace, count, size in rows]

    def _clear(self, which: Which) -> int:
        connection = self._open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = connection.execute("SELECT id, model, space_id, namespace FROM groups").fetchall()
            meant = [row[0] for row in rows if which.takes(Group(*row[1:]))]
            newest = float("inf") if which.older_than_s is None else self._clock() - which.older_than_s
            gone = 0
            for number in meant:
                gone += connection.execute(
                    "DELETE FROM entries WHERE grp = ? AND created <= ?", (number, newest)
                ).rowcount
        return gone

    def _add_counts(self, rows: list[tuple[str, str, int]]) -> None:
        connection = self._open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number", rows
            )

    def _counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for model, name, number in self._open().execute("SELECT model, name, number FROM counts ORDER BY model, name"):
            found.setdefault(model, {})[name] = number
        return found

    def _sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        query = """
            SELECT e.key, e.value FROM entries e JOIN groups g ON g.id = e.grp
            WHERE g.name = ? ORDER BY e.used LIMIT ?
        """
        return list(self._open().execute(query, (group.id, count)))

    def _set_aside(self) -> None:
        opened, inode = self._connection is not None, self._inode
        self._close()
        with contextlib.suppress(OSError):
            if opened and self._path.stat().st_ino != inode:
                return  # another process has done so
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(self._clock())}")
        with contextlib.suppress(OSError):
            self._path.replace(aside)
            self.troubles.set_aside += 1
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
