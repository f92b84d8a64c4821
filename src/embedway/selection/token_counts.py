"""Token counts for many models: cached tokenizers, estimates from a sample, and exact totals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from embedway.errors import RuntimeUnavailableError, WeightsError
from embedway.providers.counting import ESTIMATE, TIKTOKEN, EstimatingCounter, TiktokenCounter
from embedway.selection.deduplication import TextDeduplicator

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Function that returns the lengths of texts in tokens.
CountTokens: TypeAlias = Callable[[Sequence[str]], Sequence[int]]

#: Prefix of a tokenizer's key, before the path of a `tokenizer.json`.
_FILE = "file:"
#: The same for a model whose texts are lowercased first.
_LOWERCASE = "lowercase:"
#: Texts of the sample that every tokenizer counts, and the total characters over all tokenizers: a tokenizer takes some
#: ten milliseconds for half of them, and a caller waits for the selection from fifty models.
_TOKENIZED_TEXTS = 32
_TOKENIZED_CHARACTERS = 48_000
#: Minimum characters of a piece; tokens of a shorter one are not representative of the text.
_TOKENIZED_PIECE = 240
#: Up to this many tokenizers, the usual number, each counts the same share of the characters.
_FEW_TOKENIZERS = 2
#: Characters that are counted at a time for exact totals.
_GROUP_CHARACTERS = 1 << 19
#: Token limit for counting without truncation.
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TextSample:
    """The part of the texts that every tokenizer counts: pieces of some texts."""

    texts: int
    characters: int
    pieces: tuple[str, ...]
    #: Whether the pieces are all texts, complete and without duplicates.
    whole: bool

    @classmethod
    def of(cls, texts: Sequence[str], sample: Sequence[str], *, tokenizers: int) -> TextSample:
        """Create pieces from a sample of the texts. With more tokenizers, each counts fewer characters."""
        share = _TOKENIZED_CHARACTERS // max(_FEW_TOKENIZERS, tokenizers)
        most = min(_TOKENIZED_TEXTS, share // _TOKENIZED_PIECE)
        some = sample[:: math.ceil(len(sample) / most) or 1]
        each = share // max(1, len(some))
        characters = sum(map(len, texts))
        # Pieces are from different parts of the texts, because similar texts begin alike.
        pieces = tuple(_cut_piece(text, each, place / len(some)) for place, text in enumerate(some))
        whole = len(pieces) == len(texts) == len(set(pieces)) and sum(map(len, pieces)) == characters
        return cls(len(texts), characters, pieces, whole)

    def estimate(self, count: CountTokens) -> int:
        """Estimate the tokens of all texts. Special tokens, such as [CLS], count once per text."""
        added, *lengths = count(["", *self.pieces])
        sampled = sum(map(len, self.pieces))
        own_tokens = sum(lengths) - added * len(self.pieces)
        return math.ceil(own_tokens * self.characters / sampled) + added * self.texts if sampled else 0


def _cut_piece(text: str, characters: int, part: float) -> str:
    """Return a piece of a text at `part`, from 0 (start) to 1 (end); start at a word boundary if one is near."""
    if len(text) <= characters:
        return text
    start = int((len(text) - characters) * part)
    word = text.find(" ", start, start + characters // 4) if start else -1
    return text[max(start, word + 1) : start + characters]


class TokenTotals:
    """Running token totals of several tokenizers; each unique text counts once. Blocking."""

    def __init__(self, counters: Mapping[str, CountTokens]) -> None:
        self._counters = counters
        self._deduplicator = TextDeduplicator()
        self.tokens = dict.fromkeys(counters, 0)

    def add(self, texts: Sequence[str]) -> None:
        """Count more texts."""
        # Texts with half of a surrogate pair are rejected later, and no tokenizer accepts them.
        new = [text.encode("utf-8", "replace").decode() for text in self._deduplicator.filter(texts)]
        for key, count in self._counters.items():
            self.tokens[key] += _count_all(count, new)


def _count_all(count: CountTokens, texts: Sequence[str]) -> int:
    """Return the number of tokens of texts. They are counted in groups, because tokenizers need much memory."""
    total = characters = 0
    group: list[str] = []
    for text in texts:
        pieces = _split_text(text)
        if len(pieces) > 1:
            # Special tokens, such as [CLS], count once per text.
            total -= count([""])[0] * (len(pieces) - 1)
        for piece in pieces:
            group.append(piece)
            characters += len(piece)
            if characters >= _GROUP_CHARACTERS:
                total += sum(count(group))
                group, characters = [], 0
    return total + (sum(count(group)) if group else 0)


def _split_text(text: str) -> list[str]:
    """Split a long text before spaces, where tokenizers split it too."""
    pieces = []
    start = 0
    while len(text) - start > _GROUP_CHARACTERS:
        end = start + _GROUP_CHARACTERS
        space = text.rfind(" ", start + _GROUP_CHARACTERS // 2, end)
        end = space if space > 0 else end
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


class TokenizerCache:
    """Cache of tokenizers by key: `tiktoken:ENCODING`, `file:PATH` or `estimate`. Blocking."""

    def __init__(self) -> None:
        self._counters: dict[str, CountTokens] = {}

    def resolve(self, key: str) -> str:
        """Return the key if its tokenizer is on this machine, else `estimate`."""
        if key in self._counters:
            return key
        try:
            # This downloads nothing except a vocabulary of tiktoken.
            self._counters[key] = _open_tokenizer(key)
        except (RuntimeUnavailableError, WeightsError, OSError):
            return self.resolve(ESTIMATE)
        return key

    def __getitem__(self, key: str) -> CountTokens:
        """Return the tokenizer of a key from `resolve`."""
        return self._counters[key]


def file_key(tokenizer: Path, *, lowercase: bool = False) -> str:
    """Return the key of a `tokenizer.json`. Models that share a file share a key, so it is read once."""
    return f"{_LOWERCASE if lowercase else _FILE}{tokenizer.resolve()}"


def _open_tokenizer(key: str) -> CountTokens:
    if key == ESTIMATE:
        estimating = EstimatingCounter(max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in estimating.count(texts).lengths]
    if key.startswith(TIKTOKEN):
        counter = TiktokenCounter(key.removeprefix(TIKTOKEN), max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in counter.count(texts).lengths]
    from embedway.local.tokenize import TextTokenizer  # noqa: PLC0415  slow to import, and not needed without weights

    path = Path(key.partition(":")[2])
    tokenizer: Any = TextTokenizer(path, max_tokens=_NO_LIMIT, lowercase=key.startswith(_LOWERCASE)).plain
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch(list(texts))]
