"""Parser of PDF files that have a text layer, by pypdfium2 (the extra `pdf`; BSD, Chrome's PDF library).

Lines that repeat at the top or bottom of most pages are dropped, and words that are hyphenated at a line's end are
joined. The library is native code: a crash of it ends the process.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import TextBuilder
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from embedway.collections.parsers.base import ParsedText

MAX_PAGES = 20_000
MAX_CHARACTERS = 1 << 26
_HYPHENATED = re.compile(r"(?<=[^\W\d_])[\u00ad\ufffe-]\n(?=[^\W\d_A-Z])")
_NUMBER = re.compile(r"\d+")
#: Lines at each end of a page that may be a header or footer, and the number of pages from which they are recognized.
_EDGE_LINES = 2
_MIN_PAGES = 3


def parse_pdf(data: bytes, path: str) -> ParsedText:
    """Parse a PDF file. Raises SourceError for an encrypted or invalid file, and for one without text."""
    try:
        import pypdfium2  # noqa: PLC0415  an extra
    except ImportError:
        raise MissingExtraError("reading PDF files", extra="pdf", package="pypdfium2") from None
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise SourceError("is encrypted; remove its password", path=path) from None
        raise SourceError("is no valid PDF file", path=path) from None
    try:
        if len(document) > MAX_PAGES:
            raise SourceError(f"has more than {MAX_PAGES:,} pages; split it", path=path)
        pages = _pages(document, path)
        title = " ".join(str(document.get_metadata_dict().get("Title") or "").split())[:MAX_TITLE_CHARACTERS]
    except pypdfium2.PdfiumError:
        raise SourceError("is no valid PDF file: a page cannot be read", path=path) from None
    finally:
        document.close()
    if not any(pages):
        raise SourceError("has no text layer, so it is probably scanned; recognize its text (OCR) first", path=path)
    repeated = _repeated(pages)
    builder = TextBuilder()
    for number, lines in enumerate(pages, 1):
        kept = [line for at, line in enumerate(lines) if not (_edge(at, lines) and _shape(line) in repeated)]
        text = without_data_uris(_HYPHENATED.sub("", "\n".join(kept)))
        for paragraph in re.split(r"\n(?:[ \t]*\n)+", text):
            builder.add(paragraph, "paragraph", line=number, page=number)
    return builder.build(title or None)


def _pages(document: Any, path: str) -> list[list[str]]:
    """Return the lines of each page."""
    pages: list[list[str]] = []
    total = 0
    for index in range(len(document)):
        page = document[index]
        text_page = page.get_textpage()
        total += text_page.count_chars()
        if total > MAX_CHARACTERS:
            raise SourceError(f"has more than {MAX_CHARACTERS:,} characters; split it", path=path)
        text = text_page.get_text_bounded().replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        text_page.close()
        page.close()
        pages.append(text.strip().split("\n") if text.strip() else [])
    return pages


def _edge(at: int, lines: list[str]) -> bool:
    return at < _EDGE_LINES or at >= len(lines) - _EDGE_LINES


def _shape(line: str) -> str:
    """Return a line without its numbers, which are those of pages."""
    return _NUMBER.sub("0", " ".join(line.split()))


def _repeated(pages: list[list[str]]) -> set[str]:
    """Return the shapes of lines that are at the edge of most pages."""
    filled = [lines for lines in pages if lines]
    if len(filled) < _MIN_PAGES:
        return set()
    counts = Counter(
        shape for lines in filled for shape in {_shape(line) for at, line in enumerate(lines) if _edge(at, lines)}
    )
    return {shape for shape, count in counts.items() if count > len(filled) / 2}
