"""Creation of a model's routes, from the settings and the catalog, and of its token counter. Nothing is sent here."""

from __future__ import annotations

import decimal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from embedway.catalog.services import RouteFacts, ServiceFacts
from embedway.errors import ConfigError, RuntimeUnavailableError
from embedway.providers.base import CountsTokens, Endpoint
from embedway.providers.counting import ESTIMATE, HUB, LIBRARY, open_counter
from embedway.providers.requirements import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.config import Config
    from embedway.config.credentials import Access
    from embedway.providers.counting import TokenCounter
    from embedway.types import InputType

P = TypeVar("P")


def counter_for(facts: ServiceFacts, first: object, config: Config) -> TokenCounter:
    """Return the token counter of a model. `first` is the provider of its first route. Blocking."""
    if facts.tokenizer != LIBRARY:
        tokenizer = facts.tokenizer
    elif isinstance(first, CountsTokens):
        return first.counter(facts.max_tokens)
    else:
        # Only the tokenizer is loaded: counting tokens for a server must not load billions of weights.
        tokenizer = f"{HUB}{facts.name}" if facts.name.count("/") == 1 else ESTIMATE
    return open_counter(tokenizer, max_tokens=facts.max_tokens, model=facts.name, store=config.store_settings())


def library_endpoint(name: str, provider: str, model: str, config: Config) -> Endpoint:
    """Return the endpoint of a library's model: by its name, or as in the first route to `name`."""
    routes = (route for route in config.routes.values() if route.model == name and route.provider == provider)
    route = next(routes, None)
    options = route.options if route is not None else {}
    return Endpoint(name, (route.upstream_model if route else None) or model, options=options)


def library_facts(name: str, provider: str, model: str, *, max_tokens: int) -> ServiceFacts:
    """Return the facts of a model that are known before its library loads it."""
    return ServiceFacts(
        name,
        max_tokens,
        LIBRARY,
        normalized=False,
        price_usd_per_million_tokens=decimal.Decimal(0),
        routes=(RouteFacts(provider, model),),
    )


def endpoint_of(
    route: str, model: str, access: Access, options: Mapping[str, str], timeout_s: float = 60.0
) -> Endpoint:
    """Return the endpoint of a route with its URL, key, headers and certificates."""
    return Endpoint(
        route,
        model,
        access.base_url,
        access.secret,
        timeout_s,
        options,
        headers=access.headers,
        auth=access.auth,
        files=access.files,
        ca_file=access.ca_file,
        allow_http=access.allow_http,
        credential=access.credential,
        takes_usual_key=access.takes_usual_key,
    )


@dataclass(frozen=True, slots=True)
class MadeRoute(Generic[P]):
    """A route with its provider, its endpoint and its limits per minute."""

    name: str
    provider: P
    endpoint: Endpoint
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def routes_of(facts: ServiceFacts, config: Config, make: Callable[[str, Endpoint], P]) -> list[MadeRoute[P]]:
    """Create a model's routes by calling `make(provider, endpoint)`."""
    made: list[MadeRoute[P]] = []
    prompts: dict[InputType, str] = {"query": facts.query_prompt, "document": facts.document_prompt}
    timeout_s = min(config.upstream.timeout_s, config.upstream.deadline_s)

    def endpoint(route: str, model: str, access: Access, options: Mapping[str, str]) -> Endpoint:
        made = endpoint_of(route, model, access, options, timeout_s)
        return replace(made, prompts=prompts)

    for name, route in config.routes_to(facts.names).items():
        # The catalog's options for this provider apply to this route too, unless the route overrides them.
        listed = next((one for one in facts.routes if one.provider == route.provider), None)
        access = config.access(route.provider, name)
        model = route.upstream_model or access.model or (listed.model if listed else facts.name)
        options = {**(listed.options if listed else {}), **access.options, **route.options}
        place = endpoint(f"routes.{name}", model, access, options)
        limits = route.requests_per_minute, route.tokens_per_minute
        made.append(MadeRoute(place.route, make(route.provider, place), place, *limits))
    for listed in facts.routes:
        # If no route works, the error of this one says what is missing. It does not prevent other routes.
        try:
            access = config.access(listed.provider)
            if made and missing(listed.provider, access):
                continue
            name, options = f"{listed.provider}:{listed.model}", {**listed.options, **access.options}
            place = endpoint(name, listed.model, access, options)
            made.append(MadeRoute(name, make(listed.provider, place), place))
        except (ConfigError, RuntimeUnavailableError) as error:
            if made:
                continue
            if isinstance(error, ConfigError) and error.key == "api_key" and not config.is_loaded:
                message = "is not set: Config() does not read the environment, use Config.load()"
                raise ConfigError(message, where=error.where, key=error.key) from None
            raise
    if not made:
        raise ConfigError("no route to this model; add [routes.NAME] with it as `model`", where=facts.name)
    return made
