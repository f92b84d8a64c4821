"""Values of kept columns, and the types of these columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

#: Value of a kept column: texts, numbers, truth values, timestamps (with time zone), lists of texts; JSON otherwise.
Value: TypeAlias = str | int | float | bool | datetime | list[Any] | dict[str, Any] | None

#: Type of a kept column. `list` is a list of texts; `json` is any JSON value, also of mixed types.
ColumnType: TypeAlias = Literal["text", "int", "float", "bool", "timestamp", "list", "json"]
