"""Putting the layers together, checking them, and saying all that is wrong at once."""

from __future__ import annotations

import decimal
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, SecretStr, ValidationError

from embedway.catalog.benchmarks import default_benchmarks
from embedway.config.base import Section
from embedway.config.benchmarks import ModelBenchmark, benchmark_values, unit_error
from embedway.config.found import check_cheap, find, harmless, told
from embedway.config.hub import hub_layer
from embedway.config.keys import ENVIRONMENT, Access, Keyring, Origin, variables_of_services, withheld_token
from embedway.config.layers import (
    BENCHMARKS,
    Layer,
    Problem,
    environment_layer,
    file_layer,
    leaves,
    overlay,
    parsed_layer,
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
from embedway.config.problems import Keys, kinds_of, one_error, problems_of
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
from embedway.config.trust import read_trust
from embedway.errors import ConfigError
from embedway.weights.types import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from embedway.config.found import Found, Harmless

_log = logging.getLogger("embedway.config")
#: Tables in tables; keys have four parts at most.
_DEEPEST = 100


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
    _keyring: Keyring = PrivateAttr(default_factory=Keyring)
    _sources: tuple[tuple[str, Origin], ...] = PrivateAttr(())
    _ignored: tuple[str, ...] = PrivateAttr(())
    _withheld: str = PrivateAttr("")

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
        there: wholly if it is trusted, else what is harmless of it, and one warning names what is ignored.
        `environ` stands for the environment. `overrides` maps dotted keys to values; they come last.
        Raises ConfigError, which names every problem with its place, key and rule.
        """
        given = _Given.of(cls, _texts(environ), overrides)
        problems = [*given.problems]
        named: list[Layer] = []
        ignored: tuple[str, ...] = ()
        try:
            if not files and (found := find()) is not None:
                layer, ignored = cls._found_layer(found, given)
                named.append(layer)
        except ConfigError as error:
            problems.append(_problem_of(error))
        for path in _paths_of(files):
            try:
                named.append(file_layer(path, given.folders))
            except ConfigError as error:
                problems.append(_problem_of(error))
        try:
            config = cls._from_layers(given.around(named), problems)
        except RecursionError:
            where = ", ".join(layer.where for layer in named) or "arguments"
            raise ConfigError("holds tables in tables without end", where=where) from None
        variables = {route.api_key_env for route in config.routes.values() if route.api_key_env}
        variables |= set(variables_of_services())
        secrets = {name: SecretStr(given.variables[name]) for name in variables if given.variables.get(name)}
        config._keyring = Keyring(secrets, dict(config._sources))  # noqa: SLF001  a new object of this class
        config._ignored = ignored  # noqa: SLF001
        if config._withheld:  # noqa: SLF001
            _log.warning("%s", config._withheld)  # noqa: SLF001
        return config

    @classmethod
    def _found_layer(cls, found: Found, given: _Given) -> tuple[Layer, tuple[str, ...]]:
        """The layer of a file that was found, and the keys of it that are ignored, which is told."""
        standing = read_trust().standing(found.place, found.sha256)
        if standing != "trusted":
            check_cheap(found)
        layer = parsed_layer(found.data, found.path, given.folders)
        if standing == "trusted":
            return layer, ()
        judged = cls._judged(layer, given)
        ignored = tuple(key for key, _ in judged.ignored)
        if ignored:
            _log.warning("%s", told(found, ignored, changed=standing == "changed"))
        return replace(layer, values=judged.kept), ignored

    @classmethod
    def _judged(cls, layer: Layer, given: _Given) -> Harmless:
        def base() -> Config | None:
            try:
                return cls._from_layers(given.around([]), [*given.problems])
            except ConfigError:
                return None  # what is wrong is told when all layers are laid together

        return harmless(layer.values, base)

    @classmethod
    def harm_of(cls, found: Found, *, environ: Mapping[str, str] | None = None) -> list[tuple[str, Any]]:
        """Keys and values of a file that would be ignored if it were found and not trusted.

        Raises ConfigError for a file that is no settings file, with its place.
        """
        given = _Given.of(cls, _texts(environ), None)
        check_cheap(found)
        return cls._judged(parsed_layer(found.data, found.path, given.folders), given).ignored

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
        weights = values.get("weights")
        withheld = withheld_token(weights, origins) if isinstance(weights, dict) else ""
        if isinstance(weights, dict) and withheld:
            values = {**values, "weights": {key: value for key, value in weights.items() if key != "hub_token"}}
        own = benchmarks_of(values)
        try:
            config = cls.model_validate(over_shipped(values, own, origins) if own else values)
            problems += _own_prices(config, origins)
        except ValidationError as error:
            # `from None`: the chained error would show the input, and with it what may be a secret.
            misnamed = misnamed_in(own, origins)
            found = problems_of(error, origins, KEYS)
            problems += [one for one in found if not misnamed or one.key != BENCHMARKS.rstrip(".")] + misnamed
        if problems:
            raise one_error(problems) from None
        config._withheld = withheld  # noqa: SLF001  a new object of this class
        config._sources = tuple((key, Origin(*origins[key])) for key, _ in leaves(values))  # noqa: SLF001  as above
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
            raise one_error(problems_of(error, {}, KEYS, "embedding.")) from None
        changed = self.model_copy(update={"embedding": checked})
        if problems := _own_prices(changed, {}):
            raise one_error(problems)
        return changed

    @property
    def sources(self) -> Mapping[str, str]:
        """For each key that something set, what set it: a file, `environment: NAME` or `arguments`.

        The address of a service that the environment names has the key `services.PROVIDER.base_url`.
        """
        found = {key: str(origin) for key, origin in self._sources}
        for provider, (name, _) in self._keyring.addresses().items():
            found[f"services.{provider}.base_url"] = str(Origin(ENVIRONMENT, name))
        return MappingProxyType(found)

    @property
    def addresses(self) -> Mapping[str, str]:
        """Addresses of services that the environment names, by provider, without user, password and query."""
        return MappingProxyType({provider: shown for provider, (_, shown) in self._keyring.addresses().items()})

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys of the working directory's `embedway.toml` that are ignored, because it is not trusted."""
        return self._ignored

    def access(self, provider: str, name: str = "") -> Access:
        """How a route reaches its service: by its name in `routes`, or without one the catalog's route.

        The key is the route's own `api_key`, `api_key_file` or `api_key_env`, else the variable that the provider's
        users know (`OPENAI_API_KEY` and the like). A key from the environment goes to the provider's own hosts, to an
        address of the environment, or to one that the same layer names as `api_key_env`. Raises ConfigError for a key
        that may not go to the address, a file that cannot be read, a variable unset, or what cannot be a key.
        """
        return self._keyring.access(provider, name, self.routes[name] if name else None)

    def key_for(self, provider: str, name: str = "") -> str:
        """The key that a provider's route sends; empty where there is none. Raises as `access` does."""
        return self.access(provider, name).secret

    def routes_to(self, names: Collection[str]) -> dict[str, Route]:
        """The settings' routes to a model of these names, which are in lower case; in their order."""
        return {key: route for key, route in self.routes.items() if route.model.casefold() in names}

    def store_settings(self) -> StoreSettings:
        """Return the settings of the weights store."""
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


@dataclass(frozen=True, slots=True)
class _Given:
    """The settings of a call and the environment, whatever files say, and what is wrong with them."""

    variables: Mapping[str, str]
    folders: frozenset[str]
    hub: Layer
    environment: Layer
    arguments: Layer
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, model: type[Config], variables: Mapping[str, str], overrides: Mapping[str, Any] | None) -> Self:
        kinds = dict(kinds_of(model))
        hub, problems = hub_layer(variables)
        environment, found = environment_layer(variables, kinds)
        arguments: dict[str, Any] = {}
        for key, value in _checked(overrides).items():
            place(arguments, key, value)
        folders = frozenset(key for key, kind in kinds.items() if Path in kind)
        return cls(variables, folders, hub, environment, Layer("arguments", arguments), (*problems, *found))

    def around(self, files: Sequence[Layer]) -> list[Layer]:
        """All layers, lowest first."""
        return [self.hub, *files, self.environment, self.arguments]


