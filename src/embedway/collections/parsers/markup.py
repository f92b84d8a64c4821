"""Scanner of HTML in linear time: tags, the text between them, and its source lines.

`html.parser` searches the rest of a page again for each construct that is not closed, so 80 kB of `<a ` take minutes.
Here each position is scanned a constant number of times. Only markup is dropped: an unclosed tag or comment ends at its
next `>`, and is text if there is none.
"""

from __future__ import annotations

import html
import re
from typing import Protocol

_START = re.compile(r"<(?=[a-zA-Z/!?])")
_NAME = re.compile(r"[a-zA-Z][^\s/>\x00]*")
#: Next character of a start tag that matters: its end, or an equals sign before a value that may be quoted.
_TAG_PART = re.compile(r"[>=]")
_QUOTED = re.compile(r"""\s*+(?:"[^"]*"|'[^']*')""")
#: Elements whose content is not markup, with the beginning of their end tags.
_RAW = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
#: Beginnings and ends of constructs that may contain `>`.
_CLOSED = (("<!--", "-->"), ("<![CDATA[", "]]>"))
#: Character reference with so many digits that `html.unescape` cannot convert them.
_LONG_REFERENCE = re.compile(r"&#[0-9]{20,};?")


class MarkupHandler(Protocol):
    """Receiver of the parts of a page, in order. Names of tags are in lower case."""

    def start_tag(self, tag: str, attributes: str) -> None:
        """Handle `<tag attributes>`; `attributes` is their markup."""

    def empty_tag(self, tag: str, attributes: str) -> None:
        """Handle `<tag/>`."""

    def end_tag(self, tag: str) -> None:
        """Handle `</tag>`."""

    def text(self, data: str, line: int) -> None:
        """Handle text, with its references replaced; `line` is its first line in the source, from 1."""


def scan_markup(markup: str, handler: MarkupHandler) -> None:
    """Pass the parts of a page to a handler. Time is linear in the page's length."""
    _Scanner(markup, handler).scan()


class _Scanner:
    """Position in a page."""

    def __init__(self, markup: str, handler: MarkupHandler) -> None:
        self._markup = markup
        self._handler = handler
        self._last_end = markup.rfind(">")
        self._line, self._counted = 1, 0
        #: False after a tag whose quotes are not closed: from there, tags end at their next `>`.
        self._quotes = True
        self._missing: set[str] = set()

    def scan(self) -> None:
        position = 0
        while position < len(self._markup):
            found = _START.search(self._markup, position)
            # After the last `>`, nothing is closed, so the rest is text.
            start = found.start() if found and found.start() < self._last_end else len(self._markup)
            if start > position:
                self._text(position, start)
            position = start if start == len(self._markup) else self._construct(start)

    def _construct(self, start: int) -> int:
        """Handle the construct that starts here, and return its end."""
        name = _NAME.match(self._markup, start + 1)
        if name is not None:
            return self._start_tag(name[0].lower(), name.end())
        if name := _NAME.match(self._markup, start + 2):
            if self._markup[start + 1] == "/":
                self._handler.end_tag(name[0].lower())
        else:
            for opening, closing in _CLOSED:
                if self._markup.startswith(opening, start) and (end := self._find(closing, start + len(opening))):
                    return end
        return self._markup.index(">", start) + 1

    def _start_tag(self, tag: str, position: int) -> int:
        end = self._tag_end(position)
        if self._markup[end - 2] == "/":
            self._handler.empty_tag(tag, self._markup[position : end - 2])
            return end
        self._handler.start_tag(tag, self._markup[position : end - 1])
        if tag not in _RAW:
            return end
        closing = _RAW[tag].search(self._markup, end)
        # Without an end tag, the rest of the page is a script or style.
        return closing.start() if closing and closing.start() < self._last_end else len(self._markup)

    def _tag_end(self, position: int) -> int:
        """Return the end of a start tag: after a `>` that is not in a quoted value."""
        at = position
        while self._quotes:
            part = _TAG_PART.search(self._markup, at)
            if part is None:
                self._quotes = False
                break
            at = part.end()
            if part[0] == ">":
                return at
            quoted = _QUOTED.match(self._markup, at)
            at = quoted.end() if quoted else at
        return self._markup.index(">", position) + 1

    def _find(self, closing: str, position: int) -> int:
        """Return the end of the next `closing`; 0 if there is none, without another search."""
        if closing in self._missing:
            return 0
        found = self._markup.find(closing, position)
        if found < 0:
            self._missing.add(closing)
            return 0
        return found + len(closing)

    def _text(self, start: int, end: int) -> None:
        self._line += self._markup.count("\n", self._counted, start)
        self._counted = start
        data = _LONG_REFERENCE.sub("\ufffd", self._markup[start:end])
        self._handler.text(html.unescape(data), self._line)
