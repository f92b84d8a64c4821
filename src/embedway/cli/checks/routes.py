"""Routes of the settings, and services with a key in the environment. Only `online.py` sends requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from embedway.catalog.benchmarks import LOCAL_PROVIDERS
from embedway.catalog.services import default_services
from embedway.cli.checks.base import Check, Finding, Findings
from embedway.config.addresses import redact_address
from embedway.config.custom_models import find_unrunnable
from embedway.config.known_services import KEY_VARIABLES, SERVICES
from embedway.config.variables import set_variables
from embedway.errors import EmbedwayError
from embedway.text import printable

if TYPE_CHECKING:
    from embedway.catalog.types import Task
    from embedway.cli.checks.base import Setup
    from embedway.config import Config
    from embedway.config.credentials import Access
    from embedway.config.routes import RouteSettings

#: Time limit of a check that calls a route, in seconds.
CALL_LIMIT_S = 25.0


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Facts of a route's model: its full name, its task, a short description, and whether its weights are needed."""

    name: str
    task: Task
    shown: str
    is_local: bool = False


def route_checks(setup: Setup) -> tuple[Check, ...]:
    """Return one check for each route of the settings and each service with a key, so that each has its line."""
    found = [(f"route {name}", partial(check_route, name)) for name in setup.config.routes]
    found += [(f"service {provider}", partial(check_service, provider)) for provider in _services(setup.config)]
    limit_s = CALL_LIMIT_S if setup.online else 10.0
    return tuple(Check(name, "routes", run, limit_s=limit_s) for name, run in found)


def check_models(setup: Setup) -> Findings:
    """Check `[models.NAME]`: the names must not be in the catalog, and each model needs a route."""
    from embedway.providers.names import own_models

    config = setup.config
    try:
        own_models(config)
    except EmbedwayError as error:
        return Findings((Finding("models", "problem", str(error), "give the model another name"),))
    served = {route.model.casefold() for route in config.routes.values()}
    lines = [
        Finding(
            f"model {key}", "warning", f"{model.name} has no route", f'add [routes.NAME] with model = "{model.name}"'
        )
        if model.name.casefold() not in served
        else Finding(f"model {key}", "ok", _describe(model.name, model.dimensions, model.max_tokens))
        for key, model in config.models.items()
    ]
    lines += [
        Finding(f"benchmark {printable(one.name)}", "warning", one.reason, "it is selected only with --anywhere")
        for one in find_unrunnable(config)
        if one.name.casefold() not in {model.name.casefold() for model in config.models.values()}
    ]
    if not config.routes and not _services(config):
        lines.append(Finding("routes", "skipped", "no route and no key of a service is set; local models need none"))
    return Findings(tuple(lines))


def check_budgets(setup: Setup) -> Findings:
    """Check `[budgets.NAME]`: a budget for a model that does not exist limits nothing."""
    from embedway.providers.names import full_name

    lines = []
    for name, budget in setup.config.budgets.items():
        shown = f"${budget.usd} {'per ' + budget.period if budget.period != 'total' else 'in total'} for {budget.scope}"
        try:
            if budget.model is not None:
                full_name(budget.model, setup.config)
            lines.append(Finding(f"budget {name}", "ok", shown.replace("for *", "for everything")))
        except EmbedwayError as error:
            lines.append(Finding(f"budget {name}", "problem", f"{shown}: {error}", f"correct budgets.{name}.model"))
    return Findings(tuple(lines))


def check_route(name: str, setup: Setup) -> Findings:
    """Check a route of the settings: provider, library, key, URL and model; with `--online`, call it."""
    config, route = setup.config, setup.config.routes[name]
    line = f"route {name}"
    try:
        facts = _facts_of(route, config)
    except EmbedwayError as error:
        return Findings((Finding(line, "warning", f"{route.provider}: {error}", f"correct routes.{name}"),))
    lacks = lack_of(name, route, facts.task, config)
    if lacks:
        reason, remedy = _split(name, lacks)
        # Another route is not used instead: a mistake in the settings is never worked around silently.
        detail = f"{route.provider}: {reason}; until this is corrected, {facts.name} cannot be used"
        return Findings((Finding(line, "warning", detail, remedy),))
    access = config.access(route.provider, name)
    at = f" at {redact_address(access.base_url)}" if access.base_url else ""
    detail = f"{route.provider}{at}, {facts.shown}, {_key_source(route, access)}"
    if not setup.online or route.provider in LOCAL_PROVIDERS:
        return Findings((Finding(line, "ok", detail),))
    from embedway.cli.checks.online import call_route

    return Findings((call_route(line, detail, facts, config, f"routes.{name}", only=name),))


