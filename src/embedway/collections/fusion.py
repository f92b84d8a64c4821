"""Reciprocal rank fusion of ranked lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Constant of reciprocal rank fusion: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
#: individual rank learning methods", SIGIR 2009 (doi 10.1145/1571941.1572114).
RRF_K = 60


def fused(rankings: Mapping[str, Sequence[str]], weights: Mapping[str, float], k: int = RRF_K) -> dict[str, float]:
    """Return ids with their fused scores, best first: the sum of `weight / (k + rank)`, with ranks from 1.

    Equal scores keep the order of the first ranking that contains them.
    """
    scores: dict[str, float] = {}
    for name, ids in rankings.items():
        for rank, row_id in enumerate(ids, 1):
            scores[row_id] = scores.get(row_id, 0.0) + weights.get(name, 1.0) / (k + rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
