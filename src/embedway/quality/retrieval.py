"""Retrieval results of query-passage pairs: rank of the own passage, and the top results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedway.vectors import unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from embedway.types import Vectors

#: Results of a query that are kept and compared.
TOP = 10


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Result of one query: its group, the rank of its own passage from 1, and the ids of the first passages."""

    group: str
    rank: int
    top: tuple[str, ...]


def retrieve(ids: Sequence[str], groups: Sequence[str], queries: Vectors, passages: Vectors) -> dict[str, QueryResult]:
    """Return the result of each query by id. Row i of both matrices is of pair i."""
    scores = unit_vectors(queries) @ unit_vectors(passages).T
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = (order == np.arange(len(ids))[:, None]).argmax(axis=1) + 1
    return {
        name: QueryResult(groups[row], int(ranks[row]), tuple(ids[place] for place in order[row, :TOP]))
        for row, name in enumerate(ids)
    }


def accuracy(results: Iterable[QueryResult]) -> float | None:
    """Return the share of queries whose own passage is first; None without queries."""
    hits = [one.rank == 1 for one in results]
    return sum(hits) / len(hits) if hits else None


def by_group(results: Mapping[str, QueryResult]) -> dict[str, list[QueryResult]]:
    """Return results by group, in order of the groups' names."""
    groups: dict[str, list[QueryResult]] = {}
    for one in results.values():
        groups.setdefault(one.group, []).append(one)
    return dict(sorted(groups.items()))


def overlap(results: Mapping[str, QueryResult], other: Mapping[str, QueryResult]) -> float | None:
    """Return the mean share of top results that are the same, over common queries; None without them."""
    shares = [
        len(set(one.top) & set(other[name].top)) / max(1, len(other[name].top))
        for name, one in results.items()
        if name in other
    ]
    return float(np.mean(shares)) if shares else None
