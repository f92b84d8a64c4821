"""Piece of a document: the span of a chunk, and what goes before it."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """Span `text[start:end]`, after the span `header` of a table that it continues.

    `path` has the headings above the piece, outermost first. `heading` is the one that begins it, or is empty. `tokens`
    is the number of tokens with context and header, which is not exact; 0 if it is unknown.
    """

    start: int
    end: int
    path: tuple[str, ...] = ()
    heading: str = ""
    header: tuple[int, int] | None = None
    tokens: int = 0
