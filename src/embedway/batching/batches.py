"""Batches by token length: similar lengths together, so that little padding is computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from embedway.types import Batch

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedway.types import Spread

#: Batches with fewer padded tokens are not closed for uneven lengths: a call costs more than the padding.
SMALL_TOKENS = 256
#: A row shorter than this share of its batch's width starts a new batch.
EVENNESS = 0.75
#: A row of more tokens is alone: it fills the CPU by itself, and unpadded attention needs memory linear in it.
ALONE_TOKENS = 1024
#: Requests of more full batches per stream are not divided: the short batches at their end balance the streams.
EVEN_ROUNDS = 4
#: Minimum tokens of a stream's share: with fewer, a call costs more than it saves.
SHARE_TOKENS = 32


def even_budget(lengths: npt.NDArray[np.int32], *, token_budget: int, spread: Spread | None) -> int:
    """Return the padded tokens of a batch with which the texts of a request fill all streams evenly.

    That is `token_budget` for a large request, and for a small one that is not divided.
    """
    if spread is None or spread.streams == 1 or len(lengths) == 1:
        return token_budget
    tokens = int(lengths.sum(dtype=np.int64))
    if tokens <= spread.whole_tokens:
        return token_budget
    rounds = math.ceil(tokens / (token_budget * spread.streams))
    if rounds > EVEN_ROUNDS:
        return token_budget
    share, widest = max(SHARE_TOKENS, tokens / (rounds * spread.streams)), int(lengths.max())
    return min(token_budget, math.ceil(share / widest) * widest)


def divide_evenly(
    lengths: npt.NDArray[np.int32], *, token_budget: int, spread: Spread | None, max_texts: int | None = None
) -> list[Batch]:
    """Put the rows of a request into batches that fill all streams evenly; see `even_budget` and `fill_batches`."""
    budget = even_budget(lengths, token_budget=token_budget, spread=spread)
    return fill_batches(lengths, token_budget=budget, max_texts=max_texts)


def fill_batches(lengths: npt.NDArray[np.int32], *, token_budget: int, max_texts: int | None = None) -> list[Batch]:
    """Put rows into batches of at most `token_budget` padded tokens and `max_texts` rows, longest first.

    A row longer than the budget is alone in its batch. Every row is in exactly one batch. With the longest first, the
    most memory is needed at once, and short batches balance the streams at the end.
    """
    if len(lengths) == 1:  # a query
        return [Batch(np.zeros(1, np.int64), max(1, int(lengths[0])))]
    order = np.argsort(-lengths, kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        width = max(1, int(lengths[order[start]]))
        most = 1 if width > ALONE_TOKENS else max(1, token_budget // width)
        end = min(len(order), start + (most if max_texts is None else min(most, max_texts)))
        # The position where lengths become too short for the batch. They are sorted, so a search finds it.
        floor = int(width * EVENNESS)
        even = start + int(np.searchsorted(-lengths[order[start:end]], -floor, side="right"))
        if even < end and (even - start) * width >= SMALL_TOKENS:
            end = max(even, start + 1)
        batches.append(Batch(order[start:end].astype(np.int64), width))
        start = end
    return batches
