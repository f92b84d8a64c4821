"""Snippets of hits: the part of a text that answers a query best, and the parts after it that fit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.keyword_tokens import query_tokens, token_spans
from embedway.collections.passages import Part, Span, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Maximum characters of a snippet, without a table's header.
SNIPPET_CHARACTERS = 200
#: Weight of the query's words beside the cosine similarity of a part. A part with all of them gains this.
WORD_WEIGHT = 0.3
#: A word of the query is marked if its weight is at least this share of the greatest one, or at least this weight, that
#: of a word in one of six texts. So `the` and `of` are not marked beside rarer words.
_MARKED_SHARE, _MARKED_WEIGHT = 0.4, 1.6
#: If no weight is greater, as in a collection of a few rows, rarity says little, and all words are marked.
_LITTLE_WEIGHT = 1.0
_STEM = re.compile(r"(?:ies|es|s|ed|ing|ly)$")
#: Lines of a statement that are left out.
_OMITTED = "\n…"
_RUN = re.compile(r"\S+")
#: Kinds of parts whose line ends matter.
_LINES = frozenset({"row", "code"})


@dataclass(frozen=True, slots=True)
class Highlight:
    """The part of a hit's text that answers a query best, from `start` to `end`. `str(highlight)` is its text.

    `score` is the sum of the weights of the query's words in it, or its cosine similarity with a bonus for these words;
    0 if nothing matches.
    """

    start: int
    end: int
    text: str = ""
    score: float = 0.0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Snippet:
    """The part of a hit's text to show, from `start` to `end`. `str(snippet)` is `text`.

    `text` has line ends in code, tables and lists only. It begins with the header of the table that its first row
    belongs to, or the first line of the statement that its code continues. `best` and `words` are spans of `text`: the
    highlight, and the rarer words of the query. `line` is the line of `start` in the source, and `page` the page of the
    highlight, for formats with pages.
    """

    start: int
    end: int
    line: int
    text: str
    best: Span = (0, 0)
    words: tuple[Span, ...] = ()
    page: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Passages:
    """The parts of a hit's text, with the words to mark in each, and the weight of the query's words in it."""

    text: str
    parts: tuple[Part, ...]
    words: tuple[tuple[Span, ...], ...]
    weights: tuple[float, ...]


class Highlighter:
    """Chooses the best parts by the words that they share with the query, weighted by their rarity.

    `weights` are those of the collection by token, if they are known; else rarity is that among the texts that are
    shown, which `learn` receives.
    """

    def __init__(self, query: str, weights: Mapping[str, float] | None = None) -> None:
        self._tokens = frozenset(query_tokens(query))
        self._stems = {stem_of(token): token for token in self._tokens}
        self._weights = dict(weights or {})

    def learn(self, texts: Sequence[str]) -> None:
        """Weight the query's words by their rarity among these texts."""
        if self._weights:
            return
        counts: dict[str, int] = {}
        total = 0
        for text in texts:
            for part in parts_of(text):
                total += 1
                for token in self._matches(text[part.start : part.end])[1]:
                    counts[token] = counts.get(token, 0) + 1
        self._weights = {token: math.log(1 + total / count) for token, count in counts.items()}

    def passages(self, text: str, headings: str | None = None) -> Passages:
        """Return the parts of a text; its first lines are left out if they repeat the headings above it."""
        parts = _without_headings(text, parts_of(text), headings or "")
        words, weights = [], []
        for part in parts:
            spans, tokens = self._matches(text[part.start : part.end])
            words.append(tuple((part.start + first, part.start + last) for first, last in spans))
            weights.append(sum(self._weights.get(token, 0.0) for token in tokens))
        return Passages(text, tuple(parts), tuple(words), tuple(weights))

    def _matches(self, text: str) -> tuple[list[Span], set[str]]:
        """Return the spans of the words to mark, and the query's tokens that occur."""
        spans: list[Span] = []
        matched: set[str] = set()
        greatest = max(self._weights.values(), default=0.0)
        least = min(_MARKED_SHARE * greatest, _MARKED_WEIGHT) if greatest > _LITTLE_WEIGHT else 0.0
        for start, end, tokens in token_spans(text):
            matching = {self._stems[stem] for token in tokens if (stem := stem_of(token)) in self._stems}
            if matching:
                matched |= matching
                weight = max(self._weights.get(token, 0.0) for token in matching)
                # An article such as `a` is not worth a mark.
                if weight >= least and (end - start > 1 or not text[start].isascii()):
                    spans.append((start, end))
        return spans, matched


