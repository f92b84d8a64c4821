"""Windows of texts over the limit: each is embedded, and the vectors are averaged, weighted by tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import TextTooLongError, with_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError
    from embedway.types import Space, TokenizedTexts, Truncation, Vectors

#: Characters of the part of a text that is tokenized to find a window, and its growth if the part has too few tokens.
_FIRST_CHARACTERS = 1 << 14
_GROWTH = 4
#: Truncated tokens of a part after which the rest of the text cannot change the window.
_MARGIN_TOKENS = 64


@dataclass(frozen=True, slots=True)
class TextWindows:
    """Assignment of parts to texts: `owner` (p,) is the text of each part, `weights` (p,) its weight in that text."""

    owner: npt.NDArray[np.int64]
    texts: int
    weights: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def weighed(self, lengths: npt.NDArray[np.int32], added: int) -> TextWindows:
        """Return a copy with the weight of each part: its tokens, without the `added` tokens that every text gets."""
        return replace(self, weights=np.maximum(lengths - added, 1).astype(np.float32))

    def counts(self) -> list[int]:
        """Return the number of parts of each text."""
        parts: list[int] = np.bincount(self.owner, minlength=self.texts).tolist()
        return parts

    def sums(self, lengths: npt.NDArray[np.int32]) -> list[int]:
        """Return the tokens of each text, from those of its parts."""
        tokens: list[int] = np.bincount(self.owner, lengths, minlength=self.texts).astype(np.int64).tolist()
        return tokens

    @np.errstate(all="ignore")  # whatever the caller has set
    def merge(self, vectors: Vectors, space: Space) -> Vectors:
        """Merge part vectors into text vectors, float32 (texts, d). A text with one part keeps its vector."""
        merged = np.zeros((self.texts, vectors.shape[1]), np.float32)
        alone = np.bincount(self.owner, minlength=self.texts)[self.owner] == 1
        merged[self.owner[alone]] = vectors[alone]
        many = np.flatnonzero(~alone)
        if len(many):
            total = np.bincount(self.owner[many], self.weights[many], minlength=self.texts)
            share = (self.weights[many] / total[self.owner[many]]).astype(np.float32)
            np.add.at(merged, self.owner[many], vectors[many] * share[:, None])
            if space.normalized:
                rows = np.unique(self.owner[many])
                merged[rows] /= np.maximum(np.linalg.norm(merged[rows], axis=1, keepdims=True), 1e-12)
        return merged

    def errors(self, errors: Mapping[int, EmbedwayError]) -> dict[int, EmbedwayError]:
        """Map errors by part to errors by text."""
        return {text: with_row(error, text) for part, error in errors.items() for text in [int(self.owner[part])]}


def split_windows(
    texts: Sequence[str], too_long: set[int], tokenize: Callable[[Sequence[str]], TokenizedTexts], *, max_tokens: int
) -> tuple[tuple[str, ...], TextWindows]:
    """Split texts over the limit into windows without overlap; other texts are one part each.

    Windows of only white space are dropped. Raises TextTooLongError if not even one character fits.
    """
    parts: list[str] = []
    owner: list[int] = []
    for row, text in enumerate(texts):
        windows = _windows(text, tokenize) if row in too_long else [text]
        if windows is None:
            raise TextTooLongError(row=row, max_tokens=max_tokens, tokens=None)
        parts += windows
        owner += [row] * len(windows)
    return tuple(parts), TextWindows(np.array(owner, np.int64), len(texts))


def _windows(text: str, tokenize: Callable[[Sequence[str]], TokenizedTexts]) -> list[str] | None:
    """Return the windows of a text; None if not even one character fits."""
    found: list[str] = []
    start, size = 0, _FIRST_CHARACTERS
    while start < len(text):
        # Only a part of the rest is tokenized: otherwise each window would tokenize all of it again.
        window = text[start : start + size]
        cuts = tokenize([window]).truncations
        if start + size < len(text) and not _is_certain(cuts):
            size *= _GROWTH
            continue
        # Truncation may split a word, and the kept part may have more tokens on its own. It is then truncated again.
        while cuts:
            window = window[: cuts[0].kept_characters]
            cuts = tokenize([window]).truncations
        if not window:
            # Not one token fits. White space at the beginning has none, and is skipped.
            part = text[start : start + size]
            window = part[: len(part) - len(part.lstrip())]
            if not window:
                return None
        if not window.isspace():
            found.append(window)
        start, size = start + len(window), _FIRST_CHARACTERS
    return found


def _is_certain(cuts: Sequence[Truncation]) -> bool:
    """Return whether a part of a text was truncated so far before its end that the rest cannot change the window."""
    return bool(cuts) and (cuts[0].lost_tokens is None or cuts[0].lost_tokens >= _MARGIN_TOKENS)
