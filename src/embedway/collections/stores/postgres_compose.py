"""SQL with quoted identifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.collections.documents import DocumentKey


def identifier(*names: str) -> Any:
    """Return a quoted name, or names that are joined by dots. It may stand in a query with and without parameters."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    if not any("%" in name for name in names):
        return composed.Identifier(*names)
    # psycopg reads % as the mark of a parameter, but only if a query has parameters. So it is written as its code.
    quoted = (name.replace("\\", "\\\\").replace('"', '""').replace("%", "\\0025") for name in names)
    return composed.SQL(".".join(f'U&"{name}"' for name in quoted))


def sql(text: str, *parts: Any) -> Any:
    """Return composed SQL; strings among the parts are identifiers."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    named = [identifier(part) if isinstance(part, str) else part for part in parts]
    return composed.SQL(text).format(*named)


def comma(parts: Any) -> Any:
    """Return composed parts, separated by commas."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    return composed.SQL(", ").join(list(parts))


def names(columns: Sequence[str]) -> Any:
    """Return names of columns as identifiers, separated by commas."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    return composed.SQL(", ").join(map(identifier, columns))


def split(documents: Collection[DocumentKey]) -> list[list[str]]:
    """Return the sources and the ids of documents as two parameters."""
    return [[key.source for key in documents], [key.document_id for key in documents]]
