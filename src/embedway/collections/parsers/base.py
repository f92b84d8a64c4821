"""Contract of parsers, and the builder that they share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from embedway.collections.documents import PAGE_MARK, Block, BlockKind, LineMarks

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Separator of blocks in a document's text. A page mark follows it for each page that begins there.
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class ParsedText:
    """Text without markup that says nothing, its title, and its structure; see `Document`."""

    text: str = field(repr=False)
    title: str | None
    blocks: Sequence[Block] = field(repr=False)
    line_marks: Sequence[tuple[int, int]] = field(repr=False)
    page_marks: Sequence[tuple[int, int]] = field(default=(), repr=False)


def line_marks(text: str, first_line: int) -> list[tuple[int, int]]:
    """Return the pairs of (offset, line) of the lines of a text after its first, which is unchanged source text."""
    return [(found.end(), first_line + number) for number, found in enumerate(re.finditer("\n", text), 1)]


class Parser(Protocol):
    """Function that parses the decoded text of one file. Raises SourceError. Time is linear in the text's length."""

    def __call__(self, text: str, path: str) -> ParsedText:
        """Parse a text; `path` is for errors."""


class BinaryParser(Protocol):
    """Function that parses the bytes of one file. Raises SourceError, and MissingExtraError without its library."""

    def __call__(self, data: bytes, path: str) -> ParsedText:
        """Parse a file's content; `path` is for errors."""


class TextBuilder:
    """Builder of a parsed text from blocks, in order."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._lines = LineMarks()
        self._pages = LineMarks()
        #: Whether a block other than a heading or a signature is written.
        self.has_body = False

    def add(
        self,
        text: str,
        kind: BlockKind,
        *,
        line: int,
        lines: Sequence[tuple[int, int]] = (),
        level: int = 0,
        header_length: int = 0,
        language: str = "",
        page: int | None = None,
    ) -> None:
        """Add a block; blank ones are ignored.

        `line` is the source line of its beginning; `lines` has further pairs of (offset in the block, line).
        `header_length` is the number of characters of a table's header rows. Pages of later blocks are not lower.
        """
        blank = len(text) - len(text.lstrip("\n"))
        text = text.strip("\n").rstrip()
        if not text.strip():
            return
        if page is not None:
            text = text.replace(PAGE_MARK, " ")
        if self._pieces:
            new_pages = page - self._pages[-1][1] if page is not None and self._pages else 0
            between = _BETWEEN + PAGE_MARK * new_pages
            self._pieces.append(between)
            self._length += len(between)
        start = self._length
        self._lines.add(start, line)
        for offset, later in lines:
            if 0 < offset - blank < len(text):
                self._lines.add(start + offset - blank, later)
        if page is not None:
            self._pages.add(start, page)
        self._pieces.append(text)
        self._length += len(text)
        header_end = start + header_length - blank if header_length > blank else 0
        self.has_body |= kind not in {"heading", "definition"}
        self._blocks.append(Block(kind, start, self._length, level, min(header_end, self._length), language))

    def build(self, title: str | None) -> ParsedText:
        """Return the text of all blocks."""
        return ParsedText("".join(self._pieces), title, tuple(self._blocks), self._lines, self._pages)
