"""Rows as Arrow batches, for stores that use Arrow.

A file may be from another program, or damaged. Its columns are checked before they are used, and its vectors row by
row, so that a vector never belongs to another row.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.columns import COLUMNS, NULLABLE, RESERVED_COLUMNS, columns_since, values_of
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.stores.base import Rows
from embedway.collections.stores.records import MAX_DIMENSIONS, record_metadata
from embedway.collections.stores.tally import TALLY_COLUMNS, DocumentTally, StoredDocument
from embedway.collections.stores.vectors import decode, encode, vector_kind
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.values import ColumnType, Value
    from embedway.types import Vectors

#: Rows or bytes at which a row group is written: small enough for memory, large enough to read in few steps.
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 16 << 20
VECTOR_COLUMNS = ("vector", "vector_scale")


def column_kind(kind: ColumnType) -> Any:
    """Return the Arrow type of a column. `json` is text in JSON."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    kinds = {
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list": pa.list_(pa.string()),
    }
    return kinds.get(kind, pa.string())


def schema_of(record: Record) -> Any:
    """Return the Arrow schema of a collection; its metadata contains the record."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    fields = [pa.field(name, column_kind(kind), nullable=name in NULLABLE) for name, kind in COLUMNS.items()]
    fields += [pa.field(name, column_kind(kind)) for name, kind in record.keep.items()]
    fields.append(pa.field("vector", vector_kind(record.vector_type, record.space.dimensions), nullable=False))
    if record.vector_type == "int8":
        fields.append(pa.field("vector_scale", pa.float32(), nullable=False))
    return pa.schema(fields, metadata=record_metadata(record))


def batch_of(chunks: Sequence[Chunk], vectors: Vectors, record: Record, schema: Any) -> Any:
    """Return chunks and vectors, float32 (n, d), as a record batch with the schema of the record."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    by_column = zip(*map(values_of, chunks), strict=True) if chunks else [()] * len(COLUMNS)
    columns = [pa.array(values, column_kind(kind)) for values, kind in zip(by_column, COLUMNS.values(), strict=True)]
    for name, kind in record.keep.items():
        values: list[Any] = [chunk.metadata.get(name) for chunk in chunks]
        if kind == "json":
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        columns.append(pa.array(values, column_kind(kind)))
    lists, scales = encode(vectors, record.vector_type)
    columns += [lists] if scales is None else [lists, scales]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class RowBuffer:
    """Buffer for rows that are written together, up to `max_rows` or `max_bytes`; by default, those of a row group."""

    def __init__(self, record: Record, max_rows: int | None = None, max_bytes: int | None = None) -> None:
        self._record = record
        self._max_rows, self._max_bytes = max_rows or ROW_GROUP_ROWS, max_bytes or ROW_GROUP_BYTES
        self.schema: Any = schema_of(record)
        self.rows = 0
        self._bytes = 0
        self._batches: list[Any] = []

    @property
    def full(self) -> bool:
        """Whether a limit is reached, so that the rows are to be written."""
        return self.rows >= self._max_rows or self._bytes >= self._max_bytes

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows. Errors are those of Arrow."""
        self.add_batch(batch_of(chunks, vectors, self._record, self.schema))

    def add_batch(self, batch: Any) -> None:
        """Add rows that have the schema already."""
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


def conform(table: Any, schema: Any) -> Any:
    """Return a table of the same collection with this schema: columns that it lacks are null, others are cast."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    present = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type) if field.name in present else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def kept_of(schema: Any) -> dict[str, ColumnType]:
    """Return the columns beside the built-in ones, which collections before version 3 do not record. All are texts."""
    return {name: "text" for name in schema.names if name not in RESERVED_COLUMNS}


def check_columns(schema: Any, record: Record, *, destination: str) -> None:
    """Raise `SinkError` if a column of a collection is missing, occurs twice, or has another type."""
    names = schema.names
    wanted = {name: column.type for name, column in columns_since(record.format_version).items()}
    if record.format_version >= FORMAT_VERSION:
        wanted |= record.keep
    for name in (*wanted, "vector", *(("vector_scale",) if record.vector_type == "int8" else ())):
        if names.count(name) != 1:
            reason = f"has {names.count(name)} columns named {name!r}; a collection has one"
            raise SinkError(reason, destination=destination)
        kind = schema.field(name).type
        expected = _vectors_fault(kind, record) if name == "vector" else _fault(kind, wanted.get(name, "float"))
        if expected:
            reason = f"the column {name!r} must contain {expected}, not {str(kind)[:80]}; embed the texts again"
            raise SinkError(reason, destination=destination)


