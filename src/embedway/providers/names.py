"""Resolution of model names to services, libraries or folders."""

from __future__ import annotations

import decimal
import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.catalog.services import ServiceFacts, default_services
from embedway.config.custom_models import explain_unrunnable
from embedway.config.local_models import LIBRARY_MODULES
from embedway.errors import ConfigError, UnknownModelError
from embedway.local import loading as local

if TYPE_CHECKING:
    from embedway.config import Config


def library_of(name: str) -> tuple[str, str] | None:
    """Split a name such as `fastembed:BAAI/bge-m3` into provider and library name; return None for other names."""
    provider, _, model = name.partition(":")
    return (provider, model) if provider in LIBRARY_MODULES and model else None


def service_of(name: str, config: Config) -> ServiceFacts | None:
    """Return the model with that name or alias that services or libraries run, or None.

    Models from the settings come first. Raises ConfigError if one of them has a name from the catalog.
    """
    facts = own_models(config).get(name.casefold()) or default_services().get(name.casefold())
    return None if facts is None else _with_price(facts, config)


def _with_price(facts: ServiceFacts, config: Config) -> ServiceFacts:
    """Return the facts with the user's price from the settings, if any, instead of the list price."""
    benchmark = config.embedding.model_benchmarks.get(facts.name)
    if benchmark is None or benchmark.cost_per_million_tokens == facts.price_usd_per_million_tokens:
        return facts
    return replace(facts, price_usd_per_million_tokens=benchmark.cost_per_million_tokens, prices=())


def own_models(config: Config) -> dict[str, ServiceFacts]:
    """Return the models from the settings by lower-case name. Raises ConfigError for a name that is already in use."""
    found: dict[str, ServiceFacts] = {}
    for key, model in config.models.items():
        name = model.name.casefold()
        if name in found or name in default_services() or model.name in default_catalog():
            raise ConfigError(f"the name {model.name!r} belongs to another model", where=f"models.{key}", key="name")
        price = model.price_usd_per_million_tokens
        benchmark = config.embedding.model_benchmarks.get(model.name)
        found[name] = ServiceFacts(
            name=model.name,
            task=model.task,
            dimensions=model.dimensions or 0,
            matryoshka=model.matryoshka,
            min_dimensions=model.min_dimensions,
            default_dimensions=model.dimensions or 0,
            max_tokens=model.max_tokens,
            tokenizer=model.tokenizer,
            normalized=model.normalized,
            price_usd_per_million_tokens=None if price is None else decimal.Decimal(price),
            query_prompt=model.query_prompt,
            document_prompt=model.document_prompt,
            revision=model.revision,
            languages=() if benchmark is None else benchmark.languages,
            licence=(benchmark.licence if benchmark is not None else "") or "unknown",
        )
    return found


def local_names(name: str) -> tuple[str, ...]:
    """Return all names of a local model: those in the catalog, or else the requested one."""
    facts = local.resolve(name).facts
    return (name,) if facts is None else (facts.name, *facts.aliases)


def key_of(name: str, config: Config) -> str:
    """Return the key that all names of one model share. Raises UnknownModelError with the nearest names."""
    facts = service_of(name, config)
    if facts is not None:
        return f"service:{facts.name}"
    if library_of(name):
        return f"library:{name}"
    try:
        return local.resolve(name).key
    except UnknownModelError as error:
        others = {**default_services(), **own_models(config)}
        near = difflib.get_close_matches(name.casefold(), others, n=2)
        known = {others[spelling].name: None for spelling in near}
        route = next((f"routes.{route}" for route in config.routes_to({name.casefold()})), "")
        lacks = _lacks(name, config)
        raise UnknownModelError(name, nearest=[*known, *error.nearest][:5], route=route, lacks=lacks) from None


def _lacks(name: str, config: Config) -> str:
    """Return what a model of the benchmarks lacks to run; empty if it has no benchmark."""
    benchmarks = config.embedding.model_benchmarks
    known = next((one for one in benchmarks if one.casefold() == name.casefold()), None)
    found = None if known is None else explain_unrunnable(known, benchmarks[known], config)
    return "" if found is None else found.reason


def full_name(name: str, config: Config) -> str:
    """Return the canonical name for receipts, the ledger and the cache. Raises the same errors as `key_of`."""
    facts = service_of(name, config)
    if facts is not None:
        return facts.name
    key_of(name, config)
    known = None if library_of(name) else local.resolve(name).facts
    return name if known is None else known.name


def folder_of(name: str, config: Config) -> Path | None:
    """Return the folder that a name of a local model, or of a library's, is; None for other names."""
    if service_of(name, config) is not None:
        return None
    library = library_of(name)
    if library is None:
        return local.resolve(name).folder
    return Path(library[1]) if library[1].startswith((".", "/", "~")) else None


def known_names(config: Config) -> dict[str, str]:
    """Return the canonical names of all models of the catalog and the settings, by lower-case name and alias."""
    services = {name: facts.name for name, facts in {**default_services(), **own_models(config)}.items()}
    local_models = {name.casefold(): facts.name for facts in default_catalog() for name in (facts.name, *facts.aliases)}
    # `auto` is the model of a call that fails before one is selected.
    return {"auto": "auto", **local_models, **services}
