"""Context of chunks: text that is put before a chunk for the model, such as the headings above it."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, NamedTuple

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.collections.chunking.pieces import Piece
    from embedway.collections.documents import Document
    from embedway.types import PlainTokenizer

#: Separator of headings in a path: single right-pointing angle quotation mark.
SEPARATOR = " › "  # noqa: RUF001
ELLIPSIS = "…"
FIELDS = frozenset({"title", "headings", "source", "document"})
#: Share of a chunk's room that its context may use.
CONTEXT_SHARE = 4
#: Maximum characters of a context that are counted; at least one token has no more.
_MAX_CHARACTERS = 2048
#: Contexts that are remembered with their number of tokens.
_REMEMBERED = 4096


class Context(NamedTuple):
    """Headings above a chunk, the text before it, and the number of tokens of that text and its separator."""

    headings: str | None
    text: str
    tokens: int


def check_pattern(pattern: str) -> str:
    """Return a valid value of `ChunkSettings.context`. Raises `UsageError`."""
    if pattern in {"headings", "none"}:
        return pattern
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(pattern)]
    except ValueError as error:
        raise UsageError(f"context {pattern!r}: {error}") from None
    names = [name for name, _, _ in fields if name is not None]
    if not names or any(spec or conversion for _, spec, conversion in fields) or not set(names) <= FIELDS:
        known = ", ".join(f"{{{name}}}" for name in sorted(FIELDS))
        raise UsageError(f"context {pattern!r} is neither `headings` nor `none` nor a pattern with fields of {known}")
    return pattern


class ContextMaker:
    """Maker of contexts with at most `budget` tokens, the separator from the text included."""

    def __init__(self, tokenizer: PlainTokenizer, pattern: str, budget: int) -> None:
        self._tokenizer = tokenizer
        self._pattern = check_pattern(pattern)
        self._budget = budget
        self._made: dict[tuple[str, ...], tuple[str, int]] = {}

    def make(self, document: Document, piece: Piece) -> Context:
        """Return the context of a piece. The document's title begins the path, unless the path or the piece does."""
        path = piece.path
        title = one_line(document.title or "")
        if title and title != (path[0] if path else piece.heading):
            path = (title, *path)
        headings = SEPARATOR.join(path) or None
        if self._pattern == "none" or (self._pattern == "headings" and not path):
            return Context(headings, "", 0)
        key = path if self._pattern == "headings" else (title, document.source, document.id, *path)
        if key not in self._made:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            self._made[key] = self._within_budget(document, title, path)
        return Context(headings, *self._made[key])

    def _within_budget(self, document: Document, title: str, path: tuple[str, ...]) -> tuple[str, int]:
        """Return the longest context within the budget: outer headings are removed first, then the end is cut."""
        for first in range(max(len(path), 1)):
            shown = (ELLIPSIS, *path[first:]) if first else path
            text = self._format(document, title, SEPARATOR.join(shown))
            tokens = self._count(text)
            if tokens <= self._budget:
                return text, tokens if text else 0
        return self._cut(text)

    def _format(self, document: Document, title: str, headings: str) -> str:
        if self._pattern == "headings":
            return headings
        values = {"title": title, "headings": headings, "source": document.source, "document": document.id}
        return self._pattern.format_map(values).strip()

    def _cut(self, text: str) -> tuple[str, int]:
        """Return the longest beginning within the budget, with an ellipsis; empty if nothing fits."""
        low, high = 0, min(len(text), _MAX_CHARACTERS) - 1
        best = ("", 0)
        while low < high:
            middle = (low + high + 1) // 2
            short = text[:middle].rstrip() + ELLIPSIS
            tokens = self._count(short)
            if tokens <= self._budget:
                low, best = middle, (short, tokens)
            else:
                high = middle - 1
        return best

    def _count(self, text: str) -> int:
        """Return the number of tokens with the separator; a text that is surely too long is not tokenized."""
        if len(text) > _MAX_CHARACTERS:
            return self._budget + 1
        return len(self._tokenizer.encode(f"{text}\n\n", add_special_tokens=False).ids)


def one_line(text: str) -> str:
    """Return a heading as one line: the first one that is not blank, without repeated white space."""
    return " ".join(text.strip().split("\n", 1)[0].split())
