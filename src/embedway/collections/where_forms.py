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


def to_arrow(condition: Condition) -> Any:
    """Return the condition as a `pyarrow.compute.Expression`, for filters of tables and datasets.

    Columns of timestamps must be in UTC, and those of lists must contain texts.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    match condition:
        case Compare(column, "contains", value):
            return _list_contains(pc.field(column), str(value))
        case Compare(column, operator, value):
            return _compared(pc.field(column), operator, _arrow_scalar(value))
        case In(column, values):
            return _in(pc.field(column), values)
        case IsNull(column):
            return pc.field(column).is_null()
        case Not(part):
            return ~to_arrow(part)
    parts = [to_arrow(part) for part in condition.parts]
    return _joined(parts, conjunction=isinstance(condition, And))


def to_sql(condition: Condition, columns: Mapping[str, ColumnType]) -> str:
    """Return the condition as a filter of LanceDB. Raises `UsageError` for a column's name that it cannot quote.

    The filter is false where the condition is unknown: `not` stands at comparisons only, and each requires a value.
    LanceDB's optimizer takes `x <> 1 OR x <> 2` as true, also where x is null.
    """
    return _sql(condition, columns, negated=False)


def _sql(condition: Condition, columns: Mapping[str, ColumnType], *, negated: bool) -> str:
    match condition:
        case Not(part):
            return _sql(part, columns, negated=not negated)
        case IsNull(column):
            return f"({quoted_name(column)} IS {'NOT ' if negated else ''}NULL)"
        case Compare(column) | In(column):
            test = _sql_test(condition, columns[column])
            return f"({quoted_name(column)} IS NOT NULL AND {'NOT ' if negated else ''}({test}))"
    word = " AND " if isinstance(condition, And) != negated else " OR "
    return f"({word.join(_sql(part, columns, negated=negated) for part in condition.parts)})"


def _sql_test(condition: Compare | In, kind: ColumnType) -> str:
    name = quoted_name(condition.column)
    # Times are compared as numbers, which is exact in every year.
    operand = f"CAST({name} AS BIGINT)" if kind == "timestamp" else name
    if isinstance(condition, In):
        return f"{operand} IN ({', '.join(sql_value(value, kind) for value in condition.values)})"
    value = sql_value(condition.value, kind)
    if condition.operator == "contains":
        return f"array_has({name}, {value})"
    return f"{operand} {'<>' if condition.operator == '!=' else condition.operator} {value}"


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


def _in(column: Any, values: tuple[Any, ...]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    if isinstance(values[0], float):  # `isin` takes 0.0 and -0.0 as different
        return _joined([column == value for value in values], conjunction=False)
    scalars = [_arrow_scalar(value) for value in values]
    inside = column.isin(pa.array(scalars, scalars[0].type))
    # `isin` is false for null, and not unknown.
    return pc.if_else(column.is_valid(), inside, pa.scalar(None, pa.bool_()))


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
