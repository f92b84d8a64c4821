"""Conditions as SQL with parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from embedway.collections.where import And, Compare, In, IsNull, Not
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import ColumnType
    from embedway.collections.where import Condition

_OPERATORS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_SCALARS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "int": (int, float),
    "float": (int, float),
    "bool": (bool,),
    "timestamp": (datetime,),
}


def to_sql(where: Condition, columns: Mapping[str, ColumnType]) -> tuple[Any, list[Any]]:
    """Return a condition as a composed SQL expression, and its parameters.

    Raises `UsageError` for a value that cannot be compared with its column.
    """
    from psycopg import sql  # noqa: PLC0415 - an extra

    match where:
        case And(parts):
            return _joined([to_sql(part, columns) for part in parts], " AND ", "TRUE")
        case Not(part):
            inner, values = to_sql(part, columns)
            return sql.SQL("(NOT {})").format(inner), values
        case IsNull(column):
            return sql.SQL("({} IS NULL)").format(sql.Identifier(column)), []
        case In(column, members):
            return _joined([to_sql(Compare(column, "=", member), columns) for member in members], " OR ", "FALSE")
        case Compare():
            return _compare(where, columns[where.column])
    return _joined([to_sql(part, columns) for part in where.parts], " OR ", "FALSE")


def _joined(parts: list[tuple[Any, list[Any]]], between: str, empty: str) -> tuple[Any, list[Any]]:
    from psycopg import sql  # noqa: PLC0415 - an extra

    if not parts:
        return sql.SQL(empty), []
    joined = sql.SQL(between).join([part for part, _ in parts])
    return sql.SQL("({})").format(joined), [value for _, values in parts for value in values]


def _compare(where: Compare, kind: ColumnType) -> tuple[Any, list[Any]]:
    from psycopg import sql  # noqa: PLC0415 - an extra
    from psycopg.types.json import Jsonb  # noqa: PLC0415 - an extra

    name, value = sql.Identifier(where.column), where.value
    if where.operator == "contains":
        if kind == "list":
            return sql.SQL("({} @> ARRAY[%s]::text[])").format(name), [value]
        if kind == "json":
            return sql.SQL("({} @> %s)").format(name), [Jsonb([value])]
        raise UsageError(f"{where.column!r} is a column of {kind}; `contains` needs a list")
    operator = sql.SQL(_OPERATORS[where.operator])
    if kind == "json":
        return sql.SQL("({} {} %s)").format(name, operator), [Jsonb(value)]
    if kind == "timestamp" and isinstance(value, str):
        value = _timestamp(where.column, value)
    if kind == "list":
        if not isinstance(value, list):
            raise UsageError(f"{where.column!r} is a list; use `contains`")
        return sql.SQL("({} {} %s::text[])").format(name, operator), [value]
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise UsageError(f"{where.column!r} is a column of {kind}, and cannot be compared with {type(value).__name__}")
    # Numbers are compared as numeric, so that neither large integers nor fractions are rounded.
    cast = "::numeric" if kind in {"int", "float"} and isinstance(value, int) else ""
    return sql.SQL("({} {} %s" + cast + ")").format(name, operator), [value]


def _timestamp(column: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{column!r} is a column of timestamps; write one as 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
