"""Built-in columns of a collection of version 3."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.collections.stores.base import Chunk
    from embedway.collections.values import ColumnType

#: Columns of every row, in their order. Kept columns follow; `vector`, and `vector_scale` for vectors of type int8, are
#: the last ones.
COLUMNS: Final[Mapping[str, ColumnType]] = {
    "id": "text",
    "document_id": "text",
    "source": "text",
    "number": "int",
    "total": "int",
    "fingerprint": "text",
    "start_line": "int",
    "page": "int",
    "title": "text",
    "headings": "text",
    "context": "text",
    "text": "text",
}
#: Columns that may be null.
NULLABLE: Final = frozenset({"page", "title", "headings", "context"})
#: Return the values of these columns of a chunk, as a tuple.
values_of: Final[Callable[[Chunk], tuple[Any, ...]]] = attrgetter(*COLUMNS)
#: Return the id of a chunk, and the key of its document as a tuple.
id_of: Final[Callable[[Chunk], str]] = attrgetter("id")
key_of: Final[Callable[[Chunk], tuple[str, str]]] = attrgetter("source", "document_id")
