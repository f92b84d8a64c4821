"""Values of kept columns as the JSON of servers that have fewer types."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from embedway.collections.values import ColumnType

_PYTHON_TYPES: Final[Mapping[ColumnType, type]] = {"text": str, "int": int, "bool": bool, "list": list}


class JsonValues:
    """Conversion of values for one kind of server.

    `types_as_text` are the column types whose values are JSON texts; the other two convert timestamps.
    """

    def __init__(
        self,
        *,
        types_as_text: Collection[ColumnType],
        write_timestamp: Callable[[datetime], Any],
        read_timestamp: Callable[[Any], datetime],
    ) -> None:
        self._types_as_text = types_as_text
        self._write_timestamp, self._read_timestamp = write_timestamp, read_timestamp

    def to_json(self, value: Any, column_type: ColumnType, place: str, *, destination: str) -> Any:
        """Return a value as the server stores it. Raises `SinkError`, which names the place."""
        if value is None:
            return None
        if column_type == "timestamp":
            return self._write_timestamp(value)
        if column_type == "float":
            return float(value)
        if column_type in self._types_as_text:
            try:
                return json.dumps(value, ensure_ascii=False, allow_nan=False)
            except (ValueError, TypeError, RecursionError):
                raise SinkError(f"{place} is not JSON", destination=destination) from None
        if column_type == "int" and not -(1 << 63) <= value < 1 << 63:
            raise SinkError(f"{place} is an integer of more than 64 bits", destination=destination)
        return value

    def from_json(self, value: Any, column_type: ColumnType) -> Any:
        """Return a stored value. One that another program wrote with another type is None."""
        try:
            if value is None:
                return None
            if column_type == "timestamp":
                return self._read_timestamp(value)
            if column_type == "float":
                return float(value)
            if column_type in self._types_as_text:
                value = json.loads(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None
        return value if column_type == "json" or isinstance(value, _PYTHON_TYPES[column_type]) else None
