"""Convert HTML to text: blocks become lines, preformatted text is unchanged, navigation and scripts are dropped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_TITLE_CHARACTERS, LineMarks
from embedway.collections.parsers.markup import scan_markup

if TYPE_CHECKING:
    from collections.abc import Sequence

_SKIPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg"})
_PARAGRAPH_TAGS = (
    "address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr main ol p pre section summary table ul"
)
_PARAGRAPHS = frozenset(_PARAGRAPH_TAGS.split())
_LINES = frozenset({"br", "caption", "li", "tr"})
_CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\r\n\f\v]+")


class _Extractor:
    """Handler that collects text, and the source line of each piece."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.title_pieces: list[str] = []
        self.marks = LineMarks()
        self._in_title = False
        self._skipped = 0
        self._preformatted = 0
        self._breaks = 0
        self._space = False

    def start_tag(self, tag: str, attributes: str) -> None:  # noqa: ARG002
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag == "title" and not self._skipped:
            # SVG images have titles too, but inside skipped elements.
            self._in_title = True
        self._border(tag)
        if tag == "pre":
            self._preformatted += 1

    def empty_tag(self, tag: str, attributes: str) -> None:  # noqa: ARG002
        # `<nav/>` has no content, so nothing after it is skipped.
        self._border(tag)

    def end_tag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        self._border(tag)

    def text(self, data: str, line: int) -> None:
        if self._in_title:
            self.title_pieces.append(data)
            return
        if self._skipped:
            return
        for number, piece in enumerate(data.split("\n")):
            if self._preformatted:
                if number:
                    self._breaks = 0 if not self.pieces else self._breaks + 1
                if piece:
                    self._put(piece, line + number)
            else:
                self._space = self._space or number > 0
                self._flow(piece, line + number)

    def _flow(self, line: str, source_line: int) -> None:
        words = _SPACE.sub(" ", line)
        if words.startswith(" "):
            self._space = True
        if not (inner := words.strip(" ")):
            return
        self._put(inner, source_line)
        self._space = words.endswith(" ")

    def _put(self, text: str, source_line: int) -> None:
        if self.pieces:
            if self._breaks:
                self._append("\n" * self._breaks)
            elif self._space:
                self._append(" ")
        self._breaks, self._space = 0, False
        self.marks.add(self.length, source_line)
        self._append(text)

    def _append(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)

    def _border(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._breaks = max(self._breaks, 2)
        elif tag in _LINES:
            self._breaks = max(self._breaks, 1)
        elif tag in _CELLS:
            self._space = True


def html_to_text(markup: str) -> tuple[str, str | None, Sequence[tuple[int, int]]]:
    """Return the text, title and line marks of an HTML page. Time is linear in the page's length.

    A line mark is (offset in the text, line in the markup); marks ascend and the first is at offset 0.
    """
    extractor = _Extractor()
    scan_markup(markup, extractor)
    title = _SPACE.sub(" ", "".join(extractor.title_pieces)).strip()[:MAX_TITLE_CHARACTERS]
    return "".join(extractor.pieces), title or None, extractor.marks or ()
