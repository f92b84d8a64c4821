"""A model of this machine that services run too: routes of both kinds, in one vector space, which is tried first.

A server says which model it runs and not with which weights, prompts and pooling; a wrong one would put foreign vectors
among right ones without an error. So each route to a server first has to answer a probe as this machine does.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.batches import fill_batches
from embedway.batching.run import dispatch
from embedway.errors import BadVectorsError
from embedway.models.service import ServiceModel, library_facts, routes_of
from embedway.providers.base import Answer, Declared
from embedway.providers.counting import FileCounter
from embedway.providers.registry import make_provider
from embedway.vectors import validate

if TYPE_CHECKING:
    import decimal
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config
    from embedway.local.encoder import Encoder
    from embedway.providers.base import Endpoint, Provider
    from embedway.types import InputType, Vectors

#: Not ASCII alone, in both cases and with figures: tokenizers and prompts differ in these.
_PROBE = "Where does a vector belong? In one space: Café, Straße, 42 and naïve."
#: Half precision and other kernels stay above 0.999; another model, prompt or pooling falls below 0.9.
_SAME = 0.99
LOCAL = "local"


class LocalProvider:
    """A model of this machine as a provider."""

    runtime = "local"

    def __init__(self, model: Encoder) -> None:
        self._model = model
        dependent = model.batch_dependent
        self.declared = Declared(1024, input_type=True, free=True, local=True, batch_dependent=dependent)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        del dimensions
        model = self._model
        tokenized = await asyncio.to_thread(model.tokenize, texts, input_type)
        batches = fill_batches(tokenized.lengths, token_budget=model.token_budget)
        return Answer(await dispatch(tokenized, batches, model, width=model.space.dimensions), tokens=0)

    async def aclose(self) -> None:
        """Let running batches end, then unload."""
        await self._model.close()


class SpaceCheck:
    """What is found out of a server once, before its first answer is used.

    `judge` tells why it cannot be used, and nothing where it can.
    """

    def __init__(self, judge: Callable[[], Awaitable[str]], route: str) -> None:
        self._judge = judge
        self._route = route
        self._lock = asyncio.Lock()
        self._against: str | None = None

    async def check(self) -> None:
        """Raise BadVectorsError, for good, where the server cannot be used."""
        if self._against is None:
            async with self._lock:
                if self._against is None:
                    self._against = await self._judge()
        if self._against:
            raise BadVectorsError(self._against, route=self._route)


class Verified:
    """A service's provider that has to show, before its first answer is used, that it answers in the model's space."""

    def __init__(self, provider: Provider, local: LocalProvider, model: Encoder, route: str) -> None:
        self.declared = provider.declared
        self._provider = provider
        self._local = local
        self._model = model
        self._route = route
        self._verdict = SpaceCheck(self._judged, route)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`. Raises BadVectorsError for good where the spaces differ."""
        await self._verdict.check()
        return await self._provider.embed(texts, input_type=input_type, dimensions=dimensions)

    async def _judged(self) -> str:
        """Why the route's vectors do not belong to the space; empty where they do."""
        space = self._model.space
        for input_type in ("query", "document"):
            theirs = await self._answered(input_type)
            if theirs.shape != (1, space.dimensions):
                return f"answers in {theirs.shape[-1]} dimensions, and {space.id} has {space.dimensions}"
            validate(theirs, count=1, space=replace(space, normalized=False), route=self._route)
            ours = (await self._local.embed([_PROBE], input_type=input_type, dimensions=None)).vectors[0]
            cosine = float(theirs[0] @ ours / (np.linalg.norm(theirs[0]) * np.linalg.norm(ours)))
            if cosine < _SAME:
                return (
                    f"answers in another space than {space.id}: the cosine of its vector of a probe ({input_type}) to "
                    f"this machine's is {cosine:.3f}; it runs another model, or with other prompts or pooling"
                )
        return ""

    async def _answered(self, input_type: InputType) -> Vectors:
        prompt = "" if self.declared.input_type else self._model.space.prompt(input_type)
        return (await self._provider.embed([prompt + _PROBE], input_type=input_type, dimensions=None)).vectors

    async def aclose(self) -> None:
        """Give connections back."""
        await self._provider.aclose()


class MultiRouteModel(ServiceModel):
    """A model of this machine with routes to services of the same space."""

    def __init__(self, local: Encoder, facts: ServiceFacts, config: Config) -> None:
        own = LocalProvider(local)

        def make(provider: str, endpoint: Endpoint) -> Provider:
            if provider == LOCAL:
                return own
            options = {name: value for name, value in endpoint.options.items() if name != "verify"}
            made = make_provider(provider, replace(endpoint, options=options))
            return made if endpoint.options.get("verify") == "false" else Verified(made, own, local, endpoint.route)

        served = routes_of(facts, config, make)
        if not any(provider is own for _, provider, _ in served):
            served.append((local.name, own, (None, None)))
        super().__init__(facts, served, FileCounter(local.tokenizer))
        self.local = local
        self.space = local.space
        self.max_tokens = local.max_tokens
        self.runtime = local.runtime
        self.variant = f"{local.variant} or a server"


def served_price(model: str, config: Config) -> decimal.Decimal | None:
    """What its servers bill, where the settings say so; this machine bills nothing, and of others nobody knows."""
    if f"embedding.model_benchmarks.{model}.cost_per_million_tokens" not in config.sources:
        return None
    return config.embedding.model_benchmarks[model].cost_per_million_tokens


def with_services(local: Encoder, names: Sequence[str], config: Config) -> Encoder | MultiRouteModel:
    """The model with the settings' routes that lead to one of its names, before its own; itself where there is none."""
    facts = library_facts(local.model, LOCAL, local.model, max_tokens=local.max_tokens)
    facts = replace(
        facts,
        aliases=tuple(names),
        dimensions=local.space.dimensions,
        matryoshka=local.sizes[1:],
        default_dimensions=local.space.dimensions,
        normalized=local.space.normalized,
        query_prompt=local.space.query_prompt,
        document_prompt=local.space.document_prompt,
        price_usd_per_million_tokens=served_price(local.model, config),
        routes=(),
    )
    if config.routes_to(facts.names):
        return MultiRouteModel(local, facts, config)
    return local
