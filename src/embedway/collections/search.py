"""Exact search by cosine similarity in bounded memory, shared by stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.columns import HIT_COLUMNS
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from embedway.collections.values import Value
    from embedway.types import Vectors


@dataclass(frozen=True, slots=True)
class Hit:
    """A row found by a search.

    `score` is the cosine similarity, from -1 to 1, unless the search says otherwise. `metadata` contains the kept
    columns. Collections before version 3 have neither `number`, `total`, `page` nor `headings`.
    """

    score: float
    id: str
    document_id: str
    source: str
    start_line: int
    title: str | None
    text: str = field(repr=False)
    number: int | None = None
    total: int | None = None
    page: int | None = None
    headings: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict, repr=False)

    @property
    def heading_path(self) -> str:
        """Title of the document and headings above the text, each once."""
        title, headings = self.title or "", self.headings or ""
        if not title or headings == title or headings.startswith(f"{title} \u203a "):
            return headings
        return f"{title} \u203a {headings}" if headings else title

    @classmethod
    def of(cls, score: float, row: Mapping[str, Any], keep: Iterable[str] = ()) -> Hit:
        """Create a hit from the columns of a row; `keep` names the kept columns."""
        return cls(
            score=float(score),
            **{name: row[name] for name in HIT_COLUMNS},
            number=row.get("number"),
            total=row.get("total"),
            page=row.get("page"),
            headings=row.get("headings"),
            metadata={name: row.get(name) for name in keep},
        )


class TopRows:
    """Scores and numbers of the best rows so far, best first."""

    def __init__(self, top_n: int) -> None:
        self._top_n = top_n
        self.scores: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.rows: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, scores: npt.NDArray[np.float32], first_row: int) -> None:
        """Merge the scores of consecutive rows."""
        if len(scores) > self._top_n:
            # The threshold retains ties, so that the sort below decides among them, and not the partition.
            threshold = np.partition(scores, -self._top_n)[-self._top_n]
            inside = np.flatnonzero(scores >= threshold)
        else:
            inside = np.arange(len(scores))
        all_scores = np.concatenate([self.scores, scores[inside]])
        all_rows = np.concatenate([self.rows, inside + first_row])
        order = np.lexsort((all_rows, -all_scores))[: self._top_n]
        self.scores, self.rows = all_scores[order], all_rows[order]

    def hits(self, rows: Mapping[int, Mapping[str, Any]]) -> list[Hit]:
        """Return the best rows as hits; `rows` contains their columns by row number."""
        return [Hit.of(score, rows[row]) for score, row in zip(self.scores.tolist(), self.rows.tolist(), strict=True)]


@np.errstate(all="ignore")  # whatever the caller has set
def unit_query(query_vector: Vectors, top_n: int, *, dimensions: int, destination: str) -> Vectors:
    """Return the query vector with length 1. Raises `UsageError` for a wrong shape, and for `top_n` below 1."""
    query = np.asarray(query_vector, dtype=np.float32)
    if query.shape != (dimensions,):
        raise UsageError(f"the query vector has the shape {query.shape}; {destination} needs ({dimensions},)")
    if top_n < 1:
        raise UsageError(f"cannot find {top_n} rows; request at least 1")
    unit: Vectors = query / _nonzero(np.linalg.norm(query))
    return unit


@np.errstate(all="ignore")  # whatever the caller has set
def cosines(vectors: Vectors, query: Vectors, norms: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
    """Return the cosine similarities (n,) of vectors (n, d) with a query of length 1; 0 for a vector of length 0.

    `norms` is the result of `vector_norms`, if it is known already.
    """
    scores: npt.NDArray[np.float32] = (vectors @ query) / (vector_norms(vectors) if norms is None else norms)
    return scores


@np.errstate(all="ignore")  # whatever the caller has set
def vector_norms(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Return the lengths (n,) of vectors (n, d), with 1 for a length of 0."""
    norms: npt.NDArray[np.float32] = _nonzero(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)))
    return norms


def _nonzero(norms: Any) -> Any:
    return np.where(norms == 0, 1, norms)
