"""What a route lacks to be used: known without making a provider, sending a text or importing a library."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.catalog.services import default_services
from embedway.config import KEY_VARIABLES
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config

#: Modules of the libraries that are extras.
_EXTRAS = {"fastembed": "fastembed", "sentence-transformers": "sentence_transformers"}


def missing(provider: str, key: str) -> str:
    """What a provider lacks: its key, or its library; empty where it lacks nothing that can be known beforehand."""
    if provider in KEY_VARIABLES and not key:
        return f"no key: set {KEY_VARIABLES[provider][0]}"
    module = _EXTRAS.get(provider)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"no library: pip install 'embedway[{provider}]'"
    return ""


def routes_here(facts: ServiceFacts, config: Config) -> list[tuple[str, str]]:
    """Each route of a model, those of the settings first, and what it lacks; empty where it can be used."""
    found = []
    for name, route in config.routes.items():
        if route.model.casefold() in facts.names:
            try:
                lacks = missing(route.provider, config.key_for(route.provider, route))
            except ConfigError as error:
                lacks = str(error)
            found.append((f"routes.{name}", lacks))
    for listed in facts.routes:
        lacks = missing(listed.provider, config.key_for(listed.provider))
        if not lacks and listed.options.get("remote_code") == "needed":
            lacks = "its repository holds code: a route with options.trust_remote_code allows it to run"
        found.append((f"{listed.provider}:{listed.model}", lacks))
    return found


def set_up_here(config: Config, *, but: str) -> tuple[str, ...]:
    """Models that embed and could be used now: those with weights on this machine, and those with a usable route."""
    from embedway.local.store import WeightsStore  # noqa: PLC0415  only after a failure

    store = WeightsStore(config.store_settings())
    here = [facts.name for facts in default_catalog() if facts.task == "embed" and store.find(facts.weights)]
    served = {facts.name: facts for facts in default_services().values() if facts.task == "embed"}
    here += [name for name, facts in served.items() if any(not lacks for _, lacks in routes_here(facts, config))]
    return tuple(name for name in here if name != but)
