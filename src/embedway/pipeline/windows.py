"""Texts over the limit as windows: embedded each, and their vectors averaged by tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import TextTooLongError
from embedway.types import Averaged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError
    from embedway.providers.base import OpenModel
    from embedway.types import InputType, Space, TokenizedTexts, Vectors


@dataclass(frozen=True, slots=True)
class TextWindows:
    """How parts make up texts: `owner` (p,) is the text that each part belongs to, `weights` (p,) its share of it."""

    owner: npt.NDArray[np.int64]
    texts: int
    weights: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def weigh(self, tokenized: TokenizedTexts, model: OpenModel, input_type: InputType) -> npt.NDArray[np.float32]:
        """The share of each part: its own tokens, without those that the model and the prompt add to every text."""
        around = int(model.tokenize([""], input_type).lengths[0])
        return np.maximum(tokenized.lengths - around, 1).astype(np.float32)

    def averaged(self, row: int, text: int, lengths: npt.NDArray[np.int32]) -> Averaged:
        """What is told of a row whose text is averaged."""
        parts = self.owner == text
        return Averaged(row, int(parts.sum()), int(lengths[parts].sum()))

    def merge(self, vectors: Vectors, space: Space) -> Vectors:
        """Vectors of the texts, float32 (texts, d), from those of the parts; a text of one part keeps its vector."""
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
        """Errors by text, from those by part."""
        return {int(self.owner[part]): error for part, error in errors.items()}


def split_windows(
    texts: Sequence[str], too_long: set[int], model: OpenModel, input_type: InputType
) -> tuple[tuple[str, ...], TextWindows]:
    """Texts in parts that the model takes whole: those over the limit in windows without overlap, others as they are.

    Windows of white space alone are left out. Raises TextTooLongError where not even one character fits.
    """
    parts: list[str] = []
    owner: list[int] = []
    for row, text in enumerate(texts):
        windows = _windows(text, row, model, input_type) if row in too_long else [text]
        parts += windows
        owner += [row] * len(windows)
    return tuple(parts), TextWindows(np.array(owner, np.int64), len(texts))


def _windows(text: str, row: int, model: OpenModel, input_type: InputType) -> list[str]:
    found: list[str] = []
    rest = text
    while rest:
        window = rest
        # A cut may fall within a word, and the part that is left may have more tokens by itself: it is cut again.
        while cuts := model.tokenize([window], input_type).truncations:
            window = window[: cuts[0].kept_characters]
        if not window:
            raise TextTooLongError(row=row, max_tokens=model.max_tokens, tokens=None)
        if not window.isspace():
            found.append(window)
        rest = rest[len(window) :]
    return found
