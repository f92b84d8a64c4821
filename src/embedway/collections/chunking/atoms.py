"""Atoms of a document with known structure: blocks, or parts of large blocks, with the headings that begin them.

A heading, or the signature of a definition, is never alone: it is part of the first atom of its section. So is the
header of a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.chunking import sizes
from embedway.collections.chunking.borders import inner_spans, lines
from embedway.collections.chunking.context import one_line
from embedway.collections.chunking.natural import tokenizer_windows
from embedway.collections.chunking.sizes import BORDER_TOKENS, trimmed, trimmed_lines
from embedway.collections.documents import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.chunking.natural import NaturalSplitter
    from embedway.collections.chunking.sizes import TokenOffsets
    from embedway.collections.documents import Document

#: Maximum headings of a path, and characters of each. Deeper ones replace the innermost.
_MAX_DEPTH = 16
_MAX_HEADING = 300
#: Level of a block that continues a section.
CONTINUES = 0
_WORD = re.compile(r"\S+")


@dataclass(slots=True)
class Atom:
    """Part of a document that is never cut: `text[start:end]`, with at most the tokens of a chunk.

    `level` is that of the heading or definition that begins it, or of the sections that end before it; or 0. `is_inner`
    is true if the atom before is of the same block. `first` and `last` are the numbers of tokens before its beginning
    and its end. `body` is where its own text begins, after headings; not before `end` if it has none. `section_level`
    is the level of the innermost section around it, 0 outside of all. `is_introduced` is true if the text before it
    ends with a colon.
    """

    start: int
    end: int
    first: int
    last: int
    path: tuple[str, ...]
    heading: str = ""
    level: int = CONTINUES
    is_inner: bool = False
    is_prose: bool = False
    header: tuple[int, int] | None = None
    header_tokens: int = 0
    body: int = 0
    section_level: int = 0
    is_introduced: bool = False


def is_heading(block: Block) -> bool:
    """Return whether a block begins a section. Another block with a level ends sections of this level and below."""
    return block.level > 0 and block.kind in {"heading", "definition"}


def blocks_of(document: Document) -> Iterator[tuple[Block, bool]]:
    """Iterate over all text of a document as blocks; very large ones in parts, which are marked as continued."""
    text = document.text
    for block in _all_blocks(document):
        if block.end - block.start <= sizes.SECTION_CHARACTERS // 4:
            yield block, False
            continue
        is_continued = False
        for start, end in inner_spans(text, block):
            for first, last in tokenizer_windows(text[start:end]):
                is_header = not is_continued and block.kind == "table"
                header_end = block.header_end if is_header or block.kind == "table" else 0
                level = 0 if is_continued and not is_heading(block) else block.level
                yield Block(block.kind, start + first, start + last, level, header_end), is_continued
                is_continued = True


def _all_blocks(document: Document) -> Iterator[Block]:
    """Iterate over the blocks, with paragraphs for the text between them."""
    text = document.text
    end = 0
    for block in document.blocks or ():
        if block.start < end or block.end > len(text) or block.start >= block.end:
            continue
        if text[end : block.start].strip():
            yield Block("paragraph", *trimmed_lines(text, end, block.start))
        if text[block.start : block.end].strip():
            yield block
        end = block.end
    if text[end:].strip():
        yield Block("paragraph", *trimmed_lines(text, end, len(text)))


def block_groups(document: Document) -> Iterator[list[tuple[Block, bool]]]:
    """Iterate over groups of parts that are tokenized at once, which begin at a heading where possible.

    No group ends with a heading, unless it has nothing else.
    """
    group: list[tuple[Block, bool]] = []
    border = 0
    for part, is_continued in blocks_of(document):
        if group and part.end - group[0][0].start > sizes.SECTION_CHARACTERS:
            cut = border or len(group)
            while cut > 1 and is_heading(group[cut - 1][0]):
                cut -= 1
            cut = len(group) if is_heading(group[cut - 1][0]) else cut
            yield group[:cut]
            group, border = group[cut:], 0
        starts_section = is_heading(part) and not (group and is_heading(group[-1][0]))
        if starts_section and group and part.start - group[0][0].start > sizes.SECTION_CHARACTERS // 2:
            border = len(group)
        group.append((part, is_continued))
    if group:
        yield group


def _label(text: str, block: Block) -> str:
    """Return a heading, or the name that a signature defines, for the path."""
    label = one_line(text[block.start : block.start + 8 * _MAX_HEADING])[:_MAX_HEADING]
    # Parameters would take half of the context, and their names and defaults say little about the text.
    name = label.split("(", 1)[0].rstrip() if block.kind == "definition" else ""
    return name or label


class AtomMaker:
    """Maker of the atoms of one document, group by group.

    `room` is the maximum of tokens of a chunk beside special tokens, prompt and context.
    """

    def __init__(self, text: str, room: int, offsets: TokenOffsets, natural: NaturalSplitter) -> None:
        self._text = text
        self._room = room
        #: Maximum tokens of headings that wait for their text.
        self._most_heading = room * 3 // 4
        self._offsets = offsets
        self._natural = natural
        self._stack: list[tuple[int, str]] = []
        #: Offset in the text at which the loaded group begins.
        self._loaded_at = 0
        self._header: tuple[int, int] | None = None
        #: Tokens of the header. Its table may go on in a later group, where the header is not loaded.
        self._header_token_count = 0

    def atoms(self, group: list[tuple[Block, bool]]) -> list[Atom]:
        """Return the atoms of a group, whose text becomes the loaded one."""
        self._loaded_at = group[0][0].start
        self._offsets.load(self._text[self._loaded_at : group[-1][0].end])
        made: list[Atom] = []
        waiting: Atom | None = None
        for block, is_continued in group:
            if is_heading(block):
                waiting = self._collect_heading(made, waiting, block)
                continue
            if block.level and not waiting:
                self._close(block.level)
            spans = self._spans(block, is_continued, waiting)
            for number, (start, end) in enumerate(spans):
                made.append(self._atom(block, start, end, is_inner=is_continued or number > 0))
                made[-1].level = 0 if number else block.level
                if waiting:
                    self._put_headings_before(made[-1], waiting)
                    waiting = None
        if waiting:
            self._append_headings_without_text(made, waiting)
        return made

    def _close(self, level: int) -> None:
        """End the sections of a level and of all below it."""
        while self._stack and self._stack[-1][0] >= level:
            self._stack.pop()

    def _collect_heading(self, made: list[Atom], waiting: Atom | None, block: Block) -> Atom:
        """Return the headings that wait for their text, with one more; those that fill a chunk are an atom."""
        self._close(block.level)
        path = tuple(label for _, label in self._stack)
        label = _label(self._text, block)
        if len(self._stack) >= _MAX_DEPTH:
            self._stack.pop()
        self._stack.append((block.level, label))
        if waiting is None:
            first = self._first(block.start)
            waiting = Atom(block.start, block.end, first, 0, path, label, block.level, body=len(self._text))
        waiting.end, waiting.last = block.end, self._last(block.end)
        if waiting.last - waiting.first <= self._most_heading:
            return waiting
        *begun, waiting = self._cut_heading(waiting)
        made.extend(begun)
        return waiting

    def _cut_heading(self, waiting: Atom) -> list[Atom]:
        """Return the parts of headings that are too large to wait together for their text, cut between words.

        A short heading before a long one shares its first part, so it is not alone.
        """
        found: list[Atom] = []
        inner = (*waiting.path, waiting.heading)
        for start, end in self._filled(waiting.start, waiting.end, self._most_heading):
            path, heading, level = (inner, "", 0) if found else (waiting.path, waiting.heading, waiting.level)
            found.append(Atom(start, end, self._first(start), self._last(end), path, heading, level, body=end))
        return found or [waiting]

    def _filled(self, start: int, end: int, capacity: int) -> Iterator[tuple[int, int]]:
        """Iterate over spans between words, each with as many tokens as fit."""
        begin = last = start
        for word in _WORD.finditer(self._text, start, end):
            if last > begin and self._tokens(begin, word.end()) > capacity:
                yield begin, last
                begin = word.start()
            last = word.end()
            if self._tokens(begin, last) > capacity:
                *full, (first, last) = [
                    (begin + one, begin + two)
                    for one, two in self._natural.split_loaded(self._text[begin:last], capacity)
                ]
                yield from full
                begin = first
        if last > begin:
            yield begin, last

    def _put_headings_before(self, atom: Atom, waiting: Atom) -> None:
        """Put headings before the first atom of their section."""
        atom.start, atom.first = waiting.start, waiting.first
        atom.path, atom.heading, atom.level = waiting.path, waiting.heading, waiting.level
        atom.is_inner = False

    def _append_headings_without_text(self, made: list[Atom], waiting: Atom) -> None:
        """Append headings without text to the atom before them, or to its last part that leaves room for them."""
        if not made:
            made.append(waiting)
            return
        before = made[-1]
        if waiting.last - before.first > self._room and before.body < before.end:
            capacity = max(self._room - (waiting.last - waiting.first) - BORDER_TOKENS, self._room // 8)
            spans = list(self._fitting(before.body, before.end, capacity))
            if len(spans) > 1:
                before.end, before.last = spans[-2][1], self._last(spans[-2][1])
                path = (*before.path, before.heading) if before.heading else before.path
                start = spans[-1][0]
                made.append(Atom(start, start, self._first(start), 0, path, is_inner=True, body=start))
        if waiting.last - made[-1].first <= self._room:
            made[-1].end, made[-1].last = waiting.end, waiting.last
        else:
            made.append(waiting)

    def _spans(self, block: Block, is_continued: bool, waiting: Atom | None) -> list[tuple[int, int]]:
        """Return the span of a block if it fits into a chunk with its headings, else the spans of its parts."""
        text = self._text
        if block.kind == "table":
            if not is_continued:
                has_header = block.start < block.header_end <= block.end
                self._header = (block.start, block.header_end) if has_header else None
        else:
            self._header = None
        # With the separator from its headings, which is tokens for some tokenizers.
        room = self._room - (self._first(block.start) - waiting.first if waiting else 0)
        if self._tokens(block.start, block.end) <= room:
            return [(block.start, block.end)]
        header_tokens = self._header_tokens()
        capacity = max(min(room, self._room - header_tokens), self._room // 4)
        found = [(block.start, block.end)] if is_continued else list(inner_spans(text, block))
        spans: list[tuple[int, int]] = []
        for start, end in found:
            spans += self._fitting(start, end, capacity)
        is_header_first = self._header and not is_continued and len(spans) > 1 and spans[0][1] <= self._header[1]
        if is_header_first and self._tokens(spans[0][0], spans[1][1]) <= room:
            spans[:2] = [(spans[0][0], spans[1][1])]
        return spans

    def _fitting(self, start: int, end: int, capacity: int) -> Iterator[tuple[int, int]]:
        """Iterate over spans with at most `capacity` tokens, without white space at their ends."""
        first, last = trimmed(self._text, start, end)
        if first == last:
            return
        if self._tokens(first, last) <= capacity:
            yield trimmed_lines(self._text, start, end)
            return
        for line_start, line_end in lines(self._text, first, last):
            one, two = trimmed(self._text, line_start, line_end)
            if one == two:
                continue
            if self._tokens(one, two) <= capacity:
                yield trimmed_lines(self._text, line_start, line_end)
                continue
            for part_start, part_end in self._natural.split_loaded(self._text[one:two], capacity):
                yield trimmed(self._text, one + part_start, one + part_end)

    def _atom(self, block: Block, start: int, end: int, *, is_inner: bool) -> Atom:
        path = tuple(label for _, label in self._stack)
        first, last = self._first(start), self._last(end)
        atom = Atom(start, end, first, last, path, is_inner=is_inner, body=start)
        atom.is_prose = block.kind in {"paragraph", "quote"}
        atom.section_level = self._stack[-1][0] if self._stack else 0
        atom.is_introduced = self._text[max(start - 8, 0) : start].rstrip().endswith((":", "\uff1a"))
        if is_inner and self._header and start >= self._header[1]:
            atom.header_tokens = self._header_tokens()
            atom.header = self._header if atom.header_tokens else None
        return atom

    def _header_tokens(self) -> int:
        """Return the tokens of the current table's header, or 0 if it is too large to be repeated."""
        if self._header is None:
            return 0
        start, end = self._header
        if start >= self._loaded_at:
            self._header_token_count = self._tokens(start, end) + 1
        return self._header_token_count if self._header_token_count <= self._room // 2 else 0

    def _tokens(self, start: int, end: int) -> int:
        return self._last(end) - self._first(start)

    def _first(self, offset: int) -> int:
        return self._offsets.ended_by(offset - self._loaded_at)

    def _last(self, offset: int) -> int:
        return self._offsets.begun_before(offset - self._loaded_at)
