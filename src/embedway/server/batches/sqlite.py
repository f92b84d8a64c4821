"""Files and batches in a SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Concatenate, Literal, NoReturn, ParamSpec, TypeVar

from embedway import formats
from embedway.errors import ConfigError, StateError
from embedway.server.batches.base import INCOMPLETE, OpenBatch, Page, Segment
from embedway.server.batches.values import Batch, StoredFile, pack, unpack
from embedway.sqlite import Format
from embedway.sqlite_thread import SqliteThread, transacted
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from sqlite3 import Connection

    from embedway.server.batches.base import Change, Changing, Chunk, Content, Item, Listing

#: Chunks that are deleted in one transaction.
_DELETED_AT_ONCE = 16

P = ParamSpec("P")
R = TypeVar("R")

FORMAT = Format(
    formats.BATCHES,
    1,
    (
        (
            "CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, "
            "created REAL NOT NULL, document BLOB NOT NULL, purpose TEXT NOT NULL, ends REAL)"
        ),
        "CREATE INDEX IF NOT EXISTS items_listed ON items (kind, tenant, created, id)",
        "CREATE INDEX IF NOT EXISTS items_ends ON items (ends)",
        "CREATE TABLE IF NOT EXISTS open (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, input TEXT NOT NULL)",
        "CREATE INDEX IF NOT EXISTS open_input ON open (input)",
        (
            "CREATE TABLE IF NOT EXISTS contents (file TEXT PRIMARY KEY, tenant TEXT NOT NULL, size INTEGER NOT NULL, "
            "ends REAL NOT NULL)"
        ),
        "CREATE INDEX IF NOT EXISTS contents_tenant ON contents (tenant, size)",
        "CREATE INDEX IF NOT EXISTS contents_ends ON contents (ends)",
        (
            "CREATE TABLE IF NOT EXISTS segments (file TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, "
            "size INTEGER NOT NULL, PRIMARY KEY (file, position))"
        ),
        (
            "CREATE TABLE IF NOT EXISTS chunks (file TEXT NOT NULL, segment TEXT NOT NULL, number INTEGER NOT NULL, "
            "data BLOB NOT NULL, PRIMARY KEY (file, segment, number))"
        ),
        "CREATE TABLE IF NOT EXISTS trash (file TEXT PRIMARY KEY)",
    ),
    ConfigError,
)

_CONTENT = """
INSERT INTO contents (file, tenant, size, ends) VALUES (?, ?, ?, ?)
ON CONFLICT (file) DO UPDATE SET size = size + excluded.size, ends = excluded.ends
"""
_ADD = "INSERT INTO items (id, kind, tenant, created, document, purpose, ends) VALUES (?, ?, ?, ?, ?, ?, ?)"
_GET = """
SELECT document FROM items
WHERE id = ? AND kind = ? AND tenant = ? AND (kind = 'batch' OR ends > ?)
"""
_COUNT = "SELECT COUNT(*) FROM items WHERE kind = ? AND tenant = ?"
_LIST = """
SELECT document FROM items
WHERE kind = :kind AND tenant = :tenant AND (:purpose = '' OR purpose = :purpose)
    AND (kind = 'batch' OR ends > :now) AND (:after = '' OR (created, id) {compare} (:created, :after))
