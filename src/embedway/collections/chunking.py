"""Split documents into chunks of limited tokens, at natural borders.

`semantic-text-splitter` chooses the borders: headings, paragraphs and lists in Markdown; elsewhere runs of
newlines, the longest first, which in source code are the blank lines around classes and functions; then
sentences and words. It requests the sizes of about ten pieces per chunk. Tokenizing each of them makes 240
chunks a second. Here a document is tokenized once, and a piece's size is the number of tokens between its
ends: 1,400 chunks a second.

That number can be wrong if a border is inside a word. So a chunk is counted again, exactly and with the
prompt, unless its ends are at white space and it is well below the limit. A chunk that is too large is split
again by the exact and slow way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from embedway.collections.stores.base import Chunk
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedway.collections.documents import Document, Kind
    from embedway.types import PlainTokenizer

DEFAULT_CHUNK_TOKENS = 256
DEFAULT_OVERLAP_TOKENS = 32
#: Minimum room for text beside prompt and special tokens; one character can need that many tokens.
MIN_ROOM_TOKENS = 16
#: Maximum error of a count between white space, caused by the tokenizer at the two borders.
_BORDER_TOKENS = 8
#: Maximum characters of a section. Longer documents are split at strong borders first, to limit memory and time.
SECTION_CHARACTERS = 1 << 16
#: Kinds of text in which the first line's indentation gives structure to the lines below.
_INDENTED = frozenset({"code", "rst"})
_SECTION_BORDERS = ("\n\n\n", "\n\n", "\n", " ")


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Limits of chunks. All counts are in the model's tokens.

    `chunk_tokens` is the maximum for one chunk, special tokens and prompt included; `overlap_tokens` is the maximum
    that two neighbouring chunks share.
    """

    chunk_tokens: int
    overlap_tokens: int
    special_tokens: int
    prompt: str = field(default="", repr=False)


