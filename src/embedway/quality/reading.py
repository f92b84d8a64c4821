"""Comparison of two texts as a model reads them: which tokens or words differ within the part that it reads."""

from __future__ import annotations

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
    `tokenizer`, the tokens must differ too. Without it, only words of ASCII letters and digits are certain: the model
    may know no other script. Only the part is compared that a service with `max_tokens` reads in any case.
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
        return _difference(ids[0], ids[1], self.ignored)

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
        known = _difference([word for word in left if word.isascii()], [word for word in right if word.isascii()])
        return difference if known is not None else Difference(difference.shared, difference.common, certain=False)

    def _certain_part(self, text: str) -> str:
        """Return the part of a text that has at most as many tokens as the model reads: one for each byte."""
        if self.tokenizer is not None:
            return text
        return text.encode("utf-8", "replace")[: max(1, self.max_tokens - _MARGIN)].decode("utf-8", "ignore")


def words(text: str) -> list[str]:
    """Return the words of a text without case, accents, punctuation, symbols and invisible characters."""
    if text.isascii():
        kept = "".join([one if one.isalnum() else " " for one in text.lower()])
    else:
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
        kept = "".join([_kept(one) for one in folded])
    return [word for word in kept.split() if len(word) <= _LONGEST_WORD]


def _kept(character: str) -> str:
    """Return a letter or digit, nothing for a mark or control character, and a space for anything else."""
    if character.isalnum():
        return character
    kind = unicodedata.category(character)
    return "" if (kind == "Mn" or kind[0] == "C") and not character.isspace() else " "


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
