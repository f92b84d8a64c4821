"""Entries in a SQLite file: shared by processes of this machine, bounded in bytes, the least recently used go first.

Read in batches, and written, each on a thread and a connection of its own, so that no read waits for a write. Times of
use are noted at most once an hour for an entry, and beside the read. A file of ours that is damaged is set aside, and a
new one begun; so it is where somebody has removed the file. One that cannot be opened, written or read, because it is
locked or the disk is full, is left alone for a while, so that no more than one request waits for it.

A file that is not a cache, or of a newer version, is a mistake of setup and no failure of a store: methods raise
ConfigError or CacheError for it, and leave it as it is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from sqlite3 import Connection, OperationalError
from typing import TYPE_CHECKING

from embedway.cache.base import CacheErrors, CacheFilter, Group, GroupSize
from embedway.cache.sqlite_connection import BUSY_S, CacheConnection
from embedway.cache.sqlite_format import INDEX_OF_TIMES, shrink
from embedway.errors import EmbedwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Below SQLite's own limit on parameters of a statement in every version.
_BATCH = 500
_REFRESH_S = 3600.0
#: So many entries that are too old go with every write.
_MOST_EXPIRED = 1000


class SqliteCache:
    """A file of entries."""

    def __init__(
        self, path: Path, max_bytes: int, *, ttl_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.troubles = CacheErrors()
        self.leases = False
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        extra = () if ttl_s is None else (INDEX_OF_TIMES,)
        asides = threading.Lock()
        self._reading, self._writing = (
            CacheConnection(path, extra, self.troubles, asides, reading=reading, clock=clock)
            for reading in (True, False)
        )

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [held and held[0] for held in await self.get_aged(group, keys)]

    async def get_aged(self, group: Group, keys: Sequence[bytes]) -> list[tuple[bytes, float] | None]:
        """See `Cache.get_aged`."""
        del group  # keys differ already
        answer = await self._reading.call(self._get, list(keys))
        if answer is None:
            return [None] * len(keys)
        found, stale = answer
        if stale and not self._writing.rests:
            self._writing.call(self._refresh, stale)  # nobody waits for it
        return [found.get(key) for key in keys]

    async def generation(self) -> int | None:
        """See `Cache.generation`."""
        return await self._reading.call(self._generation)

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        """See `Cache.put_many`."""
        return (await self._writing.call(self._put, group, list(items)) or 0) if items else 0

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        """See `Cache.delete_many`."""
        del group
        if keys:
            await self._writing.call(self._delete, list(keys))

    async def held(self) -> list[GroupSize]:
        """See `Cache.held`."""
        return await self._reading.call(self._held) or []

    async def clear(self, which: CacheFilter) -> int:
        """See `Cache.clear`."""
        return await self._writing.call(self._clear, which) or 0

    async def sample(self, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        """See `Cache.sample`."""
        return await self._reading.call(self._sample, group, count) or []

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """See `Cache.add_counts`."""
        rows = [(model, name, number) for model, numbers in counts.items() for name, number in numbers.items()]
        try:
            return not rows or bool(await self._writing.call(self._add_counts, rows))
        except EmbedwayError:
            # The file is not ours any more. Requests say so; counts are told when the cache closes, which must go on.
            return False

    async def counts(self) -> dict[str, dict[str, int]]:
        """See `Cache.counts`."""
        return await self._reading.call(self._counts) or {}

    async def lease(self, group: Group, keys: Sequence[bytes], seconds: float) -> list[bool]:
        """All: processes that share a file may compute the same text at the same time, once each."""
        del group, seconds
        return [True] * len(keys)

    async def release(self, group: Group, keys: Sequence[bytes]) -> None:
        """Nothing to give back."""

    async def aclose(self) -> None:
        """Close the file."""
        await self._reading.aclose()
        await self._writing.aclose()

    def _oldest(self) -> float:
        """What was stored then, or before, is too old."""
        return self._clock() - self._ttl_s if self._ttl_s is not None else float("-inf")

    def _get(
        self, connection: Connection, keys: list[bytes]
    ) -> tuple[dict[bytes, tuple[bytes, float]], list[tuple[float, int]]]:
        """Entries with when they were stored, and which of them are to be noted as used now."""
        now = self._clock()
        found: dict[bytes, tuple[bytes, float]] = {}
        stale: list[tuple[float, int]] = []
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value, id, used, created FROM entries WHERE key IN ({marks}) AND created > ?"  # noqa: S608
            for key, value, row, used, created in connection.execute(query, (*some, self._oldest())):
                if not (isinstance(value, bytes) and isinstance(used, float) and isinstance(created, float)):
                    found[key] = (b"", 0.0)  # a damaged page: no entry that anybody wrote
                    continue
                found[key] = (value, created)
                if used < now - _REFRESH_S:
                    stale.append((now, row))
        return found, stale

    def _refresh(self, connection: Connection, stale: list[tuple[float, int]]) -> None:
        """Note times of use, unless that had to wait: they are only a hint for what goes first."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with contextlib.suppress(OperationalError), connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("UPDATE entries SET used = ? WHERE id = ?", stale)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")

    def _generation(self, connection: Connection) -> int:
        return int(connection.execute("SELECT COALESCE(MAX(times), 0) FROM cleared").fetchone()[0])

    def _put(self, connection: Connection, group: Group, items: list[tuple[bytes, bytes]]) -> int:
        now = self._clock()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if self._ttl_s is not None:
                expired = "SELECT id FROM entries WHERE created <= ? LIMIT ?"
                connection.execute(f"DELETE FROM entries WHERE id IN ({expired})", (self._oldest(), _MOST_EXPIRED))  # noqa: S608
            number = self._number(connection, group)
            connection.executemany(
                "INSERT OR REPLACE INTO entries (key, grp, created, used, value) VALUES (?, ?, ?, ?, ?)",
                [(key, number, now, now, entry) for key, entry in items],
            )
            self._make_room(connection)
        return len(items)

    def _number(self, connection: Connection, group: Group) -> int:
        """The group's row. Another process may have cleared the table: it is looked up every time."""
        row = (group.id, group.model, group.space_id, group.namespace)
        connection.execute("INSERT OR IGNORE INTO groups (name, model, space_id, namespace) VALUES (?, ?, ?, ?)", row)
        (number,) = connection.execute("SELECT id FROM groups WHERE name = ?", (group.id,)).fetchone()
        return int(number)

    def _make_room(self, connection: Connection) -> None:
        while self._bytes(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
            some = max(1, count // 20)
            if not count:
                return
            gone = connection.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used, id LIMIT ?)", (some,)
            )
            self.troubles.evictions += gone.rowcount

    def _bytes(self, connection: Connection) -> int:
        """What the file's pages in use hold: told by SQLite at once, where a sum would read them all."""
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _delete(self, connection: Connection, keys: list[bytes]) -> None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def _held(self, connection: Connection) -> list[GroupSize]:
        query = """
            SELECT g.model, g.space_id, g.namespace, COUNT(*), SUM(LENGTH(e.value) + LENGTH(e.key))
            FROM entries e JOIN groups g ON g.id = e.grp WHERE e.created > ? GROUP BY g.id ORDER BY g.id
        """
        rows = connection.execute(query, (self._oldest(),))
        return [GroupSize(Group(model, space, namespace), count, size) for model, space, namespace, count, size in rows]

    def _clear(self, connection: Connection, which: CacheFilter) -> int:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM entries WHERE created <= ?", (self._oldest(),))  # gone, for everybody
            rows = connection.execute("SELECT id, model, space_id, namespace FROM groups").fetchall()
            meant = [row[0] for row in rows if which.takes(Group(*row[1:]))]
            newest = float("inf") if which.older_than_s is None else self._clock() - which.older_than_s
            gone = 0
            for number in meant:
                gone += connection.execute(
                    "DELETE FROM entries WHERE grp = ? AND created <= ?", (number, newest)
                ).rowcount
            connection.execute("INSERT INTO cleared VALUES (1, 1) ON CONFLICT DO UPDATE SET times = times + 1")
        shrink(connection)
        return gone

    def _add_counts(self, connection: Connection, rows: list[tuple[str, str, int]]) -> bool:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number", rows
            )
        return True

    def _counts(self, connection: Connection) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for model, name, number in connection.execute("SELECT model, name, number FROM counts ORDER BY model, name"):
            found.setdefault(model, {})[name] = number
        return found

    def _sample(self, connection: Connection, group: Group, count: int) -> list[tuple[bytes, bytes]]:
        query = """
            SELECT e.key, e.value FROM entries e JOIN groups g ON g.id = e.grp
            WHERE g.name = ? ORDER BY e.used LIMIT ?
        """
        return list(connection.execute(query, (group.id, count)))
