"""Types of kept columns: inference from rows, and conversion of values."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway.collections.values import ColumnType, Value

#: Integers of a column of type `int` have 64 bits.
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1


def infer_types(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, ColumnType]:
    """Return the type of each named column of some rows.

    Integers and other numbers together are `float`; any other mixture is `json`. A column without values is `text`.
    """
    found: dict[str, set[ColumnType]] = {name: set() for name in names}
    for row in rows:
        for name, types in found.items():
            if (value := row.get(name)) is not None:
                types.add(_type_of(value))
    return {name: _common(types) for name, types in found.items()}


def coerce(value: Any, kind: ColumnType) -> Value:
    """Return a value as one of a column's type.

    NaN is null, and a timestamp without time zone is in UTC. Raises ValueError with a reason that does not contain the
    value.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind == "json":
        return _json_value(value)
    fits = _type_of(value)
    if kind == "float" and fits == "int":
        return float(value)
    if kind == "timestamp" and fits == "text":
        value = _timestamp(value)
        fits = "timestamp"
    if fits != kind:
        raise ValueError(f"must be {kind}, is {fits}")
    if kind == "timestamp":
        value = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if any(has_surrogate(text) for text in ([value] if kind == "text" else value if kind == "list" else ())):
        raise ValueError("is not valid Unicode")
    result: Value = value
    return result


def _type_of(value: Any) -> ColumnType:  # noqa: PLR0911  one line for each type
    match value:
        case bool():
            return "bool"
        case int():
            return "int" if _MIN_INT <= value <= _MAX_INT else "json"
        case float():
            return "float" if math.isfinite(value) else "json"
        case str():
            return "text"
        case datetime():
            return "timestamp"
        case list() if all(isinstance(item, str) for item in value):
            return "list"
    return "json"


def _common(types: set[ColumnType]) -> ColumnType:
    if types == {"int", "float"}:
        return "float"
    return next(iter(types), "text") if len(types) < 2 else "json"


def _timestamp(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be timestamp, is text that is not in ISO format") from None


def _json_value(value: Any) -> Value:
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if has_surrogate(text):
        raise ValueError("is not valid Unicode")
    result: Value = value
    return result
