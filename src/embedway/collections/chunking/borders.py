"""Borders inside of blocks: sentences, items of lists, rows of tables, groups of lines of code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.documents import Block

#: End of a sentence: before white space in scripts that use it, anywhere after the marks of Chinese and Japanese.
#: Also the marks of Devanagari, Arabic, Armenian, Ethiopic, Burmese and Khmer.
_SENTENCE_END = re.compile(
    r"[.!?…؟۔։።।॥၊။៖។][\"'”’»)\]]{0,3}\s+|[。！？｡．][」』）】”’\"']{0,3}\s*|\n[^\S\n]*\n\s*"  # noqa: RUF001
)
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*?(?=[^\S\n]*\S)")
_LINE_END = re.compile(r"\n")
_ITEM = re.compile(r"^([^\S\n]*)(?:[-*+•‣◦–]|\(?(?:\d{1,9}|[A-Za-z]|#)[.)]|\[\d{1,9}\])(?=\s|$)", re.MULTILINE)  # noqa: RUF001


def inner_spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """Iterate over the parts of a block, which together are the block. A table begins with its header rows."""
    if block.kind == "table":
        header_end = min(max(block.header_end, block.start), block.end)
        if header_end > block.start:
            yield block.start, header_end
        yield from _split(text, header_end, block.end, _LINE_END)
    elif block.kind == "list":
        yield from _items(text, block.start, block.end)
    elif block.kind == "code":
        yield from _split(text, block.start, block.end, _BLANK_LINES)
    else:
        yield from sentences(text, block.start, block.end)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Iterate over the sentences of a span, each with the white space after it."""
    return _split(text, start, end, _SENTENCE_END)


def lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Iterate over the lines of a span."""
    return _split(text, start, end, _LINE_END)


def _split(text: str, start: int, end: int, border: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    for found in border.finditer(text, start, end):
        if start < found.end() < end:
            yield start, found.end()
            start = found.end()
    if start < end:
        yield start, end


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Iterate over the items of a list: borders are the markers with the least indentation."""
    found = [(match.start(), len(match[1])) for match in _ITEM.finditer(text, start, end)]
    least = min((indentation for _, indentation in found), default=0)
    first = start
    for offset, indentation in found:
        if indentation == least and offset > first:
            yield first, offset
            first = offset
    if first < end:
        yield first, end
