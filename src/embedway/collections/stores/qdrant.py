"""Collections of a Qdrant server: `qdrant:http://HOST:6333#COLLECTION`; the key is in `QDRANT_API_KEY`.

Qdrant has no transactions. A new collection is written under another name, and its name becomes an alias of it at
commit; so an old one stays readable. If a killed process leaves a complete collection without the name, the mark in its
record says whose place it takes. In an update, each request is durable, and repeating it is harmless.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from typing_extensions import override

from embedway.collections.search import Hit
from embedway.collections.stores import qdrant_names
from embedway.collections.stores import qdrant_points as points
from embedway.collections.stores.base import READ_ROWS, Rows, Store
from embedway.collections.stores.qdrant_connection import Place, connect, qdrant_errors
from embedway.collections.stores.qdrant_where import document_filters, key_of, to_filter
from embedway.collections.stores.refusals import already_exists, no_such
from embedway.collections.stores.scanning import NotExpressibleError, scan_search
from embedway.collections.stores.server_columns import stored_columns
from embedway.collections.stores.server_locks import server_lock
from embedway.collections.stores.server_records import (
    COMPLETE_FOR,
    RECORD_KEY,
    STAGED_FOR,
    record_from_text,
    record_text,
    staging_name,
)
from embedway.collections.stores.server_where import push_not_down
from embedway.collections.stores.tally import TALLY_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.values import VectorType
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Rows up to which a search compares all vectors. Above, it uses the HNSW index.
EXACT_ROWS = 20_000
_EF_SEARCH = 256
#: Rows beyond the best ones that are requested, because equal scores are ordered here; maximum rows of a request.
_TIES, _MAX_TIES = 16, 10_000
#: Rows of one request that reads no texts.
_SCROLL_ROWS = 2_000


class QdrantStore(Store):
    """Store in one collection of a server. `client` replaces the connection, and is never closed here."""

    transactional: ClassVar[bool] = False
    vector_types: ClassVar[frozenset[VectorType]] = frozenset({"float32", "float16"})

    def __init__(self, destination: str, *, client: Any = None) -> None:
        self._place = Place.of(destination)
        super().__init__(destination)
        self._given = client
        self._client: Any = client
        #: Name of the collection that is being created; None otherwise.
        self._staged: str | None = None
        self._overwrite = False
        self._record_in_point = False

    @property
    @override
    def identity(self) -> str:
        return self._place.identity

    @property
    @override
    def rejects_path(self) -> Path:
        return Path(f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self._place.name)}.rejects.jsonl")

    @override
    def lock(self) -> AbstractContextManager[None]:
        return server_lock(self.identity, destination=self.destination)

    @override
    def exists(self) -> bool:
        with self._errors("looking for the collection") as client:
            return qdrant_names.find(client, self._place.name) is not None

    @override
    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        with self._errors("preparing") as client:
            found = qdrant_names.find(client, self._place.name)
            if found is not None:
                self._check_replaceable(client, found)

    @override
    def begin(self, record: Record) -> None:
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        self.record = record
        with self._errors("creating the collection") as client:
            qdrant_names.restore(client, self._place.name)
            left = qdrant_names.find_marked(client, self._place.name, STAGED_FOR, COMPLETE_FOR)  # by killed runs
            for one in left:
                client.delete_collection(one)
            self._staged = staging_name(self._place.name)
            kind = models.Datatype.FLOAT16 if record.vector_type == "float16" else models.Datatype.FLOAT32
            size = models.VectorParams(size=record.space.dimensions, distance=models.Distance.COSINE, datatype=kind)
            mark = {STAGED_FOR: self._place.name}
            # In the same request: a killed run leaves no collection without a mark, which no later one would remove.
            metadata = {RECORD_KEY: record_text(record, **mark)}
            client.create_collection(self._staged, vectors_config=size, metadata=metadata)
            self._write_record(client, **mark)
            self._index(client, [*points.INDEXED, *record.keep])

    @override
    def begin_update(self, record: Record) -> None:
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        record = self.check_update(record)
        new = [name for name in record.keep if name not in self.record.keep]
        with self._errors("changing the collection") as client:
            if new:
                # A null that is missing would not meet `is null`.
                nulls: dict[str, Any] = dict.fromkeys(new)
                client.set_payload(self._name, payload=nulls, points=models.Filter(), wait=True)
            # Before the rows: a run that is killed leaves a record that knows their columns.
            self.record = replace(record, revision=secrets.token_hex(8))
            self._write_record(client)
            self._index(client, new)

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.check_rows(chunks, vectors)
        found = points.points_of(chunks, vectors, self.record, destination=self.destination)
        for part in points.requests_of(found, self.space.dimensions):
            with self._errors("writing") as client:
                client.upsert(self._name, points=part, wait=True)

    @override
    def remove(self, documents: Collection[DocumentKey]) -> None:
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        for some in document_filters(documents):
            with self._errors("removing") as client:
                client.delete(self._name, points_selector=models.FilterSelector(filter=some), wait=True)

    @override
    def commit(self) -> None:
        self.record = replace(self.record, revision=secrets.token_hex(8))
        with self._errors("finishing") as client:
            replaced = None if self._staged is None else self._take_name(client, self._staged)
            self._write_record(client)
            if replaced is not None:
                client.delete_collection(replaced)
            self._recount(client)

    def _take_name(self, client: Any, staged: str) -> str | None:
        """Give the new collection its name; return the collection that had it, or None.

        Both are marked as complete before the name changes, so a killed process leaves at least one that is found.
        """
        name = self._place.name
        old = qdrant_names.resolve(client, name)
        if old is not None:
            self._check_replaceable(client, old)
        self._write_record(client, **{COMPLETE_FOR: name})
        if old == name:
            # A collection cannot have the name of an alias. From here on, `abort` keeps the new one.
            self._staged = None
            client.delete_collection(name)
            old = None
        elif old is not None:
            text, _ = qdrant_names.read_record(client, old)
            record, _ = record_from_text(text, destination=self.destination)
            qdrant_names.write_record(client, old, record, **{COMPLETE_FOR: name})
        qdrant_names.set_alias(client, name, staged, replaces=old is not None)
        self._staged = None
        return old

    @override
    def abort(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            with suppress(Exception):
                client = self._connection()
                # If only the answer of the server was lost, it has the name, and stays.
                if qdrant_names.resolve(client, self._place.name) != staged:
                    client.delete_collection(staged)

    @override
    def open(self) -> None:
        with self._errors("opening") as client:
            found = qdrant_names.restore(client, self._place.name)
            if found is None:
                raise no_such("collection", self.destination)
            text, self._record_in_point = qdrant_names.read_record(client, found)
            self.record, _ = record_from_text(text, destination=self.destination)
            self._recount(client)

    @override
    def close(self) -> None:
        client, self._client = self._client, self._given
        if client is not None and client is not self._given:
            with suppress(Exception):
                client.close()

    @override
    def documents(self) -> Iterator[StoredDocument]:
        current, rows = "", list[dict[str, Any]]()
        for found in self._scroll(TALLY_COLUMNS, vectors=False, limit=_SCROLL_ROWS):
            for point in found:
                part = points.document_part(point.id)
                if rows and part != current:
                    yield points.document_of(rows)
                    rows = []
                current = part
                rows.append(points.fields_from(point.payload, TALLY_COLUMNS, self.record))
        if rows:
            yield points.document_of(rows)

    @override
    def read(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: bool = True,
        documents: Collection[DocumentKey] | None = None,
        strict: bool = True,
    ) -> Iterator[Rows]:
        names = list(stored_columns(self.record)) if columns is None else list(columns)
        for where in [None] if documents is None else document_filters(documents):
            for found in self._scroll(names, vectors=vectors, limit=READ_ROWS, where=where):
                fields = [points.fields_from(point.payload, names, self.record) for point in found]
                matrix: Vectors = np.empty((len(found), 0), np.float32)
                if vectors:
                    place = self.destination
                    matrix = points.vectors_from(found, self.space.dimensions, destination=place, strict=strict)
                yield Rows(fields, matrix)

    @override
    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        names = list(stored_columns(self.record))
        rows: dict[str, dict[str, Any]] = {}
        for first in range(0, len(ids), READ_ROWS):
            some = models.MatchAny(any=list(ids[first : first + READ_ROWS]))
            where = models.Filter(must=[models.FieldCondition(key="id", match=some)])
            for found in self._scroll(names, vectors=False, limit=READ_ROWS, where=where):
                for point in found:
                    fields = points.fields_from(point.payload, names, self.record)
                    rows[fields["id"]] = fields
        return {one: rows[one] for one in ids if one in rows}

    @override
    def purge(self) -> Sequence[str]:
        return (f"{self.destination}: snapshots, and deleted points until the server optimizes their segments",)

    @override
    def write_record(self, record: Record) -> None:
        self.record = record
        with self._errors("writing the record") as client:
            self._write_record(client)

    @override
    def search_unit(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        only = None
        if where is not None:
            columns = stored_columns(self.record)
            try:
                only = to_filter(push_not_down(where), columns)
            except NotExpressibleError:
                return scan_search(self, query, top_n, where)
        with self._errors("searching") as client:
            best = self._nearest(client, query, top_n, only)
            payloads: dict[str, Any] = {}
            for first in range(0, len(best), READ_ROWS):
                some = [one for one, _ in best[first : first + READ_ROWS]]
                payloads |= {point.id: point.payload for point in client.retrieve(self._name, some)}
        names, keep = list(stored_columns(self.record)), list(self.record.keep)
        found = [
            (score, points.fields_from(payloads[one], names, self.record)) for one, score in best if one in payloads
        ]
        return [Hit.of(score, fields, keep) for score, fields in found]

    def _nearest(self, client: Any, query: Vectors, top_n: int, only: Any) -> list[tuple[str, float]]:
        """Return ids and scores of the best points; equal scores are in the order of ids."""
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        limit = top_n + _TIES
        exact = self.count <= EXACT_ROWS
        while True:
            found = client.query_points(
                self._name,
                query=query.tolist(),
                query_filter=self._without_record(only),
                limit=limit,
                with_payload=False,
                search_params=models.SearchParams(exact=exact, hnsw_ef=None if exact else max(_EF_SEARCH, 2 * limit)),
            ).points
            # More rows may have the score of the last one.
            if len(found) < limit or found[-1].score < found[top_n - 1].score or limit > _MAX_TIES:
                break
            limit *= 4
        ranked = sorted(((point.id, point.score) for point in found), key=lambda one: (-one[1], one[0]))
        return ranked[:top_n]

    def _scroll(self, names: Sequence[str], *, vectors: bool, limit: int, where: Any = None) -> Iterator[list[Any]]:
        """Iterate over points in the order of their ids."""
        offset = None
        try:
            payload: Any = [*map(key_of, names), points.LENGTH]
        except NotExpressibleError:
            payload = True
        while True:
            with self._errors("reading") as client:
                found, offset = client.scroll(
                    self._name,
                    scroll_filter=self._without_record(where),
                    limit=limit,
                    offset=offset,
                    with_payload=payload,
                    with_vectors=vectors,
                )
            if found:
                yield found
            if offset is None:
                return

    def _without_record(self, where: Any) -> Any:
        """Return a filter that leaves out the point of the record, if there is one."""
        from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

        if not self._record_in_point:
            return where
        return models.Filter(
            must=None if where is None else [where],
            must_not=[models.HasIdCondition(has_id=[qdrant_names.RECORD_POINT])],
        )

    @property
    def _name(self) -> str:
        return self._staged or self._place.name

    def _connection(self) -> Any:
        if self._client is None:
            self._client = connect(self._place)
        return self._client

    def _errors(self, action: str) -> Any:
        return qdrant_errors(self._connection, self.destination, action)

    def _check_replaceable(self, client: Any, found: str) -> None:
        """Raise `SinkError` for an existing collection without `overwrite`, and for that of another program."""
        if not self._overwrite:
            raise already_exists("collection", self.destination)
        record_from_text(qdrant_names.read_record(client, found)[0], destination=self.destination)

    def _index(self, client: Any, names: Sequence[str]) -> None:
        kinds = stored_columns(self.record)
        for name in names:
            with suppress(NotExpressibleError):
                if kinds[name] in points.INDEX_TYPES:
                    client.create_payload_index(self._name, key_of(name), points.INDEX_TYPES[kinds[name]], wait=True)

    def _write_record(self, client: Any, **marks: str) -> None:
        self._record_in_point = qdrant_names.write_record(client, self._name, self.record, **marks)

    def _recount(self, client: Any) -> None:
        self.count = client.count(self._name, count_filter=self._without_record(None), exact=True).count
