"""Documents to chunks: pieces of at most so many of the model's own tokens, cut at natural borders.

`semantic-text-splitter` chooses the borders: headings, paragraphs and lists in Markdown; elsewhere runs of
newlines, the longest first, which in source code are the blank lines around classes and functions; then
sentences and words. It asks for the size of some ten pieces per chunk. Tokenizing each of them makes 240
chunks a second; here a document is tokenized once and a piece's size is the number of tokens between its
ends: 1,400 a second.

That number can be wrong where a cut falls inside a word, so a chunk is counted again, exactly and with the
prompt, unless its ends are at white space and it is well below the limit. One that is too large is cut again
by the exact and slow way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
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
#: Room that a chunk must have beside prompt and special tokens; one character can take that many tokens.
MIN_ROOM_TOKENS = 16
#: A count between white space may differ from the exact one by what the tokenizer does at the two borders.
_BORDER_TOKENS = 8
#: Longer documents are cut at a strong border first: memory and the time per chunk stay the same.
SECTION_CHARACTERS = 1 << 16
#: Where the first line's indentation says how the lines below it belong.
_INDENTED = frozenset({"code", "rst"})
_SECTION_BORDERS = ("\n\n\n", "\n\n", "\n", " ")


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """How chunks are cut. All counts are in the model's tokens.

    `chunk_tokens` is the most that the model sees of one chunk, special tokens and prompt included;
    `overlap_tokens` is the most that two neighbouring chunks share.
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
    """The limits asked for, or the usual ones (256 and 32, less where the model takes less).

    Raises `UsageError` where the model takes less than what was asked, or where no room is left for text.
    """
    tokens = min(max_tokens, DEFAULT_CHUNK_TOKENS) if chunk_tokens is None else chunk_tokens
    if tokens > max_tokens:
        raise UsageError(f"chunks of {tokens} tokens are more than the model takes ({max_tokens})")
    room = tokens - special_tokens - prompt_tokens
    if room < MIN_ROOM_TOKENS:
        least = special_tokens + prompt_tokens + MIN_ROOM_TOKENS
        raise UsageError(
            f"chunks of {tokens} tokens leave no room for text; "
            f"this model's special tokens and prompt need at least {least}"
        )
    overlap = min(DEFAULT_OVERLAP_TOKENS, room // 4) if overlap_tokens is None else overlap_tokens
    if not 0 <= overlap <= room // 2:
        raise UsageError(f"an overlap of {overlap} tokens does not go with chunks of {tokens}: 0 to {room // 2} does")
    return ChunkLimits(tokens, overlap, special_tokens, prompt)


def count_prompt_tokens(tokenizer: PlainTokenizer, prompt: str) -> int:
    """Tokens that a prompt takes, without special tokens."""
    return len(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else 0


class Chunker:
    """Cuts documents. Not for two threads at once.

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
        """The chunks of a document, in order. Together they hold every character that is not white space."""
        lines = _LineCounter(document)
        for number, span in enumerate(self._spans(document)):
            yield _chunk(document, number, *span, line=lines.line_at(span[0]))

    def _spans(self, document: Document) -> Iterator[tuple[int, int]]:
        text = document.text
        if len(text) < self._room and text.isascii():
            # A token takes at least one such character, and one more token may mark the beginning.
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
        """Where a piece begins that may share no more than was asked with the one that ended at `before`.

        The splitter counts what is shared without the indentation that it then keeps.
        """
        while start < before and self._sizer.between(start, before) > self._limits.overlap_tokens:
            blank = len(text[start:before]) - len(text[start:before].lstrip())
            start = start + blank if blank else before
        return start

    def _with_indentation(self, text: str, start: int) -> int:
        """Where the line's indentation begins, if only that stands before `start` and it takes no token."""
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
        """The span if its exact count is within the limit, else the spans of its parts that are."""
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
    """A document as one chunk, its text untouched. The model may see only its beginning."""
    return _chunk(document, 0, 0, len(document.text), line=_LineCounter(document).line_at(0))


class _Sizer:
    """Sizes of pieces of one loaded text, from the places of its tokens."""

    def __init__(self, tokenizer: PlainTokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = ""
        self._near = 0
        self._starts: Sequence[int] = ()
        self._ends: Sequence[int] = ()

    def load(self, text: str) -> int:
        """Take up a text; returns its tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        self._text = text
        self._near = 0
        self._starts = [start for start, _ in offsets]
        self._ends = [end for _, end in offsets]
        return len(offsets)

    def between(self, start: int, end: int) -> int:
        """Tokens that have a character in this span."""
        return bisect_left(self._starts, end) - bisect_right(self._ends, start)

    def size(self, piece: str) -> int:
        """Tokens of a piece of the text. Of two equal pieces either will do: their tokens are the same."""
        start = self._text.find(piece, self._near)
        if start < 0:
            start = max(self._text.find(piece), 0)
        else:
            self._near = start
        return self.between(start, start + len(piece))


class _LineCounter:
    """Lines in the source of ascending offsets in a document's text."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._offset = 0
        self._line = 1
        self._mark_offsets = [offset for offset, _ in document.line_marks]

    def line_at(self, offset: int) -> int:
        """The line, from 1; a row's line where the document is a row."""
        document = self._document
        if document.line is not None:
            return document.line
        if self._mark_offsets:
            return document.line_marks[max(bisect_right(self._mark_offsets, offset) - 1, 0)][1]
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
    """The span of a text without the white space at its ends."""
    return len(text) - len(text.lstrip()), len(text.rstrip())


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Spans of at most `SECTION_CHARACTERS`, cut at the strongest border in the last quarter of each."""
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
