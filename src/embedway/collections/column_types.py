"""Types of kept columns, declared or inferred, and values of sources and stores as values of these types."""

from __future__ import annotations

import difflib
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast, get_args

from embedway.collections.values import ColumnType, Value
from embedway.errors import UsageError
from embedway.remedies import option
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
#: Integers of a column of type `int` have 64 bits.
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1
#: Names of types in other languages and libraries, without those that also are usual names, such as `dc:date`.
_OTHER_NAMES: dict[str, ColumnType] = {
    **dict.fromkeys(("integer", "int32", "int64", "bigint"), "int"),
    **dict.fromkeys(("double", "float32", "float64"), "float"),
    **dict.fromkeys(("string", "str", "varchar"), "text"),
    "boolean": "bool",
    "datetime": "timestamp",
    "array": "list",
    **dict.fromkeys(("dict", "jsonb"), "json"),
}
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def split_keep(given: Sequence[str]) -> tuple[tuple[str, ...], dict[str, ColumnType]]:
    """Return the names of columns to keep, and the declared types, from values such as `lang` and `year:int`.

    A name may have a colon. Raises UsageError for a type that does not exist.
    """
    names: list[str] = []
    types: dict[str, ColumnType] = {}
    for one in given:
        name, colon, suffix = one.rpartition(":")
        if colon and name and suffix in _TYPES:
            types[name] = suffix
        else:
            if colon and name and (meant := _meant_type(suffix)):
                raise UsageError(
                    f"{option('keep')} {one}: there is no type {suffix!r}; did you mean {name}:{meant}? The types are "
                    f"{', '.join(_TYPES)}. A column with the name {one!r} needs its type too: {one}:text"
                )
            name = one
        names.append(name)
    return tuple(names), types


def _meant_type(name: str) -> ColumnType | None:
    """Return the type that a wrong name of a type means, or None if it means none."""
    lowered = name.strip().lower()
    if lowered in _OTHER_NAMES:
        return _OTHER_NAMES[lowered]
    found = difflib.get_close_matches(lowered, _TYPES, n=1, cutoff=0.8)
    return cast("ColumnType", found[0]) if found else None


def plain_value(value: object) -> Value:
    """Return a value of a source as a value of a kept column. Raises ValueError with the reason if it cannot be kept.

    Timestamps without a zone, and dates, are in UTC. NaN, which pandas writes for a missing value, is null.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise ValueError("has more than 64 bits")
        return value
    if isinstance(value, (float, Decimal)):
        return _plain_number(float(value))
    if isinstance(value, date):
        return _plain_time(value)
    if isinstance(value, (bytes, bytearray)):
        raise ValueError("is bytes")  # noqa: TRY004  one error for all values
    return _plain_json(value) if isinstance(value, (list, tuple, dict)) else str(value)


def _plain_number(value: float) -> Value:
    if math.isinf(value):
        raise ValueError("is infinite")
    return None if math.isnan(value) else value


def _plain_time(value: date) -> Value:
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def convert_value(value: Value, column_type: ColumnType) -> Value:
    """Return a value as the declared type of its column. Raises ValueError with the reason if it is not one."""
    if value is None or (value == "" and column_type != "text"):
        return None
    if isinstance(value, str):
        return _parse(value, column_type)
    if column_type == "text":
        if isinstance(value, datetime):
            return value.isoformat()
        return json.dumps(value, ensure_ascii=False)
    return coerce(value, column_type)


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

    An integer fits `float`, NaN is null, and a timestamp without time zone is in UTC. Raises ValueError with a reason
    that does not contain the value.
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
        value = _plain_time(value)
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


def _parse(value: str, column_type: ColumnType) -> Value:
    """Return the value of a text, as in CSV."""
    text = value.strip()
    try:
        match column_type:
            case "text":
                return value
            case "int":
                return plain_value(int(text))
            case "float":
                return plain_value(float(text))
            case "bool":
                return _BOOLS[text.lower()]
            case "timestamp":
                return plain_value(datetime.fromisoformat(text))
            case _:
                return coerce(_plain_json(json.loads(text)), column_type)
    except (ValueError, KeyError, OverflowError, RecursionError):
        raise ValueError(f"is not {column_type}") from None


def _plain_json(value: object) -> Value:
    try:
        return cast("Value", json.loads(json.dumps(value, default=str, allow_nan=False)))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError("cannot be written as JSON") from None
