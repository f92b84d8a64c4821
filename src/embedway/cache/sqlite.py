"""Cache store in a SQLite file, shared by processes of one machine, bounded in bytes, with LRU eviction.

Reads and writes have one thread and one connection each, so that no read waits for a write. An entry's time of use is
updated at most once an hour, and no read waits for it. A damaged file of ours is renamed and a new one created; a new
one is also created if the file was removed. A file that cannot be opened, read or written, because it is locked or
the disk is full, is skipped for a while, so that at most one request waits for it.

A file that is not a cache, or has a newer version, is a setup error and not a failure of the store: methods raise
ConfigError or CacheError for it, and the file is unchanged.
"""

from __future__ import annotations

import contextlib
import threading
import time
from sqlite3 import Connection, OperationalError
from typing import TYPE_CHECKING

from embedway.cache.base import MOST_AHEAD_S, REFRESH_SHARE, Group, GroupSize, LocalStore
from embedway.cache.sqlite_connection import BUSY_S, CacheConnection
from embedway.cache.sqlite_format import CREATED_INDEX, shrink, used_bytes
from embedway.errors import EmbedwayError
from embedway.sqlite import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from embedway.cache.base import CacheFilter, StoredEntry

#: Maximum keys of one SELECT. Every version of SQLite allows as many parameters.
_BATCH = 500
#: Maximum age of a time of use before it is updated, in seconds.
_REFRESH_S = 3600.0
#: Maximum expired entries that one write deletes.
_MAX_EXPIRED = 1000


