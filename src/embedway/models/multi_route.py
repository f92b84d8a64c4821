"""Local models that servers run too: local and remote routes in one vector space, with failover.

A server reports its model, but not the weights, prompts and pooling. A wrong server would mix vectors of another space
with the right ones, without an error. So each route to a server is compared with this machine on a probe: before its
first answer is used, after each failure, and every few minutes. If the weights of a reranker are not here, there is
nothing to compare with, and its servers are trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from embedway.batching.batches import fill_batches
from embedway.batching.run import run_batches
from embedway.errors import BadVectorsError, UpstreamError
from embedway.models.local import profile_of
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.providers.base import Answer, Declared
from embedway.rerank.base import Scores
from embedway.vectors import SAME_COSINE, validate

if TYPE_CHECKING:
    import decimal
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from embedway.config import Config
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.models.service import Service
    from embedway.providers.base import Provider
    from embedway.rerank.base import RerankProvider
    from embedway.types import InputType, Vectors

#: Text for the comparison. It has non-ASCII characters, both cases and digits, because tokenizers differ in these.
_PROBE = "Where does a vector belong? In one space: Café, Straße, 42 and naïve."
#: A query with a relevant and an irrelevant document.
_PAIRS = (
    "Where does a vector belong?",
    ["In its own vector space, among its like.", "Straße 42 was closed for a day."],
)
#: Time for which a passed check is valid, in seconds.
_VALID_S = 300.0
#: Maximum difference of scores from 0 to 1, for half precision.
_SAME_SCORE = 0.02
#: Provider name of this machine in routes.
LOCAL = "local"


class MultiRouteModel(ServiceModel):
    """A local model with routes to servers of the same space."""

    def __init__(self, service: Service, environment: ModelEnvironment, local: Encoder) -> None:
        here = profile_of(local)
        route = service.routes[0].name
        super().__init__(service, environment, replace(here, route=route, variant=f"{here.variant} or a server"))
        self._local = local

    async def warm(self) -> None:
        """Load the local session."""
        await asyncio.to_thread(self._local.warm)

    @override
    def encoder(self) -> Encoder:
        return self._local


class MultiRouteReranker(ServiceReranker):
    """A reranker, local if its weights are here, with routes to servers that return the same scores."""


class LocalProvider:
    """A local encoder as one of the routes of its model."""

    runtime = "local"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        dependent = encoder.batch_dependent
        self.declared = Declared(1024, input_type=True, free=True, local=True, batch_dependent=dependent)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        del dimensions
        encoder = self._encoder
        tokenized = await asyncio.to_thread(encoder.tokenize, texts, input_type)
        batches = fill_batches(tokenized.lengths, token_budget=encoder.token_budget)
        return Answer(await run_batches(tokenized, batches, encoder, width=encoder.space.dimensions), tokens=0)

    async def aclose(self) -> None:
        """Wait for running batches, then unload."""
        await self._encoder.close()


class LocalScorer:
    """A local cross-encoder as one of the routes of its model."""

    declared = Declared(max_inputs=1024, free=True, local=True)
    runtime = "local"

    def __init__(self, encoder: CrossEncoder) -> None:
        self._encoder = encoder

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`."""
        encoder = self._encoder
        tokenized = await asyncio.to_thread(encoder.pairs, query, documents)
        batches = fill_batches(tokenized.lengths, token_budget=encoder.token_budget)
        return Scores((await run_batches(tokenized, batches, encoder, width=1))[:, 0], tokens=0)

    async def aclose(self) -> None:
        """Wait for running batches, then unload."""
        await self._encoder.close()


