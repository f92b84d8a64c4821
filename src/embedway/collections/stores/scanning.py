"""Search of a store without its index: read all rows, and rank them exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.search import Hit, cosines
from embedway.collections.where import matches

if TYPE_CHECKING:
    from embedway.collections.stores.base import Store
    from embedway.collections.where import Condition
    from embedway.types import Vectors


class NotExpressibleError(Exception):
    """The store has no filter for this condition, so `scan_search` compares rows."""


def scan_search(store: Store, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
    """Return the nearest rows for a query of length 1, as `Store.search` does. Memory is that of `top_n` rows.

    Stores use this for conditions that their own filters cannot express.
    """
    scores = np.empty(0, np.float32)
    best: list[dict[str, Any]] = []
    for rows in store.read():
        inside = [row for row, fields in enumerate(rows.fields) if where is None or matches(where, fields)]
        if not inside:
            continue
        scores = np.concatenate([scores, cosines(rows.vectors[inside], query)])
        best.extend(rows.fields[row] for row in inside)
        order = np.argsort(-scores, kind="stable")[:top_n]  # stable: equal scores stay in row order
        scores, best = scores[order], [best[row] for row in order]
    return [Hit.of(score, fields, store.record.keep) for score, fields in zip(scores.tolist(), best, strict=True)]
