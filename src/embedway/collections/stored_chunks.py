"""Rows of a collection as chunks again, so that they can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.collections.chunks import Chunk
from embedway.collections.documents import DocumentKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def chunk_of_row(fields: Mapping[str, Any], keep: Iterable[str]) -> Chunk:
    """Return the chunk of a row; offsets in the document are not stored, so they are those of the text alone."""
    text = fields["text"]
    return Chunk(
        id=fields["id"],
        document_id=fields["document_id"],
        text=text,
        start_char=0,
        end_char=len(text),
        start_line=fields["start_line"],
        title=fields["title"],
        source=fields["source"],
        metadata={name: fields.get(name) for name in keep},
        number=fields.get("number") or 0,
        total=fields.get("total") or 1,
        page=fields.get("page"),
        headings=fields.get("headings"),
        context=fields.get("context") or "",
        fingerprint=fields.get("fingerprint") or "",
    )


def key_of_row(fields: Mapping[str, Any]) -> DocumentKey:
    """Return the identity of a row's document."""
    return DocumentKey(fields["source"], fields["document_id"])


def key_of_chunk(chunk: Chunk) -> DocumentKey:
    """Return the identity of a chunk's document."""
    return DocumentKey(chunk.source, chunk.document_id)


def place_of(key: DocumentKey) -> str:
    """Return the name of a document for messages, `source/document_id`."""
    return key.document_id if key.source == key.document_id else f"{key.source}/{key.document_id}"
