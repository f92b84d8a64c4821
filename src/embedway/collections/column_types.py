"""Values of sources as values of kept columns, and declared types of these columns."""

from __future__ import annotations

import difflib
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, cast, get_args

from embedway.collections.values import ColumnType, Value
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
#: In this order: a bool is an int, too.
_PYTHON_TYPES: tuple[tuple[type, ColumnType], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "text"),
    (datetime, "timestamp"),
)
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
_INT_BITS = 63
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
                    f"--keep {one}: there is no type {suffix!r}; did you mean {name}:{meant}? The types are "
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
        if value.bit_length() > _INT_BITS:
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
    return fit_value(value, column_type)


def fit_value(value: Value, column_type: ColumnType) -> Value:
    """Return a value that has the type of its column; an integer fits `float`. Raises ValueError with the reason."""
    if value is None or column_type == "json" or type_of(value) == column_type:
        return value
    if column_type == "float" and type_of(value) == "int":
        return float(cast("int", value))
    if column_type == "list" and value == []:
        return value
    raise ValueError(f"is {type_of(value)}, and the column is {column_type}")


def type_of(value: Value) -> ColumnType:
    """Return the type of a value that is not None."""
    for python_type, name in _PYTHON_TYPES:
        if isinstance(value, python_type):
            return name
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "list"
    return "json"


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
                return fit_value(_plain_json(json.loads(text)), column_type)
    except (ValueError, KeyError, OverflowError, RecursionError):
        raise ValueError(f"is not {column_type}") from None


def _plain_json(value: object) -> Value:
    try:
        return cast("Value", json.loads(json.dumps(value, default=str, allow_nan=False)))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError("cannot be written as JSON") from None
