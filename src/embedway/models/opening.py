"""Opening of models by name: local models, services, libraries, or several routes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from embedway.catalog import default_catalog
from embedway.config.types import replace_unchecked
from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.log_lines import log_circuit
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.request import ServiceRoute
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.errors import ConfigError, EmbedwayError, RuntimeUnavailableError, UnsupportedModelError, UsageError
from embedway.local import loading
from embedway.local.cross_encoder import CrossEncoder
from embedway.local.outline import facts_of, is_reranker
from embedway.local.remote import ModelSpec
from embedway.models.identities import LOCAL, identity_of, local_identity
from embedway.models.local import LocalModel
from embedway.models.multi_route import (
    LocalProvider,
    LocalScorer,
    MultiRouteModel,
    MultiRouteReranker,
    served_price,
)
from embedway.models.reranker import LocalReranker, ServiceReranker
from embedway.models.route_probes import EmbeddingProbes, RerankingProbes
from embedway.models.route_proofs import KnownRoutes, is_declared_same_space, is_listed, with_proofs, without_verify
from embedway.models.service import Service, ServiceModel
from embedway.providers.base import CountsTokens, DescribesModel, Endpoint, lowest
from embedway.providers.counting import FileCounter
from embedway.providers.names import library_of, local_names, service_of
from embedway.providers.opening import MadeRoute, counter_for, library_endpoint, library_facts, routes_of
from embedway.providers.options import limits_of
from embedway.providers.registry import make_provider
from embedway.rerank.base import Scoring, make_reranker
from embedway.telemetry.operations import CircuitDetails, WaitDetails
from embedway.text import shown_name
from embedway.third_party import must_pass, place_of
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from embedway.catalog.services import ServiceFacts
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.dispatch.circuit_breaker import State
    from embedway.local.encoder import Encoder
    from embedway.local.remote import RemoteModel
    from embedway.models.base import Model, ModelEnvironment
    from embedway.models.route_probes import RouteProbes
    from embedway.providers.counting import TokenCounter
    from embedway.quality.space_proofs import RouteIdentity
    from embedway.telemetry.hooks import Hooks
    from embedway.types import InputType
    from embedway.weights.store import ProgressSink

    #: Factory of a provider or reranker from a provider's name and an endpoint.
    Make = Callable[[str, Endpoint], Any]

#: Placeholder for a missing key. It is never sent: `Service.blocked` prevents requests.
_NO_KEY = "none"


def open_model(
    name: str,
    environment: ModelEnvironment,
    *,
    task: Task = "embed",
    progress: ProgressSink | None = None,
    raw: bool = False,
) -> Model:
    """Open a model of any kind. Blocking; raises the errors of names, weights and settings.

    With `raw`, a local model leaves out the normalization at its end; its vectors are of another space.

    A service model whose keys are missing is opened as blocked: it sends no requests.
    """
    try:
        return _open_raw(name, environment, progress) if raw else _open(name, environment, task, progress)
    except (EmbedwayError, OSError):
        raise
    except BaseException as error:
        if must_pass(error):
            raise
        raise UnsupportedModelError(
            f"{shown_name(name)} cannot be opened: the code that loads it failed ({place_of(error)})"
        ) from error


def _open(name: str, environment: ModelEnvironment, task: Task, progress: ProgressSink | None) -> Model:
    facts, library = service_of(name, environment.config), library_of(name)
    if facts is not None:
        check_task(facts.name, facts.task, task)
        return _open_service(facts, environment)
    if library is not None:
        return _open_library(name, *library, task, environment)
    return _open_local(name, task, environment, progress)


def check_task(name: str, task: Task, wanted: Task) -> None:
    """Raise UnsupportedModelError or UsageError for a model of another task than the wanted one."""
    if wanted == "embed" and task != "embed":
        raise UnsupportedModelError(f"{name} is a reranker: it scores pairs of texts and returns no vectors")
    if wanted == "rerank" and task != "rerank":
        raise UsageError(f"{name} returns vectors and does not score pairs; use a reranker")


def _open_service(facts: ServiceFacts, environment: ModelEnvironment) -> Model:
    config = environment.config
    build: Make = make_provider if facts.task == "embed" else make_reranker
    identities: dict[str, RouteIdentity] = {}
    listed, trusted = set(), set()

    def make(provider: str, endpoint: Endpoint) -> Any:
        made = build(provider, without_verify(endpoint))
        identities[endpoint.route] = identity_of(provider, endpoint, facts)
        if is_listed(provider, endpoint, facts):
            listed.add(endpoint.route)
        if is_declared_same_space(endpoint, config):
            trusted.add(endpoint.route)
        return made

    def find_block() -> ConfigError | None:
        try:
            routes_of(facts, config, make)
        except ConfigError as error:
            return error
        return None

    served, blocked = None, None
    try:
        served = routes_of(facts, config, make)
    except ConfigError as error:
        blocked = error
    if served is None:
        served = routes_of(
            facts,
            _without_keys(config),
            lambda provider, endpoint: make(provider, replace(endpoint, secret=endpoint.secret or _NO_KEY)),
        )
    try:
        counter = counter_for(facts, served[0].provider, config)
    except RuntimeUnavailableError:
        if blocked is None:
            raise
        # Report the missing key first: it is needed even if the vocabulary could be downloaded.
        raise blocked from None
    routes = with_proofs(
        _routes(served, facts.task, environment),
        KnownRoutes(identities, listed, trusted),
        _probes(facts, counter, name=facts.name),
        environment.proofs,
        valid_s=config.upstream.verify_every_s,
    )
    service = Service(facts, routes, counter, blocked, find_block)
    return (ServiceModel if facts.task == "embed" else ServiceReranker)(service, environment)


def _probes(facts: ServiceFacts, counter: TokenCounter, *, name: str) -> RouteProbes:
    """Return the probes for the routes of a model; `name` is the model or space in messages."""
    if facts.task == "rerank":
        return RerankingProbes(counter)
    prompts: dict[InputType, str] = {"query": facts.query_prompt, "document": facts.document_prompt}
    sizes = (facts.dimensions, facts.default_dimensions or facts.dimensions)
    return EmbeddingProbes(name, sizes, prompts, counter, facts.max_tokens)


def _without_keys(config: Config) -> Config:
    own = {"api_key": SecretStr(_NO_KEY), "api_key_env": None, "api_key_file": None}
    routes = {key: replace_unchecked(route, **own) for key, route in config.routes.items()}
    return replace_unchecked(config, routes=routes)


def _routes(served: Sequence[MadeRoute[Any]], task: Task, environment: ModelEnvironment) -> tuple[ServiceRoute, ...]:
    return tuple(_route(one, task, environment) for one in served)


def _route(made: MadeRoute[Any], task: Task, environment: ModelEnvironment) -> ServiceRoute:
    name, config = made.name, environment.config
    hooks, rates = environment.hooks, environment.error_rates
    limits = limits_of(made.endpoint, made.provider.declared)
    return ServiceRoute(
        name,
        made.provider if task == "embed" else Scoring(made.provider, ""),
        limiter=RateLimiter(
            requests_per_minute=made.requests_per_minute,
            tokens_per_minute=made.tokens_per_minute,
            on_wait=partial(hooks.operation, WaitDetails, "rate_limit", name),
        ),
        circuit=CircuitBreaker(on_change=partial(_report_change, hooks, name)),
        error_rate=None if rates is None else rates.of(name),
        semaphore=PrioritySemaphore(
            config.upstream.concurrency, on_wait=partial(hooks.operation, WaitDetails, "semaphore", name)
        ),
        limits=replace(limits, max_inputs=lowest(limits.max_inputs, config.batching.max_batch_size)),
    )


def _report_change(hooks: Hooks, route: str, before: State, after: State) -> None:
    log_circuit(route, before, after)
    hooks.event(CircuitDetails, route, before, after)


def _open_library(name: str, provider: str, model: str, task: Task, environment: ModelEnvironment) -> Model:
    """Load a library's model by the library's name for it, with the options of a route to `name`, if any.

    Raises RuntimeUnavailableError without the library, UnsupportedModelError if the library cannot load the model.
    """
    if model in default_catalog():
        check_task(name, default_catalog().get(model).task, task)
    endpoint = library_endpoint(name, provider, model, environment.config)
    make: Make = make_provider if task == "embed" else make_reranker
    made = make(provider, endpoint)
    if isinstance(made, DescribesModel):
        known = made.facts()
        most = known.max_tokens
        facts = replace(
            library_facts(name, provider, model, max_tokens=most),
            dimensions=known.dimensions,
            default_dimensions=known.dimensions,
            normalized=True,
            query_prompt=known.query_prompt,
            document_prompt=known.document_prompt,
        )
    elif task == "rerank":
        most = made.max_tokens()
        facts = replace(library_facts(name, provider, model, max_tokens=most), task=task)
    else:
        raise ConfigError("this provider does not describe its models", where=name, key="provider")
    assert isinstance(made, CountsTokens)  # noqa: S101  every library does
    routes = _routes([MadeRoute(name, made, endpoint)], task, environment)
    service = Service(facts, routes, made.counter(most))
    return (ServiceModel if task == "embed" else ServiceReranker)(service, environment)


def _open_local(name: str, task: Task, environment: ModelEnvironment, progress: ProgressSink | None) -> Model:
    """Open a local model; routes from the settings to one of its names come before the local route."""
    config, named, names = environment.config, loading.resolve(name), local_names(name)
    row = facts_of(named)
    if row is not None:
        check_task(row.name if named.facts is not None else name, row.task, task)
    providers = {route.provider for route in config.routes_to({one.casefold() for one in names}).values()}
    if task == "rerank" and providers and not _is_here(named, providers, config):
        return _with_routes(names, None, task, environment)
    loaded = loading.load(named, config, progress, check=partial(_check_files, name, task))
    recipe = loaded.recipe
    check_task(recipe.name, recipe.task, task)
    remote = _remote(named, loaded, environment)
    if task == "rerank":
        scorer = CrossEncoder(recipe, loaded.choice, remote=remote)
        return _with_routes(names, scorer, task, environment) if providers else LocalReranker(scorer, environment)
    encoder = loading.encoder_of(loaded, remote=remote)
    names = (encoder.model, *names)
    if config.routes_to({one.casefold() for one in names}):
        return _with_routes(names, encoder, task, environment)
    return LocalModel(encoder, environment)


def _open_raw(name: str, environment: ModelEnvironment, progress: ProgressSink | None) -> Model:
    named = loading.resolve(name)
    loaded = loading.load(named, environment.config, progress)
    recipe, remote = loaded.recipe, _remote(named, loaded, environment, raw=True)
    space = recipe.space(recipe.dimensions, loaded.facts, listed_files=loaded.listed_files)
    raw = replace(loaded, recipe=replace(recipe, normalized=False))
    return LocalModel(loading.encoder_of(raw, remote=remote), environment, normalized=space)


def _remote(
    named: loading.ResolvedName, loaded: loading.LoadedModel, environment: ModelEnvironment, *, raw: bool = False
) -> RemoteModel | None:
    """Return the model in the process that computes local models; None if this process computes them."""
    if environment.inference is None:
        return None
    return environment.inference.model(ModelSpec.of(named.key, loaded.recipe, loaded.choice, raw=raw))


def _check_files(name: str, task: Task, files: Mapping[str, Path]) -> None:
    """Refuse a repository by its settings files, before its weights are fetched."""
    check_task(name, "rerank" if is_reranker(files) else "embed", task)


def _is_here(named: loading.ResolvedName, providers: set[str], config: Config) -> bool:
    """Return whether a model's weights are here or are required: to run it, or to compare servers with it."""
    weights = None if named.facts is None else named.facts.weights
    return weights is None or LOCAL in providers or WeightsStore(config.store_settings()).find(weights) is not None


