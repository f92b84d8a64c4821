"""The reranker contract: providers, but for scores of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.errors import BadVectorsError, ProtocolError
from embedway.providers.base import Answer
from embedway.providers.registry import RERANKERS, load_entry
from embedway.types import RateState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.providers.base import Declared, Endpoint
    from embedway.types import InputType, Space, Vectors


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores, float32 (n,), of document i, greater for better, and what the service told beside them.

    `tokens` or `searches` are what it bills, None where it does not say.
    """

    scores: Vectors
    tokens: int | None = None
    searches: int | None = None
    rates: RateState = field(default_factory=RateState)


class RerankProvider(Protocol):
    """Code that can score a batch of documents for a query: one call, one answer or one error.

    No retries, no limits, no sorting inside: those are around it. It is found by the entry point group
    `embedway.rerankers`; the entry is a callable that takes an `Endpoint`.
    """

    @property
    def declared(self) -> Declared:
        """Limits; tokens of a request are those of each document with the query before it."""

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score at most `declared.max_inputs` documents. Raises `UpstreamError`s and `BadVectorsError`."""

    async def aclose(self) -> None:
        """Give connections back."""


def make_reranker(name: str, endpoint: Endpoint) -> RerankProvider:
    """Make the reranker of that name. Raises ConfigError with the nearest name where there is none."""
    make: Callable[[Endpoint], RerankProvider] = load_entry(RERANKERS, name, endpoint)
    return make(endpoint)


class Scoring:
    """A reranker with its query, as the provider that everything around providers knows: scores for vectors of one."""

    def __init__(self, reranker: RerankProvider, query: str) -> None:
        self.reranker = reranker
        self.declared = reranker.declared
        self.runtime = str(getattr(reranker, "runtime", "service"))
        self._query = query

    def asking(self, query: str) -> Scoring:
        """The same with a query."""
        return Scoring(self.reranker, query)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Scores, float32 (n, 1)."""
        del input_type, dimensions
        scores = await self.reranker.rerank(self._query, texts)
        return Answer(scores.scores.reshape(-1, 1), scores.tokens, scores.rates, scores.searches)

    async def aclose(self) -> None:
        await self.reranker.aclose()


def check_scores(vectors: Vectors, *, count: int, space: Space, route: str) -> None:
    """Raise BadVectorsError unless there is a finite score for each document."""
    del space
    if vectors.shape != (count, 1):
        raise BadVectorsError(f"answered with {len(vectors)} scores for {count} documents", route=route)
    if not np.isfinite(vectors).all():
        rows = np.flatnonzero(~np.isfinite(vectors[:, 0]))[:5].tolist()
        raise BadVectorsError("answered with scores that are not finite", route=route, rows=rows)


def read_scores(results: Any, *, score: str, count: int, route: str) -> Vectors:
    """The scores of a list of results, float32 (count,), by their `index` and not as they come.

    Raises ProtocolError for what is no list of objects, BadVectorsError for wrong counts, indexes and numbers.
    """
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ProtocolError("its answer has no list of results", route=route, billed=True)
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
