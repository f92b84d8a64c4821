"""Rows, documents and search of one Parquet file that holds a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.columns import COLUMNS
from embedway.collections.search import Hit, TopRows, cosines, vector_norms
from embedway.collections.stores.arrow import (
    VECTOR_COLUMNS,
    check_columns,
    complete,
    documents_in,
    fields_in,
    kept_of,
    rows_of,
    vectors_in,
)
from embedway.collections.stores.base import READ_ROWS, Rows
from embedway.collections.stores.records import RecordFile, record_from_metadata
from embedway.collections.stores.tally import TALLY_COLUMNS, StoredDocument
from embedway.collections.stores.temporary import file_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Maximum bytes of the vectors, as float32, and of the other columns that stay in memory for repeated searches.
MAX_LOADED_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A collection in memory: vectors (n, d), their lengths (n,), and the other columns.

    The columns are one table for each row group, with the number of its first row: Arrow takes rows of one large table
    far slower.
    """

    tables: list[tuple[int, Any]]
    vectors: Vectors
    norms: npt.NDArray[np.float32]


class ParquetReader:
    """An open file. Errors are those of Arrow, and `SinkError` for rows that are invalid."""

    def __init__(self, path: Path, destination: str) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self._destination = destination
        # Before the file is opened: if it is replaced in between, the next opening sees another state.
        self.state = file_state(path.stat())
        self._file: Any = pq.ParquetFile(path)
        try:
            schema = self._file.schema_arrow
            self.count: int = self._file.metadata.num_rows
            own = record_from_metadata(schema.metadata, kept_of(schema), destination=destination)
            self.facts = RecordFile.of_store(path, schema.metadata, self.count)
            self.record: Record = self.facts.complete(own)
            check_columns(schema, self.record, destination=destination)
        except BaseException:
            self._file.close()
            raise
        self._fields = [name for name in (*COLUMNS, *self.record.keep) if name in schema.names]
        self._vectors = [name for name in VECTOR_COLUMNS if name in schema.names]
        self._searched = False
        self._loaded: _Loaded | None = None

    def close(self) -> None:
        """Close the file, and drop what is in memory."""
        self._loaded = None
        self._file.close()

    def groups(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """Iterate over the row groups: number of the first row, and table; all columns by default.

        One row group at a time: over a complete file, `iter_batches` reads ahead without limit.
        """
        first_row = 0
        names = [*self._fields, *self._vectors] if columns is None else list(columns)
        for group in range(self._file.num_row_groups):
            yield first_row, self._file.read_row_group(group, columns=names)
            first_row += self._file.metadata.row_group(group).num_rows

    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents. A document with several fingerprints is incomplete, and has none."""
        names = [name for name in TALLY_COLUMNS if name in self._fields]
        batches = ((table, first_row) for first_row, table in self.groups(names))
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
        wanted = None if documents is None else frozenset((key[0], key[1]) for key in documents)
        names = self._fields if columns is None else [name for name in self._fields if name in columns]
        names = [*names, *(self._vectors if vectors else ())]
        for group in range(self._file.num_row_groups):
            first_row = sum(self._file.metadata.row_group(one).num_rows for one in range(group))
            inside = None if wanted is None else self._rows_of(group, wanted)
            if inside is not None and not inside.size:
                continue
            # Without any column, Arrow would not know the number of rows.
            table = self._file.read_row_group(group, columns=names or ["id"])
            table = table if inside is None else table.take(inside)
            for start in range(0, table.num_rows, READ_ROWS):
                rows = rows_of(
                    table.slice(start, READ_ROWS),
                    self.record,
                    vectors=vectors,
                    first_row=first_row + start,
                    destination=self._destination,
                    strict=strict,
                )
                yield Rows(complete(rows.fields, columns, self.record), rows.vectors)

    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows by id."""
        import pyarrow as pa  # noqa: PLC0415 - heavy
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        wanted = pa.array(sorted(set(ids)), pa.string())
        rows: list[int] = []
        tables = self._loaded.tables if self._loaded else self.groups(["id"])
        for first_row, table in tables:
            rows += (np.flatnonzero(pc.is_in(table.column("id").cast(pa.string()), wanted)) + first_row).tolist()
        return {row["id"]: row for row in self._take(rows).values()}

    def search(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        """Return the nearest rows to a query of length 1.

        The first search reads the vectors one row group at a time; the second one keeps them in memory, if they fit.
        """
        if self._searched and self._loaded is None and self._loaded_bytes <= MAX_LOADED_BYTES:
            self._loaded = self._load()
        best = TopRows(top_n)
        for first_row, scores, table in self._scores(query, where):
            if where is not None:
                scores[~_matching(table, where)] = -np.inf
            best.add(scores, first_row)
        self._searched = True
        scored = zip(best.rows.tolist(), best.scores.tolist(), strict=True)
        found = {row: score for row, score in scored if score > -np.inf}
        rows = self._take(sorted(found))
        return [Hit.of(score, rows[row], self.record.keep) for row, score in found.items()]

    def _scores(self, query: Vectors, where: Condition | None) -> Iterator[tuple[int, npt.NDArray[np.float32], Any]]:
        """Iterate over parts of the collection: first row, scores, and table with the columns of the condition."""
        if self._loaded is not None:
            scores = cosines(self._loaded.vectors, query, self._loaded.norms)
            for first_row, table in self._loaded.tables:
                yield first_row, scores[first_row : first_row + table.num_rows], table
            return
        names = self._fields if where is not None else []
        for first_row, table in self.groups([*names, *self._vectors]):
            vectors = vectors_in(table, self.record, first_row=first_row, destination=self._destination)
            yield first_row, cosines(vectors, query), table

    @property
    def _loaded_bytes(self) -> int:
        """Bytes of the vectors as float32, and of the other columns."""
        size = self.count * self.record.space.dimensions * 4
        for group in range(self._file.num_row_groups):
            part = self._file.metadata.row_group(group)
            columns = [part.column(number) for number in range(part.num_columns)]
            size += sum(one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] != "vector")
        return size

    def _load(self) -> _Loaded:
        vectors = np.empty((self.count, self.record.space.dimensions), np.float32)
        tables = []
        for first_row, table in self.groups():
            own = vectors_in(table, self.record, first_row=first_row, destination=self._destination)
            vectors[first_row : first_row + len(own)] = own
            tables.append((first_row, table.select(self._fields)))
        return _Loaded(tables, vectors, vector_norms(vectors))

    def _rows_of(self, group: int, wanted: frozenset[tuple[str, str]]) -> npt.NDArray[np.int64]:
        """Return the numbers, in a row group, of the rows of some documents."""
        table = self._file.read_row_group(group, columns=["source", "document_id"])
        keys = zip(table.column("source").to_pylist(), table.column("document_id").to_pylist(), strict=True)
        return np.flatnonzero(np.fromiter((key in wanted for key in keys), bool, table.num_rows))

    def _take(self, wanted: list[int]) -> dict[int, dict[str, Any]]:
        """Return all columns but the vector of some rows, by ascending row number."""
        found: dict[int, dict[str, Any]] = {}
        first_row = 0
        for group in range(self._file.num_row_groups):
            after = first_row + self._file.metadata.row_group(group).num_rows
            inside = [row for row in wanted if first_row <= row < after]
            if inside:
                table = (
                    self._file.read_row_group(group, columns=self._fields)
                    if self._loaded is None
                    else self._loaded.tables[group][1]
                )
                found |= self._fields_by_row(table.take([row - first_row for row in inside]), inside)
            first_row = after
        return found

    def _fields_by_row(self, table: Any, numbers: list[int]) -> dict[int, dict[str, Any]]:
        rows = fields_in(table, self.record, first_row=numbers[0], destination=self._destination)
        return dict(zip(numbers, complete(rows, None, self.record), strict=True))


def _matching(table: Any, where: Condition) -> npt.NDArray[np.bool_]:
    """Return which rows of a table meet a condition."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    from embedway.collections.where_forms import to_arrow  # noqa: PLC0415  only for conditions

    name = "_row"
    numbered = table.append_column(name, pa.array(np.arange(table.num_rows)))
    mask = np.zeros(table.num_rows, bool)
    mask[numbered.filter(to_arrow(where)).column(name).to_numpy()] = True
    return mask
