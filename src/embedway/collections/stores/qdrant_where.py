"""Conditions as filters of Qdrant."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.scanning import NotExpressibleError
from embedway.collections.stores.server_columns import ids_by_source
from embedway.collections.where import And, Compare, In, IsNull, Not, Or

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from embedway.collections.documents import DocumentKey
    from embedway.collections.values import ColumnType
    from embedway.collections.where import Condition

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
#: Integers up to this are exact in ranges, which are floating-point numbers.
_MAX_EXACT = 1 << 53
#: Documents in one filter.
_FILTER_DOCUMENTS = 500


def key_of(column: str) -> str:
    """Return a column as the path of a payload. Raises NotExpressibleError for one that cannot be quoted."""
    if _PLAIN_KEY.fullmatch(column):
        return column
    if '"' in column or "\\" in column or not column:
        raise NotExpressibleError
    return f'"{column}"'


def to_filter(where: Condition, columns: Mapping[str, ColumnType]) -> Any:  # noqa: PLR0911  one line for each kind
    """Return a filter for a checked condition in which `Not` stands only before single comparisons.

    A row whose column is null meets only `IsNull`, also under `Not`. Raises NotExpressibleError.
    """
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    match where:
        case And(parts):
            return models.Filter(must=[to_filter(part, columns) for part in parts])
        case Or(parts):
            return models.Filter(should=[to_filter(part, columns) for part in parts])
        case Not(IsNull(column)):
            return models.Filter(must_not=[_null(column)])
        case Not(Compare(column) | In(column) as part):
            return models.Filter(must_not=[_null(column), _condition(part, columns)])
        case IsNull(column):
            return models.Filter(must=[_null(column)])
        case Compare(column, "!=", value):
            same = _condition(Compare(column, "=", value), columns)
            return models.Filter(must_not=[_null(column), same])
        case Compare() | In():
            return models.Filter(must=[_condition(where, columns)])
    raise NotExpressibleError


def _null(column: str) -> Any:
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    return models.IsNullCondition(is_null=models.PayloadField(key=key_of(column)))


def _condition(where: Compare | In, columns: Mapping[str, ColumnType]) -> Any:
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    key, kind = key_of(where.column), columns[where.column]
    if isinstance(where, In):
        if kind in {"text", "int"}:
            values: Any = list(where.values)
            return models.FieldCondition(key=key, match=models.MatchAny(any=values))
        each = [_condition(Compare(where.column, "=", value), columns) for value in where.values]
        return models.Filter(should=each)
    value: Any = where.value
    if where.operator == "contains" or (where.operator == "=" and kind in {"text", "int", "bool"}):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if kind == "timestamp" and isinstance(value, datetime):
        return models.FieldCondition(key=key, range=models.DatetimeRange(**_bounds(where.operator, value)))
    if kind not in {"int", "float"} or abs(value) > _MAX_EXACT:
        raise NotExpressibleError
    return models.FieldCondition(key=key, range=models.Range(**_bounds(where.operator, value)))


def _bounds(operator: str, value: Any) -> dict[str, Any]:
    return {"gte": value, "lte": value} if operator == "=" else {_RANGES[operator]: value}


def document_filters(documents: Collection[DocumentKey]) -> Iterator[Any]:
    """Iterate over filters that together select the rows of documents."""
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    for source, some in ids_by_source(documents, most=_FILTER_DOCUMENTS):
        same = models.FieldCondition(key="source", match=models.MatchValue(value=source))
        one_of = models.FieldCondition(key="document_id", match=models.MatchAny(any=some))
        yield models.Filter(must=[same, one_of])
