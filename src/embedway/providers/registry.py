"""Finding providers by name: entry points of the group `embedway.providers`, ours and others' alike."""

from __future__ import annotations

import difflib
import importlib.metadata
from typing import TYPE_CHECKING

from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.providers.base import Endpoint, Provider

GROUP = "embedway.providers"


def provider_names() -> tuple[str, ...]:
    """The names of all providers that are installed."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)}))


def make_provider(name: str, endpoint: Endpoint) -> Provider:
    """Make the provider of that name. Raises ConfigError with the nearest name where there is none."""
    entries = importlib.metadata.entry_points(group=GROUP, name=name)
    if not entries:
        known = provider_names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; the nearest is {near[0]}" if near else f"; there are {', '.join(known)}"
        raise ConfigError(f"no provider is called {name!r}{hint}", where=endpoint.route, key="provider")
    make: Callable[[Endpoint], Provider] = next(iter(entries)).load()
    return make(endpoint)
