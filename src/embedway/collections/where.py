"""Conditions on columns: values of `--where`, parsed once, and translated by each store.

A condition is a tree of `Compare`, `In`, `IsNull`, `And`, `Or` and `Not`. A row whose column is null matches only
`IsNull`, as in SQL. `where_parser` reads conditions, `where_types` checks them, and `where_forms` translates them.
"""

from __future__ import annotations

import operator as operators
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.collections.columns import columns_since

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.collections.record import Record
    from embedway.collections.values import ColumnType, Value

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]


@dataclass(frozen=True, slots=True)
class Compare:
    """`column operator value`. `contains` is membership of a text in a column of lists."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    """`column in (values)`."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column is null`."""

    column: str


@dataclass(frozen=True, slots=True)
class And:
    """All conditions hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """A condition holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    part: Condition


Condition: TypeAlias = Compare | In | IsNull | And | Or | Not


def truth(condition: Condition, row: Mapping[str, Any]) -> bool | None:
    """Return whether a row meets a condition; None if this is unknown, because a column is null."""
    match condition:
        case Compare(column, operator, value):
            return _compare(row.get(column), operator, value)
        case In(column, values):
            found = [_compare(row.get(column), "=", value) for value in values]
            return _any(found)
        case IsNull(column):
            return row.get(column) is None
        case Not(part):
            inner = truth(part, row)
            return None if inner is None else not inner
        case And(parts):
            found = [truth(part, row) for part in parts]
            return False if False in found else None if None in found else True
    return _any([truth(part, row) for part in condition.parts])


def matches(condition: Condition, row: Mapping[str, Any]) -> bool:
    """Return whether a row, columns by name, meets a condition. A missing column is null.

    The logic is that of SQL: a comparison with null is unknown, so is its negation, and neither matches.
    """
    return truth(condition, row) is True


def condition_columns(record: Record) -> dict[str, ColumnType]:
    """Return the columns that a condition on a collection may name: built-in ones and kept ones, with their types."""
    built_in = columns_since(record.format_version).items()
    return {**{name: column.type for name, column in built_in if column.in_conditions}, **record.keep}


def parse_where(text: str, columns: Mapping[str, ColumnType] | None = None) -> Condition:
    """Return the condition in a text such as `lang = 'de' and year >= 2020`. Raises `UsageError` with its position.

    With `columns`, names and values are checked too (`check_where`); without, a store checks them when it searches.
    """
    from embedway.collections.where_parser import parse  # noqa: PLC0415  it imports this module

    return parse(text, columns)


def _any(found: list[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _compare(found: Any, operator: Operator, value: Any) -> bool | None:
    """Compare as SQL does; values of types that cannot be compared are unknown."""
    if found is None or value is None:
        return None
    if isinstance(found, datetime) and found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return bool(_OPERATORS[operator](found, value))
    except TypeError:
        return None


_OPERATORS: dict[Operator, Callable[[Any, Any], Any]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
    "contains": operators.contains,
}
