"""Piece of a document: the span of a chunk, and what goes before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


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


def without_contained(pieces: Iterable[Piece]) -> list[Piece]:
    """Return pieces in order, without a piece that lies inside its neighbour.

    This happens if a piece that begins with an overlap is split again.
    """
    kept: list[Piece] = []
    for piece in pieces:
        while kept and piece.start <= kept[-1].start and kept[-1].end <= piece.end:
            kept.pop()
        if not kept or piece.end > kept[-1].end:
            kept.append(piece)
    return kept
