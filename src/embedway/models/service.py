"""A model that services or libraries run, opened: its routes, what counts its tokens, and its one vector space."""

from __future__ import annotations

import asyncio
import decimal
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, runtime_checkable

from embedway.catalog.services import RouteFacts, ServiceFacts
from embedway.errors import ConfigError, RuntimeUnavailableError
from embedway.providers.base import Endpoint
from embedway.providers.counting import ESTIMATE, HUB, LIBRARY, TiktokenCounter, open_counter
from embedway.providers.registry import make_provider
from embedway.providers.requirements import missing
from embedway.types import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.config import Config
    from embedway.providers.base import Provider
    from embedway.providers.counting import TokenCounter
    from embedway.providers.library import LibraryFacts
    from embedway.types import InputType, PlainTokenizer, TokenizedTexts

    #: A route's name, its provider, and its limits a minute on requests and tokens.
    Served: TypeAlias = tuple[str, Provider, tuple[int | None, int | None]]

P = TypeVar("P")


@runtime_checkable
class CountsTokens(Protocol):
    """A provider, or reranker, that holds its model's tokenizer."""

    def counter(self, max_tokens: int) -> TokenCounter:
        """What counts the model's tokens as the library that runs it does. Blocking; may load the model."""


@runtime_checkable
class KnowsWeights(Protocol):
    """A provider that has a model's weights itself. `variant` is how it computes, as far as numbers depend on it."""

    @property
    def variant(self) -> str:
        """Such as a precision; empty for the usual."""

    def weights(self) -> str:
        """What tells the weights, and how they are read, from others. Blocking; loads the model."""


@runtime_checkable
class KnowsTokenizer(Protocol):
    """A provider that tokenizes itself, so that its tokenizer is a fact of the vector space."""

    def tokenizer_json(self) -> str:
        """The tokenizer as a tokenizer.json writes it. Blocking; loads the model."""


@runtime_checkable
class DescribesModel(CountsTokens, Protocol):
    """A provider whose library knows its models better than any catalog."""

    def facts(self) -> LibraryFacts:
        """Load the model and tell what it is. Blocking."""


class ServiceModel:
    """A model that services run. `endpoints` are its routes, in the order in which they are tried."""

    def __init__(self, facts: ServiceFacts, endpoints: Sequence[Served], counter: TokenCounter) -> None:
        """Blocking where the first route is a library's: its weights are a fact of the space."""
        if facts.price_usd_per_million_tokens is None and all(one.declared.free for _, one, _ in endpoints):
            facts = replace(facts, price_usd_per_million_tokens=decimal.Decimal(0))
        self.facts = facts
        self.endpoints = tuple(endpoints)
        self.name = self.endpoints[0][0]
        self.model = facts.name
        self.sizes = facts.sizes
        self.default_dimensions = facts.default_dimensions
        #: Of a text, its prompt not counted.
        self.max_tokens = facts.max_tokens
        #: Requests are filled by each route's own limits; this is no bound.
        self.token_budget = 2**31 - 1
        self.runtime = str(getattr(self.endpoints[0][1], "runtime", "service"))
        self.remote = True
        self.exact = counter.exact
        first = self.endpoints[0][1]
        # Models of one family share a space, and still have vectors of their own.
        self.variant = first.variant if isinstance(first, KnowsWeights) else facts.name if facts.family else ""
        self.counter = counter
        self.special_tokens = counter.special_tokens
        shared = facts.family or facts.name
        revision = first.weights() if isinstance(first, KnowsWeights) else facts.revision
        self.space = Space(
            model=shared.rsplit("/", 1)[-1],
            weights=f"service:{shared}@{revision}" if revision else f"service:{shared}",
            dimensions=facts.dimensions,
            pooling="service",
            normalized=facts.normalized,
            query_prompt=facts.query_prompt,
            document_prompt=facts.document_prompt,
            tokenizer=_tokenizer_fact(first),
            config="",
        )

    @property
    def batch_dependent(self) -> bool:
        """Whether one of its routes gives vectors that depend on their batch."""
        return any(provider.declared.batch_dependent for _, provider, _ in self.endpoints)

    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        """The list price of so many tokens, for vectors of a size; None where none is known."""
        return self.facts.cost_nanousd(tokens, dimensions=dimensions)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> TokenizedTexts:
        """Lengths and cuts, the prompt counted; the ids stay with the service."""
        prompt = self.space.prompt(input_type)
        if not prompt:
            return self.counter.count(texts)
        counted = self.counter.count([prompt + text for text in texts])
        # Characters are told of the text alone.
        cuts = (replace(cut, kept_characters=max(0, cut.kept_characters - len(prompt))) for cut in counted.truncations)
        return replace(counted, truncations=tuple(cuts))

    @property
    def tokenizer(self) -> PlainTokenizer:
        """What counts its tokens."""
        return self.counter.plain

    @property
    def decode(self) -> Callable[[Sequence[int]], str] | None:
        """Token ids to the text that they stand for; None where ids are not known for certain to be this model's."""
        return self.counter.decode if isinstance(self.counter, TiktokenCounter) else None

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(provider.aclose() for _, provider, _ in self.endpoints))


