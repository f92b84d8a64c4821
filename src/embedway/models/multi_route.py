"""Models of this machine that servers run too: routes of both kinds in one vector space, tried in order.

A server says which model it runs and not with which weights, prompts and pooling; a wrong one would put foreign vectors
among right ones without an error. So each route to a server first has to answer a probe as this machine does. Where the
weights of a reranker are not here there is nothing to compare with, and its servers are taken at their word.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.batches import fill_batches
from embedway.batching.run import run_batches
from embedway.errors import BadVectorsError
from embedway.models.local import profile_of
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.providers.base import Answer, Declared
from embedway.rerank.base import Scores
from embedway.vectors import SAME_COSINE, validate

if TYPE_CHECKING:
    import decimal
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.config import Config
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.models.service import Service
    from embedway.providers.base import Provider
    from embedway.rerank.base import RerankProvider
    from embedway.types import InputType, Vectors

#: Not ASCII alone, in both cases and with figures: tokenizers and prompts differ in these.
_PROBE = "Where does a vector belong? In one space: Café, Straße, 42 and naïve."
#: A pair that belongs together and one that does not; and how far apart scores from 0 to 1 may be in half precision.
_PAIRS = (
    "Where does a vector belong?",
    ["In its own vector space, among its like.", "Straße 42 was closed for a day."],
)
_SAME_SCORE = 0.02
#: The provider's name of this machine, in routes.
LOCAL = "local"


class MultiRouteModel(ServiceModel):
    """A model of this machine with routes to servers of the same space."""

    def __init__(self, service: Service, environment: ModelEnvironment, local: Encoder) -> None:
        here = profile_of(local)
        route = service.routes[0].name
        super().__init__(service, environment, replace(here, route=route, variant=f"{here.variant} or a server"))
        self._local = local

    async def warm(self) -> None:
        """Load the session of this machine."""
        await asyncio.to_thread(self._local.warm)

    def encoder(self) -> Encoder:
        return self._local


class MultiRouteReranker(ServiceReranker):
    """A reranker of this machine, if its weights are here, with routes to servers that give the same scores."""


class LocalProvider:
    """An encoder of this machine as one of the routes of its model."""

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
        """Let running batches end, then unload."""
        await self._encoder.close()


class LocalScorer:
    """A cross-encoder of this machine as one of the routes of its model."""

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
        """Let running batches end, then unload."""
        await self._encoder.close()


class SpaceCheck:
    """The check of a server that is made once, before its first answer is used.

    `compare` gives the reason why it cannot be used, and an empty text where it can.
    """

    def __init__(self, compare: Callable[[], Awaitable[str]], route: str) -> None:
        self._compare = compare
        self._route = route
        self._lock = asyncio.Lock()
        self._reason: str | None = None

    async def pass_or_raise(self) -> None:
        """Raise BadVectorsError, for good, where the server cannot be used."""
        if self._reason is None:
            async with self._lock:
                if self._reason is None:
                    self._reason = await self._compare()
        if self._reason:
            raise BadVectorsError(self._reason, route=self._route)


class CheckedProvider:
    """A server's provider that has to show, before its first answer is used, that it answers in the model's space."""

    def __init__(self, provider: Provider, local: LocalProvider, encoder: Encoder, route: str) -> None:
        self.declared = provider.declared
        self._provider = provider
        self._local = local
        self._space = encoder.space
        self._route = route
        self._check = SpaceCheck(self._compare, route)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`. Raises BadVectorsError for good where the spaces differ."""
        await self._check.pass_or_raise()
        return await self._provider.embed(texts, input_type=input_type, dimensions=dimensions)

    async def _compare(self) -> str:
        """Compare the route's vectors of a probe with this machine's; return why they differ, or an empty text."""
        space = self._space
        for input_type in ("query", "document"):
            theirs = await self._probe(input_type)
            if theirs.shape != (1, space.dimensions):
                return f"answers in {theirs.shape[-1]} dimensions, and {space.id} has {space.dimensions}"
            validate(theirs, count=1, space=replace(space, normalized=False), route=self._route)
            ours = (await self._local.embed([_PROBE], input_type=input_type, dimensions=None)).vectors[0]
            cosine = float(theirs[0] @ ours / (np.linalg.norm(theirs[0]) * np.linalg.norm(ours)))
            if cosine < SAME_COSINE:
                return (
                    f"answers in another space than {space.id}: the cosine of its vector of a probe ({input_type}) to "
                    f"this machine's is {cosine:.3f}; it runs another model, or with other prompts or pooling"
                )
        return ""

    async def _probe(self, input_type: InputType) -> Vectors:
        prompt = "" if self.declared.input_type else self._space.prompt(input_type)
        return (await self._provider.embed([prompt + _PROBE], input_type=input_type, dimensions=None)).vectors

    async def aclose(self) -> None:
        """Give connections back."""
        await self._provider.aclose()


class CheckedReranker:
    """A server's reranker that has to show, before its first scores are used, that they are those of this machine."""

    def __init__(self, reranker: RerankProvider, local: LocalScorer, route: str) -> None:
        self.declared = reranker.declared
        self._reranker = reranker
        self._local = local
        self._check = SpaceCheck(self._compare, route)

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`. Raises BadVectorsError for good where scores differ."""
        await self._check.pass_or_raise()
        return await self._reranker.rerank(query, documents)

    async def _compare(self) -> str:
        """Compare the route's scores of two pairs with this machine's; return why they differ, or an empty text."""
        theirs = (await self._reranker.rerank(*_PAIRS)).scores
        ours = (await self._local.rerank(*_PAIRS)).scores
        if np.allclose(theirs, ours, atol=_SAME_SCORE):
            return ""
        return (
            f"answers other scores than this machine: {theirs.round(3).tolist()} for a probe, and not "
            f"{ours.round(3).tolist()}; it runs another model, or gives them on another scale"
        )

    async def aclose(self) -> None:
        """Give connections back."""
        await self._reranker.aclose()


def served_price(model: str, config: Config) -> decimal.Decimal | None:
    """The price of a model's servers, where the settings name it; this machine bills nothing."""
    if f"embedding.model_benchmarks.{model}.cost_per_million_tokens" not in config.sources:
        return None
    return config.embedding.model_benchmarks[model].cost_per_million_tokens
