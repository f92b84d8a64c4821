"""Batches by token length: similar lengths together, so that little padding is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.types import Batch

if TYPE_CHECKING:
    import numpy.typing as npt

#: Batches with fewer padded tokens are not closed for uneven lengths: a call costs more than the padding.
SMALL_TOKENS = 256
#: A row shorter than this share of its batch's width starts a new batch.
EVENNESS = 0.75
#: A row of more tokens is alone: it fills the CPU by itself, and unpadded attention needs memory linear in it.
ALONE_TOKENS = 1024


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