ORDER BY created {order}, id {order} LIMIT :most
"""
_DUE = """
SELECT file FROM contents WHERE ends <= :now AND file NOT IN (SELECT input FROM open)
UNION SELECT id FROM items WHERE ends <= :now AND id NOT IN (SELECT input FROM open) LIMIT :most
"""


class _Reopening:
    """Opens the file again if it was removed or replaced: what is written to a removed file is lost."""

    thread: SqliteThread

    def check(self) -> None:
        self.thread.reopen_if_replaced()

    def note(self) -> None:
        pass

    def begin(self, connection: Connection) -> None:
        del connection

    def commit(self) -> None:
        pass


class SqliteBatchStore:
    """Store in a file, safe for concurrent processes. `clock` returns seconds since 1970."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        watch = _Reopening()
        # Nothing that is answered is lost by a power failure.
        pragmas = ("synchronous = FULL",)
        self._file = SqliteThread("embedway-batches", path, FORMAT, self._fail, pragmas=pragmas, watch=watch)
        watch.thread = self._file

    def _fail(self, error: Exception) -> NoReturn:
        why = explain_file(error, setting="server.state_directory", repair="move the file away")
        raise StateError(f"the files and batches cannot be used: {why}", file=self._path) from None

    async def now(self) -> float:
        return self._clock()

    @transacted
    def put_chunks(self, connection: Connection, content: Content, chunks: Sequence[Chunk], most: int | None) -> bool:
        size = sum(len(one.data) for one in chunks)
        if most is not None and _used(connection, content.tenant) + size > most:
            return False
        # A chunk that exists already is replaced: the answer to its first writing was lost.
        for one in chunks:
            found = connection.execute(
                "DELETE FROM chunks WHERE file = ? AND segment = ? AND number = ? RETURNING length(data)",
                (content.file_id, one.segment, one.number),
            ).fetchone()
            size -= found[0] if found else 0
            row = (content.file_id, *one)
            connection.execute("INSERT INTO chunks (file, segment, number, data) VALUES (?, ?, ?, ?)", row)
        connection.execute(_CONTENT, (content.file_id, content.tenant, size, content.keep_until))
        return True

    async def get_chunk(self, file_id: str, segment: str, number: int) -> bytes:
        return await self._read(_get_chunk, file_id, segment, number)

    async def segments(self, file_id: str) -> list[Segment]:
        return await self._read(_segments, file_id)

    async def drop_content(self, file_id: str) -> None:
        await self._file.transact(_drop, file_id)
        await self._empty_trash()

    async def used_bytes(self, tenant: str) -> int:
        return await self._read(_used, tenant)

    @transacted
    def add_file(self, connection: Connection, file: StoredFile, segments: Sequence[Segment], most: int) -> bool:
        if connection.execute(_COUNT, ("file", file.tenant)).fetchone()[0] >= most:
            return False
        row = connection.execute("SELECT size FROM contents WHERE file = ?", (file.id,)).fetchone()
        if (row[0] if row else 0) != file.size:
            raise StateError(INCOMPLETE, file=self._path)
        _add_segments(connection, segments)
        _add_file(connection, file)
        return True

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        return await self._read(self._get, StoredFile, tenant, file_id)

    async def list_files(self, listing: Listing) -> Page[StoredFile] | None:
        return await self._read(self._list, StoredFile, listing)

    async def delete_file(self, tenant: str, file_id: str) -> Literal["deleted", "missing", "in use"]:
        done = await self._delete_file(tenant, file_id)
        await self._empty_trash()
        return done

    @transacted
    def _delete_file(
        self, connection: Connection, tenant: str, file_id: str
    ) -> Literal["deleted", "missing", "in use"]:
        if connection.execute(_GET, (file_id, "file", tenant, self._clock())).fetchone() is None:
            return "missing"
        if connection.execute("SELECT 1 FROM open WHERE input = ?", (file_id,)).fetchone():
            return "in use"
        _drop(connection, file_id)
        return "deleted"

    @transacted
    def add_batch(self, connection: Connection, batch: Batch, most: int) -> Literal["added", "no file", "too many"]:
        if connection.execute(_GET, (batch.input_file_id, "file", batch.tenant, self._clock())).fetchone() is None:
            return "no file"
        if connection.execute(_COUNT, ("batch", batch.tenant)).fetchone()[0] >= most:
            return "too many"
        connection.execute(_ADD, (batch.id, "batch", batch.tenant, batch.created_at, pack(batch), "", None))
        row = (batch.id, batch.tenant, batch.input_file_id)
        connection.execute("INSERT INTO open (id, tenant, input) VALUES (?, ?, ?)", row)
        return "added"

    async def get_batch(self, tenant: str, batch_id: str) -> Batch | None:
        return await self._read(self._get, Batch, tenant, batch_id)

    async def list_batches(self, listing: Listing) -> Page[Batch] | None:
        return await self._read(self._list, Batch, listing)

    @transacted
    def change(self, connection: Connection, tenant: str, batch_id: str, changing: Changing) -> Batch | None:
        batch = self._get(connection, Batch, tenant, batch_id)
        change = changing(batch, self._clock()) if batch is not None else None
        if change is not None:
            self._write(connection, change)
        return batch if change is None else change.batch

    def _write(self, connection: Connection, change: Change) -> None:
        batch = change.batch
        _add_segments(connection, change.segments)
        for file in change.files:
            _add_file(connection, file)
        ends = self._clock() + batch.keep_s if batch.has_ended else None
        connection.execute("UPDATE items SET document = ?, ends = ? WHERE id = ?", (pack(batch), ends, batch.id))
        if batch.has_ended:
            connection.execute("DELETE FROM open WHERE id = ?", (batch.id,))

    async def open_batches(self) -> list[OpenBatch]:
        return await self._read(_open_batches)

    async def sweep(self, most: int) -> int:
        found = await self._drop_due(most)
        await self._empty_trash()
        return found

    @transacted
    def _drop_due(self, connection: Connection, most: int) -> int:
        found = connection.execute(_DUE, {"now": self._clock(), "most": most}).fetchall()
        for (one,) in found:
            _drop(connection, one)
        return len(found)

    async def _empty_trash(self) -> None:
        """Delete chunks in short transactions, so that other processes do not wait for those of a large file."""
        while await self._file.transact(_delete_chunks):
            pass

    async def aclose(self) -> None:
        await self._file.aclose()

    async def _read(
        self, function: Callable[Concatenate[Connection, P], R], *arguments: P.args, **options: P.kwargs
    ) -> R:
        return await self._file.submit(lambda: self._file.use(function, *arguments, **options))

    def _get(self, connection: Connection, kind: type[Item], tenant: str, item_id: str) -> Item | None:
        name = "file" if kind is StoredFile else "batch"
        row = connection.execute(_GET, (item_id, name, tenant, self._clock())).fetchone()
        return None if row is None else unpack(kind, row[0])

    def _list(self, connection: Connection, kind: type[Item], listing: Listing) -> Page[Item] | None:
        name = "file" if kind is StoredFile else "batch"
        created = 0.0
        if listing.after:
            query = "SELECT created FROM items WHERE id = ? AND kind = ? AND tenant = ?"
            row = connection.execute(query, (listing.after, name, listing.tenant)).fetchone()
            if row is None:
                return None
            created = row[0]
        order = (">", "ASC") if listing.ascending else ("<", "DESC")
        values = {**asdict(listing), "kind": name, "now": self._clock(), "created": created, "most": listing.limit + 1}
        statement = _LIST.format(compare=order[0], order=order[1])
        items = tuple(unpack(kind, document) for (document,) in connection.execute(statement, values))
        return Page(items[: listing.limit], len(items) > listing.limit)


