"""A reranker of this machine that servers run too: routes of both kinds, whose scores are the same, tried in order.

As with vectors (`mixed.py`), a server does not say what it runs, so each first has to score a probe as this machine
does. Where the weights are not here there is nothing to compare with, and the servers are taken at their word.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.batches import fill_batches
from embedway.batching.run import dispatch
from embedway.local import loading as local
from embedway.models.multi_route import LOCAL, SpaceCheck
from embedway.models.reranker import ServiceReranker, open_local, open_reranker
from embedway.models.service import counter_for, library_facts, routes_of
from embedway.providers.base import Declared
from embedway.providers.counting import FileCounter
from embedway.providers.names import library_of, local_names, service_of
from embedway.providers.registry import make_reranker
from embedway.rerank.base import Scores
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.models.reranker import AnyReranker
    from embedway.providers.base import Endpoint
    from embedway.rerank.base import RerankProvider
    from embedway.weights.store import ProgressSink

#: A pair that belongs together and one that does not; and how far apart scores from 0 to 1 may be in half precision.
_PROBE = (
    "Where does a vector belong?",
    ["In its own vector space, among its like.", "Straße 42 was closed for a day."],
)
_SAME = 0.02


def open_any_reranker(name: str, config: Config, progress: ProgressSink | None = None) -> AnyReranker:
    """Open a reranker of any kind, with the settings' routes to it. Blocking; raises as `open_reranker` does."""
    if service_of(name, config) is not None or library_of(name) is not None:
        return open_reranker(name, config, progress)
    named, names = local.resolve(name), local_names(name)
    routes = config.routes_to({one.casefold() for one in names})
    providers = {route.provider for route in routes.values()}
    if not providers or (named.facts is not None and named.facts.task != "rerank"):
        return open_reranker(name, config, progress)
    weights = None if named.facts is None else named.facts.weights
    here = weights is None or LOCAL in providers or WeightsStore(config.store_settings()).find(weights) is not None
    model = open_local(named, config, progress) if here else None
    most = model.max_tokens if model is not None else named.facts.max_tokens if named.facts is not None else 0
    return _with_routes(names, most, model, config)


class LocalScores:
    """A reranker of this machine as one of the routes of its model."""

    declared = Declared(max_inputs=1024, free=True, local=True)
    runtime = "local"

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`."""
        model = self._model
        tokenized = await asyncio.to_thread(model.pairs, query, documents)
        batches = fill_batches(tokenized.lengths, token_budget=model.token_budget)
        return Scores((await dispatch(tokenized, batches, model, width=1))[:, 0], tokens=0)

    async def aclose(self) -> None:
        """Let running batches end, then unload."""
        await self._model.close()


class VerifiedScores:
    """A server's reranker that has to show, before its first scores are used, that they are those of this machine."""

    def __init__(self, reranker: RerankProvider, local: LocalScores, route: str) -> None:
        self.declared = reranker.declared
        self._reranker = reranker
        self._local = local
        self._verdict = SpaceCheck(self._judged, route)

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        """Score documents; see `RerankProvider.rerank`. Raises BadVectorsError for good where scores differ."""
        await self._verdict.check()
        return await self._reranker.rerank(query, documents)

    async def _judged(self) -> str:
        """Why the route's scores are not the model's; empty where they are."""
        theirs = (await self._reranker.rerank(*_PROBE)).scores
        ours = (await self._local.rerank(*_PROBE)).scores
        if np.allclose(theirs, ours, atol=_SAME):
            return ""
        return (
            f"answers other scores than this machine: {theirs.round(3).tolist()} for a probe, and not "
            f"{ours.round(3).tolist()}; it runs another model, or gives them on another scale"
        )

    async def aclose(self) -> None:
        """Give connections back."""
        await self._reranker.aclose()


def _with_routes(names: Sequence[str], max_tokens: int, model: CrossEncoder | None, config: Config) -> ServiceReranker:
    """The settings' routes to servers of a model with these names, and this machine where the weights are here."""
    own = LocalScores(model) if model is not None else None
    served_facts = replace(
        library_facts(names[0], LOCAL, names[0], max_tokens=max_tokens),
        task="rerank",
        aliases=tuple(names),
        # Nobody knows what a server bills.
        price_usd_per_million_tokens=None,
        routes=(),
    )

    def make(provider: str, endpoint: Endpoint) -> RerankProvider:
        if provider == LOCAL:
            assert own is not None  # noqa: S101  then its weights were loaded
            return own
        options = {name: value for name, value in endpoint.options.items() if name != "verify"}
        made = make_reranker(provider, replace(endpoint, options=options))
        if own is None or endpoint.options.get("verify") == "false":
            return made
        return VerifiedScores(made, own, endpoint.route)

    served = routes_of(served_facts, config, make)
    if own is not None and not any(reranker is own for _, reranker, _ in served):
        served.append((f"local:{names[0].rsplit('/', 1)[-1]}", own, (None, None)))
    counter = FileCounter(model.tokenizer) if model is not None else counter_for(served_facts, None, config)
    return ServiceReranker(served_facts, served, counter)