class SqliteCache(LocalStore):
    """Cache store in one SQLite file."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        ttl_s: float | None = None,
        refresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the store. With `refresh`, a hit starts the time to live of its entry again."""
        super().__init__(f"the cache {path}", ttl_s, clock)
        self._is_refreshed = refresh
        #: Interval between updates of an entry's time of use, in seconds.
        self._touch_s = min(_REFRESH_S, ttl_s * REFRESH_SHARE) if refresh and ttl_s is not None else _REFRESH_S
        #: Column with the start of the time to live.
        self._since = "used" if refresh else "created"
        self._max_bytes = max_bytes
        extra = () if ttl_s is None or refresh else (CREATED_INDEX,)
        asides = threading.Lock()
        self._reading, self._writing = (
            CacheConnection(path, extra, self.errors, asides, clock=clock) for _ in range(2)
        )

    async def get_many(self, group: Group, keys: Sequence[bytes]) -> list[StoredEntry | None]:
        del group  # keys already differ between groups
        answer = await self._reading.call("read", self._select, list(keys))
        if answer is None:
            self.errors.note_lookup()
            return [None] * len(keys)
        found, stale = answer
        if stale and not self._writing.rests:
            self._writing.call("count", self._refresh, stale)  # not awaited
        return [found.get(key) for key in keys]

    async def put_many(self, group: Group, items: Sequence[tuple[bytes, bytes]]) -> int:
        return (await self._writing.call("write", self._put, group, list(items)) or 0) if items else 0

    async def delete_many(self, group: Group, keys: Sequence[bytes]) -> None:
        del group
        if keys:
            await self._writing.call("delete", self._delete, list(keys))

    async def clear(self, which: CacheFilter) -> int:
        return await self._writing.call("delete", self._clear, which) or 0

    async def generation(self) -> int | None:
        return await self._reading.call("inspect", self._generation)

    async def group_sizes(self) -> list[GroupSize]:
        return await self._reading.call("inspect", self._group_sizes) or []

    async def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        rows = [(model, name, number) for model, numbers in counts.items() for name, number in numbers.items()]
        try:
            return not rows or bool(await self._writing.call("count", self._add_counts, rows))
        except EmbedwayError:
            # The file is no longer ours, which requests report. Counts are saved on closing, which must continue.
            return False

    async def counts(self) -> dict[str, dict[str, int]]:
        return await self._reading.call("inspect", self._counts) or {}

    async def aclose(self) -> None:
        await self._reading.aclose()
        await self._writing.aclose()

    def _select(
        self, connection: Connection, keys: list[bytes]
    ) -> tuple[dict[bytes, StoredEntry], list[tuple[float, int]]]:
        """Return the entries of keys, and the new time of use for each row that needs one."""
        now, (after, until) = self._clock(), self._lifetime()
        found: dict[bytes, StoredEntry] = {}
        stale: list[tuple[float, int]] = []
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            query = f"SELECT key, value, id, used, created FROM entries WHERE key IN ({marks})"  # noqa: S608
            for key, value, row, used, created in connection.execute(query, batch):
                if not (isinstance(value, bytes) and isinstance(used, float) and isinstance(created, float)):
                    found[key] = (b"", 0.0)  # a damaged page: no version writes such an entry
                    continue
                if not after < (used if self._is_refreshed else created) <= until:
                    continue
                found[key] = (value, created)
                if not now - self._touch_s <= used <= now + MOST_AHEAD_S:
                    stale.append((now, row))
        return found, stale

    @property
    def _expired(self) -> str:
        """Condition of expired entries; its parameters are those of `_lifetime`."""
        return f"({self._since} IS NULL OR {self._since} <= ? OR {self._since} > ?)"

    def _refresh(self, connection: Connection, stale: list[tuple[float, int]]) -> None:
        """Update times of use without waiting for a lock: they only decide which entries are evicted first."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with contextlib.suppress(OperationalError), transaction(connection):
                connection.executemany("UPDATE entries SET used = ? WHERE id = ?", stale)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")

    def _generation(self, connection: Connection) -> int | None:
        (times,) = connection.execute("SELECT COALESCE(MAX(times), 0) FROM cleared").fetchone()
        return times if type(times) is int else None

    def _put(self, connection: Connection, group: Group, items: list[tuple[bytes, bytes]]) -> int:
        now = self._clock()
        with transaction(connection):
            if self._ttl_s is not None:
                expired = f"SELECT id FROM entries WHERE {self._expired} LIMIT ?"  # noqa: S608
                connection.execute(f"DELETE FROM entries WHERE id IN ({expired})", (*self._lifetime(), _MAX_EXPIRED))  # noqa: S608
            group_id = self._group_id(connection, group)
            connection.executemany(
                "INSERT OR REPLACE INTO entries (key, grp, created, used, value) VALUES (?, ?, ?, ?, ?)",
                [(key, group_id, now, now, entry) for key, entry in items],
            )
            self._make_room(connection)
        return len(items)

    def _group_id(self, connection: Connection, group: Group) -> int:
        """Return the group's row ID. It is looked up every time, because another process may have cleared the table."""
        row = (group.id, group.model, group.space_id, group.namespace)
        connection.execute("INSERT OR IGNORE INTO groups (name, model, space_id, namespace) VALUES (?, ?, ?, ?)", row)
        (number,) = connection.execute("SELECT id FROM groups WHERE name = ?", (group.id,)).fetchone()
        return int(number)

    def _make_room(self, connection: Connection) -> None:
        if used_bytes(connection) <= self._max_bytes:
            return
        # Entries used while the clock was ahead would otherwise stay longer than all others.
        now = self._clock()
        connection.execute("UPDATE entries SET used = ? WHERE used > ?", (now, now + MOST_AHEAD_S))
        while used_bytes(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
            batch = max(1, count // 20)
            if not count:
                return
            deleted = connection.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used, id LIMIT ?)", (batch,)
            )
            self.errors.evictions += deleted.rowcount

    def _delete(self, connection: Connection, keys: list[bytes]) -> None:
        with transaction(connection):
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def _group_sizes(self, connection: Connection) -> list[GroupSize]:
        query = f"""
            SELECT g.model, g.space_id, g.namespace, COUNT(*), SUM(LENGTH(e.value) + LENGTH(e.key))
            FROM entries e JOIN groups g ON g.id = e.grp WHERE e.{self._since} > ? AND e.{self._since} <= ?
            GROUP BY g.id ORDER BY g.id
        """  # noqa: S608  a name of a column
        rows = connection.execute(query, self._lifetime())
        # Names of any other type were not written by us.
        return [
            GroupSize(Group(*map(str, names)), count, size if type(size) is int else 0) for *names, count, size in rows
        ]

    def _clear(self, connection: Connection, which: CacheFilter) -> int:
        with transaction(connection):
            # Expired entries are not counted.
            connection.execute(f"DELETE FROM entries WHERE {self._expired}", self._lifetime())  # noqa: S608
            rows = connection.execute("SELECT id, model, space_id, namespace FROM groups").fetchall()
            matching = [number for number, *names in rows if which.matches(Group(*map(str, names)))]
            ages = self._cleared(which.older_than_s)
            delete = "DELETE FROM entries WHERE grp = ? AND (created IS NULL OR created <= ? OR created > ?)"
            deleted = sum(connection.execute(delete, (group_id, *ages)).rowcount for group_id in matching)
            connection.execute("INSERT INTO cleared VALUES (1, 1) ON CONFLICT DO UPDATE SET times = times + 1")
        shrink(connection)
        return deleted

    def _add_counts(self, connection: Connection, rows: list[tuple[str, str, int]]) -> bool:
        with transaction(connection):
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number", rows
            )
        return True

    def _counts(self, connection: Connection) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for model, name, number in connection.execute("SELECT model, name, number FROM counts ORDER BY model, name"):
            if isinstance(model, str) and isinstance(name, str) and type(number) is int and number >= 0:
                found.setdefault(model, {})[name] = number
        return found
