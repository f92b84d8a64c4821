"""Lists of AsciiDoc: items of all depths as one block."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.collections.parsers.base import TextBuilder

_ITEM = re.compile(
    r"[ \t]*+(?:(?P<bullet>\*{1,6}|-|\u2022)[ \t]+(?:\[[ xX*]\][ \t]+)?"
    r"|(?P<ordered>\.{1,6}|\d{1,9}\.|[a-zA-Z]\.|[ivxIVX]{1,8}\))[ \t]+"
    r"|<(?P<callout>\d{1,9}|\.)>[ \t]+)(?=\S)(?P<text>.*)$"
)
_TERM = re.compile(r"[ \t]*+(?P<term>[^\s/].*?)(?P<marker>:{2,4}|;;)(?:[ \t]+(?P<text>\S.*))?$")


def match_item(line: str) -> tuple[str, str] | None:
    """Return the marker and the text of a line that begins an item of a list, or None.

    The marker of a term with a definition is `::`, and its text is `term: definition`.
    """
    if found := _ITEM.match(line):
        if found["bullet"]:
            return found["bullet"], found["text"]
        if found["callout"]:
            return "<1>", found["text"]
        ordered = found["ordered"]
        return (ordered if ordered.startswith(".") else "1."), found["text"]
    if ("::" in line or ";;" in line) and (found := _TERM.match(line)):
        text = found["text"]
        return found["marker"], f"{found['term'].strip()}:" + (f" {text}" if text else "")
    return None


class ListGroup:
    """Items of one list, which becomes a block when it ends."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._pieces: list[str] = []
        self._length = 0
        self._lines: list[tuple[int, int]] = []
        #: Markers of the present item and its parents, and the number of each.
        self._markers: list[tuple[str, int]] = []
        self._blank = False
        self._continued = False

    @property
    def is_closed(self) -> bool:
        """Whether the next line or paragraph is no part of the present item."""
        return not self._pieces or (self._blank and not self._continued)

    def note_blank_line(self) -> None:
        """Take note of a blank line."""
        self._blank = True

    def note_continuation(self) -> None:
        """Take note of a line that attaches the next block to the item."""
        self._continued = bool(self._pieces)

    def add_item(self, marker: str, text: str, line: int) -> None:
        """Add an item."""
        known = [name for name, _ in self._markers]
        if not self._pieces and marker not in known:
            self._markers.clear()
        if marker in known:
            del self._markers[known.index(marker) + 1 :]
            self._markers[-1] = (marker, self._markers[-1][1] + 1)
        else:
            self._markers.append((marker, 1))
        numbered = marker[0] in ".1<"
        prefix = f"{self._markers[-1][1]}. " if numbered else "" if marker[0] in ":;" else "- "
        self._put("  " * (len(self._markers) - 1) + prefix, text, line)

    def add_text(self, text: str, line: int) -> None:
        """Add a paragraph of the present item."""
        self._put("  " * len(self._markers), text, line)

    def _put(self, prefix: str, text: str, line: int) -> None:
        indent = "\n" + "  " * len(self._markers)
        self._blank = self._continued = False
        for number, part in enumerate(text.split("\n")):
            piece = (prefix if not number else indent) + part
            if not number and self._pieces:
                piece = "\n" + piece
            self._lines.append((self._length + (piece[0] == "\n"), line + number))
            self._pieces.append(piece)
            self._length += len(piece)

    def flush(self) -> None:
        """Add the list to the document."""
        if self._pieces:
            self._builder.add("".join(self._pieces), "list", line=self._lines[0][1], lines=self._lines)
            self._pieces.clear()
            self._lines.clear()
            self._length = 0
            if not self._continued:
                self._markers.clear()
        self._blank = self._continued = False
