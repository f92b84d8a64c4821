"""Text of HTML inside of Markdown, in linear time: tags and comments are removed, and headings and tables are kept."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, NamedTuple

from embedway.collections.parsers.markdown_inline import alt_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.documents import BlockKind

#: Tag, with its quoted values. No part contains `<`, so that each position is scanned a constant number of times.
_TAG = re.compile(r"<(/?)([a-zA-Z][\w:.-]*+)(?:(?:[^<>\"']|\"[^\"<]*+\"|'[^'<]*+')*+|[^<>]*+)>|<[!?][^<>]*+>")
_HEADING = re.compile(r"h([1-6])")
_SKIPPED = frozenset({"script", "style", "svg", "template"})
_PARAGRAPH_TAGS = (
    "p div section article details summary blockquote ul ol dl table thead tbody pre figure figcaption center header "
    "footer main aside nav hr"
)
_PARAGRAPHS = frozenset(_PARAGRAPH_TAGS.split())
_LINES = frozenset({"br", "li", "tr", "dt", "dd", "caption"})


class Fragment(NamedTuple):
    """Block of text; `line` counts from 0 within the fragment."""

    kind: BlockKind
    text: str
    line: int
    level: int = 0
    header_length: int = 0


class _Fragments:
    """Blocks of a fragment of HTML."""

    def __init__(self) -> None:
        self.blocks: list[Fragment] = []
        self._pieces: list[str] = []
        self._line = 0
        self._kind: BlockKind = "paragraph"
        self._level = 0
        self._header_length = 0
        self._cells = 0
        self._preformatted = False
        self._skipped = ""

    def text(self, data: str, line: int) -> None:
        if self._skipped:
            return
        text = html.unescape(data) if "&" in data else data
        if not self._preformatted:
            inner = text.strip()
            before = " " if text[:1].isspace() else ""
            text = before + re.sub(r"\s+", " ", inner) + (" " if inner and text[-1:].isspace() else "")
        if text.strip() and not any(piece.strip() for piece in self._pieces):
            self._line = line + len(data[: len(data) - len(data.lstrip())].split("\n")) - 1
        self._pieces.append(text)

    def tag(self, name: str, closing: bool, tag: str) -> None:
        if self._skipped:
            self._skipped = "" if closing and name == self._skipped else self._skipped
        elif name in _SKIPPED:
            self._skipped = "" if closing or tag.endswith("/>") else name
        elif name == "img":
            self._pieces.append(alt_text(tag))
        elif found := _HEADING.fullmatch(name):
            self.flush("paragraph" if closing else "heading", 0 if closing else int(found[1]))
        elif name in {"table", "pre"}:
            self.flush("paragraph" if closing else ("table" if name == "table" else "code"))
            self._preformatted = name == "pre" and not closing
        elif name in {"td", "th"}:
            self._cell(name, closing)
        elif self._kind == "table" and name in _PARAGRAPHS:
            pass
        elif name in _PARAGRAPHS:
            self.flush(self._kind if self._kind == "heading" and not closing else "paragraph", self._level)
        elif name in _LINES:
            self._pieces.append("\n")
            self._cells = 0

    def _cell(self, name: str, closing: bool) -> None:
        if closing:
            if name == "th":
                self._header_length = -1
            return
        self._pieces.append(" | " if self._cells else "")
        self._cells += 1

    def flush(self, kind: BlockKind, level: int = 0) -> None:
        text = "".join(self._pieces)
        if self._kind == "heading":
            text = " ".join(text.split())
        elif not self._preformatted:
            text = "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
        if text.strip():
            header = len(text.partition("\n")[0]) if self._kind == "table" and self._header_length else 0
            self.blocks.append(Fragment(self._kind, text, self._line, self._level, header))
        self._pieces.clear()
        self._kind, self._level, self._header_length, self._cells = kind, level, 0, 0


def html_fragments(markup: str) -> list[Fragment]:
    """Return the blocks of a fragment of HTML. Unclosed comments and tags are text."""
    fragments = _Fragments()
    position = line = counted = 0
    for start, end, tag in _tags(markup):
        line += markup.count("\n", counted, position)
        counted = position
        if start > position:
            fragments.text(markup[position:start], line)
        if tag is not None and tag[2]:
            fragments.tag(tag[2].lower(), bool(tag[1]), tag[0])
        position = end
    fragments.flush("paragraph")
    return fragments.blocks


def _tags(markup: str) -> Iterator[tuple[int, int, re.Match[str] | None]]:
    """Iterate over the places of tags and comments, and at last the end."""
    position, comments = 0, True
    while found := _TAG.search(markup, position):
        start, end = found.span()
        comment = markup.find("<!--", position, start + 4) if comments else -1
        if comment >= 0:
            closed = markup.find("-->", comment + 4)
            comments = closed >= 0
            if comments:
                yield comment, closed + 3, None
                position = closed + 3
                continue
        yield start, end, found
        position = end
    if comments and (comment := markup.find("<!--", position)) >= 0:
        closed = markup.find("-->", comment + 4)
        if closed >= 0:
            yield comment, closed + 3, None
    yield len(markup), len(markup), None
