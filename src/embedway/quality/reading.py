"""Comparison of two texts as a model reads them: which tokens or words differ within the part that it reads."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    import numpy.typing as npt

    from embedway.types import PlainTokenizer

R = TypeVar("R")

#: Characters and tokens of a text that are kept in memory for later comparisons.
_KEPT_CHARACTERS, _KEPT_TOKENS = 4096, 1024
#: WordPiece reads words over 100 characters as unknown, so long words show no difference.
_LONGEST_WORD = 64
#: Tokens at the end of the part that a service reads whose position is not certain.
_MARGIN = 16
#: Names of the token for unknown words in the usual kinds of tokenizers.
_UNKNOWN = ("[UNK]", "<unk>")
#: Blanks that all tokenizers separate words at; some remove other ones, such as form feeds.
_BLANKS = re.compile("[ \t\n\r]+")
_PLAIN = re.compile("[!-~]+")
_ALPHANUMERIC = re.compile("[0-9A-Za-z]+")
_UNITS = re.compile("[a-z]+|[0-9]")


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of two texts, as a model reads them.

    `shared` is the number of different tokens or words that both have, divided by those that any has. `common` is the
    number of tokens or words that are equal at the beginning. `certain` is false if the model may know none of those
    that differ.
    """

    shared: float
    common: int
    certain: bool = True


class TextComparison(Protocol[R]):
    """Compares texts as a model reads them. A reading is a text, or its token ids."""

    def keep(self, reading: R) -> R:
        """Return a reading of bounded size that may be kept."""

    def key(self, reading: R) -> Hashable:
        """Return a key that equal readings share."""

    def differ(self, one: R, other: R) -> Difference | None:
        """Return the difference of two texts; None if the model may have read the same.

        Sets are compared, because some models ignore order and repetition.
        """

    def explain(self, difference: Difference) -> str:
        """Return the likely reason why texts with this difference have one vector, and what to do."""


_REASON = (
    "the model may not read its texts, or returns one result for all: check the model and the service, or set "
    "quality.check_diversity = false if this is intended"
)