def _vectors_fault(kind: Any, record: Record) -> str | None:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    dimensions = min(record.space.dimensions, MAX_DIMENSIONS)
    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if record.vector_type in {"int8", "bits"}:
        own = vector_kind(record.vector_type, dimensions)
        valid = is_list and kind.value_type == own.value_type
        return None if valid else f"lists of {own.list_size} numbers of type {own.value_type}"
    valid = is_list and pt.is_floating(kind.value_type)
    valid = valid and not (pt.is_fixed_size_list(kind) and kind.list_size != dimensions)
    return None if valid else f"lists of {dimensions} floating-point numbers"


def _fault(kind: Any, wanted: ColumnType) -> str | None:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    kind = kind.value_type if pt.is_dictionary(kind) else kind
    checks = {
        "int": (pt.is_integer, "integers"),
        "float": (pt.is_floating, "floating-point numbers"),
        "bool": (pt.is_boolean, "truth values"),
        "timestamp": (pt.is_timestamp, "timestamps"),
        "list": (
            lambda one: (pt.is_list(one) or pt.is_large_list(one)) and _is_text(one.value_type),
            "lists of strings",
        ),
    }
    fits, expected = checks.get(wanted, (_is_text, "strings"))
    return None if fits(kind) else expected


def _is_text(kind: Any) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def vectors_in(table: Any, record: Record, *, first_row: int, destination: str, strict: bool = True) -> Vectors:
    """Return the vectors, float32 (n, d), of a table or batch.

    Raises `SinkError` with the row of an invalid one, or without `strict`, makes it NaN.
    """
    column = _whole(table.column("vector"))
    scales = _whole(table.column("vector_scale")) if record.vector_type == "int8" else None
    return decode(
        column,
        scales,
        record.vector_type,
        record.space.dimensions,
        first_row=first_row,
        destination=destination,
        strict=strict,
    )


def fields_in(
    table: Any, record: Record, *, first_row: int, destination: str, strict: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of a table or batch without vectors. Raises `SinkError` for a null that must not be there."""
    names = [name for name in table.schema.names if name not in VECTOR_COLUMNS]
    if not names:
        return [{} for _ in range(table.num_rows)]
    place: dict[str, Any] = {"first_row": first_row, "destination": destination, "strict": strict}
    columns = [values_in(table, name, record, **place) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def values_in(
    table: Any, name: str, record: Record, *, first_row: int, destination: str, strict: bool = True
) -> list[Any]:
    """Return the values of a column.

    Raises `SinkError` for a null that must not be there. Without `strict`, a missing text is empty.
    """
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    column = _whole(table.column(name))
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count and name == "text" and not strict:
        column = column.fill_null("")
    if column.null_count and name in COLUMNS and name not in NULLABLE:
        row = first_row + column.is_null().index(True).as_py() + 1
        raise SinkError(f"row {row:,}: {name!r} is missing; embed the texts again", destination=destination)
    values: list[Any] = column.to_pylist()
    return [decode_json(value) for value in values] if record.keep.get(name) == "json" else values


def decode_json(text: str | None) -> Value:
    """Return the value of a column of type `json`. Raises ValueError."""
    try:
        value: Value = None if text is None else json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    return value


def rows_of(
    table: Any, record: Record, *, vectors: bool = True, first_row: int, destination: str, strict: bool = True
) -> Rows:
    """Return the rows of an Arrow table or batch. Raises `SinkError` for an invalid one; see `Store.read`."""
    place: dict[str, Any] = {"first_row": first_row, "destination": destination, "strict": strict}
    fields = fields_in(table, record, **place)
    if vectors:
        return Rows(fields, vectors_in(table, record, **place))
    return Rows(fields, np.empty((table.num_rows, 0), np.float32))


def complete(
    fields: Sequence[Mapping[str, Any]], columns: Sequence[str] | None, record: Record
) -> list[dict[str, Any]]:
    """Return rows with the columns that were asked for, by default all; a column that the store lacks is None."""
    names = (*COLUMNS, *record.keep) if columns is None else columns
    return [{name: row.get(name) for name in names} for row in fields]


def _whole(column: Any) -> Any:
    """Return a column of a table, or of a batch, as one array."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def documents_in(
    batches: Iterable[tuple[Any, int]], names: Sequence[str], record: Record, *, destination: str
) -> Iterator[StoredDocument]:
    """Iterate over the documents of batches, which come with the numbers of their first rows.

    `names` are those of `TALLY_COLUMNS` that exist.
    """
    tally = DocumentTally()
    for batch, first_row in batches:
        columns = {name: values_in(batch, name, record, first_row=first_row, destination=destination) for name in names}
        nothing = [None] * batch.num_rows
        for row in zip(*(columns.get(name, nothing) for name in TALLY_COLUMNS), strict=True):
            tally.add(*row)
    yield from tally.documents()
