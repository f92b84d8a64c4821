"""Collections of Chroma, in a folder or on a server: `chroma:DIR#NAME`, `chroma:http://HOST:8000#NAME`.

Chroma has no transactions. A new collection is written under another name and renamed at commit; so an old one stays
readable. The old one first gets another name and a mark, and is removed last: at any time, a complete collection has
the name or the mark. In an update, each call is durable, and repeating it is harmless. Chroma computes no vectors.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from typing_extensions import override

from embedway.collections.search import Hit, cosines
from embedway.collections.stores import chroma_rows as cells
from embedway.collections.stores.base import READ_ROWS, Rows, Store
from embedway.collections.stores.chroma_connection import Place, chroma_errors, connect
from embedway.collections.stores.refusals import already_exists, no_such
from embedway.collections.stores.scanning import NotExpressibleError, scan_search
from embedway.collections.stores.server_columns import ids_by_source, stored_columns
from embedway.collections.stores.server_locks import server_lock
from embedway.collections.stores.server_records import (
    COMPLETE_FOR,
    RECORD_KEY,
    STAGED_FOR,
    record_from_text,
    record_text,
    staging_mark,
    staging_name,
)
from embedway.collections.stores.server_where import push_not_down
from embedway.collections.stores.tally import TALLY_COLUMNS, DocumentTally, StoredDocument
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Rows of a request to a server, whose maximum size is not known.
_SERVER_ROWS = 1_000
#: Candidates of the approximate index, which are ranked by their exact vectors.
_CANDIDATES, _MIN_CANDIDATES = 4, 200
#: More accurate than the defaults, 100 and 100.
INDEX = {"hnsw": {"space": "cosine", "ef_construction": 200, "ef_search": 400}}
_FILTER_DOCUMENTS = 200


class ChromaStore(Store):
    """Store in one collection."""

    transactional: ClassVar[bool] = False

    def __init__(self, destination: str) -> None:
        self._place = Place.of(destination)
        super().__init__(destination)
        self._client: Any = None
        #: The collection that is open or being created.
        self._rows: Any = None
        #: Name of the collection that is being created; None otherwise.
        self._staged: str | None = None
        self._overwrite = False

    @property
    @override
    def identity(self) -> str:
        return self._place.identity

    @property
    @override
    def local_path(self) -> Path | None:
        return self._place.folder

    @property
    @override
    def rejects_path(self) -> Path:
        name = f"{self._place.name}.rejects.jsonl"
        folder = self._place.folder
        return Path(name) if folder is None else folder.with_name(f"{folder.name}.{name}")

    @override
    def lock(self) -> AbstractContextManager[None]:
        return server_lock(self.identity, destination=self.destination)

    @override
    def exists(self) -> bool:
        with self._errors("looking for the collection"):
            return self._current() is not None

    @override
    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        folder = self._place.folder
        if folder is not None and not folder.exists() and not folder.absolute().parent.is_dir():
            raise SinkError(f"the folder {folder.parent} does not exist; create it first", destination=self.destination)
        with self._errors("preparing"):
            found = self._current()
            if found is not None:
                self._check_replaceable(found)

    @override
    def begin(self, record: Record) -> None:
        cells.check_record(record, destination=self.destination)
        self.record = record
        name = self._place.name
        with self._errors("creating the collection", create=True) as client:
            if (found := self._current()) is not None and found.name != name:
                self._restore_name(found)
            for one in self._marked(STAGED_FOR, COMPLETE_FOR):  # left by killed runs
                client.delete_collection(one)
            metadata = {RECORD_KEY: record_text(record, **{STAGED_FOR: name})}
            self._staged = staging_name(name)
            self._rows = client.create_collection(
                self._staged, embedding_function=None, metadata=metadata, configuration=INDEX
            )

    @override
    def begin_update(self, record: Record) -> None:
        record = self.check_update(record)
        cells.check_record(record, destination=self.destination)
        # Before the rows: a run that is killed leaves a record that knows their columns.
        self.write_record(replace(record, revision=secrets.token_hex(8)))

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.check_rows(chunks, vectors)
        # Of rows with the same id, only the last.
        last = {chunk.id: row for row, chunk in enumerate(chunks)}
        order = sorted(last.values())
        with self._errors("writing") as client:
            most = client.get_max_batch_size()
        if self._place.folder is None:
            most = min(most, _SERVER_ROWS)
        for first in range(0, len(order), most):
            some = order[first : first + most]
            metadata = [cells.metadata_of(chunks[row], self.record, destination=self.destination) for row in some]
            with self._errors("writing"):
                self._rows.upsert(
                    ids=[chunks[row].id for row in some],
                    embeddings=np.asarray(vectors[some], np.float32),
                    documents=[chunks[row].text for row in some],
                    metadatas=metadata,
                )

    @override
    def remove(self, documents: Collection[DocumentKey]) -> None:
        for where in _filters(documents):
            while True:
                # By id: not every version deletes more rows by a filter than a batch has.
                with self._errors("removing"):
                    ids = self._rows.get(where=where, limit=READ_ROWS, include=[])["ids"]
                    if not ids:
                        break
                    self._rows.delete(ids=ids)

    @override
    def commit(self) -> None:
        record = replace(self.record, revision=secrets.token_hex(8))
        if self._staged is None:
            self.write_record(record)
        with self._errors("finishing") as client:
            if self._staged is not None:
                self._finish_new(client, record)
            self.count = self._rows.count()

    def _finish_new(self, client: Any, record: Record) -> None:
        """Give the new collection its name, and remove the one that it replaces."""
        replaced = self._find(self._place.name)
        if replaced is not None:
            self._check_replaceable(replaced)
        self._take_name(record, replaced)
        self.record, self._staged = record, None
        if replaced is not None:
            client.delete_collection(replaced.name)

    @override
    def abort(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            with suppress(Exception):
                # By its staging name: if only the answer of the rename was lost, it has its final name, and stays.
                self._client.delete_collection(staged)

    @override
    def open(self) -> None:
        with self._errors("opening"):
            found = self._current()
            if found is None:
                raise no_such("collection", self.destination)
            self.record, self._rows, self.count = self._record_of(found), found, found.count()

    @override
    def close(self) -> None:
        client, self._client, self._rows = self._client, None, None
        if client is not None:
            with suppress(Exception):
                client.close()

    @override
    def documents(self) -> Iterator[StoredDocument]:
        tally = DocumentTally()
        for batch in self._get(["metadatas"], limit=10 * READ_ROWS):
            for row_id, metadata in zip(batch["ids"], batch["metadatas"], strict=True):
                fields = cells.fields_from(row_id, metadata, None, TALLY_COLUMNS, self.record)
                source, name, *others = fields.values()
                tally.add(source or "", name or "", *others)
        yield from tally.documents()

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
        include = ["metadatas", *(["documents"] if "text" in names else []), *(["embeddings"] if vectors else [])]
        for where in [None] if documents is None else _filters(documents):
            for batch in self._get(include, limit=READ_ROWS, where=where):
                none = np.empty((len(batch["ids"]), 0), np.float32)
                yield Rows(self._fields(batch, names), self._vectors(batch["embeddings"]) if vectors else none)

    @override
    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        names, rows = list(stored_columns(self.record)), dict[str, dict[str, Any]]()
        unique = list(dict.fromkeys(ids))
        for first in range(0, len(unique), READ_ROWS):
            with self._errors("reading"):
                some = self._rows.get(ids=unique[first : first + READ_ROWS], include=["metadatas", "documents"])
            rows |= {fields["id"]: fields for fields in self._fields(some, names)}
        return {one: rows[one] for one in unique if one in rows}

    @override
    def purge(self) -> Sequence[str]:
        if self._place.folder is None:
            return (f"{self.destination}: the log and backups of the server",)
        return (f"free pages of the database in {self._place.folder}, until the command `chroma vacuum` is run on it",)

    @override
    def write_record(self, record: Record) -> None:
        self.record = record
        with self._errors("writing the record"):
            name = None if self._rows.name == self._place.name else self._place.name
            self._rows.modify(name=name, metadata={RECORD_KEY: record_text(record)})

    @override
    def search_unit(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        only = None
        if where is not None:
            columns = stored_columns(self.record)
            try:
                only = cells.to_filter(push_not_down(where), columns)
            except NotExpressibleError:
                return scan_search(self, query, top_n, where)
        wanted = min(max(top_n * _CANDIDATES, _MIN_CANDIDATES), self.count)
        if not wanted:
            return []
        with self._errors("searching"):
            include = ["metadatas", "documents", "embeddings"]
            found = self._rows.query(query_embeddings=[query], n_results=wanted, where=only, include=include)
        batch = {name: found[name][0] for name in ("ids", *include)}
        if not batch["ids"]:
            return []
        fields = self._fields(batch, list(stored_columns(self.record)))
        scores = cosines(self._vectors(batch["embeddings"]), query)
        # The order of rows is not in the answer: equal scores are in the order of documents.
        place = [
            (-score, row["source"] or "", row["document_id"] or "", row["number"] or 0)
            for score, row in zip(scores, fields, strict=True)
        ]
        best = sorted(range(len(fields)), key=place.__getitem__)[:top_n]
        return [Hit.of(scores[row], fields[row], list(self.record.keep)) for row in best]

    def _check_replaceable(self, found: Any) -> None:
        """Raise `SinkError` for an existing collection without `overwrite`, and for that of another program."""
        if not self._overwrite:
            raise already_exists("collection", self.destination)
        self._record_of(found)

    def _record_of(self, found: Any) -> Record:
        text = (found.metadata or {}).get(RECORD_KEY)
        return record_from_text(text if isinstance(text, str) else None, destination=self.destination)[0]

    def _take_name(self, record: Record, replaced: Any) -> None:
        """Give the new collection its name, and the one that it replaces another one. An error restores the latter.

        Name and mark of a collection change in one call, so a killed process leaves at least one that is complete.
        """
        name = self._place.name
        try:
            if replaced is not None:
                text = record_text(self._record_of(replaced), **{COMPLETE_FOR: name})
                replaced.modify(name=staging_name(name), metadata={RECORD_KEY: text})
            self._rows.modify(name=name, metadata={RECORD_KEY: record_text(record)})
        except BaseException:
            if replaced is not None:
                with suppress(Exception):  # refused if only the answer was lost, because the new one has the name
                    self._restore_name(replaced)
            raise

    def _restore_name(self, found: Any) -> None:
        """Give a complete collection its name, without a mark."""
        found.modify(name=self._place.name, metadata={RECORD_KEY: record_text(self._record_of(found))})

    def _get(self, include: list[str], *, limit: int, where: Any = None) -> Iterator[dict[str, Any]]:
        """Iterate over rows in their order."""
        offset = 0
        while True:
            with self._errors("reading"):
                found = self._rows.get(where=where, limit=limit, offset=offset, include=include)
            if not found["ids"]:
                return
            offset += len(found["ids"])
            yield found

    def _fields(self, batch: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
        texts = batch.get("documents") or [None] * len(batch["ids"])
        rows = zip(batch["ids"], batch["metadatas"], texts, strict=True)
        return [cells.fields_from(one, metadata, text, names, self.record) for one, metadata, text in rows]

    def _vectors(self, found: Any) -> Vectors:
        try:
            vectors: Vectors = np.asarray(found, np.float32)
        except (ValueError, TypeError):
            vectors = np.empty(0, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.space.dimensions:
            reason = f"has vectors without {self.space.dimensions} numbers; embed again"
            raise SinkError(reason, destination=self.destination)
        return vectors

    def _current(self) -> Any:
        """Return the collection, also a complete one that a killed process left without its name; None if none."""
        found = self._find(self._place.name)
        if found is None and (names := self._marked(COMPLETE_FOR)):
            found = self._find(names[0])
        return found

    def _marked(self, *marks: str) -> list[str]:
        """Return the names of collections with one of these marks for this collection's name."""
        found = self._connection().list_collections() if self._place.is_there else []
        texts = {one.name: (one.metadata or {}).get(RECORD_KEY) for one in found}
        return [one for one, text in texts.items() if staging_mark(one, self._place.name, text) in marks]

    def _find(self, name: str) -> Any:
        """Return a collection; None if there is none."""
        if not self._place.is_there:
            return None
        from chromadb.errors import NotFoundError  # noqa: PLC0415 - heavy, and an extra

        try:
            return self._connection().get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    def _connection(self) -> Any:
        if self._client is None:
            self._client = connect(self._place)
        return self._client

    def _errors(self, action: str, *, create: bool = False) -> Any:
        """Return a context with a client; None without a database, unless `create` is true: a client creates it."""
        connected = self._connection if create or self._place.is_there else lambda: None
        return chroma_errors(connected, self.destination, action)


def _filters(documents: Collection[DocumentKey]) -> Iterator[dict[str, Any]]:
    """Iterate over filters that together select the rows of documents."""
    for source, some in ids_by_source(documents, most=_FILTER_DOCUMENTS):
        yield {"$and": [{"source": {"$eq": source}}, {"document_id": {"$in": some}}]}
