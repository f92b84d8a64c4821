"""Token counts of parts of a text that is tokenized once.

A count can be wrong if a border of the part is inside a word, and by a few tokens at white space. So a chunk is
counted again, exactly and with prompt and context, unless its ends are at white space and it is well below the limit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from embedway.collections.chunks import join_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.chunking.limits import ChunkLimits
    from embedway.types import PlainTokenizer

#: Maximum error of a count between white space, caused by the tokenizer at the borders.
BORDER_TOKENS = 8
#: Maximum characters that are tokenized at once. Longer texts are split first, to limit memory and time.
SECTION_CHARACTERS = 1 << 16


class TokenOffsets:
    """Token counts of parts of one loaded text, from the offsets of its tokens."""

    def __init__(self, tokenizer: PlainTokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = ""
        self._near = 0
        self._starts: Sequence[int] = ()
        self._ends: Sequence[int] = ()

    def load(self, text: str) -> int:
        """Load a text and return its number of tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        self._text = text
        self._near = 0
        self._starts = [start for start, _ in offsets]
        self._ends = [end for _, end in offsets]
        return len(offsets)

    def between(self, start: int, end: int) -> int:
        """Return the number of tokens that have a character in this span."""
        return self.begun_before(end) - self.ended_by(start)

    def begun_before(self, offset: int) -> int:
        """Return the number of tokens that begin before an offset."""
        return bisect_left(self._starts, offset)

    def ended_by(self, offset: int) -> int:
        """Return the number of tokens that end at an offset or before it."""
        return bisect_right(self._ends, offset)

    def size(self, piece: str) -> int:
        """Return the number of tokens of a piece of the text. Equal pieces have the same tokens, so any will do."""
        start = self._text.find(piece, self._near)
        if start < 0:
            start = max(self._text.find(piece), 0)
        else:
            self._near = start
        return self.between(start, start + len(piece))


class ChunkCounter:
    """Exact token counts of chunks as the model receives them: special tokens, prompt, context and text."""

    def __init__(self, tokenizer: PlainTokenizer, limits: ChunkLimits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits

    def fits(self, context: str, text: str) -> bool:
        """Return whether a chunk is within the limit."""
        sent = self._limits.prompt + join_context(context, text)
        return len(self._tokenizer.encode(sent).ids) <= self._limits.chunk_tokens


def is_word_border(text: str, start: int, end: int) -> bool:
    """Return whether both ends of a span are at white space."""
    return (start == 0 or text[start - 1].isspace()) and (end == len(text) or text[end].isspace())


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def trimmed_lines(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without white space at its end and blank lines at its beginning, with the first indentation."""
    first, last = trimmed(text, start, end)
    return (max(text.rfind("\n", start, first) + 1, start) if first < last else first), last
