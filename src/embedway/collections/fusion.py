"""Fusion of lists of rows, by scores or by ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Constant of reciprocal rank fusion: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
#: individual rank learning methods", SIGIR 2009 (doi 10.1145/1571941.1572114).
RRF_K = 60
#: Standard deviations between the mean of a list and a fused score of 0 or 1.
_DEVIATIONS = 3.0


def fused_by_scores(lists: Iterable[Sequence[tuple[str, float]]]) -> dict[str, float]:
    """Return ids with their fused scores, best first: the mean of their scores in all lists, each list on one scale.

    The scale of a list puts its mean at 0.5, and three standard deviations above and below it at 1 and 0. A row that is
    not in a list has 0 for it. Equal scores keep the order of the first list that contains them.

    A list that is shorter than another is continued with scores of 0, as BM25 gives rows without a word of the query:
    the one row that has an identifier is then far above the mean.

    Source: M. Mazzeschi, "Distribution-based score fusion", 2023; Qdrant has the same formula. It keeps how much better
    a row is than the next one, which ranks alone lose. `benchmarks/retrieval.py` compares it with fused ranks.
    """
    lists = list(lists)
    size = max(map(len, lists), default=0)
    scores: dict[str, float] = {}
    for rows in lists:
        mean = sum(score for _, score in rows) / max(size, 1)
        squares = sum((score - mean) ** 2 for _, score in rows) + (size - len(rows)) * mean**2
        spread = 2 * _DEVIATIONS * math.sqrt(squares / max(size, 1))
        for row_id, score in rows:
            scaled = 0.5 + (score - mean) / spread if spread > 0 else 0.5
            scores[row_id] = scores.get(row_id, 0.0) + scaled / len(lists)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def fused_by_ranks(lists: Iterable[Sequence[tuple[str, float]]], k: int = RRF_K) -> dict[str, float]:
    """Return ids with their fused scores, best first: the sum of `1 / (k + rank)` in all lists, with ranks from 1.

    This is reciprocal rank fusion. Equal scores keep the order of the first list that contains them.
    """
    scores: dict[str, float] = {}
    for rows in lists:
        for rank, (row_id, _) in enumerate(rows, 1):
            scores[row_id] = scores.get(row_id, 0.0) + 1 / (k + rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
