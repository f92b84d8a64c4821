"""Documents, the options of readers, and the checks of texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from embedway.collections.stores.base import RESERVED_COLUMNS
from embedway.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind: TypeAlias = Literal["markdown", "rst", "text", "html", "code"]
SourceFormat: TypeAlias = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"]

#: Handler for the error of one row or file. It raises the error, or records it and returns, so that reading continues.
OnBadRow: TypeAlias = "Callable[[SourceError], None]"

NO_METADATA: Mapping[str, str | None] = MappingProxyType({})


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
    line_marks: tuple[tuple[int, int], ...] = field(default=(), repr=False)


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
