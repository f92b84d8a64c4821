"""Detection of missing requirements of routes, without a provider, a request or the import of a library."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.catalog.services import default_services
from embedway.config import KEY_VARIABLES
from embedway.config.local_models import LIBRARY_MODULES
from embedway.errors import ConfigError
from embedway.providers.names import own_models
from embedway.providers.registry import PROVIDERS, RERANKERS, provider_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from embedway.catalog.services import ServiceFacts
    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.config.credentials import Access
    from embedway.config.routes import RouteSettings

#: Providers without a default base URL.
_ADDRESSED = frozenset({"azure-openai", "openai-compatible"})
_TO_FETCH = "weights missing: they are downloaded at the first use"
_OFFLINE = "weights missing, and weights.offline is set"


def missing(provider: str, access: Access) -> str:
    """Return the missing requirement of a provider, a key or a library; empty if there is none."""
    if provider in KEY_VARIABLES and not access.is_authorized:
        usual = KEY_VARIABLES[provider][0]
        return f"no key: set {usual if access.takes_usual_key else 'api_key or api_key_env beside base_url'}"
    module = LIBRARY_MODULES.get(provider)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"no library: pip install 'embedway[{provider}]'"
    return ""


def routes_here(facts: ServiceFacts, config: Config) -> list[tuple[str, str]]:
    """Return each route of a model, those from the settings first, with its missing requirement or an empty text."""
    found = routes_to(facts.names, config, task=facts.task)
    for listed in facts.routes:
        try:
            lacks = missing(listed.provider, config.access(listed.provider))
        except ConfigError as error:
            lacks = str(error)
        if not lacks and listed.options.get("remote_code") == "needed":
            lacks = "its repository contains code: a route with options.trust_remote_code allows it to run"
        lacks = lacks or _weights_missing(listed.provider, listed.model, listed.options, config)
        found.append((f"{listed.provider}:{listed.model}", lacks))
    return found


def routes_to(names: Collection[str], config: Config, *, task: Task = "embed") -> list[tuple[str, str]]:
    """Return the routes from the settings to a model with these lower-case names, with their missing requirement."""
    routes = config.routes_to(names).items()
    return [(f"routes.{name}", _route_lacks(name, route, config, task)) for name, route in routes]


def _route_lacks(name: str, route: RouteSettings, config: Config, task: Task) -> str:
    known = (*provider_names(PROVIDERS if task == "embed" else RERANKERS), "local")
    if route.provider not in known:
        near = difflib.get_close_matches(route.provider, known, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        return f"no provider is called {route.provider!r}{hint}"
    try:
        access = config.access(route.provider, name)
    except ConfigError as error:
        return str(error)
    if route.provider in _ADDRESSED and not access.base_url:
        return "no base_url"
    lacks = missing(route.provider, access)
    return lacks or _weights_missing(route.provider, route.upstream_model or route.model, route.options, config)


def library_lacks(name: str, provider: str, model: str, config: Config) -> str:
    """Return what a library's own model lacks here, by the options of a route to `name`; empty if nothing."""
    route = next((one for one in config.routes.values() if one.model == name and one.provider == provider), None)
    own = (route.upstream_model if route else None) or model
    lacks = missing(provider, config.access(provider))
    return lacks or _weights_missing(provider, own, route.options if route else {}, config)


def first_library(facts: ServiceFacts, config: Config) -> str | None:
    """Return the first route of a model if it is one to a library that cannot run here now; else None."""
    providers = [*(route.provider for route in config.routes_to(facts.names).values())]
    providers += [route.provider for route in facts.routes]
    if not providers or providers[0] not in LIBRARY_MODULES:
        return None
    name, lacks = routes_here(facts, config)[0]
    return name if lacks else None


def _weights_missing(provider: str, model: str, options: Mapping[str, str], config: Config) -> str:
    """Return a message if a library's weights are not on this machine, judged by folder names."""
    if provider not in LIBRARY_MODULES:
        return ""
    if "path" in options:
        return "" if Path(options["path"]).is_dir() else f"no folder {options['path']}"
    if provider == "fastembed":
        folder = Path(options["cache_dir"]) if "cache_dir" in options else config.weights.fastembed_cache
        # fastembed's conversions have their own names, such as qdrant/bge-base-en-v1.5-onnx-q.
        wanted = model.rsplit("/", 1)[-1].casefold()
        here = any(wanted in entry.name.casefold() for entry in folder.glob("*-*"))
    else:
        here = any(config.weights.hub_cache.glob(f"models--{model.replace('/', '--')}/snapshots/*"))
        # A folder is written ./NAME: a bare name is a hub name, even if the working directory contains that folder.
        here = here or (model.startswith((".", "/", "~")) and Path(model).expanduser().is_dir())
    return "" if here else _OFFLINE if config.weights.offline else _TO_FETCH


def set_up_here(config: Config, *, excluded: str, task: Task = "embed") -> tuple[str, ...]:
    """Return the usable models of a task: those with weights on this machine, and those with a usable route."""
    from embedway.weights.store import WeightsStore  # noqa: PLC0415  needed only after a failure

    store = WeightsStore(config.store_settings())
    here = [facts.name for facts in default_catalog() if facts.task == task and store.find(facts.weights)]
    known = (*default_services().values(), *own_models(config).values())
    served = {facts.name: facts for facts in known if facts.task == task}
    here += [name for name, facts in served.items() if any(not lacks for _, lacks in routes_here(facts, config))]
    return tuple(name for name in here if name != excluded)
