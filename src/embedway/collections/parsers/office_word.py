"""Text and structure of a Word document: headings by style, lists, tables and code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import ParsedText, TextBuilder
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.markdown import document_title
from embedway.collections.parsers.packages import core_title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.documents import BlockKind

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PICTURE = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}docPr"
_HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
_CODE = re.compile(r"\bcode\b|source ?code|preformatted|\blisting\b|macro", re.IGNORECASE)
_CONTENTS = re.compile(r"toc(?: \d| heading)?$|table of (?:figures|authorities)$", re.IGNORECASE)
_MONOSPACED = re.compile(r"courier|consolas|monospace|\bmono\b|menlo|monaco|lucida console|source code", re.IGNORECASE)
_MAX_STYLES = 32
_NO_PROPERTIES: Any = ()
_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


@dataclass(frozen=True, slots=True)
class _Style:
    """Facts of a paragraph's style. `level` is that of a heading, from 1; 0 if it is none."""

    name: str = ""
    level: int = 0
    is_list: bool = False
    is_code: bool = False
    is_quote: bool = False


def _styles(document: Any) -> dict[str, _Style]:
    """Return the styles by id, with what they inherit."""
    elements = {style.get(f"{_W}styleId", ""): style for style in document.styles.element.findall(f"{_W}style")}
    return {name: _style(name, elements) for name in elements}


def _style(identifier: str, elements: dict[str, Any]) -> _Style:
    name, level = "", 0
    is_list = is_code = is_quote = False
    for _ in range(_MAX_STYLES):
        element = elements.get(identifier)
        if element is None:
            break
        own = _value(element.find(f"{_W}name")) or identifier
        name = name or own
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        if not level and (found := _HEADING.match(own)):
            level = int(found[1])
        elif not level and outline is not None and _value(outline) in set("012345678"):
            level = int(_value(outline)) + 1
        font = element.find(f"{_W}rPr/{_W}rFonts")
        is_code = is_code or bool(_CODE.search(own)) or _is_monospaced(font)
        is_list = is_list or own.lower().startswith("list ") or element.find(f"{_W}pPr/{_W}numPr") is not None
        is_quote = is_quote or "quote" in own.lower()
        identifier = _value(element.find(f"{_W}basedOn"))
    return _Style(name, min(level, 6), is_list, is_code, is_quote)


def _value(element: Any) -> str:
    return "" if element is None else str(element.get(f"{_W}val") or "")


def _is_monospaced(font: Any) -> bool:
    return font is not None and bool(_MONOSPACED.search(str(font.get(f"{_W}ascii") or "")))


class _Writer:
    """Blocks of a document; list items and lines of code that follow one another are one block."""

    def __init__(self, styles: dict[str, _Style]) -> None:
        self.builder = TextBuilder()
        self.headings: list[tuple[int, str]] = []
        self.title = ""
        self.begins_with_text = False
        self._styles = styles
        self._number = 0
        self._group: list[str] = []
        self._group_kind: BlockKind = "list"
        self._group_lines: list[tuple[int, int]] = []
        self._group_length = 0

    def write(self, body: Any) -> None:
        """Add the paragraphs and tables of an element."""
        for element in _parts(body):
            self._number += 1
            if element.tag == f"{_W}tbl":
                self._table(element)
            else:
                self._paragraph(element)
        self._flush()

    def _paragraph(self, element: Any) -> None:
        properties = next(element.iterchildren(f"{_W}pPr"), _NO_PROPERTIES)
        style = self._styles.get(_value(properties.find(f"{_W}pStyle")), _Style()) if len(properties) else _Style()
        if _CONTENTS.match(style.name):
            return
        text, boxes = _text(element)
        text = without_data_uris(text.strip("\n").rstrip())
        numbering = properties.find(f"{_W}numPr") if len(properties) else None
        level = style.level or _outline(properties)
        if not text.strip():
            if self._group_kind != "code" or not self._group:
                self._flush()
            else:
                self._add_to_group("", "code")
        elif style.name == "Title":
            self.title = self.title or " ".join(text.split())
            self._heading(text, 1)
        elif level:
            self._heading(text, level)
        elif style.is_code or _all_monospaced(element):
            self._add_to_group(text, "code")
        elif style.is_list or numbering is not None:
            depth = "" if numbering is None else _value(numbering.find(f"{_W}ilvl"))
            indent = "  " * (int(depth) if depth in set("012345678") else 0)
            self._add_to_group(f"{indent}- " + text.strip().replace("\n", "\n" + indent + "  "), "list")
        else:
            self._add(text, "quote" if style.is_quote else "paragraph")
        for box in boxes:
            self._add(without_data_uris(_inner_text(box)), "paragraph")

    def _heading(self, text: str, level: int) -> None:
        self._flush()
        text = " ".join(text.split())
        self.headings.append((level, text))
        self.builder.add(text, "heading", line=self._number, level=level)

    def _add(self, text: str, kind: BlockKind) -> None:
        self._flush()
        self.begins_with_text = self.begins_with_text or not self.headings
        self.builder.add(text, kind, line=self._number)

    def _add_to_group(self, text: str, kind: BlockKind) -> None:
        if kind != self._group_kind:
            self._flush()
        self._group_kind = kind
        self._group_lines.append((self._group_length, self._number))
        self._group.append(text)
        self._group_length += len(text) + 1
        self.begins_with_text = self.begins_with_text or not self.headings

    def _flush(self) -> None:
        if self._group:
            first = self._group_lines[0][1]
            self.builder.add("\n".join(self._group), self._group_kind, line=first, lines=self._group_lines)
        self._group, self._group_lines, self._group_length = [], [], 0

    def _table(self, element: Any) -> None:
        self._flush()
        rows = element.findall(f"{_W}tr")
        texts = [" | ".join(_cells(row)) for row in rows]
        texts = [text if text.strip(" |") else "" for text in texts]
        header = 0
        while header < len(rows) and rows[header].find(f"{_W}trPr/{_W}tblHeader") is not None:
            header += 1
        if not header and len(rows) > 1 and _has_first_row(element.find(f"{_W}tblPr/{_W}tblLook")):
            header = 1
        header = 0 if header == len(rows) else header
        self.begins_with_text = self.begins_with_text or not self.headings
        self.builder.add(
            without_data_uris("\n".join(texts)),
            "table",
            line=self._number,
            header_length=len("\n".join(texts[:header])),
        )


