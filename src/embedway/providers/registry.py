"""Lookup of providers and rerankers by name, through entry points of embedway and of third-party packages."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
from typing import TYPE_CHECKING, Any

from embedway.errors import ConfigError, EmbedwayError
from embedway.providers.options import limits_of
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from embedway.providers.base import Endpoint, Provider

PROVIDERS, RERANKERS = "embedway.providers", "embedway.rerankers"


@functools.cache  # reading installed packages takes some milliseconds
def provider_names(group: str = PROVIDERS) -> tuple[str, ...]:
    """Return the names of all installed providers, or rerankers."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=group)}))


def make_provider(name: str, endpoint: Endpoint) -> Provider:
    """Create the provider with that name. Raises ConfigError with the nearest name if there is none."""
    made: Provider = make_entry(PROVIDERS, name, endpoint)
    return made


def make_entry(group: str, name: str, endpoint: Endpoint) -> Any:
    """Load an entry point and call it with an endpoint. Raises ConfigError, also for any error of third-party code."""
    try:
        made = load_entry(group, name, endpoint)(endpoint)
        limits_of(endpoint, made.declared)
    except EmbedwayError:
        raise
    except BaseException as error:
        if must_pass(error):
            raise
        place = place_of(error)
    else:
        return made
    # Not raised above: the error may repeat the endpoint's key, and would be the context of this one.
    raise ConfigError(f"{name!r} cannot be loaded ({place})", where=endpoint.route, key="provider")


def load_entry(group: str, name: str, endpoint: Endpoint) -> Any:
    """Load the entry point with that name. Raises ConfigError with the nearest name if there is none."""
    entries = importlib.metadata.entry_points(group=group, name=name)
    if not entries:
        known = provider_names(group)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; the nearest is {near[0]}" if near else f"; available: {', '.join(known)}"
        what = "reranker" if group == RERANKERS else "provider"
        raise ConfigError(f"no {what} is called {name!r}{hint}", where=endpoint.route, key="provider")
    return next(iter(entries)).load()
