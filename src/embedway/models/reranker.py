"""Rerankers, opened: on this machine, or by services."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedway.catalog import default_catalog
from embedway.catalog.services import default_services
from embedway.errors import InputError, UsageError
from embedway.local import loading as local
from embedway.local.cross_encoder import CrossEncoder
from embedway.providers.counting import FileCounter
from embedway.providers.names import library_of, service_of
from embedway.space import score_space
from embedway.types import TokenizedTexts, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config
    from embedway.providers.counting import TokenCounter
    from embedway.rerank.base import RerankProvider
    from embedway.weights.store import ProgressSink

    AnyReranker: TypeAlias = "CrossEncoder | ServiceReranker"

#: A book costs no more than its first pages.
_CHARACTERS_PER_TOKEN = 16


class ServiceReranker:
    """A model of services that scores. `endpoints` are its routes, in the order in which they are tried."""

    def __init__(
        self,
        facts: ServiceFacts,
        endpoints: Sequence[tuple[str, RerankProvider, tuple[int | None, int | None]]],
        counter: TokenCounter,
    ) -> None:
        self.facts = facts
        self.endpoints = tuple(endpoints)
        self.name = self.endpoints[0][0]
        self.model = facts.name
        self.max_tokens = facts.max_tokens
        self.runtime = str(getattr(self.endpoints[0][1], "runtime", "service"))
        self.exact = counter.exact
        self.space = score_space(facts.name, f"service:{facts.name}")
        self._counter = counter

    def pairs(self, query: str, documents: Sequence[str]) -> TokenizedTexts:
        """Tokens of each document with the query, and the cut of each document that is too long with it. Blocking."""
        if isinstance(self._counter, FileCounter):
            return self._counter.count_pairs(query, documents)
        asked = int(self._counter.count([query]).lengths[0])
        if asked > self.max_tokens // 2:
            raise InputError(
                f"the query has {asked} tokens, more than half of the {self.max_tokens} that the model takes with a "
                "document; shorten it"
            )
        counted = self._counter.count(documents)
        most = self.max_tokens - asked
        lengths = counted.lengths + asked
        cuts = []
        for row in np.flatnonzero(lengths > self.max_tokens).tolist():
            cut = self._cut(documents[row], row, most)
            cuts.append(replace(cut, kept_tokens=self.max_tokens))
            lengths[row] = self.max_tokens
        return TokenizedTexts((), lengths.astype(np.int32), tuple(cuts))

    def _cut(self, document: str, row: int, most: int) -> Truncation:
        """The cut of a document at `most` tokens, special ones included."""
        window = document[: self.max_tokens * _CHARACTERS_PER_TOKEN]
        offsets = self._counter.plain.encode(window, add_special_tokens=False).offsets
        keep = min(len(offsets), max(1, most - self._counter.special_tokens))
        characters = offsets[keep - 1][1]
        lost = len(offsets) - keep if len(window) == len(document) else None
        return Truncation(row, most, characters, len(document) - characters, lost)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(provider.aclose() for _, provider, _ in self.endpoints))


def names() -> tuple[str, ...]:
    """The rerankers of the catalog."""
    here = (facts.name for facts in default_catalog() if facts.task == "rerank")
    served = (facts.name for facts in default_services().values() if facts.task == "rerank")
    return tuple(dict.fromkeys((*here, *served)))


def key_of(name: str, config: Config) -> str:
    """What two names of one reranker have in common."""
    facts = service_of(name, config)
    if facts is not None or library_of(name):
        return f"rerank:{facts.name if facts else name}"
    return f"rerank:{local.resolve(name).key}"


def open_reranker(name: str, config: Config, progress: ProgressSink | None = None) -> AnyReranker:
    """Open a reranker of any kind. Blocking; raises the errors of names, weights and settings."""
    facts = service_of(name, config)
    library = library_of(name)
    if facts is not None:
        return _open_service(facts, config)
    if library is not None:
        return _open_library(name, *library, config)
    named = local.resolve(name)
    if named.facts is not None and named.facts.task != "rerank":
        raise UsageError(f"{named.facts.name} makes vectors and scores no pairs; name a reranker")
    return open_local(named, config, progress)


def open_local(named: local.ResolvedName, config: Config, progress: ProgressSink | None = None) -> CrossEncoder:
    """Open a reranker of this machine. Blocking; raises as `open_reranker` does."""
    loaded = local.load(named, config, progress)
    if loaded.recipe.task != "rerank":
        raise UsageError(f"{loaded.recipe.name} makes vectors and scores no pairs; name a reranker")
    return CrossEncoder(loaded.recipe, loaded.choice)


def _open_service(facts: ServiceFacts, config: Config) -> ServiceReranker:
    from embedway.models.service import counter_for, routes_of  # noqa: PLC0415
    from embedway.providers.registry import make_reranker  # noqa: PLC0415  aiohttp and tiktoken come in only here

    if facts.task != "rerank":
        raise UsageError(f"{facts.name} makes vectors and scores no pairs; name a reranker")
    served = routes_of(facts, config, make_reranker)
    return ServiceReranker(facts, served, counter_for(facts, served[0][1], config))


def _open_library(name: str, provider: str, model: str, config: Config) -> ServiceReranker:
    from embedway.models.service import library_endpoint, library_facts  # noqa: PLC0415
    from embedway.providers.registry import make_reranker  # noqa: PLC0415
    from embedway.rerank.sentence_transformers import CrossEncoders  # noqa: PLC0415

    reranker = make_reranker(provider, library_endpoint(name, provider, model, config))
    assert isinstance(reranker, CrossEncoders)  # noqa: S101 - the only library with rerankers
    most = reranker.max_tokens()
    facts = replace(library_facts(name, provider, model, max_tokens=most), task="rerank")
    return ServiceReranker(facts, [(name, reranker, (None, None))], reranker.counter(most))
