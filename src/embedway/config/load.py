"""Putting the layers together, checking them, and saying all that is wrong at once."""

from __future__ import annotations

import decimal
import difflib
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError

from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import default_benchmarks
from embedway.catalog.services import default_services
from embedway.config.base import Section
from embedway.config.benchmarks import ModelBenchmark, benchmark_values, unit_error
from embedway.config.hub import hub_layer
from embedway.config.layers import (
    BENCHMARKS,
    Layer,
    Problem,
    environment_layer,
    file_layer,
    leaves,
    overlay,
    pattern_and_name,
    place,
)
from embedway.config.overlays import (
    as_known,
    benchmarks_of,
    misnamed_in,
    over_shipped,
    table_unconfirmed,
    unconfirmed,
    with_sources,
)
from embedway.config.sections import (
    Batching,
    Budget,
    Cache,
    Embedding,
    Ledger,
    Local,
    Model,
    Pins,
    Rerank,
    Route,
    Run,
    Selection,
    Tune,
    Upstream,
    Weights,
)
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from embedway.local.store import StoreSettings

#: The variables in which users of a service keep its key, the first that is set counts.
KEY_VARIABLES: dict[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "azure-openai": ("AZURE_OPENAI_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "voyage": ("VOYAGE_API_KEY",),
    "jina": ("JINA_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
}
#: Read from the working directory when no file is named.
DEFAULT_FILE = "embedway.toml"


class Config(Section):
    """All settings, typed and immutable.

    Sections: `embedding` (default_model, on_overflow, model_benchmarks), `rerank` (default_model), `local` (backend,
    precision, threads, streams, token_budget), `weights` (directory, places, folders, offline, allow_http,
    hub_endpoint, hub_token, hub_cache), `tune` (directory), `run` (chunk_tokens, overlap, on_error), `cache` (backend,
    codec and bounds), `upstream` (attempts, waits and times of services), `selection`, `ledger`, `pins`, and `budgets`,
    `routes` and `models` (a table for each, by name). Each section says what its keys mean.
    `Config()` holds the defaults and reads nothing; `Config.load()` reads files and environment.
    Secrets are secret types: no repr, dump or error shows them.
    """

    embedding: Embedding = Field(default_factory=Embedding)
    rerank: Rerank = Field(default_factory=Rerank)
    local: Local = Field(default_factory=Local)
    weights: Weights = Field(default_factory=Weights)
    tune: Tune = Field(default_factory=Tune)
    run: Run = Field(default_factory=Run)
    cache: Cache = Field(default_factory=Cache)
    batching: Batching = Field(default_factory=Batching)
    upstream: Upstream = Field(default_factory=Upstream)
    selection: Selection = Field(default_factory=Selection)
    ledger: Ledger = Field(default_factory=Ledger)
    pins: Pins = Field(default_factory=Pins)
    budgets: dict[str, Budget] = Field(default_factory=dict)
    routes: dict[str, Route] = Field(default_factory=dict)
    models: dict[str, Model] = Field(default_factory=dict)
    _keys: dict[str, SecretStr] = PrivateAttr(default_factory=dict)
    _sources: tuple[tuple[str, str], ...] = PrivateAttr(())

    @classmethod
    def load(
        cls,
        files: Sequence[Path | str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """Settings from files, environment and arguments, later over earlier, field by field.

        `files` end in .toml or .json; without any, `embedway.toml` of the working directory is read if it is
        there. `environ` stands for the environment. `overrides` maps dotted keys to values; they come last.
        Raises ConfigError, which names every problem with its place, key and rule.
        """
        variables = os.environ if environ is None else environ
        kinds = dict(_kinds(cls))
        folders = frozenset(key for key, kind in kinds.items() if Path in kind)
        hub, problems = hub_layer(variables)
        layers = [hub]
        for path in _files(files):
            try:
                layers.append(file_layer(path, folders))
            except ConfigError as error:
                place_of = ": ".join(part for part in (error.where, error.key) if part)
                problems.append(Problem(error.where, error.key, str(error).removeprefix(f"{place_of}: ")))
        layer, found = environment_layer(variables, kinds)
        problems += found
        arguments: dict[str, Any] = {}
        for key, value in (overrides or {}).items():
            place(arguments, key, value)
        layers += [layer, Layer("arguments", arguments)]
        config = cls._from_layers(layers, problems)
        named = {route.api_key_env for route in config.routes.values() if route.api_key_env}
        known = named.union(*KEY_VARIABLES.values())
        config._keys = {name: SecretStr(variables[name]) for name in known if variables.get(name)}  # noqa: SLF001
        return config

    @classmethod
    def _from_layers(cls, layers: Sequence[Layer], problems: list[Problem]) -> Self:
        values: dict[str, Any] = {}
        origins: dict[str, tuple[str, str]] = {}
        layers, found = as_known(layers)
        problems += [*(one for layer in layers for one in layer.problems), *found]
        for layer in layers:
            values = overlay(unconfirmed(values, layer.values), layer.values)
            for key, _ in _tables_and_leaves(layer.values):
                origins[key] = (layer.where, layer.origins.get(key, ""))
        own = benchmarks_of(values)
        try:
            config = cls.model_validate(over_shipped(values, own, origins) if own else values)
            problems += _own_prices(config, origins)
        except ValidationError as error:
            # `from None`: the chained error would show the input, and with it what may be a secret.
            misnamed = misnamed_in(own, origins)
            found = _problems(error, origins)
            problems += [one for one in found if not misnamed or one.key != BENCHMARKS.rstrip(".")] + misnamed
        if problems:
            raise _one_error(problems) from None
        config._sources = tuple(  # noqa: SLF001  a new object of this class
            (key, ": ".join(part for part in origins[key] if part)) for key, _ in leaves(values)
        )
        return config

    def with_benchmarks(self, changes: Mapping[str, ModelBenchmark | Mapping[str, Any]]) -> Self:
        """The same settings with other benchmarks: whole ones, or single fields over those that are there.

        Raises ConfigError, which names every problem.
        """
        tables = {name: benchmark_values(known) for name, known in self.embedding.model_benchmarks.items()}
        own = {model.name.casefold(): model.name for model in self.models.values()}
        spellings = {**own, **{name.casefold(): name for name in tables}}
        for asked, change in changes.items():
            name = spellings.get(asked.casefold(), asked)
            if isinstance(change, ModelBenchmark):
                fields = benchmark_values(change)
            else:
                fields = with_sources(change, "arguments")
            if str(fields.get("model_name", "")).casefold() == name.casefold():
                fields["model_name"] = name
            tables[name] = {**table_unconfirmed(tables.get(name, {}), fields), **fields}
        embedding = {**dict(self.embedding), "model_benchmarks": tables}
        try:
            checked = Embedding.model_validate(embedding)
        except ValidationError as error:
            raise _one_error(_problems(error, {}, "embedding.")) from None
        changed = self.model_copy(update={"embedding": checked})
        if problems := _own_prices(changed, {}):
            raise _one_error(problems)
        return changed

    @property
    def sources(self) -> Mapping[str, str]:
        """For each key that something set, what set it: a file, `environment: NAME` or `arguments`."""
        return MappingProxyType(dict(self._sources))

    def key_for(self, provider: str, route: Route | None = None) -> str:
        """The key that a provider's route sends; empty where there is none.

        It is the route's own `api_key`, `api_key_file` or `api_key_env`, else the variable that the provider's users
        know (`OPENAI_API_KEY` and the like). Raises ConfigError for a file that cannot be read, a variable unset, or
        what cannot be a key.
        """
        if route is not None and route.api_key is not None:
            return _clean_key(route.api_key.get_secret_value(), "api_key of a route")
        if route is not None and route.api_key_file is not None:
            try:
                return _clean_key(route.api_key_file.read_text(encoding="utf-8"), str(route.api_key_file))
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not a text file"
                raise ConfigError(f"cannot be read: {reason}", where=str(route.api_key_file)) from None
        if route is not None and route.api_key_env is not None:
            if route.api_key_env not in self._keys:
                raise ConfigError("is not set, and a route's api_key_env names it", where=route.api_key_env)
            return _clean_key(self._keys[route.api_key_env].get_secret_value(), route.api_key_env)
        found = (name for name in KEY_VARIABLES.get(provider, ()) if name in self._keys)
        return next((_clean_key(self._keys[name].get_secret_value(), name) for name in found), "")

    def routes_to(self, names: Collection[str]) -> dict[str, Route]:
        """The settings' routes to a model of these names, which are in lower case; in their order."""
        return {key: route for key, route in self.routes.items() if route.model.casefold() in names}

    def store_settings(self) -> StoreSettings:
        """What the weights store needs to know."""
        from embedway.local.store import StoreSettings  # noqa: PLC0415  the store is above the settings

        weights = self.weights
        return StoreSettings(
            root=weights.directory,
            places=weights.places,
            folders=weights.folders,
            offline=weights.offline,
            hub_endpoint=weights.hub_endpoint,
            hub_token=weights.hub_token.get_secret_value() if weights.hub_token else None,
            hub_cache=weights.hub_cache,
        )


def _clean_key(key: str, where: str) -> str:
    """A key without the white space around it, such as a line's end. Raises ConfigError for what no header can hold."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError("holds a character that no key has, such as a line break; paste it anew", where=where)
    return key


def _files(files: Sequence[Path | str]) -> list[Path]:
    if files:
        return [Path(file) for file in files]
    default = Path(DEFAULT_FILE)
    return [default] if default.exists() else []


def _kinds(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, frozenset[type]]]:
    """Each dotted key with the plain types it may have."""
    for name, field in model.model_fields.items():
        named = get_args(field.annotation)[-1:] if get_origin(field.annotation) is dict else ()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _kinds(field.annotation, f"{prefix}{name}.")
        elif named and isinstance(named[0], type) and issubclass(named[0], BaseModel):
            yield from _kinds(named[0], f"{prefix}{name}.*.")
        else:
            yield f"{prefix}{name}", frozenset(_types(field.annotation))


def _types(annotation: Any) -> Iterator[type]:
    origin = get_origin(annotation)
    if isinstance(origin, type):
        yield origin
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _tables_and_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _tables_and_leaves(value, f"{prefix}{name}.")


# --------------------------------------------------------------- errors


def _problems(error: ValidationError, origins: Mapping[str, tuple[str, str]], under: str = "") -> list[Problem]:
    """All findings; what a table lacks is one of them."""
    found: list[Problem] = []
    lacking: dict[str, list[str]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "missing":
            parent = under + ".".join(map(str, details["loc"][:-1]))
            if parent not in lacking:
                found.append(Problem(origins.get(parent, ("", ""))[0], parent, ""))
            lacking.setdefault(parent, []).append(str(details["loc"][-1]))
        else:
            found.append(_problem(details, origins, under))
    return [
        problem
        if problem.message
        else replace(problem, message=f"lacks {', '.join(lacking[problem.key])}{_full_name(problem.key)}")
        for problem in found
    ]


def _problem(details: ErrorDetails, origins: Mapping[str, tuple[str, str]], under: str = "") -> Problem:
    """A finding of pydantic in our words, at the place that set the value."""
    parts = [part for part in under.split(".") if part] + [str(part) for part in details["loc"]]
    while origins and parts and ".".join(parts) not in origins:
        parts.pop()  # an item of a list: the list is what was set
    key = ".".join(parts)
    where, origin = origins.get(key, ("", ""))
    suffix = f" (set by {origin})" if origin else ""
    pattern, name = pattern_and_name(key)
    if details["type"] == "extra_forbidden":
        return Problem(where, key, f"is not a setting{_nearest(pattern).replace('*', name)}{suffix}")
    table = details["type"] in {"model_type", "model_attributes_type", "dict_type"}
    hidden = pattern in _SECRETS or (table and bool(details["input"]) and not f"{key}.".startswith(BENCHMARKS))
    shown = "" if hidden else _shown(details["input"])
    return Problem(where, key, f"{shown}{_rule(details)}{suffix}")


def _own_prices(config: Config, origins: Mapping[str, tuple[str, str]]) -> list[Problem]:
    """Benchmarks with a price of another unit than the settings' own model has."""
    found = []
    for name, model in config.models.items():
        benchmark = config.embedding.model_benchmarks.get(model.name)
        if benchmark is None or benchmark.cost_confirmed or model.price_usd_per_million_tokens is None:
            continue
        if model.name in default_benchmarks():
            continue  # a name of the catalog is refused for itself
        price, listed = benchmark.cost_per_million_tokens, decimal.Decimal(model.price_usd_per_million_tokens)
        wrong = "" if price is None else unit_error(price, listed, f"models.{name} has {listed}")
        if wrong:
            key = f"{BENCHMARKS}{model.name}.cost_per_million_tokens"
            found.append(Problem(origins.get(key, ("", ""))[0], key, f"is {price}; {wrong}"))
    return found


def _full_name(key: str) -> str:
    """A hint for who changes a shipped benchmark by an alias of its model."""
    name = key.removeprefix(BENCHMARKS)
    if name == key:
        return ""
    service = default_services().get(name.casefold())
    known = name in default_catalog()
    full = service.name if service is not None else default_catalog().get(name).name if known else ""
    if full:
        return f"; the model's full name is {full}, and a new model needs every field"
    return "; a new model needs every field"


#: Where pydantic's own words are about Python.
_RULES = {
    "model_type": "must be a table of settings",
    "model_attributes_type": "must be a table of settings",
    "dict_type": "must be a table of settings",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "float_type": "must be a number",
    "date_type": "must be a date, such as 2026-11-23",
    "finite_number": "must be a finite number",
}


def _rule(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _RULES.get(details["type"], message)


def _shown(value: Any) -> str:
    """The value, where it can hold no secret: not a table, not an address with a user and password."""
    if value is None:
        return "is null; "
    if not isinstance(value, (str, int, float, list, tuple)) or "@" in str(value):
        return ""
    # NaN and infinity as files spell them.
    text = json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else repr(value)
    return f"is {text}; " if len(text) <= 80 else f"is {text[:77]}...; "


def _nearest(key: str) -> str:
    """The known key that an unknown one most likely stands for."""
    if key == "config":
        return "; settings files are named with --config"
    section, _, name = key.rpartition(".")
    tables = [table for table in _TABLES if table.rpartition(".")[2] == name]
    if tables:
        return f"; the nearest is {tables[0]}"
    siblings = [known for known in _KEYS if known.rpartition(".")[0] == section]
    close = difflib.get_close_matches(key, siblings, n=1, cutoff=0.75)
    if not close:
        same = [known for known in _KEYS if known.rpartition(".")[2] == name]
        close = same or difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.6)
    if not close and not section:
        close = difflib.get_close_matches(key, Config.model_fields, n=1, cutoff=0.6)
    if not close:
        return f"; `{section}` has {', '.join(known.rpartition('.')[2] for known in siblings)}" if siblings else ""
    return f"; the nearest is {close[0]}"


def _one_error(problems: Sequence[Problem]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0].message, where=problems[0].where, key=problems[0].key)
    lines = [ConfigError(item.message, where=item.where, key=item.key) for item in problems]
    return ConfigError("\n".join([f"{len(problems)} settings are wrong:", *(f"  - {line}" for line in lines)]))


_KEYS = tuple(key for key, _ in _kinds(Config))
#: Tables within sections, which a key may stand for.
_TABLES = tuple({known.partition(".*.")[0]: None for known in _KEYS if ".*." in known and known.count(".") > 2})
_SECRETS = frozenset(key for key, kind in _kinds(Config) if SecretStr in kind)
