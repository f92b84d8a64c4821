"""Reasons why a gateway does not serve a model of the catalog, and why one that it serves cannot answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import EmbedwayError
from embedway.local.loading import resolve
from embedway.local.outline import has_weights
from embedway.providers.names import service_of
from embedway.providers.requirements import missing, routes_here

if TYPE_CHECKING:
    from embedway.config import Config


def explain_unserved(name: str, config: Config) -> str:
    """Return what a known model lacks, and what to do; empty if only the operator may know. Reads the weights store.

    The texts name no files and no addresses of the gateway.
    """
    if config.server.models is not None:
        return "server.models of the gateway does not name it"
    try:
        return _lacks(name, config)
    except EmbedwayError:  # its message names a file or a URL
        return ""


def without_route(config: Config) -> list[tuple[str, str]]:
    """Return the models of services in `server.models` that no route can reach, with what the first one lacks."""
    found = []
    for name in config.server.models or ():
        facts = None if name == AUTO else service_of(name, config)
        routes = [] if facts is None else routes_here(facts, config)
        if routes and all(lacks for _, lacks in routes):
            found.append((name, routes[0][1]))
    return found


def _lacks(name: str, config: Config) -> str:
    facts = service_of(name, config)
    if facts is None:
        if has_weights(resolve(name), config):
            return ""
        return f"its weights are missing: run `embedway models pull {name}` on the gateway's machine"
    found = (missing(route.provider, config.access(route.provider)) for route in facts.routes)
    lacks = next(filter(None, found), "")
    return lacks and f"the gateway has {lacks}, and restart it"
