"""Checks of conditions against the columns of a collection."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from embedway.arguments import as_list, is_a
from embedway.collections.where import And, Compare, Condition, In, IsNull, Not, Or
from embedway.errors import UsageError
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import ColumnType
    from embedway.collections.where import Operator

#: Maximum nesting of a condition, and maximum number of its comparisons. Parsers of databases have such limits too.
MAX_DEPTH = 16
MAX_PARTS = 1000
#: Known columns that a message names.
_NAMED_COLUMNS = 30
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1
_EQUALITY: frozenset[Operator] = frozenset({"=", "!="})
_ORDER: frozenset[Operator] = frozenset({"=", "!=", "<", "<=", ">", ">="})
_OPERATORS: dict[ColumnType, frozenset[Operator]] = {
    "text": _ORDER,
    "int": _ORDER,
    "float": _ORDER,
    "timestamp": _ORDER,
    "bool": _EQUALITY,
    "list": frozenset({"contains"}),
    "json": frozenset(),
}


def check_where(condition: Condition, columns: Mapping[str, ColumnType]) -> Condition:
    """Return a condition whose values have exactly the types of their columns. May be called again.

    A text for a column of timestamps becomes a timestamp, in UTC if it names no time zone. Raises `UsageError` for an
    unknown column, an operator that the type of its column does not have, a value of another type, and a condition
    that is too deep or too long.
    """
    checked, count = _checked(condition, columns, 0)
    if count > MAX_PARTS:
        raise UsageError(f"the condition has {count:,} comparisons; at most {MAX_PARTS:,} are possible")
    return checked


def check_leaf(condition: Compare | In | IsNull, columns: Mapping[str, ColumnType]) -> Compare | In | IsNull:
    """Return a single comparison with values of its column's type. Raises `UsageError`."""
    name = condition.column
    if not is_a(name, str):
        raise UsageError(f"the column of a condition is of type {type(name).__name__}; it must be a text")
    kind = columns.get(name)
    if kind is None:
        known = ", ".join(sorted(columns)[:_NAMED_COLUMNS])
        raise UsageError(f"there is no column {name!r}; known columns: {known}")
    match condition:
        case IsNull():
            return condition
        case In(_, values):
            _check_operator(name, kind, "=", "in")
            values = as_list(values, f"the list of `{name} in`", "values")
            if not values:
                raise UsageError(f"`{name} in` needs at least one value")
            if len(values) > MAX_PARTS:
                raise UsageError(f"`{name} in` has {len(values):,} values; at most {MAX_PARTS:,} are possible")
            return In(name, tuple(_typed(name, kind, "=", value)[1] for value in values))
    operator = condition.operator
    if not is_a(operator, str):
        raise UsageError(f"the operator of a condition is of type {type(operator).__name__}; it must be a text")
    _check_operator(name, kind, operator, operator)
    return Compare(name, *_typed(name, kind, condition.operator, condition.value))


def _checked(condition: Condition, columns: Mapping[str, ColumnType], depth: int) -> tuple[Condition, int]:
    if depth > MAX_DEPTH:
        raise UsageError(f"the condition is nested deeper than {MAX_DEPTH} levels")
    match condition:
        case And(parts) | Or(parts):
            parts = as_list(parts, "a part of a condition", "conditions")
            if not parts or len(parts) > MAX_PARTS:
                raise UsageError(f"the condition has a list of {len(parts):,} parts; it may have 1 to {MAX_PARTS:,}")
            checked = [_checked(part, columns, depth + 1) for part in parts]
            return type(condition)(tuple(part for part, _ in checked)), sum(count for _, count in checked)
        case Not(part):
            inner, count = _checked(part, columns, depth + 1)
            return Not(inner), count
        case Compare() | In() | IsNull():
            return check_leaf(condition, columns), 1
    raise UsageError(f"a condition contains a {type(condition).__name__}")


def _check_operator(name: str, kind: ColumnType, operator: Operator, written: str) -> None:
    if operator in _OPERATORS[kind]:
        return
    possible = {"list": "contains, is null", "json": "is null", "bool": "=, !=, in, is null"}
    remedy = possible.get(kind, "=, !=, <, <=, >, >=, in, is null")
    raise UsageError(f"the column {name!r} has the type {kind}, which has no `{written}`; possible: {remedy}")


def _typed(name: str, kind: ColumnType, operator: Operator, value: Any) -> tuple[Operator, Any]:
    """Return operator and value for a column of a type."""
    if value is None:
        raise UsageError(f"null is no value; write `{name} is null`")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in {"text", "list"} and isinstance(value, str):
        if has_surrogate(value):
            raise UsageError(f"the value for the column {name!r} is not valid Unicode")
        return operator, value
    if kind == "bool" and isinstance(value, bool):
        return operator, value
    if kind == "float" and is_number:
        number = _float(value)
        if math.isfinite(number):
            return operator, number
    if kind == "int" and is_number:
        return _integer(name, operator, value)
    if kind == "timestamp" and isinstance(value, (str, datetime)):
        return operator, _timestamp(name, value)
    raise UsageError(f"the column {name!r} has the type {kind}; {_example(kind)}")


def _example(kind: ColumnType) -> str:
    examples = {
        "text": "write the value as a text in single quotes",
        "list": "write the value as a text in single quotes",
        "bool": "write true or false",
        "int": "write a number without quotes",
        "float": "write a number without quotes",
        "timestamp": "write a time in single quotes, such as '2026-01-31T12:00:00Z'",
    }
    return examples[kind]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _integer(name: str, operator: Operator, value: float) -> tuple[Operator, int]:
    """Return an equal comparison with an integer, so that no store compares integers as rounded numbers."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"the value for the column {name!r} is not a finite number")
        if not value.is_integer():
            if operator in {"<", "<="}:
                operator, value = "<=", math.floor(value)
            elif operator in {">", ">="}:
                operator, value = ">=", math.ceil(value)
            else:
                raise UsageError(f"the column {name!r} has the type int; {value} is no integer")
        value = int(value)
    if not _MIN_INT <= value <= _MAX_INT:
        raise UsageError(f"the value for the column {name!r} is not an integer of 64 bits")
    return operator, int(value)


def _timestamp(name: str, value: str | datetime) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(f"the column {name!r} has the type timestamp; {_example('timestamp')}") from None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"the time for the column {name!r} is outside of the years 1 to 9999") from None
