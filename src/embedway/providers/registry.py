"""Lookup of providers and rerankers by name, through entry points of embedway and of third-party packages."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
from typing import TYPE_CHECKING, Any

from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.providers.base import Endpoint, Provider

PROVIDERS, RERANKERS = "embedway.providers", "embedway.rerankers"


@functools.cache  # reading installed packages takes some milliseconds
def provider_names(group: str = PROVIDERS) -> tuple[str, ...]:
    """Return the names of all installed providers, or rerankers."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=group)}))


def make_provider(name: str, endpoint: Endpoint) -> Provider:
    """Create the provider with that name. Raises ConfigError with the nearest name if there is none."""
    make: Callable[[Endpoint], Provider] = load_entry(PROVIDERS, name, endpoint)
    return make(endpoint)


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
