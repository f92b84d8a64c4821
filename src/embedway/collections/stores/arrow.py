"""Rows as Arrow batches, for stores that use Arrow.

A file may be from another program, or damaged. Its columns are checked before they are used, and its vectors row by
row, so that a vector never belongs to another row.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.search import HIT_COLUMNS
from embedway.collections.stores.base import LIBRARY_ERRORS, Rows, check_fields
from embedway.errors import EmbedwayError, SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.stores.base import Chunk
    from embedway.space import Space
    from embedway.types import Vectors

#: Rows or bytes at which a row group is written: small enough for memory, large enough to read in few steps.
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 16 << 20


@contextmanager
def sink_errors(destination: str, action: str) -> Iterator[None]:
    """Convert errors of the disk and of libraries to `SinkError`; `action` names the failed action.

    Messages of libraries may quote rows, so they are only chained.
    """
    try:
        yield
    except EmbedwayError:
        raise
    except LIBRARY_ERRORS as error:
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise SinkError(f"{action} failed: {reason}", destination=destination) from error


class RowGroup:
    """Buffer for the rows of one row group. Vectors are float32 lists of fixed size."""

    def __init__(self, space: Space, keep: Sequence[str], metadata: Mapping[str, str]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy

        self._keep = tuple(keep)
        self.schema: Any = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("document_id", pa.string(), nullable=False),
                pa.field("source", pa.string(), nullable=False),
                pa.field("start_line", pa.int64(), nullable=False),
                pa.field("title", pa.string()),
                pa.field("text", pa.string(), nullable=False),
                *(pa.field(name, pa.string()) for name in keep),
                pa.field("vector", pa.list_(pa.float32(), space.dimensions), nullable=False),
            ],
            metadata=dict(metadata),
        )
        self.rows = 0
        self._bytes = 0
        self._batches: list[Any] = []

    @property
    def full(self) -> bool:
        """Whether the row group is large enough to be written."""
        return self.rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        columns = [
            pa.array([chunk.id for chunk in chunks], pa.string()),
            pa.array([chunk.document_id for chunk in chunks], pa.string()),
            pa.array([chunk.source for chunk in chunks], pa.string()),
            pa.array([chunk.start_line for chunk in chunks], pa.int64()),
            pa.array([chunk.title for chunk in chunks], pa.string()),
            pa.array([chunk.text for chunk in chunks], pa.string()),
            *(pa.array([chunk.metadata.get(name) for chunk in chunks], pa.string()) for name in self._keep),
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        self._batches.append(batch)
        self.rows += batch.num_rows
        self._bytes += batch.nbytes

    def table(self) -> Any:
        """Return all rows as an Arrow table."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        return pa.Table.from_batches(self._batches, self.schema)

    def clear(self) -> None:
        """Drop all rows."""
        self._batches.clear()
        self.rows = self._bytes = 0


def check_columns(schema: Any, dimensions: int, *, destination: str) -> None:
    """Raise `SinkError` if a column of a collection is missing, occurs twice, or has another type."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    names = schema.names
    for name in (*HIT_COLUMNS, "vector"):
        if names.count(name) != 1:
            reason = f"has {names.count(name)} columns named {name!r}; a collection has one"
            raise SinkError(reason, destination=destination)
        kind = schema.field(name).type
        if name == "vector":
            wanted = f"lists of {dimensions} floating-point numbers"
            is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
            valid = is_list and pt.is_floating(kind.value_type)
            valid = valid and not (pt.is_fixed_size_list(kind) and kind.list_size != dimensions)
        elif name == "start_line":
            wanted, valid = "integers", pt.is_integer(kind)
        else:
            kind = kind.value_type if pt.is_dictionary(kind) else kind
            wanted, valid = "strings", pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
        if not valid:
            reason = f"the column {name!r} must contain {wanted}, not {str(kind)[:80]}; embed the texts again"
            raise SinkError(reason, destination=destination)


def vectors_of(column: Any, dimensions: int, *, first_row: int, destination: str) -> Vectors:
    """Return the vectors (n, d) of an Arrow array of lists. Raises `SinkError` with the row of an invalid one."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    def refuse(bad: Any, reason: str) -> None:
        if bad.any():
            row = first_row + int(np.flatnonzero(bad)[0]) + 1
            raise SinkError(f"the vector of row {row:,} {reason}; embed the texts again", destination=destination)

    if column.null_count:
        refuse(np.asarray(column.is_null()), "is missing")
    lengths = np.asarray(pc.list_value_length(column))
    refuse(lengths != dimensions, f"does not have {dimensions} numbers")
    # Nulls become NaN, and numbers outside of float32 become infinite.
    numbers = pc.cast(column.flatten(), pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    vectors: Vectors = np.asarray(numbers, np.float32).reshape(len(column), dimensions)
    refuse(~np.isfinite(vectors).all(axis=1), "has a number that is missing, infinite or not a number")
    return vectors


def rows_of(batch: Any, dimensions: int, *, first_row: int, destination: str) -> Rows:
    """Return the rows of an Arrow record batch that is not empty. Raises `SinkError` for an invalid one."""
    vectors = vectors_of(batch.column("vector"), dimensions, first_row=first_row, destination=destination)
    fields = batch.select([name for name in batch.schema.names if name != "vector"]).to_pylist()
    for row, one in enumerate(fields, first_row):
        check_fields(one, row, destination=destination)
    return Rows(fields, vectors)
