"""Facts of served models: sizes, limits and prices, from the catalog and the settings. No weights are read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedway.catalog import DEFAULT_MODEL
from embedway.config.local_models import AUTO, runs_locally
from embedway.errors import EmbedwayError
from embedway.local.loading import resolve
from embedway.providers.names import library_of, service_of

if TYPE_CHECKING:
    from embedway.catalog.services import ServiceFacts
    from embedway.catalog.types import ModelFacts, Task
    from embedway.config import Config
    from embedway.server.caller import Caller
    from embedway.server.gateway import Gateway


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A served model. None is an unknown fact."""

    name: str
    task: Task
    #: Whether this machine computes it.
    local: bool
    aliases: tuple[str, ...] = ()
    owner: str = "embedway"
    dimensions: int | None = None
    #: Sizes that the maker trained or evaluated, largest first.
    sizes: tuple[int, ...] = ()
    #: Smallest size if every size up to the full one is supported; None for `sizes` only.
    min_dimensions: int | None = None
    max_tokens: int | None = None
    normalized: bool | None = None
    languages: tuple[str, ...] = ()
    licence: str | None = None
    #: Exact dollars.
    price_usd_per_million_tokens: str | None = None
    price_usd_per_thousand_searches: str | None = None
    loaded: bool = False
    architecture: str = ""
    pooling: str = ""
    parameters: int = 0
    size_bytes: int = 0
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the facts that a client needs as JSON types."""
        return {
            "task": self.task,
            "aliases": list(self.aliases),
            "local": self.local,
            "loaded": self.loaded,
            "dimensions": self.dimensions,
            "sizes": list(self.sizes),
            "min_dimensions": self.min_dimensions,
            "max_tokens": self.max_tokens,
            "normalized": self.normalized,
            "languages": list(self.languages),
            "licence": self.licence,
            "price_usd_per_million_tokens": self.price_usd_per_million_tokens,
            "price_usd_per_thousand_searches": self.price_usd_per_thousand_searches,
        }


async def model_cards(gateway: Gateway, caller: Caller) -> list[ModelCard]:
    """Return all models that a caller may use, by name."""
    served = await gateway.served.all(caller)
    return await _read(gateway, served)


async def model_card(gateway: Gateway, caller: Caller, name: str) -> ModelCard:
    """Return a model that a caller may use, by name or alias. Raises NotServedError."""
    canonical, task = await gateway.served.find(name, caller)
    return (await _read(gateway, [(canonical, task)]))[0]


async def default_card(gateway: Gateway, caller: Caller) -> ModelCard:
    """Return the gateway's default model of embeddings. Raises NotServedError."""
    name = gateway.default_name("embed")
    return await model_card(gateway, caller, DEFAULT_MODEL if name == AUTO else name)


async def _read(gateway: Gateway, served: list[tuple[str, Task]]) -> list[ModelCard]:
    models, shown = (await gateway.engines.current()).models, gateway.served.shown
    opened = {name for name, task in served if models.opened(shown(name), task=task) is not None}

    def read() -> list[ModelCard]:
        cards = [(_card(name, task, gateway.config, loaded=name in opened), shown(name)) for name, task in served]
        return [replace(card, name=name) for card, name in cards]

    # A name in the settings may be a folder, whose facts are read from disk.
    return await asyncio.to_thread(read)


def _card(name: str, task: Task, config: Config, *, loaded: bool) -> ModelCard:
    service = service_of(name, config)
    if service is not None:
        return _service_card(service, config, loaded=loaded)
    facts = None
    if library_of(name) is None:
        try:
            facts = resolve(name).facts
        except EmbedwayError:  # a folder that was removed
            facts = None
    if facts is None:
        return ModelCard(name, task, local=True, price_usd_per_million_tokens="0", loaded=loaded)
    return _local_card(facts, config, loaded=loaded)


def _service_card(facts: ServiceFacts, config: Config, *, loaded: bool) -> ModelCard:
    price, searches = facts.price_usd_per_million_tokens, facts.price_usd_per_thousand_searches
    embeds = facts.task == "embed"
    return ModelCard(
        facts.name,
        facts.task,
        local=runs_locally(facts.name, config),
        aliases=facts.aliases,
        owner=facts.routes[0].provider if facts.routes else "embedway",
        dimensions=facts.default_dimensions or facts.dimensions or None,
        sizes=facts.sizes if embeds else (),
        min_dimensions=facts.min_dimensions,
        max_tokens=facts.max_tokens,
        normalized=facts.normalized if embeds else None,
        languages=facts.languages,
        licence=facts.licence,
        price_usd_per_million_tokens=None if price is None else f"{price:f}",
        price_usd_per_thousand_searches=None if searches is None else f"{searches:f}",
        loaded=loaded,
    )


def _local_card(facts: ModelFacts, config: Config, *, loaded: bool) -> ModelCard:
    return ModelCard(
        facts.name,
        facts.task,
        local=runs_locally(facts.name, config),
        aliases=facts.aliases,
        owner=facts.name.partition("/")[0],
        dimensions=facts.dimensions,
        sizes=facts.sizes,
        max_tokens=facts.max_tokens,
        normalized=facts.normalized,
        languages=facts.languages,
        licence=facts.licence,
        price_usd_per_million_tokens="0",
        loaded=loaded,
        architecture=facts.architecture,
        pooling=facts.pooling or "",
        parameters=facts.parameters,
        size_bytes=sum(file.size or 0 for file in facts.weights.files),
        sha256=facts.weights.sha256("model.safetensors") or "",
    )
