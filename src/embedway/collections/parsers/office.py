"""Parsers of Word and PowerPoint files, by python-docx and python-pptx (the extra `office`; MIT).

Both libraries parse XML by lxml without resolving entities. The package is checked before they open it: they read it
whole into memory.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from embedway.collections.parsers.packages import open_package
from embedway.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.collections.parsers.base import ParsedText


def parse_docx(data: bytes, path: str) -> ParsedText:
    """Parse a Word file. Raises SourceError if it is encrypted, damaged or too large.

    A Word file has no lines, so a block's line is the number of its paragraph or table, from 1.
    """
    try:
        import docx  # noqa: PLC0415  an extra

        from embedway.collections.parsers.office_word import read_word  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("reading Word files", extra="office", package="python-docx") from None
    open_package(data, path, what="DOCX")
    return _guarded(lambda: read_word(docx.Document(io.BytesIO(data))), path, "DOCX")


def parse_pptx(data: bytes, path: str) -> ParsedText:
    """Parse a PowerPoint file; its pages are slides. Raises SourceError if it is encrypted, damaged or too large.

    A block's line is the number of its slide.
    """
    try:
        import pptx  # noqa: PLC0415  an extra

        from embedway.collections.parsers.office_slides import read_slides  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("reading PowerPoint files", extra="office", package="python-pptx") from None
    open_package(data, path, what="PPTX")
    return _guarded(lambda: read_slides(pptx.Presentation(io.BytesIO(data))), path, "PPTX")


def _guarded(parse: Callable[[], ParsedText], path: str, what: str) -> ParsedText:
    """Return the result. The libraries raise errors of many classes for parts that are missing or not as expected."""
    try:
        return parse()
    except Exception as error:  # noqa: BLE001  see above
        name = type(error).__name__
        raise SourceError(f"is no valid {what} file: a part of it cannot be read ({name})", path=path) from None
