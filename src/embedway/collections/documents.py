"""Documents, the options of readers, and the checks of texts."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from typing_extensions import override

from embedway.collections.stores.base import RESERVED_COLUMNS
from embedway.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind: TypeAlias = Literal["markdown", "rst", "text", "html", "code"]
SourceFormat: TypeAlias = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"]

#: Handler for the error of one row or file. It raises the error, or records it and returns, so that reading continues.
OnBadRow: TypeAlias = "Callable[[SourceError], None]"

#: Maximum bytes of a file that is one document, and of a row, which is a line or a record of CSV.
MAX_FILE_BYTES = 1 << 28
MAX_ROW_BYTES = 1 << 26
#: Maximum characters of an id, which is repeated for each chunk, and of a title. Longer titles are truncated.
MAX_ID_CHARACTERS = 4096
MAX_TITLE_CHARACTERS = 4096
#: Maximum ratio of unpacked to packed bytes, and unpacked bytes below which the ratio is not checked.
MAX_RATIO = 250
UNCHECKED_BYTES = 1 << 28

NO_METADATA: Mapping[str, str | None] = MappingProxyType({})


class LineMarks(Sequence[tuple[int, int]]):
    """Pairs of (offset in a text, line of the source), ascending, in 16 bytes each."""

    def __init__(self) -> None:
        self._offsets = array("q")
        self._lines = array("q")

    def add(self, offset: int, line: int) -> None:
        """Add a pair, unless the last one has the same line."""
        if not self._lines or self._lines[-1] != line:
            self._offsets.append(offset)
            self._lines.append(line)

    @override
    def __getitem__(self, index: Any) -> Any:
        return self._offsets[index], self._lines[index]

    @override
    def __len__(self) -> int:
        return len(self._lines)


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a source. `line` counts from 1 and is set if the document is a row of a file."""

    id: str
    text: str = field(repr=False)
    source: str
    line: int | None = None
    title: str | None = None
    kind: Kind = "text"
    metadata: Mapping[str, str | None] = field(default_factory=lambda: NO_METADATA, repr=False)
    #: Pairs of (offset in `text`, line of the source), ascending, if `text` was extracted from markup.
    line_marks: Sequence[tuple[int, int]] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for converting rows to documents.

    `format` is the format of standard input, and of files with an unknown extension; `keep` contains columns to copy
    with each row.
    """

    text_field: str = "text"
    id_field: str = "id"
    keep: tuple[str, ...] = ()
    format: SourceFormat = "auto"
    #: Whether to follow symbolic links inside folders.
    follow_links: bool = False

    def __post_init__(self) -> None:
        """Reject kept columns with the names of built-in columns."""
        if taken := sorted(set(self.keep) & RESERVED_COLUMNS):
            raise UsageError(
                f"cannot keep the columns {', '.join(taken)}: the output has its own columns with these names"
            )
        if len(set(self.keep)) != len(self.keep):
            raise UsageError("a column to keep is named twice")


@dataclass(slots=True)
class ByteCounter:
    """Bytes that the readers have read. `total` is None if it is unknown (standard input)."""

    total: int | None = None
    done: int = 0

    def advance(self, size: int) -> None:
        """Add `size` bytes."""
        self.done += size


def text_fault(text: object) -> str | None:
    """Return why a value cannot be embedded, or None. The reason never contains the text."""
    if not isinstance(text, str):
        return f"must be text, is {type(text).__name__}"
    if not text or text.isspace():
        return "is empty"
    return surrogate_fault(text)


def surrogate_fault(text: str) -> str | None:
    """Return why a string is not valid Unicode text, or None.

    A byte that was not UTF-8 arrives as U+DC80 to U+DCFF (Python's surrogateescape).
    """
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        escaped = "\udc80" <= text[error.start] <= "\udcff"
        return "is not UTF-8" if escaped else "has a lone surrogate, which is invalid in UTF-8"
    return None


def decode_utf8(data: bytes, path: str) -> str:
    """Return a file's text, without byte order mark. Raises `SourceError` with the line that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError("is not UTF-8; convert the file, or skip it", path=path, line=line) from None
