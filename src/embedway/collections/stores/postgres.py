"""Tables in PostgreSQL with pgvector: `postgresql://USER@HOST:5432/DATABASE#TABLE`, or `#SCHEMA.TABLE`.

A run is one transaction. A new collection is written to a table with a temporary name, and renamed at the end; so an
old one stays readable. The record is the comment of the table, so it is copied, renamed and dropped with it.
"""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from typing_extensions import override

from embedway.collections.documents import DocumentKey
from embedway.collections.search import Hit, cosines
from embedway.collections.stores import postgres_compose as compose
from embedway.collections.stores import postgres_rows as pg
from embedway.collections.stores import postgres_table as tables
from embedway.collections.stores.base import READ_ROWS, Rows, Store
from embedway.collections.stores.postgres_connection import Place, connect, postgres_errors
from embedway.collections.stores.postgres_copy import RowCopy
from embedway.collections.stores.postgres_where import to_sql
from embedway.collections.stores.refusals import already_exists, no_such
from embedway.collections.stores.scanning import scan_search
from embedway.collections.stores.server_columns import lock_key, stored_columns
from embedway.collections.stores.server_records import record_from_text, record_text
from embedway.collections.stores.server_where import has_nul, push_not_down
from embedway.collections.stores.tally import StoredDocument
from embedway.errors import CollectionLockedError, SinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.values import VectorType
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Candidates of an index, by hit, that are ranked by their exact vectors.
_CANDIDATES, _BIT_CANDIDATES = 4, 20
_MAX_EF_SEARCH = 1_000
_STAGE = "pg_temp.embedway_stage"
#: Fact beside the record: columns that the present change adds, or that an aborted one has left.
_UNFINISHED = "unfinished_columns"


