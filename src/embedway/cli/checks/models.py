"""Models: the default model and reranker, weights on this machine, and tuned choices."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embedway.cli.checks.base import Finding, Findings
from embedway.cli.checks.routes import lack_of
from embedway.cli.checks.storage import inspect_folder
from embedway.config.credentials import Access
from embedway.errors import EmbedwayError

if TYPE_CHECKING:
    from embedway.catalog.types import Task
    from embedway.cli.checks.base import Setup
    from embedway.config import Config
    from embedway.weights.store import WeightsStore


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that is used if none is named. `problem` is the reason if it cannot be used."""

    name: str
    here: bool
    problem: str | None


def check_default_model(setup: Setup) -> Findings:
    """Report whether the default model can be used: its weights or a route."""
    config = setup.config
    found, line = inspect_model(config.embedding.default_model, "embed", "embedding.default_model", config)
    return Findings((line,), {"default_model": asdict(found)})


def check_reranker(setup: Setup) -> Findings:
    """Report whether the default reranker can be used; there may be none."""
    name = setup.config.rerank.default_model
    if name is None:
        return Findings((Finding("default reranker", "skipped", "rerank.default_model names none"),))
    _, line = inspect_model(name, "rerank", "rerank.default_model", setup.config)
    # Texts can be embedded without it.
    status = "warning" if line.status == "problem" else line.status
    return Findings((Finding("default reranker", status, line.detail, line.remedy),))


def inspect_model(name: str, task: Task, setting: str, config: Config) -> tuple[DefaultModel, Finding]:
    """Inspect a model of any kind: of a service, a library, the catalog, a repository or a folder."""
    try:
        return _inspect(name, task, setting, config)
    except EmbedwayError as error:
        finding = Finding("default model", "problem", f"{setting}: {error}", f"correct {setting}")
        return DefaultModel(name, here=False, problem=str(error)), finding
    except OSError as error:
        problem = f"{name}: its weights cannot be read: {error.strerror or type(error).__name__}"
        place = str(error.filename or config.weights.directory)
        finding = Finding("default model", "problem", f"{problem}: {place}", "make the folder readable")
        return DefaultModel(name, here=False, problem=problem), finding


def _inspect(name: str, task: Task, setting: str, config: Config) -> tuple[DefaultModel, Finding]:
    from embedway.providers.names import key_of, library_of, service_of
    from embedway.providers.requirements import missing, routes_here, routes_to

    key_of(name, config)
    service, library = service_of(name, config), library_of(name)
    if service is not None:
        # A mistake in one route of the settings blocks the model, even if another route is good.
        own = config.routes_to(service.names).items()
        wrong = [(f"routes.{key}", lack) for key, route in own if (lack := lack_of(key, route, task, config))]
        return _judge_routes(service.name, wrong or routes_here(service, config), setting)
    if library is not None:
        return _judge_routes(name, [(library[0], missing(library[0], Access()))], setting)
    named, here = _find_weights(name, config)
    if here:
        return DefaultModel(named, here=True, problem=None), _ok(f"{named}, its weights are here")
    served = [route for route, lacks in routes_to({name.casefold(), named.casefold()}, config, task=task) if not lacks]
    line = _ok(f"{named}, by {served[0]}") if served and task == "rerank" else _judge_missing(named, config)
    return DefaultModel(named, here=False, problem=None), line


def _ok(detail: str) -> Finding:
    return Finding("default model", "ok", detail)


def _judge_routes(name: str, routes: list[tuple[str, str]], setting: str) -> tuple[DefaultModel, Finding]:
    usable = [route for route, lacks in routes if not lacks]
    if usable:
        return DefaultModel(name, here=True, problem=None), _ok(f"{name}, by {usable[0]}")
    reasons = "; ".join(f"{route}: {lacks}" for route, lacks in routes) or "no route is set up"
    problem = f"no route of {name} can be used: {reasons}"
    remedy = f"correct the route or set its key, or name another model in {setting}"
    return DefaultModel(name, here=False, problem=problem), Finding("default model", "problem", problem, remedy)


def _find_weights(name: str, config: Config) -> tuple[str, bool]:
    """Return the full name of a local model, and whether its weights are here. Raises the errors of the store."""
    from embedway.local.loading import resolve

    named, store = resolve(name), _reading_store(config)
    if named.facts is not None:
        return named.key, store.find(named.facts.weights) is not None
    if named.folder is not None:
        store.open_folder(named.folder)
        return named.key, True
    return named.key, store.find_repository(named.repository or "", named.revision) is not None


def _reading_store(config: Config) -> WeightsStore:
    """Return the store of weights, without writes: hashes of files are not stored."""
    from embedway.weights.store import WeightsStore

    store = WeightsStore(config.store_settings())
    store.hash_cache.is_read_only = True
    return store


def _judge_missing(name: str, config: Config) -> Finding:
    """Return the finding for a model whose weights must be downloaded."""
    weights = config.weights
    folder = inspect_folder(weights.directory)
    if not folder.writable:
        detail = f"{name} must be downloaded, and {folder.path} is not writable"
        return Finding("default model", "problem", detail, "set weights.directory to a writable folder")
    if not weights.offline:
        detail = f"{name} is downloaded at its first use"
        return Finding("default model", "warning", detail, f"`embedway models pull {name}` downloads it now")
    cached = weights.hub_cache / f"models--{name.removeprefix('hf:').replace('/', '--')}"
    if weights.folders or cached.is_dir():
        return _ok(f"{name}, which is copied from a folder at its first use")
    detail = f"{name} is not downloaded, and downloads are disabled"
    remedy = "name a folder that contains it in weights.folders, or set weights.offline = false"
    return Finding("default model", "problem", detail, remedy)


def check_local_models(setup: Setup) -> Findings:
    """List the models of the catalog whose weights are here."""
    from embedway.catalog import default_catalog

    store = _reading_store(setup.config)
    catalog = list(default_catalog())
    try:
        here = [facts.name for facts in catalog if store.find(facts.weights) is not None]
    except OSError as error:
        detail = f"{setup.config.weights.directory} cannot be read: {error.strerror or type(error).__name__}"
        return Findings((Finding("local models", "warning", detail, "make the folder readable"),))
    names = ", ".join(here[:5]) + (f" and {len(here) - 5} more" if len(here) > 5 else "")
    detail = f"{len(here)} of {len(catalog)} of the catalog are here" + (f": {names}" if here else "")
    return Findings((Finding("local models", "ok", detail),))


def check_tuned(setup: Setup) -> Findings:
    """List the choices tuned on this CPU; unreadable files are ignored, as in the runtime."""
    from embedway.local.runtime_choice import choice_path, read_choice

    folder, found = setup.config.tune.directory, []
    try:
        paths = sorted(choice_path(folder, "").parent.glob("*.json"))
    except OSError:
        paths = []
    for path in paths:
        try:
            stored = json.loads(path.read_text("utf-8"))
            choice = read_choice(folder, stored["weights"])
            model = str(stored["model"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if choice is not None:
            shown = f"bulk: {choice.bulk}, {choice.token_budget:,} tokens per batch; single: {choice.single}"
            found.append({"model": model, "choice": shown})
    lines = [Finding(f"tuned {one['model']}", "ok", one["choice"]) for one in found]
    return Findings(tuple(lines), {"tuned": found})