def check_service(provider: str, setup: Setup) -> Findings:
    """Check a service with a key in the environment; with `--online`, call its first model in the catalog."""
    config, line = setup.config, f"service {provider}"
    try:
        access = config.access(provider)
    except EmbedwayError as error:
        return Findings((Finding(line, "warning", str(error), f"correct or unset {_variable(provider)}"),))
    models = [facts for facts in default_services().values() if any(one.provider == provider for one in facts.routes)]
    names = list(dict.fromkeys(facts.name for facts in models))
    at = f" at {redact_address(access.base_url)}" if access.base_url else ""
    detail = f"key in {_variable(provider)}{at}, {len(names)} models of the catalog"
    first = next((one for one in models if one.task == "embed" and one.routes[0].provider == provider), None)
    if not access.secret:
        return Findings((Finding(line, "warning", f"no key{at}", f"set {KEY_VARIABLES[provider][0]}"),))
    if not setup.online or first is None:
        return Findings((Finding(line, "ok", detail),))
    from embedway.cli.checks.online import call_route

    facts = RouteFacts(first.name, first.task, _describe(first.name, first.default_dimensions, first.max_tokens))
    route = f"{provider}:{first.routes[0].model}"
    return Findings((call_route(line, detail, facts, config, route, only=None),))


def _services(config: Config) -> tuple[str, ...]:
    """Return the services with a key or a URL in the environment, except Azure, which needs a route per deployment."""
    addressed = config.addresses
    return tuple(
        provider
        for provider, service in SERVICES.items()
        if provider != "azure-openai" and (provider in addressed or set_variables(service.keys))
    )


def _variable(provider: str) -> str:
    return next(iter(set_variables(KEY_VARIABLES[provider])), KEY_VARIABLES[provider][0])


def _key_source(route: RouteSettings, access: Access) -> str:
    """Say where a route's key comes from, in the order of `Config.access`, and which headers it sends."""
    names = sorted(name for name in access.headers)
    headers = f", with the headers {', '.join(names)}" if names else ""
    if access.ca_file is not None:
        headers += f", with the certificates in {access.ca_file} (ca_file)"
    if route.auth == "entra":
        return f"token of Microsoft Entra ID{headers}"
    return f"{_key_place(route, access)}{headers}"


def _key_place(route: RouteSettings, access: Access) -> str:
    if access.needs_no_key:
        return "no key"
    if route.api_key is not None:
        return "key in api_key"
    if route.api_key_file is not None:
        return f"key in the file {route.api_key_file}"
    if route.api_key_env is not None:
        return f"key in {route.api_key_env}"
    found = next(iter(set_variables(KEY_VARIABLES.get(route.provider, ()))), None)
    return f"key in {found}" if found else "no key"


def _facts_of(route: RouteSettings, config: Config) -> RouteFacts:
    """Return the facts of a route's model. Raises UnknownModelError, and ConfigError for models of the settings."""
    from embedway.local.loading import resolve
    from embedway.providers.names import key_of, library_of, service_of

    key_of(route.model, config)
    service = service_of(route.model, config)
    if service is not None:
        return RouteFacts(service.name, service.task, _describe(service.name, service.dimensions, service.max_tokens))
    facts = None if library_of(route.model) else resolve(route.model).facts
    if facts is None:
        return RouteFacts(route.model, "embed", route.model, is_local=True)
    shown = _describe(facts.name, facts.dimensions, facts.max_tokens)
    return RouteFacts(facts.name, facts.task, shown, is_local=True)


def _describe(name: str, dimensions: int | None, max_tokens: int) -> str:
    size = f"{dimensions} dimensions, " if dimensions else ""
    return f"{name} ({size}{max_tokens:,} tokens)"


def lack_of(name: str, route: RouteSettings, task: Task, config: Config) -> str:
    """Return what a route needs and does not have; empty if nothing. Nothing is sent, and no library is imported."""
    try:
        lacks = _lack_of(name, route, task, config)
    except EmbedwayError as error:
        lacks = str(error)
    return lacks.removeprefix(f"routes.{printable(name)}: ")


def _lack_of(name: str, route: RouteSettings, task: Task, config: Config) -> str:
    from embedway.providers.opening import endpoint_of
    from embedway.providers.registry import make_provider
    from embedway.providers.requirements import routes_to
    from embedway.rerank.base import make_reranker

    lacks = dict(routes_to({route.model.casefold()}, config, task=task)).get(f"routes.{name}", "")
    if lacks or route.provider in LOCAL_PROVIDERS:
        return lacks
    access = config.access(route.provider, name)
    options = {key: value for key, value in {**access.options, **route.options}.items() if key != "verify"}
    model = route.upstream_model or access.model or route.model
    make = make_provider if task == "embed" else make_reranker
    # The provider checks its URL, its key and its options when it is created. It connects at its first call.
    make(route.provider, endpoint_of(f"routes.{name}", model, access, options))
    return ""


def _split(name: str, lacks: str) -> tuple[str, str]:
    """Split what a route lacks into the reason and the advice."""
    reason, _, advice = lacks.partition(": ")
    if advice and reason in {"no key", "no library", "weights missing"}:
        return reason, advice
    return lacks, f"correct routes.{name}"