def chunk_limits(
    *,
    max_tokens: int,
    special_tokens: int,
    prompt_tokens: int,
    prompt: str,
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
) -> ChunkLimits:
    """Return the requested limits, or the defaults (256 and 32, less if the model accepts less).

    Raises `UsageError` if the model accepts less than requested, or if no room is left for text.
    """
    tokens = min(max_tokens, DEFAULT_CHUNK_TOKENS) if chunk_tokens is None else chunk_tokens
    if tokens > max_tokens:
        raise UsageError(f"chunks of {tokens} tokens are over the model's limit ({max_tokens})")
    room = tokens - special_tokens - prompt_tokens
    if room < MIN_ROOM_TOKENS:
        least = special_tokens + prompt_tokens + MIN_ROOM_TOKENS
        raise UsageError(
            f"chunks of {tokens} tokens leave no room for text; "
            f"this model's special tokens and prompt need at least {least}"
        )
    overlap = min(DEFAULT_OVERLAP_TOKENS, room // 4) if overlap_tokens is None else overlap_tokens
    if not 0 <= overlap <= room // 2:
        raise UsageError(f"an overlap of {overlap} tokens is invalid for chunks of {tokens}: use 0 to {room // 2}")
    return ChunkLimits(tokens, overlap, special_tokens, prompt)


def count_prompt_tokens(tokenizer: PlainTokenizer, prompt: str) -> int:
    """Return the number of tokens of a prompt, without special tokens."""
    return len(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else 0


class Chunker:
    """Splitter of documents into chunks. Not thread-safe.

    `tokenizer` must neither pad nor truncate; it is only read.
    """

    def __init__(self, tokenizer: PlainTokenizer, limits: ChunkLimits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        fixed_tokens = limits.special_tokens + count_prompt_tokens(tokenizer, limits.prompt)
        self._room = limits.chunk_tokens - fixed_tokens
        self._sizer = _Sizer(tokenizer)
        self._splitters = {
            kind: splitter.from_callback(self._sizer.size, self._room, limits.overlap_tokens)
            for kind, splitter in (("markdown", MarkdownSplitter), ("text", TextSplitter))
        }
        self._exact: dict[tuple[str, int], Any] = {}

    def chunks(self, document: Document) -> Iterator[Chunk]:
        """Iterate over the chunks of a document, in order. They contain all characters that are not white space."""
        lines = _LineCounter(document)
        for number, span in enumerate(self._spans(document)):
            yield _chunk(document, number, *span, line=lines.line_at(span[0]))

    def _spans(self, document: Document) -> Iterator[tuple[int, int]]:
        text = document.text
        if len(text) < self._room and text.isascii():
            # A token needs at least one ASCII character, and one more token may mark the beginning.
            start, end = _trimmed(text)
            if start < end:
                yield start, end
            return
        for first, last in _sections(text):
            for start, end in self._section_spans(text[first:last], document.kind):
                yield first + start, first + end

    def _section_spans(self, text: str, document_kind: Kind) -> Iterator[tuple[int, int]]:
        kind = "markdown" if document_kind == "markdown" else "text"
        total = self._sizer.load(text)
        if total <= self._room:
            pieces = [_trimmed(text)]
        else:
            found = self._splitters[kind].chunk_indices(text)
            pieces = [(start, start + len(piece)) for start, piece in found]
        before = 0
        for begin, end in pieces:
            if not text[begin:end].strip():
                continue
            start, before = self._within_overlap(text, begin, before), end
            first = self._with_indentation(text, start) if document_kind in _INDENTED else start
            if self._is_sure(text, first, end):
                yield first, end
            else:
                yield from self._split_to_fit(text, first, end, kind)

    def _within_overlap(self, text: str, start: int, before: int) -> int:
        """Return a start for a piece that limits its overlap with the piece that ends at `before`.

        The splitter counts the overlap without the indentation that it then includes.
        """
        while start < before and self._sizer.between(start, before) > self._limits.overlap_tokens:
            blank = len(text[start:before]) - len(text[start:before].lstrip())
            start = start + blank if blank else before
        return start

    def _with_indentation(self, text: str, start: int) -> int:
        """Return the start of the line if only indentation without tokens precedes `start`; else `start`."""
        line_start = text.rfind("\n", 0, start) + 1
        free = text[line_start:start].isspace() and self._sizer.between(line_start, start) == 0
        return line_start if free else start

    def _is_sure(self, text: str, start: int, end: int) -> bool:
        return (
            self._sizer.between(start, end) + _BORDER_TOKENS <= self._room
            and (start == 0 or text[start - 1].isspace())
            and (end == len(text) or text[end].isspace())
        )

    def _split_to_fit(self, text: str, start: int, end: int, kind: str) -> Iterator[tuple[int, int]]:
        """Iterate over the span if its exact count is within the limit, else over spans of parts that are."""
        if self._fits(text[start:end]):
            yield start, end
            return
        for capacity in (self._room, self._room - _BORDER_TOKENS, self._room // 2, 1):
            parts = [
                (start + offset, start + offset + len(piece))
                for offset, piece in self._exact_splitter(kind, capacity).chunk_indices(text[start:end])
            ]
            if all(self._fits(text[first:last]) for first, last in parts):
                break
        yield from (part for part in parts if text[slice(*part)].strip())

    def _fits(self, text: str) -> bool:
        return len(self._tokenizer.encode(self._limits.prompt + text).ids) <= self._limits.chunk_tokens

    def _exact_splitter(self, kind: str, capacity: int) -> Any:
        key = (kind, capacity)
        if key not in self._exact:
            splitter = MarkdownSplitter if kind == "markdown" else TextSplitter
            if isinstance(self._tokenizer, Tokenizer):
                self._exact[key] = splitter.from_huggingface_tokenizer(self._tokenizer, capacity)
            else:
                encode = self._tokenizer.encode
                self._exact[key] = splitter.from_callback(lambda text: len(encode(text).ids), capacity)
        return self._exact[key]


def whole_document(document: Document) -> Chunk:
    """Return a document as one chunk, with its text unchanged. The model may see only the beginning."""
    return _chunk(document, 0, 0, len(document.text), line=_LineCounter(document).line_at(0))


class _Sizer:
    """Token counts of pieces of one loaded text, from the offsets of its tokens."""

    def __init__(self, tokenizer: PlainTokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = ""
        self._near = 0
        self._starts: Sequence[int] = ()
        self._ends: Sequence[int] = ()

    def load(self, text: str) -> int:
        """Load a text and return its number of tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        self._text = text
        self._near = 0
        self._starts = [start for start, _ in offsets]
        self._ends = [end for _, end in offsets]
        return len(offsets)

    def between(self, start: int, end: int) -> int:
        """Return the number of tokens that have a character in this span."""
        return bisect_left(self._starts, end) - bisect_right(self._ends, start)

    def size(self, piece: str) -> int:
        """Return the number of tokens of a piece of the text. Equal pieces have the same tokens, so any will do."""
        start = self._text.find(piece, self._near)
        if start < 0:
            start = max(self._text.find(piece), 0)
        else:
            self._near = start
        return self.between(start, start + len(piece))


class _LineCounter:
    """Source lines of ascending offsets in a document's text."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._offset = 0
        self._line = 1

    def line_at(self, offset: int) -> int:
        """Return the line of an offset, from 1; for a row, the row's line."""
        document = self._document
        if document.line is not None:
            return document.line
        if marks := document.line_marks:
            return marks[max(bisect_right(marks, offset, key=itemgetter(0)) - 1, 0)][1]
        if offset < self._offset:
            self._offset, self._line = 0, 1
        self._line += document.text.count("\n", self._offset, offset)
        self._offset = offset
        return self._line


def _chunk(document: Document, number: int, start: int, end: int, *, line: int) -> Chunk:
    return Chunk(
        id=f"{document.id}#{number}",
        document_id=document.id,
        text=document.text[start:end],
        start_char=start,
        end_char=end,
        start_line=line,
        title=document.title,
        source=document.source,
        metadata=document.metadata,
    )


def _trimmed(text: str) -> tuple[int, int]:
    """Return the span of a text without the white space at its ends."""
    return len(text) - len(text.lstrip()), len(text.rstrip())


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Iterate over spans of at most `SECTION_CHARACTERS`, split at the strongest border in the last quarter of each."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        limit = start + SECTION_CHARACTERS
        cut = limit
        for border in _SECTION_BORDERS:
            found = text.rfind(border, limit - SECTION_CHARACTERS // 4, limit)
            if found >= 0:
                cut = found + len(border)
                break
        yield start, cut
        start = cut
    yield start, len(text)