def _used(connection: Connection, tenant: str) -> int:
    (size,) = connection.execute("SELECT COALESCE(SUM(size), 0) FROM contents WHERE tenant = ?", (tenant,)).fetchone()
    return int(size)


def _get_chunk(connection: Connection, file_id: str, segment: str, number: int) -> bytes:
    query = "SELECT data FROM chunks WHERE file = ? AND segment = ? AND number = ?"
    row = connection.execute(query, (file_id, segment, number)).fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise ValueError("a chunk is missing")
    return row[0]


def _segments(connection: Connection, file_id: str) -> list[Segment]:
    query = "SELECT file, position, name, size FROM segments WHERE file = ? ORDER BY position"
    found = [Segment(*row) for row in connection.execute(query, (file_id,))]
    if not all(isinstance(one.name, str) and isinstance(one.size, int) and one.size >= 0 for one in found):
        raise ValueError("an invalid segment")
    return found


def _open_batches(connection: Connection) -> list[OpenBatch]:
    return [OpenBatch(*row) for row in connection.execute("SELECT id, tenant FROM open ORDER BY rowid")]


def _add_segments(connection: Connection, segments: Iterable[Segment]) -> None:
    connection.executemany("INSERT INTO segments (file, position, name, size) VALUES (?, ?, ?, ?)", segments)


def _add_file(connection: Connection, file: StoredFile) -> None:
    row = (file.id, "file", file.tenant, file.created_at, pack(file), file.purpose, file.expires_at)
    connection.execute(_ADD, row)
    connection.execute("UPDATE contents SET ends = ? WHERE file = ?", (file.expires_at, file.id))


def _drop(connection: Connection, item_id: str) -> None:
    connection.execute("DELETE FROM items WHERE id = ?", (item_id,))
    connection.execute("DELETE FROM segments WHERE file = ?", (item_id,))
    if connection.execute("DELETE FROM contents WHERE file = ?", (item_id,)).rowcount:
        connection.execute("INSERT OR IGNORE INTO trash (file) VALUES (?)", (item_id,))


def _delete_chunks(connection: Connection) -> bool:
    """Delete some chunks of a file that was deleted. Returns whether there was any file."""
    row = connection.execute("SELECT file FROM trash").fetchone()
    if row is None:
        return False
    some = "SELECT rowid FROM chunks WHERE file = ? LIMIT ?"
    if not connection.execute(f"DELETE FROM chunks WHERE rowid IN ({some})", (*row, _DELETED_AT_ONCE)).rowcount:  # noqa: S608
        connection.execute("DELETE FROM trash WHERE file = ?", row)
    return True
