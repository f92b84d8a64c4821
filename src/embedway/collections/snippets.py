"""The sentence or line of a text that answers a query best, and the words in it that match."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.keyword_tokens import query_tokens, token_spans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Maximum characters of a text that are searched, and of a sentence; longer ones are divided at spaces.
MAX_CHARACTERS = 20_000
MAX_SENTENCE_CHARACTERS = 300
#: End of a sentence: a mark and white space, a full-width mark, or the end of a line (of code, a list or a table).
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？｡][」』”’）]*|\n")  # noqa: RUF001  marks of Chinese and Japanese
_STEM = re.compile(r"(?:ies|es|s|ed|ing|ly)$")


@dataclass(frozen=True, slots=True)
class Snippet:
    """Part of a text: `text[start:end]` is the best sentence; `words` are the offsets of words that match."""

    start: int
    end: int
    words: tuple[tuple[int, int], ...] = ()
    #: Sum of the weights of the query's words in the sentence; 0 if none is.
    score: float = 0.0


def sentences(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence or line of a text, without white space around it."""
    found: list[tuple[int, int]] = []
    start, limit = 0, min(len(text), MAX_CHARACTERS)
    ends = [match.end() for match in _END.finditer(text, 0, limit)]
    for end in (*ends, limit):
        found.extend(_trimmed(text, start, end))
        start = end
    return found


def _trimmed(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Return a sentence without white space around it; none if it is empty, several if it is long."""
    found = []
    while start < end:
        stop = end
        if end - start > MAX_SENTENCE_CHARACTERS:
            space = text.rfind(" ", start + 1, start + MAX_SENTENCE_CHARACTERS)
            stop = space if space > 0 else start + MAX_SENTENCE_CHARACTERS
        piece = text[start:stop]
        first, last = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        if first < last:
            found.append((first, last))
        start = stop
    return found


class Highlighter:
    """Chooses the best sentence by the words that it shares with the query, weighted by their rarity.

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
            for start, end in sentences(text):
                total += 1
                for token in {token for _, _, found in self._matches(text[start:end]) for token in found}:
                    counts[token] = counts.get(token, 0) + 1
        self._weights = {token: math.log(1 + total / count) for token, count in counts.items()}

    def best(self, text: str) -> Snippet:
        """Return the best sentence of a text; the first one if no word matches."""
        best: Snippet | None = None
        for start, end in sentences(text):
            matches = list(self._matches(text[start:end]))
            found = {token for _, _, tokens in matches for token in tokens}
            score = sum(self._weights.get(token, 0.0) for token in found)
            if best is None or score > best.score:
                words = tuple((start + first, start + last) for first, last, _ in matches)
                best = Snippet(start, end, words, score)
        return best or Snippet(0, min(len(text), MAX_SENTENCE_CHARACTERS))

    def _matches(self, text: str) -> list[tuple[int, int, frozenset[str]]]:
        found: list[tuple[int, int, frozenset[str]]] = []
        for start, end, tokens in token_spans(text):
            matching = frozenset(self._stems[stem] for token in tokens if (stem := stem_of(token)) in self._stems)
            if matching:
                found.append((start, end, matching))
        return found


def stem_of(token: str) -> str:
    """Return a token without a common English ending: enough to find its forms in a sentence."""
    if len(token) < 5 or not token.isalpha():
        return token
    stem = _STEM.sub("", token)
    return stem.removesuffix("e") if len(stem) >= 3 else token
