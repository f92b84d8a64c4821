"""Built-in columns of a collection."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.collections.chunks import Chunk
    from embedway.collections.values import ColumnType


class Column(NamedTuple):
    """A built-in column. `since` is the first version of collections that has it."""

    type: ColumnType
    nullable: bool = False
    since: int = 1
    #: Whether conditions (`--where`) may name the column.
    in_conditions: bool = False


#: Columns of every row, in their order. Kept columns follow; `vector`, and `vector_scale` for vectors of type int8, are
#: the last ones.
BUILT_IN: Final[Mapping[str, Column]] = {
    "id": Column("text"),
    "document_id": Column("text", in_conditions=True),
    "source": Column("text", in_conditions=True),
    "number": Column("int", since=3, in_conditions=True),
    "total": Column("int", since=3),
    "fingerprint": Column("text", since=3),
    "start_line": Column("int", in_conditions=True),
    "page": Column("int", nullable=True, since=3, in_conditions=True),
    "title": Column("text", nullable=True, in_conditions=True),
    "headings": Column("text", nullable=True, since=3, in_conditions=True),
    "context": Column("text", nullable=True, since=3),
    "text": Column("text"),
}
#: Types of the built-in columns.
COLUMNS: Final[Mapping[str, ColumnType]] = {name: column.type for name, column in BUILT_IN.items()}
#: Columns that may be null.
NULLABLE: Final = frozenset(name for name, column in BUILT_IN.items() if column.nullable)
#: Columns of collections of every version, and those of version 3 alone.
HIT_COLUMNS: Final = tuple(name for name, column in BUILT_IN.items() if column.since == 1)
CHUNK_COLUMNS: Final = tuple(name for name, column in BUILT_IN.items() if column.since > 1)
#: Names that a kept column must not have: stores, or the formats of search results, use them.
RESERVED_COLUMNS: Final = frozenset({*BUILT_IN, "vector", "vector_scale", "space", "_distance", "_score"})

#: Return the values of the built-in columns of a chunk, as a tuple.
values_of: Final[Callable[[Chunk], tuple[Any, ...]]] = attrgetter(*COLUMNS)
#: Return the id of a chunk, and the key of its document as a tuple.
id_of: Final[Callable[[Chunk], str]] = attrgetter("id")
key_of: Final[Callable[[Chunk], tuple[str, str]]] = attrgetter("source", "document_id")


def columns_since(version: int) -> dict[str, Column]:
    """Return the built-in columns of collections of a version, in their order."""
    return {name: column for name, column in BUILT_IN.items() if column.since <= version}
