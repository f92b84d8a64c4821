"""Candidates of a search: rows by vector, by keywords, or by both lists fused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedway.collections.fusion import fused_by_ranks, fused_by_scores
from embedway.collections.search import Hit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.collections.keywords import Keywords
    from embedway.collections.stores.base import Store
    from embedway.collections.values import Fusion, SearchMode
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Growth of a window of keyword rows while a condition leaves too few of them, and rows that are fetched at a time.
WINDOW_GROWTH = 4
FETCHED_ROWS = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row with its scores. `hit.score` is that of the search's mode: cosine, BM25, or the fused score.

    Ranks count from 1; they and the scores are None if the row is not in the list.
    """

    hit: Hit
    vector_score: float | None = None
    vector_rank: int | None = None
    keyword_score: float | None = None
    keyword_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates, best first; `complete` if no list has a further row. `weights` are those of the query's tokens."""

    rows: list[Candidate]
    complete: bool
    weights: Mapping[str, float]


class CandidateSearch:
    """Finds candidates in an open store. Blocks; not thread-safe, as the store."""

    def __init__(self, store: Store, keywords: Keywords) -> None:
        self._store = store
        self._keywords = keywords

    def find(
        self,
        mode: SearchMode,
        query: str,
        vector: Vectors | None,
        count: int,
        where: Condition | None,
        *,
        fusion: Fusion = "scores",
    ) -> Candidates:
        """Return up to `count` rows of each list of the mode; `vector` is float32 (d,), or None for keywords."""
        by_vector: list[Hit] = []
        by_keyword: list[Hit] = []
        named: Mapping[str, float] = {}
        token_weights: Mapping[str, float] = {}
        if vector is not None and mode != "keyword":
            by_vector = self._store.search(vector, count, where=where)
        if mode != "vector":
            by_keyword, token_weights, named = self._by_keyword(query, count, where)
        if mode == "hybrid":
            # A short vector list has all rows that meet the condition. Otherwise, both lists must have all rows.
            complete = len(by_vector) < count or len(by_keyword) + len(by_vector) >= self._store.count * 2
        else:
            complete = len(by_vector) < count and len(by_keyword) < count
        return Candidates(_joined(mode, by_vector, by_keyword, named, fusion), complete, token_weights)

    def _by_keyword(
        self, query: str, count: int, where: Condition | None
    ) -> tuple[list[Hit], Mapping[str, float], Mapping[str, float]]:
        """Return rows by BM25 that meet the condition: the window grows until enough of them do.

        Also return the weights of tokens, and the scores of rows that contain an identifier of the query.
        """
        found: list[Hit] = []
        window, seen = count, 0
        while True:
            hits = self._keywords.search(query, window)
            named = dict(hits.named)
            for first in range(seen, len(hits.rows), FETCHED_ROWS):
                found.extend(self._fetched(hits.rows[first : first + FETCHED_ROWS], where))
                if len(found) >= count:
                    return found[:count], hits.weights, named
            if len(hits.rows) < window:
                return found, hits.weights, named
            window, seen = window * WINDOW_GROWTH, len(hits.rows)

    def _fetched(self, rows: Sequence[tuple[str, float]], where: Condition | None) -> list[Hit]:
        fetched = self._store.fetch([row_id for row_id, _ in rows])
        keep = self._store.record.keep
        found = [(score, fetched[row_id]) for row_id, score in rows if row_id in fetched]
        if where is not None:
            from embedway.collections.where import matches  # noqa: PLC0415  only for conditions

            found = [(score, row) for score, row in found if matches(where, row)]
        return [Hit.of(score, row, keep) for score, row in found]


def _joined(
    mode: SearchMode, by_vector: list[Hit], by_keyword: list[Hit], named: Mapping[str, float], fusion: Fusion
) -> list[Candidate]:
    vector = {hit.id: (rank, hit) for rank, hit in enumerate(by_vector, 1)}
    keyword = {hit.id: (rank, hit) for rank, hit in enumerate(by_keyword, 1)}
    if mode == "hybrid":
        # The rows that contain an identifier of the query are a third list: other words of the query, and rows that are
        # in both lists, would outrank the only row that defines it.
        identifier = [(hit.id, named[hit.id]) for hit in by_keyword if hit.id in named]
        lists = [*([(hit.id, hit.score) for hit in hits] for hits in (by_vector, by_keyword)), identifier]
        scores = fused_by_ranks(lists) if fusion == "ranks" else fused_by_scores(lists)
    else:
        scores = {hit.id: hit.score for hit in by_vector or by_keyword}
    hits = {hit.id: hit for hit in (*by_keyword, *by_vector)}
    found = []
    for row_id, score in scores.items():
        vector_rank, one = vector.get(row_id, (None, None))
        keyword_rank, other = keyword.get(row_id, (None, None))
        found.append(
            Candidate(
                replace(hits[row_id], score=score),
                None if one is None else one.score,
                vector_rank,
                None if other is None else other.score,
                keyword_rank,
            )
        )
    return found


def grouped(rows: Sequence[Candidate]) -> list[Candidate]:
    """Return the best row of each document, in order."""
    found: dict[tuple[str, str], Candidate] = {}
    for row in rows:
        found.setdefault((row.hit.source, row.hit.document_id), row)
    return list(found.values())


def merge_neighbours(rows: Sequence[Candidate], top: int) -> tuple[list[Candidate], dict[str, list[Candidate]]]:
    """Return the best `top` rows without the merged ones, and these by the id of the row into which they are merged.

    A row is merged into a better one that is returned if both are consecutive chunks of one document under the same
    headings. Rows after the last one that is returned are left out. `rows` are best first.
    """
    kept: list[Candidate] = []
    merged: dict[str, list[Candidate]] = {}
    kept_by_number: dict[tuple[str, str, int], Candidate] = {}
    for at, row in enumerate(rows):
        if len(kept) == top:
            break
        hit, path, better = row.hit, row.hit.heading_path, None
        # With fewer rows left, a merged one would leave less than `top`.
        if hit.number is not None and len(kept) + len(rows) - at > top:
            beside = (kept_by_number.get((hit.source, hit.document_id, hit.number + step)) for step in (-1, 1))
            better = next((one for one in beside if one is not None and one.hit.heading_path == path), None)
        if better is not None:
            merged.setdefault(better.hit.id, []).append(row)
            continue
        kept.append(row)
        if hit.number is not None:
            kept_by_number[hit.source, hit.document_id, hit.number] = row
    return kept, merged