def _tokenizer_fact(first: object) -> str:
    """The tokenizer as a fact of the space; empty where a service tokenizes behind its API."""
    if not isinstance(first, KnowsTokenizer):
        return ""
    from embedway.local.facts import tokenizer_fact  # noqa: PLC0415  only for libraries

    return tokenizer_fact(first.tokenizer_json().encode(), where="the library's tokenizer", lowercase=False)


def open_service(
    facts: ServiceFacts, config: Config, make: Callable[[str, Endpoint], Provider] | None = None
) -> ServiceModel:
    """Make a model's routes: those of the settings first, then the catalog's. Blocking, but sends no text.

    `make` makes a provider of its name and an endpoint, `make_provider` by default. Raises ConfigError for a provider
    that is not known or a setting that it refuses.
    """
    served = routes_of(facts, config, make or make_provider)
    return ServiceModel(facts, served, counter_for(facts, served[0][1], config))


def counter_for(facts: ServiceFacts, first: object, config: Config) -> TokenCounter:
    """What counts a model's tokens, where `first` is the provider of its first route. Blocking."""
    if facts.tokenizer != LIBRARY:
        tokenizer = facts.tokenizer
    elif isinstance(first, CountsTokens):
        return first.counter(facts.max_tokens)
    else:
        # Nobody loads billions of weights to count the tokens that a server is sent.
        tokenizer = f"{HUB}{facts.name}" if facts.name.count("/") == 1 else ESTIMATE
    return open_counter(tokenizer, max_tokens=facts.max_tokens, model=facts.name, store=config.store_settings())


def open_library(name: str, provider: str, model: str, config: Config) -> ServiceModel:
    """Load a model of a library by the library's own name, with the options of a route to `name`, if there is one.

    Blocking. Raises RuntimeUnavailableError without the library, UnsupportedModelError for what it cannot load.
    """
    made = make_provider(provider, library_endpoint(name, provider, model, config))
    if not isinstance(made, DescribesModel):
        raise ConfigError("this provider does not describe its models", where=name, key="provider")
    known = made.facts()
    facts = library_facts(name, provider, model, max_tokens=known.max_tokens)
    facts = replace(
        facts,
        dimensions=known.dimensions,
        default_dimensions=known.dimensions,
        normalized=True,
        query_prompt=known.query_prompt,
        document_prompt=known.document_prompt,
    )
    return ServiceModel(facts, [(name, made, (None, None))], made.counter(known.max_tokens))


def library_endpoint(name: str, provider: str, model: str, config: Config) -> Endpoint:
    """Where a library is to find a model: by its name, or as the first route to `name` says."""
    routes = (route for route in config.routes.values() if route.model == name and route.provider == provider)
    route = next(routes, None)
    options = route.options if route is not None else {}
    return Endpoint(name, (route.upstream_model if route else None) or model, options=options)


def library_facts(name: str, provider: str, model: str, *, max_tokens: int) -> ServiceFacts:
    """What can be said of a model before its library has told more."""
    return ServiceFacts(
        name=name,
        aliases=(),
        task="embed",
        dimensions=0,
        matryoshka=(),
        default_dimensions=0,
        max_tokens=max_tokens,
        tokenizer=LIBRARY,
        normalized=False,
        languages=("mul",),
        price_usd_per_million_tokens=decimal.Decimal(0),
        price_usd_per_thousand_searches=None,
        family="",
        query_prompt="",
        document_prompt="",
        licence="unknown",
        routes=(RouteFacts(provider, model),),
        sources=(),
    )


def routes_of(
    facts: ServiceFacts, config: Config, make: Callable[[str, Endpoint], P]
) -> list[tuple[str, P, tuple[int | None, int | None]]]:
    """A model's routes, each made by `make` of a provider's name and an endpoint, with its limits a minute."""
    prompts: dict[InputType, str] = {"query": facts.query_prompt, "document": facts.document_prompt}
    timeout_s = config.upstream.timeout_s
    made: list[tuple[str, P, tuple[int | None, int | None]]] = []
    for name, route in config.routes_to(facts.names).items():
        # What the catalog says that the provider must be told holds for this route too, unless it says otherwise.
        listed = next((one for one in facts.routes if one.provider == route.provider), None)
        access = config.access(route.provider, name)
        endpoint = Endpoint(
            route=f"routes.{name}",
            model=route.upstream_model or (listed.model if listed else facts.name),
            base_url=access.base_url,
            secret=access.secret,
            timeout_s=timeout_s,
            options={**(listed.options if listed else {}), **access.options, **route.options},
            prompts=prompts,
            headers=access.headers,
        )
        limits = (route.requests_per_minute, route.tokens_per_minute)
        made.append((endpoint.route, make(route.provider, endpoint), limits))
    for listed in facts.routes:
        # Without any way that may work, the error of this one says what is missing; it stops no other.
        try:
            access = config.access(listed.provider)
            if made and missing(listed.provider, access.secret):
                continue
            endpoint = Endpoint(
                route=f"{listed.provider}:{listed.model}",
                model=listed.model,
                base_url=access.base_url,
                secret=access.secret,
                timeout_s=timeout_s,
                options={**listed.options, **access.options},
                prompts=prompts,
                headers=access.headers,
            )
            made.append((endpoint.route, make(listed.provider, endpoint), (None, None)))
        except (ConfigError, RuntimeUnavailableError):
            if not made:
                raise
    if not made:
        raise ConfigError("no route leads to this model; add [routes.NAME] with it as `model`", where=facts.name)
    return made
