"""Parquet files, `X.parquet`: one row per chunk, the record in the file's metadata.

New rows are written to a temporary file. At commit, a change writes another one: the old rows that stay, which are
copied as Arrow tables, one row group at a time, then the new rows. It replaces the collection by a rename.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from embedway import unfinished
from embedway.collections.stores.arrow import RowBuffer, conform
from embedway.collections.stores.file_store import FileStore
from embedway.collections.stores.library_errors import sink_errors
from embedway.collections.stores.parquet_reader import ParquetReader
from embedway.collections.stores.temporary import refuse_existing, replace_file, temporary_path
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import ClassVar

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.values import VectorType
    from embedway.types import Vectors


class ParquetStore(FileStore):
    """Store in one Parquet file with row groups that are compressed by zstd."""

    vector_types: ClassVar[frozenset[VectorType]] = frozenset({"float32", "float16", "int8", "bits"})

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._reader: ParquetReader | None = None
        self._writer: _GroupWriter | None = None

    @override
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.check_rows(chunks, vectors)
        with sink_errors(self.destination, "writing"):
            self._writing.add(chunks, vectors)
        self._changes.write(chunks)

    @override
    def commit(self) -> None:
        writer = self._writing
        with sink_errors(self.destination, "finishing the file"):
            writer.close()
            merges = self._updates or self._changes.replaces_own
            finished = self._merge(writer) if merges else writer
            try:
                refuse_existing(self._path, overwrite=self._overwrite, destination=self.destination)
                self._close_reader()
                replace_file(finished.path, self._path)
            except BaseException:
                finished.drop()
                raise
            unfinished.remove(writer.path)
        self._writer, self._temporary = None, None
        self.record, self.count = finished.record, finished.rows
        self._committed = None

    @override
    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.drop()
        if self._temporary is not None:
            unfinished.remove(self._temporary)
            self._temporary = None
        if self._committed is not None:
            self.record, self._committed = self._committed, None

    @override
    def open(self) -> None:
        self._close_reader()
        self._check_exists()
        with sink_errors(self.destination, "reading"):
            self._reader = ParquetReader(self._path, self.destination)
        self.record, self.count = self._reader.record, self._reader.count

    @property
    @override
    def content_stamp(self) -> str:
        return f"{self.count} {self._opened.state}"

    @override
    def close(self) -> None:
        self._close_reader()

    @override
    def write_record(self, record: Record) -> None:
        self._opened.facts.write(record)
        self.record = self._opened.record = record

    @property
    @override
    def _opened(self) -> ParquetReader:
        """The reader of the collection as it was committed the last time."""
        if self._reader is None:
            self._check_exists()
            self._reader = ParquetReader(self._path, self.destination)
        return self._reader

    @property
    def _writing(self) -> _GroupWriter:
        if self._writer is None:
            raise SinkError("no change was started", destination=self.destination)
        return self._writer

    @override
    def _open_writer(self, path: Path) -> None:
        self._writer = _GroupWriter(path, replace(self.record, revision=secrets.token_hex(8)))

    def _merge(self, new: _GroupWriter) -> _GroupWriter:
        """Write the old rows that stay and the new ones to another file; return its closed writer."""
        merged = _GroupWriter(temporary_path(self._path), new.record)
        try:
            if self._updates:
                _copy(self._opened, merged, self._changes.keeps)
            spool = ParquetReader(new.path, self.destination)
            try:
                _copy(spool, merged, self._changes.keeps_own)
            finally:
                spool.close()
            merged.close()
        except BaseException:
            merged.drop()
            raise
        return merged

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(OSError):
                reader.close()


def _copy(source: ParquetReader, target: _GroupWriter, keeps: Callable[..., list[bool]]) -> None:
    """Copy the rows of a collection that stay."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    for first_row, table in source.groups():
        keys = [table.column(name).to_pylist() for name in ("id", "source", "document_id")]
        stays = keeps(*keys, first=first_row)
        if any(stays):
            target.add_table(table if all(stays) else table.filter(pa.array(stays)))


class _GroupWriter:
    """Writer of a file with full row groups."""

    def __init__(self, path: Path, record: Record) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self.path, self.record = path, record
        self.rows = 0
        self._buffer = RowBuffer(record)
        texts = ["document_id", "source", "fingerprint", "title", "headings"]
        texts += [name for name, kind in record.keep.items() if kind not in {"list", "float"}]
        # The bytes of numbers are grouped by their position, so that zstd finds the equal ones: smaller, and faster.
        split = ["vector.list.element"] if record.vector_type == "float32" else False
        self._writer: Any = pq.ParquetWriter(
            path, self._buffer.schema, compression="zstd", use_dictionary=texts, use_byte_stream_split=split
        )

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Buffer rows, and write each full row group."""
        self._buffer.add(chunks, vectors)
        self.rows += len(chunks)
        if self._buffer.full:
            self._flush()

    def add_table(self, table: Any) -> None:
        """Buffer rows of a table, and write each full row group."""
        for batch in conform(table, self._buffer.schema).to_batches():
            self._buffer.add_batch(batch)
            self.rows += batch.num_rows
            if self._buffer.full:
                self._flush()

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        self._flush()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def drop(self) -> None:
        """Close and remove the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._buffer.clear()
            # Closing writes the footer, which fails on a full disk; the file is removed anyway.
            with contextlib.suppress(Exception):
                writer.close()
        unfinished.remove(self.path)

    def _flush(self) -> None:
        if self._buffer.rows:
            table = self._buffer.table()
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
            self._buffer.clear()
