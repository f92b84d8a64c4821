"""Local models that servers run too: local and remote routes in one vector space, with failover.

Each route to a server must be proved to answer as this machine does (`route_proofs.py`). If the weights of a reranker
are not here, its servers are compared with the first one.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.batching.backends import UrgentModel
from embedway.batching.batches import divide_evenly
from embedway.batching.run import run_batches
from embedway.models.local import profile_of
from embedway.models.reranker import ServiceReranker
from embedway.models.service import ServiceModel
from embedway.providers.base import Answer, Declared
from embedway.providers.options import known, whole
from embedway.rerank.base import Scores
from embedway.urgency import Urgency

if TYPE_CHECKING:
    import decimal
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.models.service import Service
    from embedway.providers.base import Endpoint
    from embedway.types import InputType, TokenizedTexts, Vectors

#: Texts of a request to this machine, unless an option of its route names another number.
_MAX_INPUTS = 1024


class MultiRouteModel(ServiceModel):
    """A local model with routes to servers of the same space."""

    def __init__(self, service: Service, environment: ModelEnvironment, local: Encoder) -> None:
        here = profile_of(local)
        route = service.routes[0].name
        super().__init__(service, environment, replace(here, route=route, variant=f"{here.variant} or a server"))
        self._local = local

    async def warm(self) -> None:
        """Load the local sessions and start their threads."""
        await self._local.prepare()

    @override
    def encoder(self) -> Encoder:
        return self._local


class MultiRouteReranker(ServiceReranker):
    """A reranker, local if its weights are here, with routes to servers that return the same scores."""


class _LocalRoute:
    """A local model as one of its routes. Batches have at most `batch_size` texts."""

    runtime = "local"

    def __init__(self, model: Encoder | CrossEncoder, declared: Declared, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self.declared = declared

    def configure(self, endpoint: Endpoint) -> None:
        """Apply the options of a route. Raises ConfigError for unknown and invalid ones."""
        known(endpoint, ())
        self._batch_size = min(self._batch_size, whole(endpoint, "batch_size", self._batch_size))
        self.declared = replace(self.declared, max_inputs=whole(endpoint, "max_inputs", self.declared.max_inputs))

    async def _compute(self, tokenized: TokenizedTexts, width: int, *, query: bool) -> Vectors:
        model = self._model
        batches = divide_evenly(
            tokenized.lengths, token_budget=model.token_budget, spread=model.spread, max_texts=self._batch_size
        )
        return await run_batches(tokenized, batches, UrgentModel(model, Urgency(query=query)), width=width)

    async def aclose(self) -> None:
        """Wait for running batches, then unload."""
        await self._model.close()


class LocalProvider(_LocalRoute):
    """A local encoder as one of the routes of its model."""

    def __init__(self, encoder: Encoder, batch_size: int) -> None:
        dependent = encoder.batch_dependent
        declared = Declared(_MAX_INPUTS, input_type=True, free=True, local=True, batch_dependent=dependent)
        super().__init__(encoder, declared, batch_size)
        self._encoder = encoder

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        del dimensions
        encoder = self._encoder
        tokenized = await asyncio.to_thread(encoder.tokenize, texts, input_type)
        vectors = await self._compute(tokenized, encoder.space.dimensions, query=input_type == "query")
        return Answer(vectors, tokens=0)


class LocalScorer(_LocalRoute):
    """A local cross-encoder as one of the routes of its model."""

    def __init__(self, encoder: CrossEncoder, batch_size: int) -> None:
        super().__init__(encoder, Declared(_MAX_INPUTS, free=True, local=True), batch_size)
        self._encoder = encoder

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`."""
        tokenized = await asyncio.to_thread(self._encoder.pairs, query, documents)
        return Scores((await self._compute(tokenized, 1, query=True))[:, 0], tokens=0)


def served_price(model: str, config: Config) -> decimal.Decimal | None:
    """Return the price of a model's servers from the settings, or None; this machine costs nothing."""
    if f"embedding.model_benchmarks.{model}.cost_per_million_tokens" not in config.sources:
        return None
    return config.embedding.model_benchmarks[model].cost_per_million_tokens
