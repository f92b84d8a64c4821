"""Kept columns of Parquet files that another program wrote, as columns of a collection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.arrow import column_kind
from embedway.errors import SinkError

if TYPE_CHECKING:
    from embedway.collections.values import ColumnType


def column_type_of(kind: Any, name: str, *, destination: str) -> ColumnType:
    """Return the type of a kept column by its Arrow type. JSON cannot be told from text, so it becomes text.

    Raises `SinkError` for a type that has none.
    """
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    kind = kind.value_type if pt.is_dictionary(kind) else kind
    if pt.is_decimal(kind):
        return "float" if kind.scale > 0 else "int"
    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if is_list and (pt.is_string(kind.value_type) or pt.is_large_string(kind.value_type)):
        return "list"
    tests: list[tuple[bool, ColumnType]] = [
        (pt.is_boolean(kind), "bool"),
        (pt.is_integer(kind), "int"),
        (pt.is_floating(kind), "float"),
        (pt.is_timestamp(kind) or pt.is_date(kind), "timestamp"),
        (is_list or pt.is_struct(kind), "json"),
        (pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_null(kind), "text"),
    ]
    for fits, column_type in tests:
        if fits:
            return column_type
    reason = f"the column {name!r} has the type {kind}, which a collection cannot keep; remove or convert it"
    raise SinkError(reason, destination=destination)


def convert(column: Any, column_type: ColumnType, name: str, *, destination: str) -> Any:
    """Return a column with the Arrow type of a collection. Times without zone are in UTC, and NaN is null.

    Raises `SinkError` if a value would change.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    try:
        return _converted(column, column_type)
    except (pa.ArrowException, ValueError, TypeError):
        reason = f"the column {name!r} of type {column.type} has a value that is not exact as {column_type}"
    raise SinkError(f"{reason}; convert or remove the column", destination=destination)


def _converted(column: Any, column_type: ColumnType) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    target = column_kind(column_type)
    if column_type == "json":
        texts = [_json_text(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, target)])
    if column_type == "timestamp" and getattr(column.type, "tz", None) is None:
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    found = column.cast(target)
    if pt.is_decimal(column.type) and column_type == "float" and not found.cast(column.type).equals(column):
        raise ValueError("is not exact")
    if column_type == "float":
        found = pc.if_else(pc.is_nan(found), pa.scalar(None, target), found)
    return found


def _json_text(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)