def _with_routes(names: Sequence[str], encoder: Encoder | None, task: Task, environment: ModelEnvironment) -> Model:
    """Open a model with the settings' routes to servers, and a local route if the weights are here."""
    config = environment.config
    own: LocalProvider | LocalScorer | None = None
    if isinstance(encoder, CrossEncoder):
        own = LocalScorer(encoder, config.batching.max_batch_size)
    elif encoder is not None:
        own = LocalProvider(encoder, config.batching.max_batch_size)
    facts = _facts_with_routes(names, encoder, task, config)

    build: Make = make_provider if task == "embed" else make_reranker
    identities: dict[str, RouteIdentity] = {}
    trusted = set()

    def make(provider: str, endpoint: Endpoint) -> Any:
        if provider == LOCAL:
            assert own is not None  # noqa: S101  its weights were loaded
            own.configure(without_verify(endpoint))
            return own
        identities[endpoint.route] = identity_of(provider, endpoint, facts)
        if is_declared_same_space(endpoint, config):
            trusted.add(endpoint.route)
        return build(provider, without_verify(endpoint))

    served = routes_of(facts, config, make)
    if own is not None and not any(one.provider is own for one in served):
        here = f"local:{names[0].rsplit('/', 1)[-1]}" if task == "rerank" or encoder is None else encoder.name
        served.append(MadeRoute(here, own, Endpoint(here, facts.name)))
    here = next((one.name for one in served if own is not None and one.provider is own), "")
    if encoder is not None:
        identities[here] = local_identity(here, encoder)
    counter = FileCounter(encoder.tokenizer) if encoder is not None else counter_for(facts, None, config)
    routes = with_proofs(
        _routes(served, task, environment),
        KnownRoutes(identities, same_space=trusted, local_route=here),
        _probes(facts, counter, name=facts.name if encoder is None or task == "rerank" else encoder.space.id),
        environment.proofs,
        valid_s=config.upstream.verify_every_s,
        local=Scoring(own, "") if isinstance(own, LocalScorer) else own,
    )
    service = Service(facts, routes, counter)
    if task == "rerank":
        return MultiRouteReranker(service, environment)
    assert encoder is not None  # noqa: S101  only rerankers may have none
    return MultiRouteModel(service, environment, encoder)


def _facts_with_routes(names: Sequence[str], encoder: Encoder | None, task: Task, config: Config) -> ServiceFacts:
    name = names[0]
    if task == "rerank":
        named = loading.resolve(name)
        most = encoder.max_tokens if encoder is not None else named.facts.max_tokens if named.facts is not None else 0
        facts = library_facts(name, LOCAL, name, max_tokens=most)
        # The price of a server is unknown.
        return replace(facts, task=task, aliases=tuple(names), price_usd_per_million_tokens=None, routes=())
    assert encoder is not None  # noqa: S101  only rerankers may have none
    space = encoder.space
    return replace(
        library_facts(name, LOCAL, name, max_tokens=encoder.max_tokens),
        aliases=tuple(names),
        dimensions=space.dimensions,
        matryoshka=encoder.sizes[1:],
        default_dimensions=space.dimensions,
        normalized=space.normalized,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        price_usd_per_million_tokens=served_price(name, config),
        routes=(),
    )