def _checked(overrides: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The settings of a call. Raises ConfigError for keys that are no texts, at any depth."""
    given = {} if overrides is None else overrides
    tables: list[tuple[object, int]] = [(given, 0)]
    for table, depth in tables:
        if not isinstance(table, Mapping) or depth > _DEEPEST:
            raise ConfigError("must be a mapping of keys such as run.overlap to values", where="arguments")
        for key, value in table.items():
            if not isinstance(key, str) or key.count(".") > _DEEPEST:
                shown = repr(key) if isinstance(key, (str, int, float)) else f"of type {type(key).__name__}"
                raise ConfigError(f"a key is {shown[:80]}; it must be a text such as run.overlap", where="arguments")
            if isinstance(value, dict):
                tables.append((value, depth + 1))
    return given


def _texts(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the environment or its stand-in, checked. Raises ConfigError for names and values that are no texts."""
    given = os.environ if environ is None else environ
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for item in given.items() for text in item):
        raise ConfigError("environ must be a mapping of texts to texts", where="arguments")
    return given


def _paths_of(files: Sequence[Path | str]) -> list[Path]:
    """The named files. Raises ConfigError for anything but a list of paths."""
    listed = isinstance(files, Iterable) and not isinstance(files, (str, bytes))
    if not listed or not all(isinstance(file, (str, os.PathLike)) for file in files):
        raise ConfigError("files must be a list of paths", where="arguments")
    return [Path(file) for file in files]


def _problem_of(error: ConfigError) -> Problem:
    place_of = ": ".join(part for part in (error.where, error.key) if part)
    return Problem(error.where, error.key, str(error).removeprefix(f"{place_of}: "))


def _tables_and_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _tables_and_leaves(value, f"{prefix}{name}.")


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


KEYS = Keys.of(Config)