def _parts(body: Any) -> Iterator[Any]:
    """Iterate over paragraphs and tables, also of content controls, except for tables of contents."""
    stack = [iter(body)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
        elif element.tag in {f"{_W}p", f"{_W}tbl"}:
            yield element
        elif element.tag == f"{_W}sdt":
            gallery = element.find(f"{_W}sdtPr/{_W}docPartObj/{_W}docPartGallery")
            content = element.find(f"{_W}sdtContent")
            if content is not None and _value(gallery) != "Table of Contents":
                stack.append(iter(content))
        elif element.tag in {f"{_W}ins", f"{_W}moveTo", f"{_W}customXml", f"{_W}smartTag"}:
            stack.append(iter(element))


def _text(paragraph: Any) -> tuple[str, list[Any]]:
    """Return the text of a paragraph without deleted parts, and its boxes of text."""
    pieces: list[str] = []
    boxes: list[Any] = []
    stack = [iter(paragraph)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
            continue
        tag = element.tag
        if not isinstance(tag, str) or tag in {_FALLBACK, f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr"}:
            continue
        if tag == f"{_W}txbxContent":
            boxes.append(element)
        elif tag == f"{_W}t":
            pieces.append(element.text or "")
        elif tag == _PICTURE:
            pieces.append(_alt_text(element))
        elif tag.startswith(_W) and tag[len(_W) :] in _CHARACTERS:
            pieces.append(_CHARACTERS[tag[len(_W) :]])
        else:
            stack.append(iter(element))
    return "".join(pieces), boxes


def _inner_text(element: Any) -> str:
    """Return the text of all paragraphs in an element."""
    return "\n".join(filter(None, (_text(paragraph)[0].strip() for paragraph in element.iter(f"{_W}p"))))


def _alt_text(element: Any) -> str:
    """Return the alternative text of a picture; a name of a file says nothing."""
    text = str(element.get("descr") or "").strip()
    return text if " " in text else ""


def _cells(row: Any) -> Iterator[str]:
    """Iterate over the texts of a row's cells; a cell that continues the one above is empty."""
    for cell in row.iter(f"{_W}tc"):
        if next(cell.iterancestors(f"{_W}tr")) is not row:
            continue
        merged = cell.find(f"{_W}tcPr/{_W}vMerge")
        continues = merged is not None and _value(merged) in {"", "continue"}
        yield "" if continues else " ".join(_inner_text(cell).split())


def _has_first_row(look: Any) -> bool:
    """Return whether the first row of a table has a format of its own."""
    if look is None:
        return False
    first = look.get(f"{_W}firstRow")
    if first is not None:
        return first in {"1", "true", "on"}
    try:
        return bool(int(_value(look) or "0", 16) & 0x20)
    except ValueError:
        return False


def _outline(properties: Any) -> int:
    """Return the level that the paragraph itself has in the outline, from 1; 0 for text."""
    level = _value(properties.find(f"{_W}outlineLvl")) if len(properties) else ""
    return min(int(level) + 1, 6) if level in set("012345678") else 0


def _all_monospaced(paragraph: Any) -> bool:
    """Return whether all text of a paragraph has a font for code."""
    has_runs = False
    for run in paragraph.iterchildren(f"{_W}r"):
        if next(run.iterchildren(f"{_W}t"), None) is None:
            continue
        properties = next(run.iterchildren(f"{_W}rPr"), None)
        if properties is None or not _is_monospaced(properties.find(f"{_W}rFonts")):
            return False
        has_runs = True
    return has_runs


def read_word(document: Any) -> ParsedText:
    """Return the text of a document of python-docx.

    The title is that of the style `Title`, else the document's own heading, else the one in its properties.
    """
    writer = _Writer(_styles(document))
    writer.write(document.element.body)
    title = writer.title or document_title(writer.headings, begins_with_text=writer.begins_with_text)
    return writer.builder.build((title or core_title(document))[:MAX_TITLE_CHARACTERS] or None)
