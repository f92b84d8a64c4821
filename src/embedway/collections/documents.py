"""Documents, the options of readers, and the checks of texts."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from typing_extensions import override

from embedway.collections.columns import RESERVED_COLUMNS
from embedway.collections.encodings import check_encoding
from embedway.collections.values import (
    SourceFormat,  # noqa: TC001  type aliases are evaluated
    Value,  # noqa: TC001  as above
)
from embedway.errors import SourceError, UsageError
from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.collections.values import ColumnType

Kind: TypeAlias = Literal["markdown", "rst", "text", "html", "code"]
#: Kinds of blocks. A heading, or the signature of a definition, begins a section that ends before the next one of the
#: same or a lower level.
BlockKind: TypeAlias = Literal["heading", "definition", "paragraph", "list", "table", "code", "quote"]

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
RATIO_FAULT = f"unpacks to more than {MAX_RATIO} times its size; if that is right, unpack it and name the new file"

#: Character in texts of formats with pages before each page but the first, so that any part of a chunk has its page.
PAGE_MARK = "\f"
NO_METADATA: Mapping[str, Value] = MappingProxyType({})


class DocumentKey(NamedTuple):
    """Identity of a document in a collection.

    `source` is the name of the source; `document_id` is unique in it: the path below a folder, the name of a file, or
    the id of a row.
    """

    source: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Block:
    """Part of a document's text that is split only if it must be: `text[start:end]`.

    Blocks are ascending and do not overlap. Text outside of them is a paragraph.
    """

    kind: BlockKind
    start: int
    end: int
    #: Level of a heading, from 1; definitions are below headings, so they begin at 7. Another block with a level ends
    #: the sections of this level and below, as text after the indented lines of a definition does.
    level: int = 0
    #: End of the header rows of a table, which begin at `start`; 0 if it has none.
    header_end: int = 0
    #: Language of a code block, in lower case; empty if it is unknown.
    language: str = ""


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
    metadata: Mapping[str, Value] = field(default_factory=lambda: NO_METADATA, repr=False)
    #: Pairs of (offset in `text`, line of the source), ascending, if `text` was extracted from markup.
    line_marks: Sequence[tuple[int, int]] = field(default=(), repr=False)
    #: Structure of the text; None if it is unknown, so that natural borders are searched for.
    blocks: Sequence[Block] | None = field(default=None, repr=False)
    #: Pairs of (offset in `text`, page), ascending, for formats with pages.
    page_marks: Sequence[tuple[int, int]] = field(default=(), repr=False)
    #: Language of the source code, in lower case, if the document is code.
    language: str = ""
    #: Hash of the content that decides on the document's chunks; empty if it is unknown.
    content_hash: str = ""

    @property
    def key(self) -> DocumentKey:
        """The identity of the document."""
        return DocumentKey(self.source, self.id)


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document that is read and not yet parsed.

    `content_hash` changes whenever the source's content changes, so an unchanged document is never parsed. `parse`
    raises SourceError; None means that there is nothing to embed.
    """

    key: DocumentKey
    content_hash: str
    parse: Callable[[], Document | None] = field(repr=False)


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
    #: Encoding of files that have neither a byte order mark nor a declaration; None means UTF-8.
    encoding: str | None = None
    #: Patterns as in `.gitignore`: only these files of folders, which may have any extension; and none of these.
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: Declared types of kept columns; the values of the others keep the type that they have in the source.
    keep_types: Mapping[str, ColumnType] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Reject unknown encodings, and kept columns with the names of built-in columns."""
        if self.encoding is not None:
            check_encoding(self.encoding)
        if taken := sorted(set(self.keep) & RESERVED_COLUMNS):
            raise UsageError(
                f"cannot keep the columns {', '.join(taken)}: a collection has columns of its own with these names; "
                "rename them in the source"
            )
        if twice := [name for place, name in enumerate(self.keep) if name in self.keep[:place]]:
            raise UsageError(f"{option('keep')} names the column {twice[0]!r} twice; name it once")


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
    if "\0" in text:
        return "has a NUL character"
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