def best_part(passages: Passages, cosines: Sequence[float] | None = None) -> tuple[int, float]:
    """Return the number and the score of the best part; the first one if no word matches.

    `cosines` are the similarities of the parts to the query, if they were computed.
    """
    scores = list(passages.weights)
    if cosines is not None:
        most = max(passages.weights, default=0.0) or 1.0
        scores = [cosine + WORD_WEIGHT * own / most for cosine, own in zip(cosines, passages.weights, strict=True)]
    if not scores:
        return 0, 0.0
    # A heading does not answer: of equal parts, the text below it is shown.
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], _is_heading(passages.parts[n]), n))
    return order[0], scores[order[0]]


def snippet_of(
    passages: Passages, best: int, *, start_line: int = 1, counts_lines: bool = True, score: float = 0.0
) -> tuple[Snippet, Highlight]:
    """Return the snippet around a part, and the highlight.

    A short text is shown whole. `start_line` is the line of the text in its source; with `counts_lines`, the lines of
    the text are those of the source.
    """
    text, parts = passages.text, passages.parts
    if not parts:
        return Snippet(0, 0, start_line, ""), Highlight(0, 0)
    first, last = _window(parts, best)
    lead, shown = parts[first], _SnippetText(text)
    if lead.header is not None:
        shown.add(Part(*lead.header, lead.kind), ())
        shown.text += _OMITTED if lead.kind == "code" else ""
    spans = [shown.add(parts[number], passages.words[number]) for number in range(first, last + 1)]
    line = start_line + text.count("\n", 0, lead.start) if counts_lines else start_line
    snippet = Snippet(lead.start, parts[last].end, line, shown.text, spans[best - first], tuple(shown.words))
    start, end = parts[best].start, parts[best].end
    return snippet, Highlight(start, end, text[start:end], score)


class _SnippetText:
    """Text of a snippet, to which parts are added, with the spans of words in it."""

    def __init__(self, text: str) -> None:
        self._source = text
        self._before: Part | None = None
        self.text = ""
        self.words: list[Span] = []

    def add(self, part: Part, words: Sequence[Span]) -> Span:
        """Add a part, whose words have these spans in the source; return its span in the text."""
        if self._before is not None:
            self.text += _between(self._source, self._before, part)
        self._before = part
        start = len(self.text)
        # White space is kept in code only.
        runs = _RUN.finditer(self._source, part.start, part.end)
        places = [(part.start, part.end)] if part.kind == "code" else [match.span() for match in runs]
        remaining = list(reversed(words))
        for number, (first, last) in enumerate(places):
            self.text += " " if number else ""
            moved = len(self.text) - first
            self.text += self._source[first:last]
            while remaining and remaining[-1][1] <= last:
                word = remaining.pop()
                self.words.append((word[0] + moved, word[1] + moved))
        return start, len(self.text)


def _between(text: str, before: Part, part: Part) -> str:
    """Return what stands between two parts of a snippet: a line end where lines matter, else a space."""
    has_marker = bool(text[before.end : part.start].strip())
    by_line = "heading" in {part.kind, before.kind} or part.kind in _LINES or before.kind in _LINES or has_marker
    return "\n" if by_line else " "


def _window(parts: Sequence[Part], best: int) -> tuple[int, int]:
    """Return the first and the last part to show: the best one, those after it, and at the text's end those before."""
    first = last = best
    length = parts[best].end - parts[best].start
    if best and _is_heading(parts[best - 1]):
        first, length = best - 1, length + parts[best - 1].end - parts[best - 1].start + 1
    while last + 1 < len(parts) and (grown := length + _length(parts[last + 1])) <= SNIPPET_CHARACTERS:
        last, length = last + 1, grown
    while last > best and _is_heading(parts[last]):
        last -= 1  # a heading without its text says nothing
    while _is_heading(parts[last]) and last + 1 < len(parts):
        last += 1  # its text is shown also if it is long
        length += _length(parts[last])
    if last + 1 == len(parts):
        while first and (grown := length + _length(parts[first - 1])) <= SNIPPET_CHARACTERS:
            first, length = first - 1, grown
    return first, last


def _length(part: Part) -> int:
    return part.end - part.start + 1


def _is_heading(part: Part) -> bool:
    """Return whether a part is the heading or the signature of the part after it."""
    return part.kind == "heading"


def _without_headings(text: str, parts: list[Part], headings: str) -> list[Part]:
    """Return the parts without first ones that are elements of the heading path, unless nothing else is there."""
    names = {" ".join(name.split()) for name in headings.split(" \u203a ")}
    first = 0
    while first < len(parts) and " ".join(text[parts[first].start : parts[first].end].split()) in names:
        first += 1
    return parts[first:] if first < len(parts) else parts


def stem_of(token: str) -> str:
    """Return a token without a common English ending: enough to find its forms in a sentence."""
    if len(token) < 5 or not token.isalpha():
        return token
    stem = _STEM.sub("", token)
    return stem.removesuffix("e") if len(stem) >= 3 else token