@dataclass(frozen=True, slots=True)
class TokenComparer(TextComparison["npt.NDArray[np.int32]"]):
    """Compares token ids, which were cut at the model's limit. `ignored` are ids that show no difference."""

    ignored: frozenset[int] = frozenset()

    def keep(self, reading: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return at most 1,024 ids."""
        return reading if len(reading) <= _KEPT_TOKENS else reading[:_KEPT_TOKENS].copy()

    def key(self, reading: npt.NDArray[np.int32]) -> Hashable:
        """Return a hash of the kept ids."""
        return hash(reading[:_KEPT_TOKENS].tobytes())

    def differ(self, one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> Difference | None:
        """Return the difference of two lists of ids, within the part that is kept of both."""
        if max(len(one), len(other)) > _KEPT_TOKENS:
            one, other = one[:_KEPT_TOKENS], other[:_KEPT_TOKENS]
        return _difference(one.tolist(), other.tolist(), self.ignored)

    def explain(self, difference: Difference) -> str:
        """Return the likely reason, and what to do."""
        del difference
        return _REASON


@dataclass(frozen=True, slots=True)
class TextComparer(TextComparison[str]):
    """Compares texts that a service tokenizes.

    Case, accents, punctuation and symbols show no difference, because a service may remove them. With the model's
    `tokenizer`, the tokens must differ too. Without it, only words are certain whose original characters are ASCII
    letters and digits: the model may know no other characters, and a service may replace them. Only the part is
    compared that a service with `max_tokens` reads in any case.
    """

    max_tokens: int
    tokenizer: PlainTokenizer | None = None
    special_tokens: int = 0
    ignored: frozenset[int] = field(default_factory=frozenset)

    def keep(self, reading: str) -> str:
        """Return the first 4,096 characters."""
        return reading[:_KEPT_CHARACTERS]

    def key(self, reading: str) -> Hashable:
        """Return the kept part of the text."""
        return reading[:_KEPT_CHARACTERS]

    def differ(self, one: str, other: str) -> Difference | None:
        """Return the difference of two texts."""
        one, other = one[:_KEPT_CHARACTERS], other[:_KEPT_CHARACTERS]
        if one == other:
            return None
        difference = self._by_words(one, other)
        if difference is None or self.tokenizer is None:
            return difference
        most = max(1, self.max_tokens - self.special_tokens - _MARGIN)
        ids = [_ids(self.tokenizer, text)[:most] for text in (one, other)]
        found = _difference(ids[0], ids[1], self.ignored)
        if found is None or _KEPT_CHARACTERS not in (len(one), len(other)):
            return found
        # The kept parts may end at different words. So tokens of the first half must be missing in the other text.
        halves = [set(part[: len(part) // 2]) - self.ignored for part in ids]
        return found if halves[0] - set(ids[1]) or halves[1] - set(ids[0]) else None

    def explain(self, difference: Difference) -> str:
        """Return the likely reason: the service reads fewer tokens than we believe, or does not read texts at all."""
        if difference.common < _MARGIN:
            return _REASON
        return (
            f"they begin with the same {difference.common} {'words' if self.tokenizer is None else 'tokens'}, so it "
            f"may read fewer tokens than {self.max_tokens:,}: set max_tokens in the model's section [models.NAME] to "
            "the limit of the service"
        )

    def _by_words(self, one: str, other: str) -> Difference | None:
        parts = [self._certain_part(text) for text in (one, other)]
        left, right = (words(part) for part in parts)
        if len(parts[0]) < len(one) or len(parts[1]) < len(other) or _KEPT_CHARACTERS in (len(one), len(other)):
            # The parts end at different words if the texts differ in what is removed.
            most = max(1, min(len(left), len(right)) - 2)
            left, right = left[:most], right[:most]
        difference = _difference(left, right, frozenset())
        if difference is None or self.tokenizer is not None:
            return difference
        certain = self._has_own_word(one, other) or self._has_own_word(other, one)
        return difference if certain else Difference(difference.shared, difference.common, certain=False)

    def _has_own_word(self, text: str, other: str) -> bool:
        """Return whether a service reads a word of a text that it cannot have read in the other text."""
        known, unclear = _plain_words(other)
        most = max(1, self.max_tokens - _MARGIN)
        if len(other) == _KEPT_CHARACTERS:
            # The rest of the other text is unknown, so only words are compared that would come before it.
            most = min(most, sum(map(len, known)))
        own, _ = _plain_words(_first_bytes(text, most))
        return any(word not in unclear for word in set(own).difference(known))

    def _certain_part(self, text: str) -> str:
        """Return the part of a text that has at most as many tokens as the model reads: one for each byte."""
        return text if self.tokenizer is not None else _first_bytes(text, max(1, self.max_tokens - _MARGIN))


def words(text: str) -> list[str]:
    """Return the words of a text without case, accents, punctuation, symbols and invisible characters."""
    return [word for word in "".join([_kept(one) for one in _folded(text)]).split() if len(word) <= _LONGEST_WORD]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())


def _kept(character: str) -> str:
    """Return a letter or digit, nothing for a mark or control character, and a space for anything else."""
    if character.isalnum():
        return character
    kind = unicodedata.category(character)
    return "" if (kind == "Mn" or kind[0] == "C") and not character.isspace() else " "


def _plain_words(text: str) -> tuple[list[str], str]:
    """Return the words of a text that every model reads, and the letters and digits of all others.

    Words are lowercase runs of ASCII letters, and single digits: some models read them alone and ignore their order.
    Parts between blanks with any other characters but punctuation are unclear: services remove or replace these, or
    read the whole part as unknown. So are long words.
    """
    known: list[str] = []
    unclear: list[str] = []
    for part in filter(None, _BLANKS.split(text)):
        words_of_part = _ALPHANUMERIC.findall(part) if _PLAIN.fullmatch(part) else []
        if words_of_part and max(map(len, words_of_part)) <= _LONGEST_WORD:
            known += _UNITS.findall(part.lower())
        else:
            unclear.append("".join(_ALPHANUMERIC.findall(_folded(part))).lower())
    return known, " ".join(unclear)


def _first_bytes(text: str, most: int) -> str:
    """Return the first part of a text with at most this many bytes, also after compatibility normalization."""
    part = text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
    while part and not part.isascii():
        size = len(unicodedata.normalize("NFKC", part).encode("utf-8", "replace"))
        if size <= most:
            break
        part = part[: len(part) * most // size]
    return part


def ignored_ids(tokenizer: PlainTokenizer) -> frozenset[int]:
    """Return the ids of a tokenizer that show no difference: special tokens, and the token of unknown words."""
    find: Any = getattr(tokenizer, "token_to_id", None)
    if find is None:
        return frozenset()
    model: Any = getattr(tokenizer, "model", None)
    named = {*_UNKNOWN, getattr(model, "unk_token", None) or _UNKNOWN[0]}
    ids = {find(name) for name in named}
    return frozenset(one for one in (*ids, *_ids(tokenizer, "", special=True)) if one is not None)


def _ids(tokenizer: PlainTokenizer, text: str, *, special: bool = False) -> list[int]:
    encoded: Any = tokenizer.encode(text, add_special_tokens=special)
    return list(encoded.ids)


def _difference(one: Sequence[Any], other: Sequence[Any], ignored: frozenset[int] = frozenset()) -> Difference | None:
    left, right = set(one) - ignored, set(other) - ignored
    if left == right:
        return None
    common = next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return Difference(len(left & right) / len(left | right), common)