class SpaceCheck:
    """Check of a server, before its first answer is used, after each failure, and every few minutes.

    A server that failed may have been restarted with another model. `compare` returns the reason why the server cannot
    be used, or an empty text.
    """

    def __init__(
        self, compare: Callable[[], Awaitable[str]], route: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._compare = compare
        self._route = route
        self._clock = clock
        self._lock = asyncio.Lock()
        self._reason = ""
        self._valid_until = float("-inf")

    async def pass_or_raise(self) -> None:
        """Raise BadVectorsError if the server cannot be used; this result is permanent."""
        if not self._reason and self._clock() >= self._valid_until:
            async with self._lock:
                if not self._reason and self._clock() >= self._valid_until:
                    started = self._clock()
                    self._reason = await self._compare()
                    self._valid_until = started + _VALID_S
        if self._reason:
            error = BadVectorsError(self._reason, route=self._route)
            error.billed = False
            raise error

    @contextlib.contextmanager
    def repeated_after_failure(self) -> Iterator[None]:
        """Check the server again if a request fails."""
        try:
            yield
        except UpstreamError:
            self._valid_until = float("-inf")
            raise


class CheckedProvider:
    """A server's provider; before its first answer is used, its vectors are compared with the model's space."""

    def __init__(self, provider: Provider, local: LocalProvider, encoder: Encoder, route: str) -> None:
        self.declared = provider.declared
        self._provider = provider
        self._local = local
        self._space = encoder.space
        self._route = route
        self._check = SpaceCheck(self._compare, route)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`. Raises BadVectorsError, permanently, if the spaces differ."""
        await self._check.pass_or_raise()
        with self._check.repeated_after_failure():
            return await self._provider.embed(texts, input_type=input_type, dimensions=dimensions)

    async def _compare(self) -> str:
        """Compare the route's vectors of a probe with local ones; return the difference, or an empty text."""
        space = self._space
        for input_type in ("query", "document"):
            theirs = await self._probe(input_type)
            if theirs.shape != (1, space.dimensions):
                return f"returns {theirs.shape[-1]} dimensions, but {space.id} has {space.dimensions}"
            validate(theirs, count=1, space=replace(space, normalized=False), route=self._route)
            ours = (await self._local.embed([_PROBE], input_type=input_type, dimensions=None)).vectors[0]
            with np.errstate(all="ignore"):  # whatever the caller has set
                cosine = float(theirs[0] @ ours / (np.linalg.norm(theirs[0]) * np.linalg.norm(ours)))
            if cosine < SAME_COSINE:
                return (
                    f"returns vectors of another space than {space.id}: for a probe ({input_type}), the cosine to this "
                    f"machine's vector is {cosine:.3f}; it runs another model, or uses other prompts or pooling"
                )
        return ""

    async def _probe(self, input_type: InputType) -> Vectors:
        prompt = "" if self.declared.input_type else self._space.prompt(input_type)
        return (await self._provider.embed([prompt + _PROBE], input_type=input_type, dimensions=None)).vectors

    async def aclose(self) -> None:
        """Close connections."""
        await self._provider.aclose()


class CheckedReranker:
    """A server's reranker; before its first scores are used, they are compared with local scores."""

    def __init__(self, reranker: RerankProvider, local: LocalScorer, route: str) -> None:
        self.declared = reranker.declared
        self._reranker = reranker
        self._local = local
        self._check = SpaceCheck(self._compare, route)

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`. Raises BadVectorsError, permanently, if the scores differ."""
        await self._check.pass_or_raise()
        with self._check.repeated_after_failure():
            return await self._reranker.rerank(query, documents)

    async def _compare(self) -> str:
        """Compare the route's scores of two pairs with local ones; return the difference, or an empty text."""
        theirs = (await self._reranker.rerank(*_PAIRS)).scores
        ours = (await self._local.rerank(*_PAIRS)).scores
        if np.allclose(theirs, ours, atol=_SAME_SCORE):
            return ""
        return (
            f"returns other scores than this machine: {theirs.round(3).tolist()} for a probe, not "
            f"{ours.round(3).tolist()}; it runs another model, or uses another scale"
        )

    async def aclose(self) -> None:
        """Close connections."""
        await self._reranker.aclose()


def served_price(model: str, config: Config) -> decimal.Decimal | None:
    """Return the price of a model's servers from the settings, or None; this machine costs nothing."""
    if f"embedding.model_benchmarks.{model}.cost_per_million_tokens" not in config.sources:
        return None
    return config.embedding.model_benchmarks[model].cost_per_million_tokens
