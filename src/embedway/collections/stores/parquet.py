"""Parquet files, `X.parquet`: one row per chunk, the space and the settings in the file's metadata."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from embedway import unfinished
from embedway.collections.search import HIT_COLUMNS, TopRows, cosines
from embedway.collections.stores.arrow import RowGroup, check_columns, rows_of, sink_errors, vectors_of
from embedway.collections.stores.base import READ_ROWS, FileStore, check_fields
from embedway.collections.stores.records import VerifiedFacts, space_from_metadata, space_metadata
from embedway.collections.stores.temporary import refuse_existing, remove_stale, replace_file, temporary_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Chunk, Rows
    from embedway.types import Space, Vectors


class ParquetStore(FileStore):
    """Store in one Parquet file with row groups that are compressed by zstd."""

    _group: RowGroup
    _facts: VerifiedFacts

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._writer: Any = None

    def begin(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Create the temporary file and write the schema with its metadata."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self.space = space
        self._group = RowGroup(space, keep, space_metadata(space, settings))
        with sink_errors(self.destination, "creating the file"):
            remove_stale(self._path)
            self._temporary = temporary_path(self._path)
            strings = ["document_id", "source", "title", *keep]
            self._writer = pq.ParquetWriter(
                self._temporary, self._group.schema, compression="zstd", use_dictionary=strings
            )

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Buffer rows, and write each full row group."""
        self._group.add(chunks, vectors)
        if self._group.full:
            self._flush()

    def commit(self) -> None:
        """Write the remaining rows, close the file and rename it."""
        self._flush()
        refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
        with sink_errors(self.destination, "finishing the file"):
            writer, self._writer = self._writer, None
            writer.close()
            if self._temporary is not None:
                replace_file(self._temporary, self._path)
            self._temporary = None

    def abort(self) -> None:
        """Close and remove the temporary file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._group.clear()
            # Closing writes the footer, which fails on a full disk; the file is removed anyway.
            with contextlib.suppress(Exception):
                writer.close()
        if self._temporary is not None:
            unfinished.remove(self._temporary)
            self._temporary = None

    @override
    def open(self) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self._check_exists()
        with sink_errors(self.destination, "reading"):
            schema = pq.read_schema(self._path)
            self.count = pq.read_metadata(self._path).num_rows
        space = space_from_metadata(schema.metadata, destination=self.destination)
        self._facts = VerifiedFacts.of_store(self._path, schema.metadata, self.count)
        self.space = self._facts.complete(space)
        with sink_errors(self.destination, "reading"):
            check_columns(schema, self.space.dimensions, destination=self.destination)

    @override
    def read(self) -> Iterator[Rows]:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        with sink_errors(self.destination, "reading"), pq.ParquetFile(self._path) as file:
            first_row = 0
            # One row group at a time: over a complete file, `iter_batches` reads ahead without limit.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(READ_ROWS, row_groups=[group]):
                    if batch.num_rows:
                        yield rows_of(batch, self.space.dimensions, first_row=first_row, destination=self.destination)
                    first_row += batch.num_rows

    def _search(self, query: Vectors, top_n: int) -> list[Hit]:
        """Read all vectors once, one row group at a time, then only the texts of the best rows."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        best = TopRows(top_n)
        with sink_errors(self.destination, "reading"), pq.ParquetFile(self._path) as file:
            first_row = 0
            # One row group at a time, as in `read`.
            for group in range(file.num_row_groups):
                for lists in file.read_row_group(group, columns=["vector"]).column(0).chunks:
                    vectors = vectors_of(
                        lists, self.space.dimensions, first_row=first_row, destination=self.destination
                    )
                    best.add(cosines(vectors, query), first_row)
                    first_row += len(lists)
            rows = _take_rows(file, sorted(best.rows.tolist()))
            for row, fields in rows.items():
                check_fields(fields, row, destination=self.destination)
            return best.hits(rows)

    def _write_facts(self, space: Space) -> None:
        self._facts.write(space)

    def _flush(self) -> None:
        if not self._group.rows:
            return
        with sink_errors(self.destination, "writing"):
            table = self._group.table()
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._group.clear()


def _take_rows(file: Any, wanted: list[int]) -> dict[int, dict[str, Any]]:
    """Return the columns of some rows, by row number."""
    found: dict[int, dict[str, Any]] = {}
    first_row = 0
    for group in range(file.num_row_groups):
        after = first_row + file.metadata.row_group(group).num_rows
        inside = [row for row in wanted if first_row <= row < after]
        if inside:
            table = file.read_row_group(group, columns=list(HIT_COLUMNS))
            taken = table.take([row - first_row for row in inside]).to_pylist()
            found.update(zip(inside, taken, strict=True))
        first_row = after
    return found
