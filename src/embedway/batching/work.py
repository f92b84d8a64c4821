"""Preparation of texts for computing: tokenize once, truncate or split into windows, and fill batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedway.batching.batches import divide_evenly
from embedway.batching.windows import TextWindows, split_windows
from embedway.errors import InputError, TextTooLongError
from embedway.types import TextMeta, TokenizedTexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.compute import ComputeRequest
    from embedway.errors import EmbedwayError
    from embedway.types import Batch, Spread, Truncation, Vectors


class Tokenizes(Protocol):
    """The part of a model that prepares texts."""

    max_tokens: int
    #: Maximum padded tokens of a batch; None for services, whose requests are filled when they are sent.
    token_budget: int | None
    #: Division of small requests among the streams; None for services.
    spread: Spread | None
    #: Maximum texts of a batch; None for no limit.
    max_batch_size: int | None

    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Return token ids, or only their counts, truncated at `max_tokens`. Blocking."""


@dataclass(frozen=True, slots=True)
class Work:
    """Prepared texts of a request.

    `texts` are truncated, or the windows of averaged texts. `positions` (m,) are the positions in the request of the
    texts that are not refused. Without windows, part i is the text at `positions[i]`.
    """

    texts: tuple[str, ...]
    tokenized: TokenizedTexts
    batches: tuple[Batch, ...]
    positions: npt.NDArray[np.int64]
    #: Facts of each text of the request; None for a refused one.
    metas: list[TextMeta | None]
    #: Texts over the limit when truncation is not allowed, by position.
    refused: Mapping[int, EmbedwayError]
    #: Assignment of windows to texts; None if nothing is averaged.
    windows: TextWindows | None = None

    def position(self, part: int) -> int:
        """Return the position in the request of the text of a part."""
        return int(self.positions[part if self.windows is None else self.windows.owner[part]])

    def rows(self, vectors: Vectors) -> Vectors:
        """Return rows for all texts of the request, from the computed rows; NaN for refused texts."""
        if not self.refused:
            return vectors
        rows = np.full((len(self.metas), vectors.shape[1]), np.nan, np.float32)
        rows[self.positions] = vectors
        return rows


def make_work(request: ComputeRequest, model: Tokenizes) -> Work:
    """Tokenize the texts of a request once and divide them into batches. Blocking.

    Raises TextTooLongError for the first text over the limit if truncation is not allowed. In a partial request, such
    texts are refused by position.
    """
    texts, tokenized = request.texts, model.tokenize(request.texts, request)
    positions = np.arange(len(texts), dtype=np.int64)
    refused: dict[int, EmbedwayError] = {}
    windows = None
    cuts = {cut.row: cut for cut in tokenized.truncations}
    if cuts and request.on_overflow == "error":
        refused = {row: _too_long(cut, model.max_tokens) for row, cut in cuts.items()}
    elif cuts and request.on_overflow == "truncate":
        refused = {row: _nothing_left(row) for row, cut in cuts.items() if not cut.kept_characters}
    if refused:
        if not request.partial:
            raise next(iter(refused.values()))
        positions = np.delete(positions, list(refused))
        texts, tokenized = tuple(texts[row] for row in positions), tokenized.only(positions)
        moved = {int(position): row for row, position in enumerate(positions)}
        cuts = {moved[row]: replace(cut, row=moved[row]) for row, cut in cuts.items() if row in moved}
        tokenized = replace(tokenized, truncations=tuple(cuts.values()))
    if cuts and request.on_overflow == "mean":
        texts, windows = split_windows(
            texts, set(cuts), lambda parts: model.tokenize(parts, request), max_tokens=model.max_tokens
        )
        tokenized = model.tokenize(texts, request)
        windows = windows.weighed(tokenized.lengths, int(model.tokenize([""], request).lengths[0]))
    elif cuts:
        texts = tuple(text[: cuts[row].kept_characters] if row in cuts else text for row, text in enumerate(texts))
    batches = _divide(tokenized.lengths, model)
    metas: list[TextMeta | None] = [None] * len(request.texts)
    if windows is None:
        lengths = tokenized.lengths.tolist()
        whole = {tokens: TextMeta(tokens) for tokens in set(lengths)}  # shared by texts of the same length
        for row, (position, tokens) in enumerate(zip(positions.tolist(), lengths, strict=True)):
            cut = cuts.get(row)
            metas[position] = whole[tokens] if cut is None else TextMeta(tokens, replace(cut, row=0))
    else:
        counts = windows.counts()
        for position, tokens in enumerate(windows.sums(tokenized.lengths)):
            metas[position] = TextMeta(tokens, windows=counts[position] if position in cuts else 0)
    return Work(texts, tokenized, batches, positions, metas, refused, windows)


def _divide(lengths: npt.NDArray[np.int32], model: Tokenizes) -> tuple[Batch, ...]:
    budget = model.token_budget
    if budget is None:
        return ()
    return tuple(divide_evenly(lengths, token_budget=budget, spread=model.spread, max_texts=model.max_batch_size))


def _nothing_left(row: int) -> InputError:
    return InputError(
        "its beginning has no token for the model: remove white space and invisible characters there", row=row
    )


def _too_long(cut: Truncation, max_tokens: int) -> TextTooLongError:
    tokens = None if cut.lost_tokens is None else cut.kept_tokens + cut.lost_tokens
    return TextTooLongError(row=cut.row, max_tokens=max_tokens, tokens=tokens)
