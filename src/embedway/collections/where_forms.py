"""Conditions as expressions of Arrow, and as SQL for LanceDB.

Both give the rows that `where.matches` gives. Conditions must have passed `check_where`, so that every value has the
type of its column.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from embedway.collections.where import And, Compare, Condition, In, IsNull, Not
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import ColumnType
    from embedway.collections.where import Operator

#: Separator of the texts of a list. UTF-8 never contains this byte.
_SEPARATOR = b"\xff"
_MIN_INT = -(1 << 63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_arrow(condition: Condition, schema: Any = None) -> Any:
    """Return the condition as a `pyarrow.compute.Expression`, for filters of tables and datasets.

    Columns of timestamps must be in UTC, and those of lists must contain texts. With a schema, `UsageError` is raised
    for a column that it lacks.
    """
    if schema is not None:
        names = schema.names
        for column in sorted(columns_in(condition)):
            if column not in names:
                raise UsageError(f"there is no column {column!r}; known columns: {', '.join(names[:30])}")
    return _expression(condition)


def columns_in(condition: Condition) -> set[str]:
    """Return the names of the columns of a condition."""
    match condition:
        case Compare(column) | In(column) | IsNull(column):
            return {column}
        case Not(part):
            return columns_in(part)
    return set().union(*(columns_in(part) for part in condition.parts))


def _expression(condition: Condition) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    match condition:
        case Compare(column, "contains", value):
            return _list_contains(pc.field(column), str(value))
        case Compare(column, operator, value):
            return _compared(pc.field(column), operator, _arrow_scalar(value))
        case In(column, values):
            if isinstance(values[0], float):  # `isin` takes 0.0 and -0.0 as different
                return _joined([pc.field(column) == value for value in values], conjunction=False)
            # `isin` is false for null, and not unknown.
            scalars = [_arrow_scalar(value) for value in values]
            inside = pc.field(column).isin(pa.array(scalars, scalars[0].type))
            return pc.if_else(pc.field(column).is_valid(), inside, pa.scalar(None, pa.bool_()))
        case IsNull(column):
            return pc.field(column).is_null()
        case Not(part):
            return ~_expression(part)
    parts = [_expression(part) for part in condition.parts]
    return _joined(parts, conjunction=isinstance(condition, And))


def to_sql(condition: Condition, columns: Mapping[str, ColumnType]) -> str:
    """Return the condition as a filter of LanceDB. Raises `UsageError` for a column's name that it cannot quote."""
    match condition:
        case Compare(column, operator, value):
            kind = columns[column]
            if operator == "contains":
                return f"array_has({quoted_name(column)}, {sql_value(value, kind)})"
            # Casts of times in columns to numbers compare exactly, and in every year.
            name = _sql_operand(column, kind)
            return f"({name} {'<>' if operator == '!=' else operator} {sql_value(value, kind)})"
        case In(column, values):
            kind = columns[column]
            return f"({_sql_operand(column, kind)} IN ({', '.join(sql_value(value, kind) for value in values)}))"
        case IsNull(column):
            return f"({quoted_name(column)} IS NULL)"
        case Not(part):
            return f"(NOT {to_sql(part, columns)})"
    word = " AND " if isinstance(condition, And) else " OR "
    return f"({word.join(to_sql(part, columns) for part in condition.parts)})"


def quoted_name(name: str) -> str:
    """Return a column's name as LanceDB reads it in a filter. Raises `UsageError` for one that cannot be quoted."""
    if "`" in name:
        raise UsageError(f"LanceDB has no filter on the column {name!r}, because of the backtick in its name")
    return f"`{name}`"


def sql_value(value: Any, kind: ColumnType) -> str:
    """Return a value of a column as SQL of LanceDB: a literal, or a number of microseconds for a timestamp."""
    match kind:
        case "bool":
            return "true" if value else "false"
        case "int":
            # The parser reads the sign apart, and the smallest number has no positive one.
            return str(value) if value != _MIN_INT else f"CAST('{_MIN_INT}' AS BIGINT)"
        case "float":
            return f"CAST('{value!r}' AS DOUBLE)"
        case "timestamp":
            return str(_microseconds(value))
    return "'" + str(value).replace("'", "''") + "'"


def _sql_operand(column: str, kind: ColumnType) -> str:
    name = quoted_name(column)
    return f"CAST({name} AS BIGINT)" if kind == "timestamp" else name


def _microseconds(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)


def _arrow_scalar(value: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if isinstance(value, datetime):
        return pa.scalar(value, pa.timestamp("us", tz="UTC"))
    return pa.scalar(value)


def _compared(left: Any, operator: Operator, right: Any) -> Any:
    match operator:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
    return left >= right


def _list_contains(column: Any, text: str) -> Any:
    """Return whether a list has a text. Arrow has no such function: the joined list is searched for it."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    joined = pc.binary_join(column.cast(pa.list_(pa.binary())), pc.scalar(_SEPARATOR))
    edge = pc.scalar(_SEPARATOR)
    framed = pc.binary_join_element_wise(edge, joined, edge, pc.scalar(b""))
    found = pc.match_substring(framed, _SEPARATOR + text.encode() + _SEPARATOR)
    # An empty list and a list of one empty text are joined to the same bytes.
    return found & (pc.list_value_length(column) > 0)


def _joined(parts: list[Any], *, conjunction: bool) -> Any:
    """Return all parts as one expression, a balanced tree: its depth is bounded for libraries that recurse."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left = _joined(parts[:middle], conjunction=conjunction)
    right = _joined(parts[middle:], conjunction=conjunction)
    return left & right if conjunction else left | right
