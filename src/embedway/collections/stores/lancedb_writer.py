"""Changes of a LanceDB table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.columns import id_of, key_of
from embedway.collections.documents import DocumentKey
from embedway.collections.stores.arrow import ROW_GROUP_ROWS, RowBuffer, conform
from embedway.collections.stores.lancedb_table import connect, document_filters, table_path, value_filters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.stores.lancedb_reader import TableReader
    from embedway.types import Vectors

#: Rows or bytes at which a fragment is written. Each fragment is a version of the table, so many small ones are slow.
FRAGMENT_ROWS = 16_384
FRAGMENT_BYTES = 32 << 20
#: Number of fragments of a table from which they are compacted: searches open each of them.
_MAX_FRAGMENTS = 64


class TableWriter:
    """Buffer of the rows and removals of a change. Errors are those of LanceDB.

    `base_version` is the version that the change starts from; None for a new table.
    """

    def __init__(self, table: Any, record: Record, *, base_version: int | None = None) -> None:
        self._table = table
        self._buffer = RowBuffer(record, FRAGMENT_ROWS, FRAGMENT_BYTES)
        self._base_version = base_version
        self._removed: set[DocumentKey] = set()
        self._buffered_ids: set[str] = set()
        self._buffered_keys: set[tuple[str, str]] = set()
        #: Hashes of the ids in a new table, sorted: 8 bytes for each row.
        self._written_hashes = np.empty(0, np.int64)

    def add_columns(self) -> None:
        """Add the columns that the table lacks; they are null in its rows."""
        names = set(self._table.schema.names)
        missing = [field for field in self._buffer.schema if field.name not in names]
        if missing:
            self._table.add_columns(missing)

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add or replace rows."""
        ids = list(map(id_of, chunks))
        if len(set(ids)) < len(ids) or not self._buffered_ids.isdisjoint(ids):
            # Rows of equal ids are written apart, so that the later one replaces the earlier one.
            for row in range(len(chunks)):
                if ids[row] in self._buffered_ids:
                    self._flush()
                self._add(chunks[row : row + 1], vectors[row : row + 1])
            return
        self._add(chunks, vectors)

    def remove(self, documents: Collection[DocumentKey]) -> None:
        """Remove the rows of documents that were written so far."""
        keys = {DocumentKey(*key) for key in documents}
        if not self._buffered_keys.isdisjoint(keys):
            self._flush()
        self._removed |= keys

    def finish(self) -> None:
        """Write what is buffered. Many small fragments become few."""
        self._flush()
        if self._base_version is not None:
            fragments = self._table.stats()["fragment_stats"]
            if fragments["num_small_fragments"] > _MAX_FRAGMENTS:
                self._table.optimize()

    def undo(self) -> None:
        """Restore the version that the change started from."""
        if self._base_version is not None and self._table.version != self._base_version:
            self._table.restore(self._base_version)

    def _add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self._buffer.add(chunks, vectors)
        self._buffered_ids.update(map(id_of, chunks))
        self._buffered_keys.update(map(key_of, chunks))
        if self._buffer.full:
            self._flush()

    def _flush(self) -> None:
        """Remove documents, then old rows with the ids of new ones, then add the new ones in their order."""
        for text in document_filters(self._removed):
            self._table.delete(text)
        self._removed.clear()
        if not self._buffer.rows:
            return
        for text in value_filters("id", self._existing()):
            self._table.delete(text)
        # The columns of the table may be in another order, after columns were added.
        table = self._buffer.table()
        self._table.add(table.select(self._table.schema.names))
        self._buffer.clear()
        if self._base_version is None:
            hashes = np.concatenate([self._written_hashes, np.sort(_hashes(self._buffered_ids))])
            self._written_hashes = np.sort(hashes, kind="stable")  # linear, because both parts are sorted
        self._buffered_ids.clear()
        self._buffered_keys.clear()

    def _existing(self) -> list[str]:
        """Return the ids of buffered rows that the table has.

        Of a new table, ids with the same hash may be among them: to delete an id that is not there does nothing.
        """
        if self._base_version is None:
            ids = list(self._buffered_ids)
            hashes = _hashes(ids)
            first = np.searchsorted(self._written_hashes, hashes, side="left")
            last = np.searchsorted(self._written_hashes, hashes, side="right")
            return sorted(ids[row] for row in np.flatnonzero(first < last).tolist())
        import pyarrow as pa  # noqa: PLC0415 - heavy
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        new = pa.array(sorted(self._buffered_ids), pa.string())
        found: list[str] = []
        for batch in self._table.search().select(["id"]).to_batches():
            ids = batch.column("id").cast(pa.string())
            found += ids.filter(pc.is_in(ids, new)).to_pylist()
        return found


def _hashes(ids: Collection[str]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def rewrite(reader: TableReader, folder: Path, name: str) -> None:
    """Create a table in a folder with the rows, the schema and the state of another one, without its older versions."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    schema = reader.table.schema
    table = connect(folder).create_table(name, schema=schema)

    def add(batches: list[Any]) -> None:
        table.add(conform(pa.Table.from_batches(batches), schema))

    for batches in _groups(reader.table.search().to_batches(ROW_GROUP_ROWS)):
        add(batches)
    reader.copy_state(table_path(folder, name))


def _groups(batches: Any) -> Iterator[list[Any]]:
    """Iterate over lists of batches with together at least the rows of a row group."""
    group: list[Any] = []
    rows = 0
    for batch in batches:
        if batch.num_rows:
            group.append(batch)
            rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group
