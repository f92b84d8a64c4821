"""Detect models that run on this machine with local files, from settings, catalog and file names only.

No request is sent, nothing is downloaded, no library is imported and no process is started.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import LOCAL_PROVIDERS
from embedway.catalog.services import RouteFacts, default_services
from embedway.errors import EmbedwayError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedway.catalog.types import ModelFacts, Task
    from embedway.config.load import Config

#: Reserved name for the default model, or for a selected one.
AUTO = "auto"
_HUB_PREFIX = "hf:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
#: Modules of the optional libraries, by provider.
LIBRARY_MODULES = {"fastembed": "fastembed", "sentence-transformers": "sentence_transformers"}
#: Options that make a library read a folder, store its files elsewhere, or run code of a repository.
_UNSAFE_OPTIONS = frozenset({"path", "cache_dir", "remote_code", "trust_remote_code"})
_FASTEMBED_ENDINGS = ("", "-onnx", "-onnx-q")


def is_known_model(name: str, config: Config) -> bool:
    """Return whether a model with that name exists: in the settings, a catalog, a library or a repository."""
    if name == AUTO or name.startswith(_HUB_PREFIX) or name.partition(":")[0] in LIBRARY_MODULES:
        return True
    return _is_configured(name, config) or name.casefold() in default_services() or _catalog_facts(name) is not None


def is_reranker(name: str, config: Config) -> bool:
    """Return whether the model with that name, of the settings or a catalog, scores pairs and returns no vectors."""
    own = next((model for model in config.models.values() if model.name.casefold() == name.casefold()), None)
    facts = own or default_services().get(name.casefold()) or _catalog_facts(name)
    return facts is not None and facts.task == "rerank"


def runs_locally(name: str, config: Config) -> bool:
    """Return whether every route of a catalog model computes on this machine, with the given settings."""
    service = default_services().get(name.casefold())
    facts = None if service is not None else _catalog_facts(name)
    if _is_configured(name, config) or (service is None and facts is None):
        return False
    names = service.names if service is not None else facts.names if facts is not None else ()
    listed = service.routes if service is not None else ()
    return all(route.provider in LOCAL_PROVIDERS for route in listed) and _routes_are_local(names, config)


def is_ready_locally(name: str, task: Task, config: Config) -> bool:
    """Return whether every route of a model for a task runs on this machine, with local weights.

    A model in a folder never counts.
    """
    if name == AUTO:
        return task == "embed"
    if _is_configured(name, config):
        return False
    service = default_services().get(name.casefold())
    if service is not None:
        ready = all(_is_library_ready(route, config) for route in service.routes)
        return service.task == task and ready and _routes_are_local(service.names, config)
    provider, _, model = name.partition(":")
    if provider in LIBRARY_MODULES:
        embeds_only = provider == "fastembed" and task == "rerank"
        ready = not embeds_only and _is_library_ready(RouteFacts(provider, model), config)
        return ready and _routes_are_local({name.casefold()}, config)
    return _is_in_store(name, task, config)


def _is_in_store(name: str, task: Task, config: Config) -> bool:
    """Return the same for a model of the built-in runtime: from the catalog, or from a pulled repository."""
    from embedway.weights.store import WeightsStore  # noqa: PLC0415  urllib and filelock, for discovered files only

    store = WeightsStore(config.store_settings())
    try:
        if name.startswith(_HUB_PREFIX):
            repository, _, revision = name.removeprefix(_HUB_PREFIX).partition("@")
            folder = store.find_repository(repository, revision or None) if _REPOSITORY.fullmatch(repository) else None
            if folder is None:
                return False
            # Weights in the catalog identify its model, whatever their repository.
            facts = default_catalog().by_weights(folder.weights_sha256)
            names = {name.casefold(), repository.casefold(), *(facts.names if facts is not None else ())}
            return (facts is None or facts.task == task) and _routes_are_local(names, config)
        facts = _catalog_facts(name)
        here = facts is not None and facts.task == task and store.find(facts.weights) is not None
    except (EmbedwayError, OSError, ValueError):
        return False
    return here and facts is not None and _routes_are_local(facts.names, config)


def _routes_are_local(names: Iterable[str], config: Config) -> bool:
    """Return whether no route in the settings for these names uses a server or runs a repository's code."""
    routes = config.routes_to(frozenset(names)).values()
    return all(
        route.provider in LOCAL_PROVIDERS and route.options.get("trust_remote_code", "false") == "false"
        for route in routes
    )


def _is_library_ready(route: RouteFacts, config: Config) -> bool:
    """Return whether a library is installed and its folders contain a name of the model's weights."""
    module, model = LIBRARY_MODULES.get(route.provider), route.model
    if module is None or not _REPOSITORY.fullmatch(model) or _UNSAFE_OPTIONS & set(route.options):
        return False
    try:
        # A library may load a folder in the working directory as the model of that name.
        if Path(model).exists() or importlib.util.find_spec(module) is None:
            return False
        if route.provider == "fastembed":
            folder_names = {model.rpartition("/")[2].casefold() + ending for ending in _FASTEMBED_ENDINGS}
            entries = (entry.name.casefold() for entry in config.weights.fastembed_cache.glob("*-*"))
            return any({name.rpartition("--")[2], name.removeprefix("fast-")} & folder_names for name in entries)
        return any(config.weights.hub_cache.glob(f"models--{model.replace('/', '--')}/snapshots/*"))
    except OSError:  # the name is too long for a file
        return False


def _is_configured(name: str, config: Config) -> bool:
    return name.casefold() in {model.name.casefold() for model in config.models.values()}


def _catalog_facts(name: str) -> ModelFacts | None:
    catalog = default_catalog()
    try:
        return catalog.get(name) if name in catalog else None
    except EmbedwayError:
        return None
