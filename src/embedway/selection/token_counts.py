"""Tokens of texts for many models: tokenizers that are opened once, estimates from a sample, and exact totals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from embedway.errors import RuntimeUnavailableError
from embedway.providers.counting import ESTIMATE, TIKTOKEN, EstimatingCounter, TiktokenCounter
from embedway.selection.candidate import TokenEstimate
from embedway.selection.deduplication import TextDeduplicator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Gives the lengths of texts in tokens.
CountTokens: TypeAlias = Callable[[Sequence[str]], Sequence[int]]

#: Put before the path of a `tokenizer.json` in the key of a tokenizer.
_FILE = "file:"
#: Characters of the longest text that all tokenizers count together; the rest is extrapolated.
_LONGEST_CHARACTERS = 100_000
#: Texts of the sample that every tokenizer counts, and the characters that all of them count together: a tokenizer
#: takes some ten milliseconds for half of them, and fifty models are selected from while somebody waits.
_TOKENIZED_TEXTS = 32
_TOKENIZED_CHARACTERS = 48_000
#: In a piece of fewer characters the tokens are no longer like those of the whole text.
_TOKENIZED_PIECE = 240
#: Up to this many tokenizers, the usual number, each counts the same share of the characters.
_FEW_TOKENIZERS = 2
#: A tokenizer that only counts cuts nothing.
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TextSample:
    """The part of the texts that every tokenizer counts: pieces of some, and the beginning of the longest."""

    texts: int
    characters: int
    longest_characters: int
    longest_beginning: str
    pieces: tuple[str, ...]
    #: Whether the pieces are all texts, each of them once.
    whole: bool

    @classmethod
    def of(cls, texts: Sequence[str], sample: Sequence[str], *, tokenizers: int) -> TextSample:
        """Take pieces of a sample of the texts. The more tokenizers there are, the less each one counts."""
        share = _TOKENIZED_CHARACTERS // max(_FEW_TOKENIZERS, tokenizers)
        most = min(_TOKENIZED_TEXTS, share // _TOKENIZED_PIECE)
        some = sample[:: math.ceil(len(sample) / most) or 1]
        each = share // max(1, len(some))
        longest = max(texts, key=len, default="")
        beginning = longest[: _LONGEST_CHARACTERS // max(1, tokenizers)]
        characters = sum(map(len, texts))
        # From every part of texts, because texts of one kind begin alike.
        pieces = tuple(_cut_piece(text, each, place / len(some)) for place, text in enumerate(some))
        whole = len(pieces) == len(texts) == len(set(pieces)) and sum(map(len, pieces)) == characters
        return cls(len(texts), characters, len(longest), beginning, pieces, whole)

    def estimate(self, count: CountTokens, *, own: bool) -> TokenEstimate:
        """Estimate the tokens of all texts. Tokens that are added to every text, such as [CLS], count once for each."""
        added, *lengths = count(["", *self.pieces, *([self.longest_beginning] if self.longest_beginning else [])])
        longest = lengths.pop() if self.longest_beginning else 0
        if len(self.longest_beginning) < self.longest_characters:
            longest = added + math.ceil((longest - added) * self.longest_characters / len(self.longest_beginning))
        sampled = sum(map(len, self.pieces))
        own_tokens = sum(lengths) - added * len(self.pieces)
        total = math.ceil(own_tokens * self.characters / sampled) + added * self.texts if sampled else 0
        return TokenEstimate(longest, total, own, sampled=not self.whole)


def _cut_piece(text: str, characters: int, part: float) -> str:
    """Cut a piece from a part of a text, 0 its beginning and 1 its end; from the beginning of a word if one is near."""
    if len(text) <= characters:
        return text
    start = int((len(text) - characters) * part)
    word = text.find(" ", start, start + characters // 4) if start else -1
    return text[max(start, word + 1) : start + characters]


class TokenTotals:
    """Tokens of texts that come some at a time, each text counted once, by several tokenizers. Blocking."""

    def __init__(self, counters: Mapping[str, CountTokens]) -> None:
        self._counters = counters
        self._deduplicator = TextDeduplicator()
        self.tokens = dict.fromkeys(counters, 0)

    def add(self, texts: Sequence[str]) -> None:
        """Count more texts."""
        # Half of a surrogate pair is refused later, and no tokenizer takes it.
        new = [text.encode("utf-8", "replace").decode() for text in self._deduplicator.filter(texts)]
        for key, count in self._counters.items():
            self.tokens[key] += sum(count(new)) if new else 0


class TokenizerCache:
    """Opens tokenizers by their keys, and keeps them: `tiktoken:ENCODING`, `file:PATH` or `estimate`. Blocking."""

    def __init__(self) -> None:
        self._counters: dict[str, CountTokens] = {}

    def resolve(self, key: str) -> str:
        """The key of the tokenizer that counts: this one if it is on this machine, else `estimate`."""
        if key in self._counters:
            return key
        try:
            # Nothing is downloaded but a vocabulary of tiktoken's.
            self._counters[key] = _open_tokenizer(key)
        except (RuntimeUnavailableError, OSError):
            return self.resolve(ESTIMATE)
        return key

    def __getitem__(self, key: str) -> CountTokens:
        """The tokenizer of a key that `resolve` gave."""
        return self._counters[key]


def file_key(tokenizer: Path) -> str:
    """The key of a `tokenizer.json`. Models of one family share a file, which then has one key and is read once."""
    return f"{_FILE}{tokenizer.resolve()}"


def _open_tokenizer(key: str) -> CountTokens:
    if key == ESTIMATE:
        estimating = EstimatingCounter(max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in estimating.count(texts).lengths]
    if key.startswith(TIKTOKEN):
        counter = TiktokenCounter(key.removeprefix(TIKTOKEN), max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in counter.count(texts).lengths]
    from tokenizers import Tokenizer  # noqa: PLC0415  heavy, and not needed without weights

    tokenizer: Any = Tokenizer.from_file(key.removeprefix(_FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch(list(texts))]