class PostgresStore(Store):
    """Store in one table."""

    vector_types: ClassVar[frozenset[VectorType]] = frozenset({"float32", "float16", "bits"})

    def __init__(self, destination: str) -> None:
        self._place = Place.of(destination)
        super().__init__(self._place.shown)
        self._link: Any = None
        #: Schema of the table, known when the link is open.
        self._schema = ""
        self._overwrite = False
        #: Name of the table that is being written; None if no change is in progress.
        self._writing: str | None = None
        self._created, self._indexed = False, False
        #: COPY of the rows of a new table, from the first `write` to the next statement.
        self._copy: RowCopy | None = None

    @property
    @override
    def rejects_path(self) -> Path:
        return Path(f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self._place.table)}.rejects.jsonl")

    @override
    @contextmanager
    def lock(self) -> Iterator[None]:
        # A connection of its own: the lock ends with the connection, so also with a killed process.
        link = connect(self._place)
        try:
            with postgres_errors(self.destination, "locking"):
                key = lock_key(tables.schema_of(link, self._place), self._place.table)
                (free,) = link.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
            if not free:
                raise CollectionLockedError(destination=self.destination)
            yield
        finally:
            link.close()

    @override
    def exists(self) -> bool:
        with postgres_errors(self.destination, "looking for the table"):
            return self._oid() is not None

    @override
    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        with postgres_errors(self.destination, "preparing"):
            link = self._connection()
            row = link.execute("SELECT has_schema_privilege(%s, 'CREATE')", [self._schema]).fetchone()
            if not row[0]:
                reason = f"this user must not create tables in the schema {self._schema!r}"
                raise SinkError(f"{reason}; GRANT CREATE ON SCHEMA to it", destination=self.destination)
            known = link.execute("SELECT installed_version FROM pg_available_extensions WHERE name = 'vector'")
            if known.fetchone() is None:
                reason = "the server has no pgvector; install the extension `vector` on it"
                raise SinkError(reason, destination=self.destination)
            if self._oid() is None:
                return
            if not overwrite:
                raise already_exists("table", self.destination)
            # Another program's table is never dropped.
            record_from_text(self._comment(), destination=self.destination)

    @override
    def begin(self, record: Record) -> None:
        pg.check_record(record, destination=self.destination)
        self.record = record
        with postgres_errors(self.destination, "creating the table"):
            link = self._connection()
            link.execute("CREATE EXTENSION IF NOT EXISTS vector")
            pg.register_vectors(link, record.vector_type)
            link.execute("BEGIN")
            self._claim(link)
            self._writing, self._created = f"embedway_{secrets.token_hex(8)}", True
            link.execute(compose.sql("CREATE TABLE {} ({})", self._table(), pg.column_definitions(record)))

    @override
    def begin_update(self, record: Record) -> None:
        record = self.check_update(record)
        pg.check_record(record, destination=self.destination)
        with postgres_errors(self.destination, "changing the table"):
            link = self._connection()
            self._add_columns(link, record)
            pg.register_vectors(link, record.vector_type)
            link.execute("BEGIN")
            self._claim(link)
            self._facts()
            self._writing, self._created, self.record = self._place.table, False, record
            stage = f"CREATE TEMP TABLE {_STAGE.partition('.')[2]} ON COMMIT DROP AS SELECT {{}} FROM {{}} WHERE false"  # noqa: S608  constants and quoted identifiers
            link.execute(compose.sql(stage, compose.names(self._column_names()), self._table()))
            # The statement above locks the table against ALTER until the transaction ends.
            tables.check_types(link, self._oid(), record, destination=self.destination)

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.check_rows(chunks, vectors)
        with postgres_errors(self.destination, "writing"):
            rows = pg.copy_rows(chunks, vectors, self.record, destination=self.destination)
            if self._copy is None:
                target = self._table() if self._created else compose.sql(_STAGE)
                statement = compose.sql(
                    "COPY {} ({}) FROM STDIN (FORMAT binary)", target, compose.names(self._column_names())
                )
                self._copy = RowCopy(self._connection(), statement, pg.copy_types(self.record))
            self._copy.write(rows)
            if not self._created:
                tables.merge_stage(self._connection(), self._table(), compose.sql(_STAGE), self._column_names())

    @override
    def remove(self, documents: Collection[DocumentKey]) -> None:
        with postgres_errors(self.destination, "removing"):
            query = "DELETE FROM {} WHERE (source, document_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
            self._connection().execute(compose.sql(query, self._table()), compose.split(documents))

    @override
    def commit(self) -> None:
        self.record = replace(self.record, revision=secrets.token_hex(8))
        with postgres_errors(self.destination, "finishing"):
            link = self._connection()
            if self._created:
                tables.add_indexes(link, self._table())
            if self._created or not tables.has_vector_index(link, self._oid()):
                tables.build_vector_index(link, self._table(), self.record)
            if self._created:
                self._replace_table(link)
            self._write_comment(link, self._place.table)
            link.execute("COMMIT")
            self._writing, self._created = None, False
            link.execute(compose.sql("ANALYZE {}", self._table()))
        self._recount()

    @override
    def abort(self) -> None:
        self._writing, self._created = None, False
        self._cancel_copy()
        if self._link is not None:
            with suppress(Exception):
                self._link.execute("ROLLBACK")

    @override
    def open(self) -> None:
        with postgres_errors(self.destination, "opening"):
            if self._oid() is None:
                raise no_such("table", self.destination)
            self.record, _ = record_from_text(self._comment(), destination=self.destination)
            tables.check_types(self._connection(), self._oid(), self.record, destination=self.destination)
        self._recount()

    @override
    def close(self) -> None:
        self._cancel_copy()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    @override
    def documents(self) -> Iterator[StoredDocument]:
        query = compose.sql(pg.DOCUMENTS, self._table())
        with postgres_errors(self.destination, "reading"), self._connection().cursor() as cursor:
            found = cursor.execute(query)
            for source, document_id, *others in found:
                yield StoredDocument(DocumentKey(source, document_id), *others)

    @override
    def read(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: bool = True,
        documents: Collection[DocumentKey] | None = None,
        strict: bool = True,
    ) -> Iterator[Rows]:
        names = list(stored_columns(self.record) if columns is None else columns)
        only = "(source, document_id) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND"
        query = compose.sql(
            f"SELECT {pg.POSITION}, {{}} {{}} FROM {{}} WHERE {only if documents is not None else ''} "  # noqa: S608  constants and quoted identifiers
            f"{pg.POSITION} > %s ORDER BY {pg.POSITION} LIMIT {READ_ROWS}",
            compose.sql(f"{pg.sent(self.record.vector_type)}" if vectors else "NULL"),
            compose.sql(", {}", compose.names(names)) if names else compose.sql(""),
            self._table(),
        )
        keys = [] if documents is None else compose.split(documents)
        last = -(1 << 63)
        while True:
            # Pages by position, not a cursor: no transaction stays open while the caller works.
            with postgres_errors(self.destination, "reading"), self._connection().cursor(binary=True) as cursor:
                found = cursor.execute(query, [*keys, last]).fetchall()
            if not found:
                return
            last = found[-1][0]
            fields = [dict(zip(names, row[2:], strict=True)) for row in found]
            yield Rows(fields, self._vectors([row[1] for row in found] if vectors else None, len(found)))

    @override
    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        names = list(stored_columns(self.record))
        query = compose.sql("SELECT {} FROM {} WHERE id = ANY(%s)", compose.names(names), self._table())
        with postgres_errors(self.destination, "reading"), self._connection().cursor(binary=True) as cursor:
            found = cursor.execute(query, [list(ids)]).fetchall()
        return {row[0]: dict(zip(names, row, strict=True)) for row in found}

    @override
    def write_record(self, record: Record) -> None:
        with postgres_errors(self.destination, "writing the record"):
            link = self._connection()
            with link.transaction():
                self._claim(link)
                unfinished = self._facts().get(_UNFINISHED)
                self.record = record
                self._write_comment(link, self._place.table, **({_UNFINISHED: unfinished} if unfinished else {}))

    @override
    def search_unit(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        if where is not None and has_nul(where):
            return scan_search(self, query, top_n, where)
        hits = self._nearest(query, top_n, where, exact=not self._indexed)
        if self._indexed and len(hits) < min(top_n, self.count):
            # The index ends its scan after some rows, so few may meet a condition.
            hits = self._nearest(query, top_n, where, exact=True)
        return hits

    def _nearest(self, query: Vectors, top_n: int, where: Condition | None, *, exact: bool) -> list[Hit]:
        names, kind = list(stored_columns(self.record)), self.record.vector_type
        factor = _BIT_CANDIDATES if kind == "bits" else 1 if exact else _CANDIDATES
        values: list[Any] = []
        condition = compose.sql("TRUE")
        if where is not None:
            condition, values = to_sql(push_not_down(where), stored_columns(self.record))
        order = pg.distance(kind, self.space.dimensions, exact=exact)
        select = compose.sql(
            f"SELECT {pg.POSITION}, {pg.sent(kind)}, {{}} FROM {{}} WHERE {{}} "  # noqa: S608  constants and quoted identifiers
            f"ORDER BY {order}{f', {pg.POSITION}' if exact else ''} LIMIT {top_n * factor}",
            compose.names(names),
            self._table(),
            condition,
        )
        with postgres_errors(self.destination, "searching"):
            link = self._connection()
            with link.transaction(), link.cursor(binary=True) as cursor:
                if not exact:
                    wanted = min(max(100, top_n * factor), _MAX_EF_SEARCH)
                    cursor.execute(f"SET LOCAL hnsw.ef_search = {wanted}")
                    cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                found = cursor.execute(select, [*values, pg.query_text(query, kind)]).fetchall()
        if not found:
            return []
        scores = cosines(self._vectors([row[1] for row in found], len(found)), query)
        best = sorted(range(len(found)), key=lambda row: (-scores[row], found[row][0]))[:top_n]
        keep = list(self.record.keep)
        return [Hit.of(scores[row], dict(zip(names, found[row][2:], strict=True)), keep) for row in best]

    def _vectors(self, raw: Sequence[bytes] | None, rows: int) -> Vectors:
        if raw is None:
            return np.empty((rows, 0), np.float32)
        return pg.decoded(raw, self.record.vector_type, self.space.dimensions, destination=self.destination)

    def _claim(self, link: Any) -> None:
        """Lock the collection for the transaction, so that one change is written also if `lock` lost its connection."""
        key = lock_key("change", self._schema, self._place.table)
        (free,) = link.execute("SELECT pg_try_advisory_xact_lock(%s)", [key]).fetchone()
        if not free:
            raise CollectionLockedError(destination=self.destination)

    def _facts(self) -> dict[str, Any]:
        """Return the stored record and the facts beside it. Raises `SinkError` if it is newer than the open one."""
        found, facts = record_from_text(self._comment(), destination=self.destination)
        if found.revision != self.record.revision:
            reason = "another process has changed this collection meanwhile; run the command again"
            raise SinkError(reason, destination=self.destination)
        return facts

    def _add_columns(self, link: Any, record: Record) -> None:
        """Add the new kept columns; remove those that an aborted or killed change has added.

        This is a transaction of its own, because a new column locks the table, and the change may take long.
        """
        with link.transaction():
            self._claim(link)
            left = self._facts().get(_UNFINISHED) or []
            known = {*stored_columns(self.record), *pg.TAKEN, "vector"}
            found = tables.column_types(link, self._oid())
            for name in [name for name in left if name in found and name not in known]:
                link.execute(compose.sql("ALTER TABLE {} DROP COLUMN {}", self._table(), name))
                del found[name]
            added = [name for name in record.keep if name not in known and name not in found]
            for name in added:
                change = "ALTER TABLE {} ADD COLUMN {} " + pg.SQL_TYPES[record.keep[name]]
                link.execute(compose.sql(change, self._table(), name))
            if added or left:
                self._write_comment(link, self._place.table, **({_UNFINISHED: added} if added else {}))

    def _replace_table(self, link: Any) -> None:
        """Give a new table its name, in place of a collection that exists."""
        temporary, table = str(self._writing), self._place.table
        if self._oid() is not None:
            if not self._overwrite:
                raise already_exists("table", self.destination)
            record_from_text(self._comment(), destination=self.destination)
            link.execute(compose.sql("DROP TABLE {}", self._name(table)))
        link.execute(compose.sql("ALTER TABLE {} RENAME TO {}", self._table(), table))
        tables.rename_parts(link, self._schema, temporary, table)

    def _recount(self) -> None:
        with postgres_errors(self.destination, "reading"):
            link = self._connection()
            (self.count,) = link.execute(compose.sql("SELECT count(*) FROM {}", self._table())).fetchone()
            self._indexed = tables.has_vector_index(link, self._oid())

    def _cancel_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.cancel()

    def _connection(self) -> Any:
        """Return the connection. Ends the COPY, which allows no other statement."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.end()
        if self._link is None:
            link = connect(self._place)
            with postgres_errors(self.destination, "connecting"):
                self._schema = tables.schema_of(link, self._place)
            self._link = link
        return self._link

    def _name(self, table: str) -> Any:
        self._connection()
        return compose.identifier(self._schema, table)

    def _table(self) -> Any:
        return self._name(self._writing or self._place.table)

    def _column_names(self) -> list[str]:
        return [*stored_columns(self.record), "vector"]

    def _oid(self) -> int | None:
        return tables.find(self._connection(), self._schema, self._place.table)

    def _comment(self) -> str | None:
        return tables.comment(self._connection(), self._oid())

    def _write_comment(self, link: Any, table: str, **more: object) -> None:
        tables.write_comment(link, self._name(table), record_text(self.record, **more))
