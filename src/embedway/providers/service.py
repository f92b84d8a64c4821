"""A model that services run, opened: its routes, what counts its tokens, and its one vector space."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway.providers.base import Endpoint
from embedway.providers.counting import TiktokenCounter
from embedway.providers.registry import make_provider
from embedway.types import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config
    from embedway.providers.base import Provider
    from embedway.types import InputType, PlainTokenizer, TokenizedTexts


class ServiceModel:
    """A model that services run.

    `endpoints` pairs each route's name with its provider and its limits a minute on requests and tokens, in the order
    in which they are tried.
    """

    def __init__(
        self, facts: ServiceFacts, endpoints: Sequence[tuple[str, Provider, tuple[int | None, int | None]]]
    ) -> None:
        self.facts = facts
        self.endpoints = tuple(endpoints)
        self.name = self.endpoints[0][0]
        self.model = facts.name
        self.sizes = facts.sizes
        self.max_tokens = facts.max_tokens
        #: Requests are filled by each route's own limits; this is no bound.
        self.token_budget = 2**31 - 1
        self.runtime = "service"
        self.remote = True
        self.space = Space(
            model=facts.name.rsplit("/", 1)[-1],
            weights=f"service:{facts.name}",
            dimensions=facts.dimensions,
            pooling="service",
            normalized=facts.normalized,
        )
        self._counter = TiktokenCounter(facts.tokenizer.removeprefix("tiktoken:"), max_tokens=facts.max_tokens)

    def cost_nanousd(self, tokens: int) -> int:
        """The list price of so many tokens."""
        return self.facts.cost_nanousd(tokens)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> TokenizedTexts:
        """Lengths and cuts; the ids stay with the service."""
        del input_type  # these models have no prompts
        return self._counter.count(texts)

    @property
    def tokenizer(self) -> PlainTokenizer:
        """What counts its tokens."""
        return self._counter

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(provider.aclose() for _, provider, _ in self.endpoints))


def open_service(facts: ServiceFacts, config: Config) -> ServiceModel:
    """Make a model's routes: those of the settings first, then the catalog's. Blocking, but sends nothing.

    Raises ConfigError for a provider that is not known or a setting that it refuses.
    """
    endpoints: list[tuple[str, Provider, tuple[int | None, int | None]]] = []
    for name, route in config.routes.items():
        if route.model.casefold() not in {spelling.casefold() for spelling in (facts.name, *facts.aliases)}:
            continue
        endpoint = Endpoint(
            route=f"routes.{name}",
            model=route.upstream_model or facts.name,
            base_url=route.base_url,
            secret=config.key_for(route.provider, route),
            timeout_s=config.upstream.timeout_s,
            options=route.options,
        )
        limits = (route.requests_per_minute, route.tokens_per_minute)
        endpoints.append((endpoint.route, make_provider(route.provider, endpoint), limits))
    for listed in facts.routes:
        key = config.key_for(listed.provider)
        if key or not endpoints:
            endpoint = Endpoint(
                route=f"{listed.provider}:{listed.model}",
                model=listed.model,
                secret=key,
                timeout_s=config.upstream.timeout_s,
            )
            endpoints.append((endpoint.route, make_provider(listed.provider, endpoint), (None, None)))
    return ServiceModel(facts, endpoints)
