"""Conditions as SQL with parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.collections.stores.postgres_compose import identifier
from embedway.collections.where import And, Compare, In, IsNull, Not

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import ColumnType
    from embedway.collections.where import Condition

_OPERATORS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def to_sql(where: Condition, columns: Mapping[str, ColumnType]) -> tuple[Any, list[Any]]:
    """Return a condition that has passed `check_where` as a composed SQL expression, and its parameters."""
    from psycopg import sql  # noqa: PLC0415 - an extra

    match where:
        case And(parts):
            return _joined([to_sql(part, columns) for part in parts], " AND ", "TRUE")
        case Not(part):
            inner, values = to_sql(part, columns)
            return sql.SQL("(NOT {})").format(inner), values
        case IsNull(column):
            return sql.SQL("({} IS NULL)").format(identifier(column)), []
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

    name, value = identifier(where.column), where.value
    if where.operator == "contains":
        return sql.SQL("({} @> ARRAY[%s]::text[])").format(name), [value]
    operator = sql.SQL(_OPERATORS[where.operator])
    if kind == "text":
        # In the order of code points, as in all stores, and not in that of the database's language.
        return sql.SQL('({} {} %s COLLATE "C")').format(name, operator), [value]
    # Numbers are compared as numeric, so that neither large integers nor fractions are rounded.
    cast = "::numeric" if kind in {"int", "float"} and isinstance(value, int) else ""
    return sql.SQL("({} {} %s" + cast + ")").format(name, operator), [value]
