"""Parser of EPUB books: chapters in reading order, by the parser of HTML.

No library is needed: a book is a ZIP package of XHTML pages, and a package document (OPF) with their order. The page of
a block is the number of its chapter; its line is that of the chapter's file.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote
from xml.parsers import expat

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import TextBuilder
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.html import decode_html, parse_html
from embedway.collections.parsers.packages import open_package
from embedway.errors import SourceError

if TYPE_CHECKING:
    from embedway.collections.parsers.base import ParsedText
    from embedway.collections.parsers.packages import Package

MAX_CHAPTERS = 20_000
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/xml", "text/x-oeb1-document"})
_MAX_VALUE = 1 << 16


class _Element(NamedTuple):
    """Element of XML: its name without namespace, its attributes, and the text directly in it."""

    name: str
    attributes: dict[str, str]
    text: list[str]


def parse_epub(data: bytes, path: str) -> ParsedText:
    """Parse a book. Raises SourceError if it is encrypted, damaged or too large."""
    package = open_package(data, path, what="EPUB", allow_dtd=True)
    container = _read_xml(package, _CONTAINER, path)
    opf = next((item.attributes.get("full-path", "") for item in container if item.name == "rootfile"), "")
    elements = _read_xml(package, opf, path)
    title = next((" ".join("".join(item.text).split()) for item in elements if item.name == "title"), "")
    chapters = _chapters(elements, posixpath.dirname(opf))
    if not chapters:
        raise SourceError("is no valid EPUB file: its list of chapters is empty", path=path)
    if len(chapters) > MAX_CHAPTERS:
        raise SourceError(f"has more than {MAX_CHAPTERS:,} chapters; split it", path=path)
    encrypted = _encrypted(package, path)
    builder = TextBuilder()
    for number, name in enumerate(chapters, 1):
        if name in encrypted:
            raise SourceError("is encrypted (DRM), so it cannot be read", path=path)
        text = without_data_uris(decode_html(package.read(name), f"{path}: {name}", None))
        _add_chapter(builder, parse_html(text, path), number)
    return builder.build(title[:MAX_TITLE_CHARACTERS] or None)


def _add_chapter(builder: TextBuilder, chapter: ParsedText, number: int) -> None:
    """Add the blocks of a chapter, with their lines."""
    marks = list(chapter.line_marks)
    at = 0
    for block in chapter.blocks:
        while at + 1 < len(marks) and marks[at + 1][0] <= block.start:
            at += 1
        builder.add(
            chapter.text[block.start : block.end],
            block.kind,
            line=marks[at][1],
            level=block.level,
            header_length=max(0, block.header_end - block.start),
            language=block.language,
            page=number,
        )


def _chapters(elements: list[_Element], folder: str) -> list[str]:
    """Return the names of the pages, in reading order; the table of contents is none."""
    items = {item.attributes.get("id", ""): item.attributes for item in elements if item.name == "item"}
    chapters: dict[str, None] = {}
    for reference in (item.attributes for item in elements if item.name == "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None or item.get("media-type", "") not in _PAGES or "nav" in item.get("properties", "").split():
            continue
        if href := unquote(item.get("href", "")):
            chapters[posixpath.normpath(posixpath.join(folder, href))] = None
    return list(chapters)


def _encrypted(package: Package, path: str) -> frozenset[str]:
    """Return the names of encrypted entries; these may be fonts only."""
    if _ENCRYPTION not in package:
        return frozenset()
    elements = _read_xml(package, _ENCRYPTION, path)
    return frozenset(unquote(item.attributes.get("URI", "")) for item in elements if item.name == "CipherReference")


def _read_xml(package: Package, name: str, path: str) -> list[_Element]:
    """Return the elements of an entry, in order. Definitions of entities and other encodings are refused."""
    elements: list[_Element] = []
    open_elements: list[_Element] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        element = _Element(name.rpartition(" ")[2], attributes, [])
        elements.append(element)
        open_elements.append(element)

    def text(data: str) -> None:
        if open_elements and len(open_elements[-1].text) < _MAX_VALUE:
            open_elements[-1].text.append(data)

    def refuse(*_: object) -> None:
        raise SourceError(f"is damaged: its entry {name[:200]!r} defines entities", path=path)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(package.read(name), True)
    except (expat.ExpatError, ValueError, LookupError):
        raise SourceError(f"is damaged: its entry {name[:200]!r} is no valid XML", path=path) from None
    return elements
