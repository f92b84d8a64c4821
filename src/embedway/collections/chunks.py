"""Chunks: the pieces of documents that are embedded and stored, one row each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import Value


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document that is embedded and written.

    `text` is `document.text[start_char:end_char]`, after the header rows of the table that it continues.
    `start_line` counts from 1 in the source.
    """

    id: str
    document_id: str
    text: str = field(repr=False)
    start_char: int
    end_char: int
    start_line: int
    title: str | None
    source: str
    metadata: Mapping[str, Value] = field(repr=False)
    #: Position in the document, from 0, and number of chunks of the document.
    number: int = 0
    total: int = 1
    #: Page of the source, from 1, for formats with pages.
    page: int | None = None
    #: Headings above the chunk, outermost first, joined by a single right-pointing angle quotation mark.
    headings: str | None = None
    #: Text before `text` for the model; it is stored apart, and is never part of `text`.
    context: str = field(default="", repr=False)
    #: Hash of the document's content and of the settings that cut it; equal for all chunks of a document.
    fingerprint: str = ""

    @property
    def embedded_text(self) -> str:
        """The text for the model: context and text."""
        return join_context(self.context, self.text)


def join_context(context: str | None, text: str) -> str:
    """Return the text for the model from the columns `context` and `text`."""
    return f"{context}\n\n{text}" if context else text


def id_start(source: str, document_id: str) -> str:
    """Return the start of the ids of a document's rows; the number of the row follows."""
    return f"{document_id}#" if source == document_id else f"{source}/{document_id}#"
