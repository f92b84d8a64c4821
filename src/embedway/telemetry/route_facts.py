"""Names of models, and providers of routes, as logs, spans and metrics show them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Name of a model, route or provider that is in no settings and no catalog.
OTHER = "other"
#: Names of models and routes: `acme/m`, `fastembed:acme/m`, `hf:acme/m@main`. A path or a text has other characters.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,80}(?:[/:@][A-Za-z0-9_.+-]{1,80}){0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Provider and server of a route, from the settings."""

    provider: str
    address: str = ""
    port: int = 0


def provider_of(route: str, routes: Mapping[str, RouteFacts]) -> str:
    """Return the name of the provider of a route: `openai`, `fastembed`, or `local` for the built-in runtime."""
    known = routes.get(route)
    if known is not None:
        return known.provider
    provider, separator, _ = route.partition(":")
    if separator:
        return provider
    return OTHER if route.startswith("routes.") else "local"


def is_name(model: str) -> bool:
    """Return whether a model is a name, and not the path of a folder."""
    return MODEL_NAME.fullmatch(model) is not None
