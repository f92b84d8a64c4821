"""Rows as Arrow batches, for stores that use Arrow."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.stores.base import Rows
from embedway.errors import SinkError

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
    """Convert errors of the disk and of Arrow to `SinkError`; `action` names the failed action."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SinkError(f"{action} failed: {reason}", destination=destination) from error
    except pa.ArrowException as error:
        raise SinkError(f"{action} failed: {type(error).__name__}", destination=destination) from error


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


def rows_of(batch: Any) -> Rows:
    """Return the rows of an Arrow record batch that is not empty."""
    vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
    fields = batch.select([name for name in batch.schema.names if name != "vector"]).to_pylist()
    return Rows(fields, np.asarray(vectors, np.float32).reshape(batch.num_rows, -1))
