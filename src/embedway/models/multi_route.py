"""Local models that servers run too: local and remote routes in one vector space, with failover.

Each route to a server is compared with this machine (`route_proofs.py`). If the weights of a reranker are not here, its
servers are compared with one another.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.batching.batches import even_budget, fill_batches
from embedway.batching.run import run_batches
from embedway.models.local import profile_of
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.providers.base import Answer, Declared
from embedway.rerank.base import Scores

if TYPE_CHECKING:
    import decimal
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.models.service import Service
    from embedway.types import InputType

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
        """Load the local sessions and start their threads."""
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
        budget = even_budget(tokenized.lengths, token_budget=encoder.token_budget, spread=encoder.spread)
        batches = fill_batches(tokenized.lengths, token_budget=budget)
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
        budget = even_budget(tokenized.lengths, token_budget=encoder.token_budget, spread=encoder.spread)
        batches = fill_batches(tokenized.lengths, token_budget=budget)
        return Scores((await run_batches(tokenized, batches, encoder, width=1))[:, 0], tokens=0)

    async def aclose(self) -> None:
        """Wait for running batches, then unload."""
        await self._encoder.close()


def served_price(model: str, config: Config) -> decimal.Decimal | None:
    """Return the price of a model's servers from the settings, or None; this machine costs nothing."""
    if f"embedding.model_benchmarks.{model}.cost_per_million_tokens" not in config.sources:
        return None
    return config.embedding.model_benchmarks[model].cost_per_million_tokens
