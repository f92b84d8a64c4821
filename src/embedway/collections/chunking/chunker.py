"""Split documents into chunks of limited tokens, by their structure or at natural borders."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from embedway.collections.chunking.atoms import AtomMaker, block_groups
from embedway.collections.chunking.code import definitions, enclosing, grammar
from embedway.collections.chunking.context import CONTEXT_SHARE, ContextMaker
from embedway.collections.chunking.limits import count_prompt_tokens
from embedway.collections.chunking.natural import NaturalSplitter
from embedway.collections.chunking.packing import find_overlaps, pack
from embedway.collections.chunking.pieces import Piece, without_contained
from embedway.collections.chunking.sizes import BORDER_TOKENS, ChunkCounter, TokenOffsets, is_word_border, trimmed
from embedway.collections.chunks import Chunk, id_start
from embedway.collections.record import ChunkSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.chunking.limits import ChunkLimits
    from embedway.collections.documents import Document
    from embedway.types import PlainTokenizer


class Chunker:
    """Splitter of documents into chunks. Not thread-safe.

    `tokenizer` must neither pad nor truncate; it is only read. `settings` say what goes before each chunk for the
    model; by default they are those of the limits, with headings.
    """

    def __init__(self, tokenizer: PlainTokenizer, limits: ChunkLimits, settings: ChunkSettings | None = None) -> None:
        self._settings = settings or ChunkSettings(
            chunk_tokens=limits.chunk_tokens, overlap_tokens=limits.overlap_tokens
        )
        self._limits = limits
        self._tokenizer = tokenizer
        self._room = limits.chunk_tokens - limits.special_tokens - count_prompt_tokens(tokenizer, limits.prompt)
        self._offsets = TokenOffsets(tokenizer)
        self._counter = ChunkCounter(tokenizer, limits)
        self._natural = NaturalSplitter(tokenizer, limits, self._offsets, self._counter)
        self._contexts = ContextMaker(tokenizer, self._settings.context, self._room // CONTEXT_SHARE)

    def chunks(self, document: Document, fingerprint: str = "") -> Iterator[Chunk]:
        """Iterate over the chunks of a document, in order. They contain all characters that are not white space.

        `fingerprint` is that of the document, which each chunk gets.
        """
        if document.blocks:
            pieces = without_contained(
                piece for found in self._structured(document) for piece in self._exact(document, found)
            )
        else:
            pieces = list(self._natural_pieces(document))
        lines = _LineCounter(document)
        for number, piece in enumerate(pieces):
            context = self._contexts.make(document, piece)
            yield Chunk(
                id=chunk_id(document, number),
                document_id=document.id,
                text=piece_text(document.text, piece),
                start_char=piece.start,
                end_char=piece.end,
                start_line=lines.line_at(piece.start),
                title=document.title,
                source=document.source,
                metadata=document.metadata,
                number=number,
                total=len(pieces),
                page=_page_at(document, piece.start),
                headings=context.headings,
                context=context.text,
                fingerprint=fingerprint,
            )

    def _structured(self, document: Document) -> Iterator[list[Piece]]:
        """Iterate over the pieces of each group of blocks of a document with known structure."""
        reserved = 0 if self._settings.context == "none" else self._room // CONTEXT_SHARE
        maker = AtomMaker(document.text, self._room - reserved, self._offsets, self._natural)
        for group in block_groups(document):
            atoms = maker.atoms(group)
            tokens = partial(self._tokens_between, group[0][0].start)
            pieces = (Piece(atom.start, atom.end, atom.path, atom.heading) for atom in atoms)
            contexts = [self._contexts.make(document, piece).tokens for piece in pieces]
            overlaps = find_overlaps(document.text, atoms, self._limits.overlap_tokens, tokens)
            yield pack(atoms, self._room, contexts, overlaps)

    def _tokens_between(self, offset: int, start: int, end: int) -> int:
        """Return the tokens of a span of the document, of which the text from `offset` on is loaded."""
        return self._offsets.between(start - offset, end - offset)

    def _exact(self, document: Document, pieces: list[Piece]) -> Iterator[Piece]:
        """Iterate over the pieces; those that are over the limit by an exact count are split again."""
        for piece in pieces:
            context = self._contexts.make(document, piece)
            is_sure = 0 < piece.tokens <= self._room - BORDER_TOKENS and is_word_border(
                document.text, piece.start, piece.end
            )
            if is_sure or self._counter.fits(context.text, piece_text(document.text, piece)):
                yield piece
                continue
            header = piece_text(document.text, piece._replace(start=piece.end))
            room = self._room - context.tokens - count_prompt_tokens(self._tokenizer, header)
            spans = self._natural.exact_spans(
                document.text, piece.start, piece.end, "text", max(room, 1), context.text, header
            )
            for number, (start, end) in enumerate(spans):
                yield Piece(start, end, piece.path, "" if number else piece.heading, piece.header)

    def _natural_pieces(self, document: Document) -> Iterator[Piece]:
        """Iterate over the pieces of a document of unknown structure."""
        text = document.text
        known = grammar(document.language) if document.kind == "code" else None
        found = definitions(text, document.language) if known else []
        starts = [one.start for one in found]
        title = self._contexts.make(document, Piece(0, 0))
        reserved = self._room // CONTEXT_SHARE if found else title.tokens
        spans = self._natural.spans(text, document.kind, self._room - reserved, context=title.text, grammar=known)
        for start, end in spans:
            piece = Piece(start, end, enclosing(found, starts, trimmed(text, start, end)[0]) if found else ())
            if found:
                yield from self._exact(document, [piece])
            else:
                yield piece


def whole_document(document: Document, fingerprint: str = "") -> Chunk:
    """Return a document as one chunk, with its text unchanged. The model may see only the beginning."""
    return Chunk(
        id=chunk_id(document, 0),
        document_id=document.id,
        text=document.text,
        start_char=0,
        end_char=len(document.text),
        start_line=_LineCounter(document).line_at(0),
        title=document.title,
        source=document.source,
        metadata=document.metadata,
        page=_page_at(document, 0),
        fingerprint=fingerprint,
    )


def chunk_id(document: Document, number: int) -> str:
    """Return the id of a document's chunk: the source's name, unless the document is the source, and the number."""
    return f"{id_start(document.source, document.id)}{number}"


def piece_text(text: str, piece: Piece) -> str:
    """Return the text of a piece, after the header of the table that it continues."""
    own = text[piece.start : piece.end]
    return f"{text[slice(*piece.header)].rstrip()}\n{own}" if piece.header else own


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


def _page_at(document: Document, offset: int) -> int | None:
    marks = document.page_marks
    return marks[max(bisect_right(marks, offset, key=itemgetter(0)) - 1, 0)][1] if marks else None
