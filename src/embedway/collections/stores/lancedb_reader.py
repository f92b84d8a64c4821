"""Rows, documents and search of one version of a LanceDB table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from embedway.collections.columns import COLUMNS
from embedway.collections.documents import DocumentKey
from embedway.collections.search import Hit
from embedway.collections.stores.arrow import (
    ROW_GROUP_ROWS,
    VECTOR_COLUMNS,
    check_columns,
    complete,
    documents_in,
    fields_in,
    kept_of,
    rows_of,
)
from embedway.collections.stores.base import READ_ROWS, Rows, check_fields
from embedway.collections.stores.lancedb_table import (
    Head,
    can_be_changed,
    connect,
    document_filters,
    read_head,
    table_path,
    value_filters,
)
from embedway.collections.stores.records import RecordFile, record_from_metadata
from embedway.collections.stores.tally import TALLY_COLUMNS, StoredDocument
from embedway.collections.where import condition_columns
from embedway.collections.where_forms import to_sql
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.collections.record import Record
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Tries to read a table and its state while another process commits changes.
_TRIES = 20
#: Rows beyond those asked for, to see whether rows with equal scores were left out.
_MORE_ROWS = 64


class TableReader:
    """The collection in a table, as it was committed the last time. Errors are those of LanceDB, and `SinkError`."""

    def __init__(self, folder: Path, name: str, destination: str) -> None:
        self._path = table_path(folder, name)
        self._destination = destination
        database = connect(folder)
        for _ in range(_TRIES):
            state = read_head(self._path)
            self.table: Any = database.open_table(name)
            # If another process has committed or started a change meanwhile, state and version may not fit together.
            if state == read_head(self._path):
                break
        else:
            raise SinkError("is changed all the time; try again", destination=destination)
        self.metadata: Mapping[bytes, bytes] = self.table.schema.metadata or {}
        own = record_from_metadata(self.metadata, kept_of(self.table.schema), destination=destination)
        self.unfinished_from: int | None = None
        if not can_be_changed(own):
            self._facts = RecordFile.of_store(folder / name, self.metadata, self.table.count_rows())
            own = self._facts.complete(own)
        elif head := Head.parse(state, self.metadata, destination=destination):
            own, self.unfinished_from = head.record, head.unfinished_from
            if self.unfinished_from is not None:
                self.table.checkout(self.unfinished_from)
        self.record: Record = own
        schema = self.table.schema
        check_columns(schema, own, destination=destination)
        self.count: int = self.table.count_rows()
        self._fields = [column for column in (*COLUMNS, *own.keep) if column in schema.names]
        self._vectors = [column for column in VECTOR_COLUMNS if column in schema.names]

    def write_record(self, record: Record) -> None:
        """Replace the record. Raises OSError."""
        if can_be_changed(self.record):
            Head(record, self.unfinished_from).write(self._path, self.metadata)
        else:
            self._facts.write(record)
        self.record = record

    def copy_state(self, path: Path) -> None:
        """Write the state of the table for a copy of it in another folder. Raises OSError."""
        if can_be_changed(self.record):
            Head(self.record).write(path, self.metadata)

    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents. A document with several fingerprints is incomplete, and has none."""
        names = [name for name in TALLY_COLUMNS if name in self._fields]
        batches = _numbered(self.table.search().select(names).to_batches(ROW_GROUP_ROWS))
        return documents_in(batches, names, self.record, destination=self._destination)

    def read(
        self,
        columns: Sequence[str] | None,
        documents: Collection[DocumentKey] | None,
        *,
        vectors: bool,
        strict: bool = True,
    ) -> Iterator[Rows]:
        """Iterate over rows as `Store.read` does."""
        names = self._fields if columns is None else [name for name in self._fields if name in columns]
        names = [*names, *(self._vectors if vectors else ())] or ["id"]
        filters = [None] if documents is None else document_filters(DocumentKey(*key) for key in documents)
        for text in filters:
            for first_row, batch in self._batches(names, text):
                rows = rows_of(
                    batch,
                    self.record,
                    vectors=vectors,
                    first_row=first_row,
                    destination=self._destination,
                    strict=strict,
                )
                yield Rows(complete(rows.fields, columns, self.record), rows.vectors)

    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows by id."""
        found: dict[str, dict[str, Any]] = {}
        for text in value_filters("id", list(dict.fromkeys(ids))):
            for _, batch in self._batches(self._fields, text):
                rows = fields_in(batch, self.record, first_row=0, destination=self._destination)
                found |= {row["id"]: row for row in complete(rows, None, self.record)}
        return found

    def search(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        """Search with LanceDB by cosine distance, which is exact if the table has no index."""
        text = None
        if where is not None:
            text = to_sql(where, condition_columns(self.record))
        rows = self._nearest(query, top_n, text)
        for number, row in enumerate(rows):
            check_fields(row, number, destination=self._destination, version=self.record.format_version)
        whole = complete(rows, None, self.record)
        distances = [row["_distance"] for row in rows]
        return [Hit.of(1.0 - distance, row, self.record.keep) for distance, row in zip(distances, whole, strict=True)]

    def _nearest(self, query: Vectors, top_n: int, text: str | None) -> list[dict[str, Any]]:
        """Return the nearest rows; those with equal distances in row order, also if `top_n` cuts them."""
        limit = top_n + _MORE_ROWS
        while True:
            found = self.table.search(query, vector_column_name="vector").distance_type("cosine").limit(limit)
            found = found if text is None else found.where(text, prefilter=True)
            table = found.with_row_id(True).select([*self._fields, "_distance"]).to_arrow()
            # Vectors of length 0 have no distance.
            table = table.sort_by([("_distance", "ascending"), ("_rowid", "ascending")])
            distances = table.column("_distance").to_pylist()
            if len(distances) < limit or limit >= self.count or distances[-1] > distances[top_n - 1]:
                break
            limit = min(limit * 4, self.count)
        fields = fields_in(table.slice(0, top_n), self.record, first_row=0, destination=self._destination)
        return [row for row in fields if math.isfinite(row["_distance"])]

    def _batches(self, names: Sequence[str], text: str | None = None) -> Iterator[tuple[int, Any]]:
        """Iterate over batches that are not empty, with the number of their first row, in row order."""
        found = self.table.search().select(list(names))
        found = found if text is None else found.where(text)
        first_row = 0
        for batch in found.to_batches(READ_ROWS):
            for start in range(0, batch.num_rows, READ_ROWS):
                part = batch.slice(start, READ_ROWS)
                yield first_row, part
                first_row += part.num_rows


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """Iterate over batches, each with the number of its first row."""
    first_row = 0
    for batch in batches:
        yield batch, first_row
        first_row += batch.num_rows
