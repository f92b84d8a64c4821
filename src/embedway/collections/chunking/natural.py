"""Split text of unknown structure at natural borders.

`semantic-text-splitter` chooses the borders: headings, paragraphs and lists in Markdown; the nodes of the syntax tree
in source code; elsewhere runs of newlines, the longest first; then sentences and words. It requests the sizes of about
ten pieces per chunk. Tokenizing each of them makes 240 chunks a second. Here a text is tokenized once, and a piece's
size is the number of tokens between its ends: 1,400 chunks a second. A chunk that is too large is split again by the
exact and slow way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from embedway.collections.chunking import sizes
from embedway.collections.chunking.sizes import BORDER_TOKENS, ChunkCounter, TokenOffsets, is_word_border, trimmed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.chunking.limits import ChunkLimits
    from embedway.types import PlainTokenizer

#: Kinds of text in which the first line's indentation gives structure to the lines below.
_INDENTED = frozenset({"code", "rst"})
_SECTION_BORDERS = ("\n\n\n", "\n\n", "\n", " ")
#: Splitters that are kept; each is for one kind, number of tokens and overlap.
_MAX_SPLITTERS = 256


class NaturalSplitter:
    """Splitter of texts into spans at natural borders. Not thread-safe."""

    def __init__(
        self, tokenizer: PlainTokenizer, limits: ChunkLimits, offsets: TokenOffsets, counter: ChunkCounter
    ) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        self._offsets = offsets
        self._counter = counter
        self._splitters: dict[tuple[Any, ...], Any] = {}

    def spans(
        self, text: str, kind: str, room: int, *, context: str = "", grammar: object = None
    ) -> Iterator[tuple[int, int]]:
        """Iterate over the spans of chunks, in order. They contain all characters that are not white space.

        `room` is the maximum of tokens beside special tokens, prompt and context. `grammar` is a language of
        tree-sitter for source code.
        """
        if len(text) < room and text.isascii():
            # A token needs at least one ASCII character, and one more token may mark the beginning.
            start, end = trimmed(text, 0, len(text))
            if start < end:
                yield start, end
            return
        for first, last in tokenizer_windows(text):
            part = text[first:last]
            for start, end in self._section_spans(part, kind, room, context, grammar):
                yield first + start, first + end

    def split_loaded(self, text: str, max_tokens: int) -> list[tuple[int, int]]:
        """Return spans of a part of the loaded text with at most `max_tokens` tokens each, without exact counts."""
        found = self._splitter("text", max_tokens, 0, None).chunk_indices(text)
        return [(start, start + len(part)) for start, part in found]

    def exact_spans(  # noqa: PLR0917
        self, text: str, start: int, end: int, kind: str, room: int, context: str, header: str = ""
    ) -> Iterator[tuple[int, int]]:
        """Iterate over the span if its exact count is within the limit, else over spans of parts that are.

        `header` goes before each part, as the header of a table.
        """
        if self._counter.fits(context, header + text[start:end]):
            yield start, end
            return
        # Each try has smaller parts, because the splitter's count can differ from the model's. With 1, a part may still
        # be over the limit; then the model sees its beginning alone.
        for capacity in (room, room - BORDER_TOKENS, room // 2, 1):
            parts = [
                (start + offset, start + offset + len(piece))
                for offset, piece in self._exact_splitter(kind, max(capacity, 1)).chunk_indices(text[start:end])
            ]
            if all(self._counter.fits(context, header + text[first:last]) for first, last in parts):
                break
        yield from (part for part in parts if text[slice(*part)].strip())

    def _section_spans(
        self, text: str, document_kind: str, room: int, context: str, grammar: object
    ) -> Iterator[tuple[int, int]]:
        kind = "markdown" if document_kind == "markdown" else "text"
        total = self._offsets.load(text)
        if total <= room:
            pieces = [trimmed(text, 0, len(text))]
        else:
            overlap = min(self._limits.overlap_tokens, room // 2)
            splitter = self._splitter("code" if grammar else kind, room, overlap, grammar)
            pieces = [(start, start + len(piece)) for start, piece in splitter.chunk_indices(text)]
        before = 0
        for begin, end in pieces:
            if not text[begin:end].strip():
                continue
            start, before = self._within_overlap(text, begin, before), end
            first = self._with_indentation(text, start) if document_kind in _INDENTED else start
            if self._is_sure(text, first, end, room):
                yield first, end
            else:
                yield from self.exact_spans(text, first, end, kind, room, context)

    def _within_overlap(self, text: str, start: int, before: int) -> int:
        """Return a start for a piece that limits its overlap with the piece that ends at `before`.

        The splitter counts the overlap without the indentation that it then includes.
        """
        while start < before and self._offsets.between(start, before) > self._limits.overlap_tokens:
            blank = len(text[start:before]) - len(text[start:before].lstrip())
            start = start + blank if blank else before
        return start

    def _with_indentation(self, text: str, start: int) -> int:
        """Return the start of the line if only indentation without tokens precedes `start`; else `start`."""
        line_start = text.rfind("\n", 0, start) + 1
        free = text[line_start:start].isspace() and self._offsets.between(line_start, start) == 0
        return line_start if free else start

    def _is_sure(self, text: str, start: int, end: int, room: int) -> bool:
        return self._offsets.between(start, end) + BORDER_TOKENS <= room and is_word_border(text, start, end)

    def _splitter(self, kind: str, capacity: int, overlap: int, grammar: object) -> Any:
        key = (kind, capacity, overlap, id(grammar))
        if key not in self._splitters:
            if len(self._splitters) >= _MAX_SPLITTERS:
                self._splitters.clear()
            made: Any
            if grammar is not None:
                made = CodeSplitter.from_callback(grammar, self._offsets.size, capacity, overlap)
            else:
                splitter = MarkdownSplitter if kind == "markdown" else TextSplitter
                made = splitter.from_callback(self._offsets.size, capacity, overlap)
            self._splitters[key] = made
        return self._splitters[key]

    def _exact_splitter(self, kind: str, capacity: int) -> Any:
        key = ("exact", kind, capacity)
        if key not in self._splitters:
            splitter = MarkdownSplitter if kind == "markdown" else TextSplitter
            if isinstance(self._tokenizer, Tokenizer):
                self._splitters[key] = splitter.from_huggingface_tokenizer(self._tokenizer, capacity)
            else:
                encode = self._tokenizer.encode
                self._splitters[key] = splitter.from_callback(lambda text: len(encode(text).ids), capacity)
        return self._splitters[key]


def tokenizer_windows(text: str) -> Iterator[tuple[int, int]]:
    """Iterate over spans of at most `SECTION_CHARACTERS`, split at the strongest border in the last quarter of each."""
    start = 0
    most = sizes.SECTION_CHARACTERS
    while len(text) - start > most:
        limit = start + most
        cut = limit
        for border in _SECTION_BORDERS:
            found = text.rfind(border, limit - most // 4, limit)
            if found >= 0:
                cut = found + len(border)
                break
        yield start, cut
        start = cut
    yield start, len(text)
