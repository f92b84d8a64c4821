"""The reranker contract: like the provider contract, but for scores of query-document pairs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.errors import BadVectorsError, ProtocolError
from embedway.providers.base import Answer
from embedway.providers.registry import RERANKERS, make_entry
from embedway.providers.vectors import read_order
from embedway.types import RateState
from embedway.vectors import refuse_rows

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
    """Raise BadVectorsError unless each document has a finite score; its `rows` are those without one."""
    del space
    if vectors.shape != (count, 1):
        raise BadVectorsError(f"answered with {len(vectors)} scores for {count} documents", route=route, check="count")
    what = "scores that are not finite numbers"
    refuse_rows({what: ~np.isfinite(vectors[:, 0])}, route=route, checks={what: "not_finite"})


def read_scores(results: Any, *, score: str, count: int, route: str) -> Vectors:
    """Read the scores of a list of results, float32 (count,), ordered by their `index`.

    A score that is not a number is NaN. Raises ProtocolError if it is not a list of objects, BadVectorsError for wrong
    counts and indexes.
    """
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ProtocolError("the answer has no list of results", route=route, billed=True)
    if len(results) != count:
        raise BadVectorsError(f"answered with {len(results)} scores for {count} documents", route=route, check="count")
    scores = np.full(count, np.nan, np.float32)
    for index, result in zip(_indexes(results, route=route), results, strict=True):
        value = result.get(score)
        if type(value) in {int, float}:
            with contextlib.suppress(OverflowError):
                scores[index] = value
    return scores


def _indexes(results: Sequence[dict[str, Any]], *, route: str) -> list[int]:
    """Return the document of each result.

    One missing index is 0 if the others are all different and not 0: some services leave out a 0. More missing ones
    are unknown, and never the positions: results are usually ordered by score.
    """
    indexes = [result.get("index") for result in results]
    missing = indexes.count(None)
    if missing > 1:
        raise BadVectorsError(
            f"answered without the index of {missing} of {len(indexes)} documents; set max_inputs = 1 in the options "
            "of the route",
            route=route,
        )
    if missing:
        indexes[indexes.index(None)] = 0
    return read_order(indexes, route=route, of="documents")[0]
