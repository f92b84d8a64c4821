"""Load settings: merge layers, validate them, and report all errors at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from typing_extensions import override

from embedway._public import public
from embedway.config.alerts import AlertSettings
from embedway.config.benchmark_layers import (
    canonical_names,
    check_changes,
    find_misnamed,
    get_benchmarks,
    merge_with_shipped,
    model_problems,
    overlay_benchmarks,
    stated_fields,
    with_known_spellings,
    with_sources,
)
from embedway.config.benchmarks import ModelBenchmark, benchmark_values
from embedway.config.credentials import Access, Credentials, explain_withheld_token
from embedway.config.custom_models import log_unrunnable
from embedway.config.discovered_file import SettingsFilter, check_parse_cost, discover, ignored_warning
from embedway.config.environment import environment_layer, with_names_of
from embedway.config.hub_variables import hub_layer
from embedway.config.known_services import service_variables
from embedway.config.layers import (
    BENCHMARKS,
    ENVIRONMENT,
    Layer,
    Problem,
    SettingSource,
    leaves,
    overlay,
    parse_layer,
    read_layer,
)
from embedway.config.models import ModelSettings  # noqa: TC001  pydantic evaluates the annotations
from embedway.config.overrides import arguments_layer
from embedway.config.plain_values import plain_paths
from embedway.config.problems import KnownKeys, combine_errors, key_types, unicode_problems, validation_problems
from embedway.config.quality import QualitySettings
from embedway.config.request_headers import known_part
from embedway.config.routes import RouteSettings  # noqa: TC001  pydantic evaluates the annotations
from embedway.config.sections import (
    BatchingSettings,
    BudgetSettings,
    CacheSettings,
    EmbeddingSettings,
    LedgerSettings,
    LocalSettings,
    PinsSettings,
    RerankSettings,
    RunSettings,
    SearchSettings,
    SelectionSettings,
    TuneSettings,
    UpstreamSettings,
    WeightsSettings,
)
from embedway.config.server import ServerSettings
from embedway.config.telemetry import TelemetrySettings
from embedway.config.trust import read_trust
from embedway.config.types import Section, replace_unchecked
from embedway.config.units import drop_stale_confirmations
from embedway.errors import ConfigError, UsageError
from embedway.text import shown_name
from embedway.weights.types import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from embedway.config.discovered_file import DiscoveredFile, FilteredSettings

_log = logging.getLogger("embedway.config")


@public
class Config(Section):
    """Typed, immutable settings.

    Each section is one attribute, and documents its keys; `budgets`, `routes` and `models` are tables by name.
    `Config()` contains the defaults and reads nothing; `Config.load()` reads files and environment;
    `with_benchmarks` returns a copy with other model facts.
    Secrets have secret types: no repr, dump or error shows them.
    """

    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    rerank: RerankSettings = Field(default_factory=RerankSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    weights: WeightsSettings = Field(default_factory=WeightsSettings)
    tune: TuneSettings = Field(default_factory=TuneSettings)
    run: RunSettings = Field(default_factory=RunSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    upstream: UpstreamSettings = Field(default_factory=UpstreamSettings)
    selection: SelectionSettings = Field(default_factory=SelectionSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    quality: QualitySettings = Field(default_factory=QualitySettings)
    pins: PinsSettings = Field(default_factory=PinsSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    budgets: dict[str, BudgetSettings] = Field(default_factory=dict)
    routes: dict[str, RouteSettings] = Field(default_factory=dict)
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    _credentials: Credentials = PrivateAttr(default_factory=Credentials)
    _sources: tuple[tuple[str, SettingSource], ...] = PrivateAttr(())
    _ignored: tuple[str, ...] = PrivateAttr(())
    _withheld: str = PrivateAttr("")
    _is_loaded: bool = PrivateAttr(default=False)

    @classmethod
    def load(
        cls,
        files: Sequence[Path | str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load settings from files, environment and arguments; later ones override earlier ones, field by field.

        `files` end in .toml or .json. Without any, `embedway.toml` in the working directory is read if it exists:
        completely if it is trusted, else its safe settings, with one warning that lists the ignored ones.
        `environ` replaces the environment. `overrides` maps dotted keys to values and has the highest priority.
        Raises ConfigError, which lists every problem with its location, key and rule.
        """
        inputs = _Inputs.of(cls, _check_environ(environ), overrides)
        problems = [*inputs.problems]
        named: list[Layer] = []
        ignored: tuple[str, ...] = ()
        paths = plain_paths(files)
        try:
            if not paths and (found := discover()) is not None:
                layer, ignored = cls._discovered_layer(found, inputs)
                named.append(layer)
        except ConfigError as error:
            problems.append(_to_problem(error))
        for path in paths:
            try:
                named.append(read_layer(path, inputs.folders))
            except ConfigError as error:
                problems.append(_to_problem(error))
        try:
            config = cls._from_layers(inputs.stack(named), problems)
        except RecursionError:
            where = ", ".join(layer.where for layer in named) or "arguments"
            raise ConfigError("contains tables that are nested too deeply", where=where) from None
        variables = {route.api_key_env for route in config.routes.values() if route.api_key_env}
        variables |= {name for route in config.routes.values() for name in route.headers_env.values()}
        variables |= set(service_variables())
        secrets = {name: SecretStr(inputs.variables[name]) for name in variables if inputs.variables.get(name)}
        config._credentials = Credentials(secrets, dict(config._sources))  # noqa: SLF001  a new object of this class
        config._ignored = ignored  # noqa: SLF001
        config._is_loaded = True  # noqa: SLF001
        if config._withheld:  # noqa: SLF001
            _log.warning("%s", config._withheld)  # noqa: SLF001
        log_unrunnable(config)
        return config

    @classmethod
    def _discovered_layer(cls, found: DiscoveredFile, inputs: _Inputs) -> tuple[Layer, tuple[str, ...]]:
        """Return the layer of a discovered file, and its ignored keys; log a warning about them."""
        state = read_trust().state(found.location, found.sha256)
        if state != "trusted":
            check_parse_cost(found)
        layer = parse_layer(found.data, found.path, inputs.folders)
        if state == "trusted":
            return layer, ()
        filtered = cls._filter(layer, inputs)
        ignored = tuple(known_part(key) for key, _ in filtered.ignored)
        if ignored:
            _log.warning("%s", ignored_warning(found, ignored, changed=state == "changed"))
        return replace(layer, values=filtered.kept), ignored

    @classmethod
    def _filter(cls, layer: Layer, inputs: _Inputs) -> FilteredSettings:
        def base() -> Config | None:
            try:
                return cls._from_layers(inputs.stack([]), [*inputs.problems])
            except ConfigError:
                return None  # the merge of all layers reports the errors

        return SettingsFilter(base).run(layer.values)

    @classmethod
    def untrusted_settings(
        cls, found: DiscoveredFile, *, environ: Mapping[str, str] | None = None
    ) -> list[tuple[str, Any]]:
        """Return the keys and values of a file that are ignored if it is discovered and not trusted.

        Raises ConfigError, with its location, for a file that is not a settings file.
        """
        inputs = _Inputs.of(cls, _check_environ(environ), None)
        check_parse_cost(found)
        return cls._filter(parse_layer(found.data, found.path, inputs.folders), inputs).ignored

    @classmethod
    def _from_layers(cls, layers: Sequence[Layer], problems: list[Problem]) -> Self:
        values: dict[str, Any] = {}
        sources: dict[str, SettingSource] = {}
        layers, found = with_known_spellings(layers)
        problems += [*(one for layer in layers for one in layer.problems), *found]
        own: dict[str, Any] = {}
        for layer in layers:
            problems += unicode_problems(layer, KEYS.paths)
            values = overlay(values, layer.values)
            own = overlay_benchmarks(own, layer)
            for key, _ in _tables_and_leaves(layer.values):
                sources[key] = SettingSource(layer.where, layer.variables.get(key, ""))
        weights = values.get("weights")
        withheld = explain_withheld_token(weights, sources) if isinstance(weights, dict) else ""
        if isinstance(weights, dict) and withheld:
            values = {**values, "weights": {key: value for key, value in weights.items() if key != "hub_token"}}
        own = own if get_benchmarks(values) else {}
        config = None
        try:
            config = cls.model_validate(merge_with_shipped(values, own) if own else values)
        except ValidationError as error:
            misnamed = find_misnamed(own, sources)
            found = validation_problems(error, sources, KEYS)
            problems += [one for one in found if not misnamed or one.key != BENCHMARKS.rstrip(".")] + misnamed
        if config is not None:
            problems += model_problems(config, sources)
        if problems or config is None:
            # Outside of `except`: the chained error would contain the input, which may contain a secret.
            raise combine_errors(problems) from None
        config._withheld = withheld  # noqa: SLF001  a new object of this class
        config._sources = tuple((key, sources[key]) for key, _ in leaves(values))  # noqa: SLF001  as above
        return config

    def with_benchmarks(self, changes: Mapping[str, ModelBenchmark | Mapping[str, Any]]) -> Self:
        """Return a copy with changed or added benchmarks, by model name: complete ones, or fields to override.

        A new model needs every required field of `ModelBenchmark`. Raises ConfigError, which names every problem.
        """
        changes = check_changes(changes)
        tables = {name: benchmark_values(known) for name, known in self.embedding.model_benchmarks.items()}
        spellings = canonical_names([*tables, *(model.name for model in self.models.values())])
        sources = dict(self._sources)
        changed_names: dict[str, str] = {}
        for asked, change in changes.items():
            name = spellings.setdefault(asked.casefold(), asked)
            if changed_names.setdefault(name, asked) != asked:
                message = f"is the same model as {changed_names[name]}; name it once"
                raise ConfigError(message, where="arguments", key=f"{BENCHMARKS}{asked}")
            given = benchmark_values(change) if isinstance(change, ModelBenchmark) else change
            wheres = dict.fromkeys(given, "arguments")
            if isinstance(change, ModelBenchmark):
                before = tables.get(name, {})
                fields = {**given, **with_sources(stated_fields(change, before), wheres, before)}
            else:
                fields = with_sources(given, wheres, tables.get(name, {}))
            if str(fields.get("model_name", "")).casefold() in {name.casefold(), asked.casefold()}:
                fields["model_name"] = name
            sources |= {f"{BENCHMARKS}{name}.{field}": SettingSource("arguments") for field in given}
            tables[name] = {**drop_stale_confirmations(tables.get(name, {}), fields), **fields}
        embedding = {**dict(self.embedding), "model_benchmarks": tables}
        problems: list[Problem] = []
        try:
            checked = EmbeddingSettings.model_validate(embedding)
        except ValidationError as error:
            problems += validation_problems(error, {}, KEYS, "embedding.")
        if problems:
            raise combine_errors(problems)
        changed = replace_unchecked(self, embedding=checked)
        if problems := model_problems(changed, {}):
            raise combine_errors(problems)
        changed._sources = tuple(sources.items())  # noqa: SLF001  a new object of this class
        log_unrunnable(changed, changed_names.keys() - self.embedding.model_benchmarks.keys())
        return changed

    @override
    def _report(self) -> None:
        log_unrunnable(self)

    @property
    def sources(self) -> Mapping[str, str]:
        """Source of each key that is set: a file, `environment: NAME` or `arguments`.

        The URL of a service that the environment sets has the key `services.PROVIDER.base_url`.
        """
        found = {key: str(source) for key, source in self._sources}
        for provider, (name, _) in self._credentials.addresses().items():
            found[f"services.{provider}.base_url"] = str(SettingSource(ENVIRONMENT, name))
        return MappingProxyType(found)

    @property
    def is_loaded(self) -> bool:
        """Whether `load` made these settings, so that keys of the environment are known."""
        return self._is_loaded

    @property
    def addresses(self) -> Mapping[str, str]:
        """URLs of services from the environment, by provider, without user, password and query."""
        return MappingProxyType({provider: shown for provider, (_, shown) in self._credentials.addresses().items()})

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys that are ignored in the working directory's `embedway.toml`, because it is not trusted."""
        return self._ignored

    def access(self, provider: str, name: str = "") -> Access:
        """Return URL and key of the route `name` in `routes`, or of the catalog's route if the name is empty.

        The key is the route's own `api_key`, `api_key_file` or `api_key_env`, else the provider's usual variable
        (such as `OPENAI_API_KEY`); none if `auth` or a header replaces it. A secret from the environment is sent only
        to the provider's own hosts, to a URL from the environment, or to a URL that the same layer sets as
        `api_key_env` or `headers_env`. Raises ConfigError for a secret that must not be sent to the URL, a URL that
        cannot be completed, an unreadable file, an unset variable, or text that is not a valid key.
        """
        if type(provider) is not str or type(name) is not str:
            raise UsageError("provider and name must be strings")
        if name and name not in self.routes:
            raise UsageError(f"{shown_name(name)} is not a route; available: {', '.join(self.routes) or 'none'}")
        return self._credentials.access(provider, name, self.routes[name] if name else None)

    def key_for(self, provider: str, name: str = "") -> str:
        """Return the key that a provider's route sends; empty if there is none. Raises as `access` does."""
        return self.access(provider, name).secret

    def routes_to(self, names: Collection[str]) -> dict[str, RouteSettings]:
        """Return the settings' routes to a model with one of these lower-case names, in order."""
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
class _Inputs:
    """Layers other than files: environment and arguments, and their errors."""

    variables: Mapping[str, str]
    folders: frozenset[str]
    hub: Layer
    environment: Layer
    arguments: Layer
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, model: type[Config], variables: Mapping[str, str], overrides: Mapping[str, Any] | None) -> Self:
        kinds = dict(key_types(model))
        hub, problems = hub_layer(variables)
        environment, found = environment_layer(variables, kinds)
        arguments, twice = arguments_layer(overrides, kinds)
        return cls(variables, KEYS.paths, hub, environment, arguments, (*problems, *found, *twice))

    def stack(self, files: Sequence[Layer]) -> list[Layer]:
        """Return all layers, lowest first."""
        return [self.hub, *files, with_names_of(self.environment, files), self.arguments]


def _check_environ(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the environment or its replacement, checked. Raises ConfigError for names and values not of type str."""
    given = os.environ if environ is None else environ
    try:
        items = list(given.items()) if issubclass(type(given), Mapping) else [("", None)]
    except Exception:  # noqa: BLE001  a mapping of the caller may raise anything
        items = [("", None)]
    if not all(issubclass(type(text), str) for item in items for text in item):
        raise ConfigError("environ must be a mapping of strings to strings", where="arguments")
    return {str.__str__(name): str.__str__(text) for name, text in items}


def _to_problem(error: ConfigError) -> Problem:
    prefix = ": ".join(part for part in (error.where, error.key) if part)
    return Problem(error.where, error.key, str(error).removeprefix(f"{prefix}: "))


def _tables_and_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _tables_and_leaves(value, f"{prefix}{name}.")


KEYS = KnownKeys.of(Config)
