"""ZIP packages of documents (DOCX, PPTX, EPUB), with bounds on what is unpacked.

The sizes in a package's directory may be false, so each entry is also unpacked once, piece by piece, before a library
opens the package. XML with a document type declaration (DTD) can define entities that multiply: packages of
Office with one are refused.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

from embedway.collections.documents import MAX_RATIO
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ENTRIES = 20_000
#: Maximum unpacked bytes of all entries, below which the ratio to the packed bytes is checked from `_UNCHECKED_BYTES`.
MAX_UNPACKED_BYTES = 1 << 29
#: Maximum unpacked bytes of all XML and HTML, whose trees need about ten times as much memory.
MAX_MARKUP_BYTES = 1 << 25
_UNCHECKED_BYTES = 1 << 24
_PIECE_BYTES = 1 << 16
_ENCRYPTED = 0x1
_DIRECTORY_ENTRY = b"PK\x01\x02"
#: Beginning of the files that Office encrypts, and of Office files before 2007; neither are ZIP packages.
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_DOCUMENT_TYPE = b"<!DOCTYPE"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, KeyError)


class Package:
    """Entries of a checked package, by name."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self._archive = archive
        self._path = path
        self._names = frozenset(archive.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """Return the content of an entry. Raises SourceError without it."""
        if name not in self._names:
            raise SourceError(f"is damaged: it has no entry {name[:200]!r}", path=self._path)
        return self._archive.read(name)


def open_package(data: bytes, path: str, *, what: str, allow_dtd: bool = False) -> Package:
    """Return a package whose entries are all within the bounds. Raises SourceError.

    `what` is the name of the format; `allow_dtd` allows declarations of document types, for readers that ignore them.
    """
    if data.startswith(_COMPOUND):
        raise SourceError(
            f"is encrypted, or in the format of Office before 2007; remove its password, or save it as {what}",
            path=path,
        )
    if data.count(_DIRECTORY_ENTRY) > MAX_ENTRIES:
        raise SourceError(f"has more than {MAX_ENTRIES:,} entries; split it", path=path)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _BROKEN:
        raise SourceError(f"is no valid {what} file: it is damaged, or no ZIP package", path=path) from None
    entries = archive.infolist()
    _check_directory(entries, path)
    _Unpacking(len(data), path, allow_dtd=allow_dtd).check(archive, entries)
    return Package(archive, path)


def _check_directory(entries: list[zipfile.ZipInfo], path: str) -> None:
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise SourceError("is encrypted; remove its password", path=path)
    if len({entry.filename for entry in entries}) != len(entries):
        raise SourceError("is damaged: two of its entries have the same name", path=path)
    if any(entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for entry in entries):
        raise SourceError("is damaged: its compression is not that of a document", path=path)


class _Unpacking:
    """Sums of unpacked bytes, and their limits."""

    def __init__(self, packed: int, path: str, *, allow_dtd: bool) -> None:
        self._path = path
        self._allow_dtd = allow_dtd
        self._left = min(MAX_UNPACKED_BYTES, max(_UNCHECKED_BYTES, packed * MAX_RATIO))
        self._markup_left = MAX_MARKUP_BYTES

    def check(self, archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo]) -> None:
        """Unpack all entries once. Raises SourceError."""
        if sum(entry.file_size for entry in entries) > self._left:
            self._refuse_size()
        for entry in entries:
            try:
                self._unpack(archive, entry)
            except _BROKEN as error:
                if isinstance(error, SourceError):
                    raise
                name = entry.filename[:200]
                raise SourceError(f"is damaged: its entry {name!r} cannot be read", path=self._path) from None

    def _unpack(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        before = b""
        is_markup: bool | None = None
        with archive.open(entry) as file:
            while piece := file.read(_PIECE_BYTES):
                self._left -= len(piece)
                # Markup is recognized by its content, since its name and type are what the package says. Without NUL
                # bytes, UTF-16 is ASCII too.
                letters = piece.replace(b"\0", b"")
                if is_markup is None:
                    is_markup = letters.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<")
                if is_markup:
                    self._markup_left -= len(piece)
                    if not self._allow_dtd and _DOCUMENT_TYPE in before + letters:
                        raise SourceError("is damaged: its XML has a document type declaration (DTD)", path=self._path)
                    before = letters[-len(_DOCUMENT_TYPE) :]
                if self._left < 0 or self._markup_left < 0:
                    self._refuse_size()

    def _refuse_size(self) -> NoReturn:
        raise SourceError("is too large when it is unpacked; split it, or remove its pictures", path=self._path)


def core_title(document: Any) -> str:
    """Return the title in the properties of a file, unless it is that of an empty file."""
    title = " ".join(str(document.core_properties.title or "").split())
    return "" if title in {"Word Document", "PowerPoint Presentation"} else title
