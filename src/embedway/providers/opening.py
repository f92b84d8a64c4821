"""From a model's name to the model, ready to compute: on this machine, or by services."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeAlias

from embedway.catalog.services import default_services
from embedway.errors import UnknownModelError
from embedway.providers import local

if TYPE_CHECKING:
    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config
    from embedway.local.model import LocalModel
    from embedway.local.store import ProgressSink
    from embedway.providers.service import ServiceModel

    AnyModel: TypeAlias = LocalModel | ServiceModel


def service_of(name: str) -> ServiceFacts | None:
    """The model of that name or alias which services run, or None."""
    return default_services().get(name.casefold())


def key_of(name: str) -> str:
    """What two names of one model have in common. Raises UnknownModelError with the nearest names."""
    facts = service_of(name)
    if facts is not None:
        return f"service:{facts.name}"
    try:
        return local.resolve(name).key
    except UnknownModelError as error:
        near = difflib.get_close_matches(name.casefold(), default_services(), n=2)
        known = {default_services()[spelling].name: None for spelling in near}
        raise UnknownModelError(name, nearest=[*known, *error.nearest][:5]) from None


def open_model(name: str, config: Config, progress: ProgressSink | None = None) -> AnyModel:
    """Open a model of any kind. Blocking; raises the errors of names, weights and settings."""
    facts = service_of(name)
    if facts is None:
        return local.open_model(name, config, progress)
    from embedway.providers.service import open_service  # noqa: PLC0415  aiohttp and tiktoken come in only here

    return open_service(facts, config)
