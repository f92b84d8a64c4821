"""Parts of a chunk's text that can be shown on their own: sentences, items of lists, rows of tables, statements.

A row has only the text of a chunk, without its markup, so the parts are found by the form of the lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Maximum characters of a text that are divided, and of a part; longer parts are divided at spaces.
MAX_CHARACTERS = 20_000
MAX_PART_CHARACTERS = 300
#: Lines shorter than this do not end at a margin: their ends are ends of sentences.
_WRAPPED_CHARACTERS = 40
_HEADING_CHARACTERS = 100
#: Emoji at the end of a line, after the mark that ends its sentence.
_PICTURES = re.compile(r"(?<=[.!?:;,…])[\s\u200d\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]+$")

PartKind: TypeAlias = Literal["sentence", "item", "row", "code", "heading"]
Span: TypeAlias = tuple[int, int]

_BLANK_LINE = re.compile(r"\n(?:[ \t]*\n)+")
#: End of a sentence: a mark and white space, or a full-width mark.
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？｡][」』”’）]*")  # noqa: RUF001  marks of Chinese and Japanese
#: Words before a full stop that does not end a sentence.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:e\.g|i\.e|z\.B|d\.h|u\.a|cf|vs|etc|ca|al|fig|figs|no|nr|vol|ch|sec|eq|dr|mr|mrs|ms|prof|st|"
    r"approx|resp|incl|[A-Za-z])\.$",
    re.IGNORECASE,
)
_MARKER = re.compile(r"[ \t]*(?:[-*+•‣◦–]|\d{1,3}[.)]|\(?[a-z]\))[ \t]+")  # noqa: RUF001  a dash as a marker
#: Prompt of a Python session.
_PROMPT = ">>>"
#: A line that only draws a table: `| --- | --- |`, `+====+`.
_RULE = re.compile(r"[ \t]*[|+:=-][-+|:= \t]*")
_CODE_START = re.compile(
    r"\s*(?:>>>(?: |$)|\.\.\.(?: |$)|\$ |#!|#include\b|@\w|//|/\*|<[?!/]?\w+[^>]*>$|"
    r"(?:async |export |public |private |protected |static |final |pub )*"
    r"(?:def|class|function|func|fn|interface|struct|enum|impl|trait|namespace)\s+\w|"
    r"(?:import|from|return|raise|throw|yield|await|let|const|var|package|use|using|assert|del)\s+[\w.{*\"'(]|"
    r"(?:if|elif|for|while|with|except|switch|catch)\b.*[:{]$|(?:else|try|finally)\s*[:{]|"
    r"(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\s)"
)
_CODE_SIGN = re.compile(
    r"[{};\[(\\]\s*$|^\s*[)}\]]|\w\s*[-+*/|]?=\s|[=-]>|[=!]=|&&|\|\||::|^\s*[\w.\]\[]+\(.*\)[:;,]?\s*$"
)


@dataclass(frozen=True, slots=True)
class Part:
    """Span `text[start:end]` of a text, without a list's marker.

    `header` is that of the table of a row, or the first line of the statement that code continues.
    """

    start: int
    end: int
    kind: PartKind = "sentence"
    header: Span | None = None


def parts_of(text: str) -> list[Part]:
    """Return the parts of a text, in order. Time is linear in its length, of which `MAX_CHARACTERS` are divided."""
    found: list[Part] = []
    blocks = list(_blocks(text[:MAX_CHARACTERS]))
    base: int | None = None  # indentation of the code that the blocks before end with
    for number, lines in enumerate(blocks):
        if _is_table(text, lines):
            base = None
            found.extend(_rows(text, lines))
        elif _is_code(text, lines, base):
            if base is None or _indentation(text, lines[0]) < base:
                base = _indentation(text, lines[0])
            _add_statements(text, lines, base, found)
        else:
            base = None
            is_last = number + 1 == len(blocks)
            found.extend(_heading(text, lines[0]) if not is_last and _is_heading(text, lines) else _prose(text, lines))
    return found


def _blocks(text: str) -> Iterator[list[Span]]:
    """Iterate over blocks, which blank lines separate: spans of their lines."""
    start = 0
    for end, following in (*((match.start(), match.end()) for match in _BLANK_LINE.finditer(text)), (len(text), 0)):
        lines, first = [], start
        while first <= end:
            last = text.find("\n", first, end)
            last = end if last < 0 else last
            if text[first:last].strip():
                lines.append((first, last))
            first = last + 1
        if lines:
            yield lines
        start = following


def _indentation(text: str, line: Span) -> int:
    own = text[slice(*line)].expandtabs(4)
    return len(own) - len(own.lstrip())


def _is_table(text: str, lines: list[Span]) -> bool:
    return len(lines) > 1 and all(
        "|" in text[first:last] or _RULE.fullmatch(text, first, last) for first, last in lines
    )


def _rows(text: str, lines: list[Span]) -> Iterator[Part]:
    rows = [line for line in lines if not _RULE.fullmatch(text, *line)]
    header = next(_divided(text, *rows[0]), None) if rows else None
    for number, (first, last) in enumerate(rows):
        for start, end in _divided(text, first, last):
            yield Part(start, end, "row", header if number else None)


def _is_code(text: str, lines: list[Span], base: int | None) -> bool:
    if base is not None and _indentation(text, lines[0]) > base:
        return True
    if _MARKER.match(text, *lines[0]):
        return False
    if text.startswith(_PROMPT, lines[0][0]):
        return True
    score = 0
    for first, last in lines:
        line = text[first:last]
        score += bool(_CODE_START.match(line)) or bool(_CODE_SIGN.search(line)) or line.startswith(("    ", "\t"))
    return 2 * score > len(lines)


def _add_statements(text: str, lines: list[Span], base: int, found: list[Part]) -> None:
    """Add statements: lines from one with the least indentation to the next one, in parts of a limited length."""
    is_session = text.startswith(_PROMPT, lines[0][0])  # with its output
    for first, last in lines:
        start, end = _trimmed(text, first, min(last, first + MAX_PART_CHARACTERS))
        before = found[-1] if found and found[-1].kind == "code" else None
        is_inner = _indentation(text, (first, last)) > base or text[start : start + 1] in {")", "}", "]"}
        is_inner = is_inner or (is_session and not text.startswith(_PROMPT, start))
        if before is not None and is_inner and end - before.start <= MAX_PART_CHARACTERS:
            found[-1] = Part(before.start, end, "code", before.header)
        elif before is not None and is_inner:
            found.append(Part(start, end, "code", before.header or _first_line(text, before)))
        else:
            found.append(Part(start, end, "code"))


def _first_line(text: str, part: Part) -> Span:
    end = text.find("\n", part.start, part.end)
    return part.start, part.end if end < 0 else end


def _is_heading(text: str, lines: list[Span]) -> bool:
    first, last = lines[0]
    line = _PICTURES.sub("", text[first:last].strip())
    is_short = len(lines) == 1 and len(line) <= _HEADING_CHARACTERS
    return is_short and not line.endswith((*".!?:;,…。！？",)) and not _MARKER.match(text, first, last)  # noqa: RUF001


def _heading(text: str, line: Span) -> list[Part]:
    return [Part(*_trimmed(text, *line), "heading")]


def _prose(text: str, lines: list[Span]) -> Iterator[Part]:
    """Iterate over the sentences of a block, whose lines are wrapped, or are items of a list."""
    start, kind = lines[0][0], "sentence"
    for number, (first, last) in enumerate(lines):
        marker = _MARKER.match(text, first, last)
        if marker is not None:
            if first > start:
                yield from _sentences(text, start, first, kind)
            start, kind = marker.end(), "item"
        elif number and _is_line_end(text, lines[number - 1], (first, last)):
            yield from _sentences(text, start, first, kind)
            start = first
            kind = kind if _indentation(text, (first, last)) else "sentence"
    yield from _sentences(text, start, lines[-1][1], kind)


def _is_line_end(text: str, line: Span, following: Span) -> bool:
    """Return whether a line is short, and the next one does not continue its sentence."""
    own, then = text[slice(*line)].strip(), text[slice(*following)].strip()
    return len(own) < _WRAPPED_CHARACTERS and not then[0].islower()


def _sentences(text: str, start: int, end: int, kind: str) -> Iterator[Part]:
    own: PartKind = "item" if kind == "item" else "sentence"
    first = start
    for match in _END.finditer(text, start, end):
        if match[0][0] == "." and _ABBREVIATION.search(text, max(first, match.end() - 12), match.end()):
            continue
        following = text[match.end() : match.end() + 40].lstrip()
        if match[0][0] in ".…?!" and following[:1].islower():
            continue  # such as `?` in "after the ? in a URL"
        yield from (Part(*span, own) for span in _divided(text, first, match.end()))
        first = match.end()
    yield from (Part(*span, own) for span in _divided(text, first, end))


def _divided(text: str, start: int, end: int) -> Iterator[Span]:
    """Iterate over the spans of a sentence, without white space around them: none if blank, several if it is long."""
    while start < end:
        stop = end
        if end - start > MAX_PART_CHARACTERS:
            space = text.rfind(" ", start + 1, start + MAX_PART_CHARACTERS)
            stop = space if space > 0 else start + MAX_PART_CHARACTERS
        first, last = _trimmed(text, start, stop)
        if first < last:
            yield first, last
        start = stop


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
