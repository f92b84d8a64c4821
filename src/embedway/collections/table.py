"""Streaming reader for Parquet files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from embedway.collections.documents import MAX_RATIO, MAX_ROW_BYTES, UNCHECKED_BYTES
from embedway.collections.rows import wanted_columns
from embedway.collections.stores.library_errors import LIBRARY_ERRORS
from embedway.errors import EmbedwayError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedway.collections.documents import OnBadRow, RawDocument
    from embedway.collections.rows import RowReader

_BATCH_ROWS = 512
_TEXT_TYPES = frozenset({"string", "large_string", "binary"})


def read_parquet(
    file: str | IO[bytes],
    rows: RowReader,
    *,
    size_bytes: int,
    on_bad_row: OnBadRow,
    advance: Callable[[int], None],
) -> Iterator[RawDocument]:
    """Read one document per row; a document's line is the number of its row, from 1."""
    import pyarrow.parquet as pq  # noqa: PLC0415  heavy, and most jobs read no Parquet

    with _library_errors(rows.path):
        # Repeated values stay in a dictionary: a small file may repeat a large value in all its rows.
        with pq.ParquetFile(file) as opened:
            columns = _columns(opened, rows)
            texts = [name for name in columns if str(opened.schema_arrow.field(name).type) in _TEXT_TYPES]
        with pq.ParquetFile(file, read_dictionary=texts) as opened:
            _refuse_bomb(opened, size_bytes, rows.path)
            bytes_per_row = size_bytes / max(opened.metadata.num_rows, 1)
            number = 0
            # One row group at a time: over a complete file, `iter_batches` reads ahead without limit.
            for group in range(opened.num_row_groups):
                for batch in opened.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
                    for index in range(batch.num_rows):
                        number += 1
                        try:
                            document = rows.document(_row(batch, index, rows.path, number), number)
                        except SourceError as error:
                            on_bad_row(error)
                            continue
                        yield document
                    advance(int(bytes_per_row * batch.num_rows))


@contextmanager
def _library_errors(source: str) -> Iterator[None]:
    """Convert pyarrow's errors to `SourceError`; their messages may quote the file, so they are only chained."""
    try:
        yield
    except EmbedwayError:
        raise
    except LIBRARY_ERRORS as error:
        raise SourceError(
            f"cannot be read as Parquet ({type(error).__name__}); it is damaged, or of another format", path=source
        ) from error


def _columns(file: Any, rows: RowReader) -> list[str]:
    """Return the columns to read. Raises `SourceError` for a missing or ambiguous one."""
    names = file.schema_arrow.names
    rows.check_columns(names, line=None, what="file")
    return [name for name in wanted_columns(rows.options) if name in names]


def _refuse_bomb(file: Any, size_bytes: int, source: str) -> None:
    """Raise `SourceError` if the file declares that it unpacks to far more than text does.

    The metadata of single columns is not read: pyarrow ends the process if it is damaged.
    """
    for group in range(file.num_row_groups):
        if file.metadata.row_group(group).total_byte_size > max(UNCHECKED_BYTES, MAX_RATIO * size_bytes):
            raise SourceError(
                f"row group {group} unpacks to more than {MAX_RATIO} times the file's size; write it without "
                "compression",
                path=source,
            )


def _row(batch: Any, index: int, source: str, number: int) -> dict[str, object]:
    """Return a row. Raises `SourceError` for a value that is too large."""
    row: dict[str, object] = {}
    for name in batch.schema.names:
        try:
            value = batch.column(name)[index].as_py()
        except UnicodeDecodeError:
            value = "\udc80"
        except (ValueError, ArithmeticError) as error:
            # Times and numbers that Python cannot represent.
            reason = f"cannot be read: {type(error).__name__}"
            raise SourceError(reason, path=source, line=number, field=name) from None
        if isinstance(value, str) and len(value) > MAX_ROW_BYTES:
            reason = f"has {len(value):,} characters; the limit is {MAX_ROW_BYTES:,}: split it"
            raise SourceError(reason, path=source, line=number, field=name)
        row[name] = value
    return row
