"""SQL with quoted identifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.collections.documents import DocumentKey


def sql(text: str, *parts: Any) -> Any:
    """Return composed SQL; strings among the parts are identifiers."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    named = [composed.Identifier(part) if isinstance(part, str) else part for part in parts]
    return composed.SQL(text).format(*named)


def comma(parts: Any) -> Any:
    """Return composed parts, separated by commas."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    return composed.SQL(", ").join(list(parts))


def names(columns: Sequence[str]) -> Any:
    """Return names of columns as identifiers, separated by commas."""
    from psycopg import sql as composed  # noqa: PLC0415 - an extra

    return composed.SQL(", ").join(map(composed.Identifier, columns))


def split(documents: Collection[DocumentKey]) -> list[list[str]]:
    """Return the sources and the ids of documents as two parameters."""
    return [[key.source for key in documents], [key.document_id for key in documents]]
