"""Parser of HTML: the main part of a page as blocks, in linear time."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.encodings import (
    ascii_codec_of,
    chosen_encoding,
    codec_of,
    decode_document,
    is_wide,
    mark_of,
)
from embedway.collections.parsers.base import ParsedText, TextBuilder
from embedway.collections.parsers.markup import scan_markup
from embedway.errors import SourceError

if TYPE_CHECKING:
    from embedway.collections.documents import BlockKind

_SKIPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "head"})
_SKIPPED_ROLES = frozenset({"navigation", "banner", "contentinfo", "search"})
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
_BORDERS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "ul",
        "caption",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SEPARATED = frozenset({"option", "button", "td", "th"})
_SPACE = re.compile(r"[ \t\r\n\f\v]+")
_ATTRIBUTE = re.compile(r"""([^\s=>"'/]++)(?:\s*+=\s*+("[^"]*"|'[^']*'|[^\s>]++))?""")
_LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight)-([\w+#.-]+)")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_CHARSET = re.compile(
    rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]{0,200}?encoding=["']([\w.:-]+)""", re.IGNORECASE
)
#: Elements that an end tag may close at once; more are closed by their own end tags only.
_MAX_CLOSED = 32
_WINDOWS = frozenset({"iso8859-1", "ascii"})


class Region(IntEnum):
    """Part of a page, in the order of preference: only blocks of the highest one that exists are read."""

    PAGE = 0
    ARTICLE = 1
    MAIN = 2


@dataclass(slots=True)
class _Block:
    kind: BlockKind
    line: int
    region: Region
    level: int = 0
    language: str = ""
    #: Characters of the header rows of a table.
    header_length: int = 0
    pieces: list[str] = field(default_factory=list)


class _Reader:
    """Handler that collects blocks."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.title: list[str] = []
        #: Open elements: name, whether they are skipped, and the region around them.
        self._open: list[tuple[str, bool, Region]] = []
        self._region = Region.PAGE
        self._skipped_depth = self._pre_depth = self._table_depth = self._list_depth = 0
        self._in_title = self._space = self._header_row = False
        self._kind: BlockKind = "paragraph"
        self._level, self._language = 0, ""
        self._block: _Block | None = None

    def start_tag(self, tag: str, attributes: str) -> None:
        values = _read_attributes(attributes) if attributes.strip() else {}
        self._begin(tag, values)
        if tag in _VOID:
            return
        skipped = _is_skipped(tag, values, self._region)
        self._open.append((tag, skipped, self._region))
        self._skipped_depth += skipped
        if tag == "main" or values.get("role") == "main":
            self._region = Region.MAIN
        elif tag == "article":
            self._region = max(self._region, Region.ARTICLE)

    def empty_tag(self, tag: str, attributes: str) -> None:
        self._begin(tag, _read_attributes(attributes))

    def end_tag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in _BORDERS:
            self._block = None
        if tag == "pre":
            self._pre_depth = max(0, self._pre_depth - 1)
        elif tag == "table":
            self._table_depth = max(0, self._table_depth - 1)
        elif tag in {"ul", "ol"}:
            self._list_depth = max(0, self._list_depth - 1)
        if tag in _HEADINGS or tag == "dt":
            self._kind, self._level = "paragraph", 0
        for back in range(1, min(len(self._open), _MAX_CLOSED) + 1):
            if self._open[-back][0] == tag:
                closed = self._open[-back:]
                self._skipped_depth -= sum(skipped for _, skipped, _ in closed)
                self._region = closed[0][2]
                del self._open[-back:]
                break

    def _begin(self, tag: str, values: dict[str, str]) -> None:  # noqa: C901, PLR0912  one branch for each kind of tag
        if tag == "title" and not self._title_is_inner():
            self._in_title = True
        if (
            tag in _BORDERS
            and not (self._table_depth and tag != "table")
            and not (self._list_depth and tag in {"p", "div"})
        ):
            self._block = None
        if language := _LANGUAGE.search(values.get("class", "")):
            self._language = "" if language[1] == "default" else language[1].lower()
        if tag == "pre":
            self._pre_depth += 1
        elif tag == "table":
            self._table_depth += 1
        elif tag in {"ul", "ol"}:
            self._list_depth += 1
        elif tag in _HEADINGS:
            self._kind, self._level = "heading", _HEADINGS[tag]
        elif tag == "dt" and "sig" in values.get("class", "").split():
            self._kind, self._level = "definition", 7
        elif tag in {"tr", "br", "li"} and self._block is not None:
            self._end_line(header=tag == "tr")
            if tag == "li":
                self._block.pieces.append("- ")
        elif tag in _SEPARATED and self._block is not None and self._block.pieces[-1:] not in ([], ["\n"]):
            self._block.pieces.append(" | ")
            self._space = False
        if tag == "th":
            self._header_row = True
        if tag == "img" and (alt := values.get("alt", "")):
            self.text(f" {alt} ", self._block.line if self._block else 1)

    def _title_is_inner(self) -> bool:
        return any(skipped and tag != "head" for tag, skipped, _ in self._open[-_MAX_CLOSED:])

    def _end_line(self, *, header: bool) -> None:
        block = self._block
        if block is None or not block.pieces:
            return
        if header and self._header_row and not block.header_length and "\n" not in block.pieces:
            block.header_length = len("".join(block.pieces))
        self._header_row = self._space = False
        block.pieces.append("\n")

    def text(self, data: str, line: int) -> None:
        if self._in_title:
            self.title.append(data)
            return
        if self._skipped_depth:
            return
        if not self._pre_depth:
            words = _SPACE.sub(" ", data)
            self._space = self._space or words.startswith(" ")
            if not (inner := words.strip(" ")):
                return
            line += data[: len(data) - len(data.lstrip())].count("\n")
        else:
            words = inner = data
        block = self._current(line)
        if self._space and not self._pre_depth and block.pieces and block.pieces[-1] not in {"\n", "- ", " | "}:
            block.pieces.append(" ")
        block.pieces.append(inner)
        self._space = not self._pre_depth and words.endswith(" ")

    def _current(self, line: int) -> _Block:
        if self._block is None:
            kind: BlockKind = self._kind
            if self._pre_depth:
                kind = "code"
            elif self._table_depth:
                kind = "table"
            elif self._list_depth and kind == "paragraph":
                kind = "list"
            language = self._language if kind == "code" else ""
            self._block = _Block(kind, line, self._region, self._level, language)
            if kind == "list":
                self._block.pieces.append("- ")
            self.blocks.append(self._block)
            self._space = False
        return self._block


def parse_html(text: str, path: str) -> ParsedText:  # noqa: ARG001  no page is refused
    """Return the main part of a page: `<main>` or `role=main`, else articles, else all but navigation."""
    reader = _Reader()
    scan_markup(text, reader)
    region = max((block.region for block in reader.blocks), default=Region.PAGE)
    builder = TextBuilder()
    first = ""
    for block in reader.blocks:
        if block.region < region:
            continue
        content = "".join(block.pieces)
        if block.kind in {"heading", "definition"}:
            content = content.replace("\u00b6", "").removesuffix("#").strip()
            first = first or content
        builder.add(
            content,
            block.kind,
            line=block.line,
            level=block.level,
            language=block.language,
            header_length=block.header_length,
        )
    title = _SPACE.sub(" ", "".join(reader.title)).strip() or first
    return builder.build(title[:MAX_TITLE_CHARACTERS] or None)


def decode_html(data: bytes, path: str, encoding: str | None) -> str:
    """Return a page's text: by byte order mark, declaration, `encoding`, or as UTF-8. Raises SourceError."""
    if mark_of(data) is not None:
        return decode_document(data, path, encoding=None)
    name = _declared(data, path) or codec_of(chosen_encoding(data, encoding)) or "utf-8"
    if name == "utf-8" or (is_wide(name) and b"\0" not in data):
        return decode_document(data, path, encoding=encoding)
    try:
        return data.decode("cp1252" if name in _WINDOWS else name, "strict")
    except UnicodeError:
        raise SourceError(f"is not valid {name}, its encoding; convert the file to UTF-8", path=path) from None


def _declared(data: bytes, path: str) -> str | None:
    """Return the encoding that a page declares, or None. Raises SourceError for an unknown one."""
    found = _CHARSET.search(data, 0, 4096)
    if found is None:
        return None
    name = (found[1] or found[2]).decode("ascii")
    if is_wide(codec_of(name) or ""):
        return "utf-8"  # the declaration is in ASCII: browsers read such a page as UTF-8
    if (codec := ascii_codec_of(name)) is None:
        raise SourceError(f"declares the unknown encoding {name[:40]!r}; convert the file to UTF-8", path=path)
    return codec


def _read_attributes(markup: str) -> dict[str, str]:
    return {
        name.lower(): html.unescape(value.strip("\"'")) if name.lower() != "src" else ""
        for name, value in _ATTRIBUTE.findall(markup)
    }


def _is_skipped(tag: str, values: dict[str, str], region: Region) -> bool:
    if tag in _SKIPPED or values.get("role") in _SKIPPED_ROLES or "hidden" in values:
        return True
    if tag == "a" and "headerlink" in values.get("class", ""):
        return True
    if tag in {"header", "footer"} and region == Region.PAGE:
        return True
    return values.get("aria-hidden") == "true" or bool(_HIDDEN.search(values.get("style", "")))
