"""Parquet files: one row per chunk, the space and the settings in the file's metadata."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.base import arrow_batch, arrow_schema, collection_metadata, sink_errors
from embedway.collections.stores.temporary import (
    check_file_destination,
    refuse_existing,
    remove,
    remove_stale,
    replace_file,
    temporary_path,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.collections.stores.base import Chunk
    from embedway.types import Space, Vectors

#: A row group is written once either is reached: small enough to hold, large enough to read in few steps.
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 16 << 20


class ParquetSink:
    """Writes `X.parquet`, in zstd row groups, to a temporary file that is renamed on commit."""

    def __init__(self, destination: str, *, overwrite: bool = False) -> None:
        self.destination = destination
        self.overwrite = overwrite
        self._path = Path(destination)
        self._temporary: Path | None = None
        self._writer: Any = None
        self._schema: Any = None
        self._keep: tuple[str, ...] = ()
        self._held: list[Any] = []
        self._held_rows = 0
        self._held_bytes = 0
        check_file_destination(self._path, overwrite=overwrite)

    def open(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Make the temporary file and write the schema with its metadata."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self._keep = tuple(keep)
        self._schema = arrow_schema(space, keep, collection_metadata(space, settings))
        with sink_errors(self.destination, "making the file"):
            remove_stale(self._path)
            self._temporary = temporary_path(self._path)
            strings = ["document_id", "source", "title", *keep]
            self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd", use_dictionary=strings)

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Hold rows until they fill a row group, then write it."""
        batch = arrow_batch(chunks, vectors, self._schema, self._keep)
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def commit(self) -> None:
        """Write the rest, close the file and rename it."""
        self._flush()
        refuse_existing(self._path, overwrite=self.overwrite, destination=self.destination)
        with sink_errors(self.destination, "finishing the file"):
            writer, self._writer = self._writer, None
            writer.close()
            if self._temporary is not None:
                replace_file(self._temporary, self._path)
            self._temporary = None

    def abort(self) -> None:
        """Close and remove the temporary file."""
        writer, self._writer = self._writer, None
        self._held.clear()
        if writer is not None:
            # Closing writes the footer, which a full disk refuses; the file goes either way.
            with contextlib.suppress(Exception):
                writer.close()
        if self._temporary is not None:
            remove(self._temporary)
            self._temporary = None

    def _flush(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy

        if not self._held:
            return
        with sink_errors(self.destination, "writing"):
            table = pa.Table.from_batches(self._held, self._schema)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._held.clear()
        self._held_rows = self._held_bytes = 0
