"""The reranker contract: like the provider contract, but for scores of query-document pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.errors import BadVectorsError, ProtocolError
from embedway.providers.base import Answer
from embedway.providers.registry import RERANKERS, make_entry
from embedway.types import RateState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Declared, Endpoint
    from embedway.types import InputType, Space, Vectors


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores, float32 (n,), of document i, higher is better, and the service's usage data.

    `tokens` or `searches` are the billed amounts, None or 0 if the service does not report them.
    """

    scores: Vectors
    tokens: int | None = None
    searches: int | None = None
    rates: RateState = field(default_factory=RateState)


class RerankProvider(Protocol):
    """A provider that scores a batch of documents for a query: one call, one answer or one error.

    It has no retries, limits or sorting: those are outside. Rerankers are discovered by the entry point group
    `embedway.rerankers`; the entry is a callable that accepts an `Endpoint`.
    """

    @property
    def declared(self) -> Declared:
        """Limits; tokens of a request count the query with each document."""

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score at most `declared.max_inputs` documents. Raises `UpstreamError`s and `BadVectorsError`."""

    async def aclose(self) -> None:
        """Close connections."""


def make_reranker(name: str, endpoint: Endpoint) -> RerankProvider:
    """Create the reranker with that name. Raises ConfigError with the nearest name if there is none."""
    made: RerankProvider = make_entry(RERANKERS, name, endpoint)
    return made


class Scoring:
    """Adapter of a reranker and a query to the provider interface: each score is a vector of one number."""

    def __init__(self, reranker: RerankProvider, query: str) -> None:
        self.reranker = reranker
        self.declared = reranker.declared
        self.runtime = str(getattr(reranker, "runtime", "service"))
        self._query = query

    def asking(self, query: str) -> Scoring:
        """Return a copy with a query."""
        return Scoring(self.reranker, query)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Return scores, float32 (n, 1)."""
        del input_type, dimensions
        scores = await self.reranker.rerank(self._query, texts)
        return Answer(scores.scores.reshape(-1, 1), scores.tokens, scores.rates, scores.searches)

    async def aclose(self) -> None:
        await self.reranker.aclose()


def check_scores(vectors: Vectors, *, count: int, space: Space, route: str) -> None:
    """Raise BadVectorsError unless each document has a finite score."""
    del space
    if vectors.shape != (count, 1):
        raise BadVectorsError(f"answered with {len(vectors)} scores for {count} documents", route=route)
    if not np.isfinite(vectors).all():
        rows = np.flatnonzero(~np.isfinite(vectors[:, 0]))[:5].tolist()
        raise BadVectorsError("answered with scores that are not finite", route=route, rows=rows)


def read_scores(results: Any, *, score: str, count: int, route: str) -> Vectors:
    """Read the scores of a list of results, float32 (count,), ordered by their `index`.

    Raises ProtocolError if it is not a list of objects, BadVectorsError for wrong counts, indexes and numbers.
    """
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ProtocolError("the answer has no list of results", route=route, billed=True)
    if len(results) != count:
        raise BadVectorsError(f"answered with {len(results)} scores for {count} documents", route=route)
    scores = np.full(count, np.nan, np.float32)
    placed: set[int] = set()
    for result in results:
        index, value = result.get("index"), result.get(score)
        if type(index) is not int or not 0 <= index < count or index in placed:
            raise BadVectorsError(f"answered with the index {index!r} among {count} documents", route=route)
        if type(value) not in {int, float}:
            raise BadVectorsError("answered with a score that is not a number", route=route, rows=[index])
        placed.add(index)
        scores[index] = value
    return scores
