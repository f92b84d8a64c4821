"""Rows of Chroma: metadata and conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.json_values import JsonValues
from embedway.collections.stores.scanning import NotExpressibleError
from embedway.collections.stores.server_columns import fields_of, stored_columns
from embedway.collections.where import And, Compare, In, Or
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.values import ColumnType
    from embedway.collections.where import Condition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPERATORS = {"=": "$eq", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
#: Metadata key that Chroma reserves.
_RESERVED = "chroma:document"


def check_record(record: Record, *, destination: str) -> None:
    """Raise `SinkError` for kept columns that Chroma cannot store."""
    for name in record.keep:
        if name == _RESERVED or not name or name.startswith("$"):
            reason = f"Chroma cannot have a column {name!r}"
            raise SinkError(f"{reason}: rename the field, or do not keep it", destination=destination)


def metadata_of(chunk: Chunk, record: Record, *, destination: str) -> dict[str, Any]:
    """Return the columns of a row except id and text; a null is missing. Raises `SinkError`.

    Timestamps are microseconds since 1970; lists and JSON are JSON texts.
    """
    fields = fields_of(chunk, record.keep)
    for name, kind in record.keep.items():
        fields[name] = _VALUES.to_json(fields[name], kind, f"row {chunk.id!r}: field {name!r}", destination=destination)
    return {name: value for name, value in fields.items() if value is not None and name not in {"id", "text"}}


def fields_from(
    row_id: str, metadata: Mapping[str, Any] | None, text: str | None, names: Sequence[str], record: Record
) -> dict[str, Any]:
    """Return the columns of a row. Values that another program wrote with another type are null."""
    kinds = stored_columns(record)
    found = {**(metadata or {}), "id": row_id, "text": text or ""}
    return {name: _VALUES.from_json(found.get(name), kinds[name]) for name in names}


def to_filter(where: Condition, columns: Mapping[str, ColumnType]) -> dict[str, Any]:
    """Return a filter for a checked condition, with `Not` only before single comparisons.

    Chroma's negations meet rows whose column is null, and it has no test of null, so only some conditions have a
    filter. Raises NotExpressibleError for others.
    """
    match where:
        case And(parts) | Or(parts):
            filters = [to_filter(part, columns) for part in parts]
            word = "$and" if isinstance(where, And) else "$or"
            return filters[0] if len(filters) == 1 else {word: filters}
        case In(column, values) if columns[column] in {"text", "int"} and column not in {"id", "text"}:
            return {column: {"$in": list(values)}}
        case Compare(column, operator, value) if column not in {"id", "text"}:
            return _compare(column, operator, value, columns[column])
    raise NotExpressibleError


def _compare(column: str, operator: str, value: Any, kind: ColumnType) -> dict[str, Any]:
    if kind == "timestamp":
        value, kind = _microseconds(value), "int"
    if operator in _OPERATORS and (kind in {"int", "float"} or (operator == "=" and kind in {"text", "bool"})):
        return {column: {_OPERATORS[operator]: value}}
    if operator == "!=" and kind in {"int", "float"}:
        return {"$or": [{column: {"$lt": value}}, {column: {"$gt": value}}]}
    if operator == "!=" and kind == "bool":
        return {column: {"$eq": not value}}
    raise NotExpressibleError


def _microseconds(value: datetime) -> int:
    return (value.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


_VALUES = JsonValues(
    types_as_text={"list", "json"},
    write_timestamp=_microseconds,
    read_timestamp=lambda value: _EPOCH + timedelta(microseconds=value),
)
