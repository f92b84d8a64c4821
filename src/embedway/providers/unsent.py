"""Models of services for plans, which send nothing and so need no key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import SecretStr

from embedway.errors import UnknownModelError
from embedway.models.service import open_service
from embedway.providers.names import key_of, service_of
from embedway.providers.registry import make_provider

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.models.service import ServiceModel
    from embedway.providers.base import Endpoint, Provider
    from embedway.weights.store import ProgressSink

#: In place of a key. Nothing is sent with it.
_NO_KEY = "none"


def unsent_key(name: str, config: Config) -> str:
    """What two names of one model have in common; never that of a model that can be sent something."""
    return f"unsent:{key_of(name, config)}"


def open_unsent(name: str, config: Config, progress: ProgressSink | None = None) -> ServiceModel:
    """A service's model as `open_model` opens it, whatever keys its routes lack. Blocking."""
    del progress  # nothing is fetched but a tokenizer
    facts = service_of(name, config)
    if facts is None:
        raise UnknownModelError(name, nearest=())
    own = {"api_key": SecretStr(_NO_KEY), "api_key_env": None, "api_key_file": None}
    routes = {key: route.model_copy(update=own) for key, route in config.routes.items()}

    def make(provider: str, endpoint: Endpoint) -> Provider:
        return make_provider(provider, replace(endpoint, secret=endpoint.secret or _NO_KEY))

    return open_service(facts, config.model_copy(update={"routes": routes}), make)
