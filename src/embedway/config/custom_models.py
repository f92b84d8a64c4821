"""Models with a benchmark that nothing can run, and the tables of settings that they need."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.config.known_services import BUILT_IN
from embedway.config.local_models import LIBRARY_MODULES, is_known_model, is_reranker
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from embedway.config.benchmarks import ModelBenchmark
    from embedway.config.load import Config

_log = logging.getLogger("embedway.config")
#: URLs to replace, of providers without a default one.
_URLS = {
    "openai-compatible": "http://127.0.0.1:8000/v1",
    "azure-openai": "https://NAME.openai.azure.com/openai/v1",
}
_RERANKER = "it is a reranker, which returns no vectors"
_PRICE = re.compile(r"\d{1,6}(\.\d{1,6})?")


@dataclass(frozen=True, slots=True)
class UnrunnableModel:
    """A model with a benchmark that nothing can run, and the missing tables, each with its lines, in TOML."""

    name: str
    tables: tuple[tuple[str, tuple[str, ...]], ...]
    #: Name under which a library would run it; empty for none.
    library_name: str = ""

    @property
    def reason(self) -> str:
        """The reason and the names of the missing tables, on one line. The warning in the log has their lines."""
        if not self.tables:
            return _RERANKER
        tables = " and ".join(head for head, _ in self.tables)
        return f"nothing runs it: add {tables}, see the warning in the log"

    @property
    def toml(self) -> str:
        """The missing tables, to copy to a settings file."""
        return "\n\n".join("\n".join((head, *lines)) for head, lines in self.tables)

    def __str__(self) -> str:
        """Return the note for a log."""
        if not self.tables:
            return f"{printable(self.name)} has a benchmark, but {_RERANKER}"
        other = f" (or name its benchmark {self.library_name})" if self.library_name else ""
        return (
            f"{printable(self.name)} has a benchmark, but nothing runs it, so it is selected only with `anywhere`. "
            f"To run it, add to a settings file{other}:\n{self.toml}"
        )


def find_unrunnable(config: Config) -> Iterator[UnrunnableModel]:
    """Iterate over the models with a benchmark that nothing can run, even with every key and all weights."""
    for name, benchmark in config.embedding.model_benchmarks.items():
        found = explain_unrunnable(name, benchmark, config)
        if found is not None:
            yield found


def log_unrunnable(config: Config, names: Iterable[str] | None = None) -> None:
    """Log a warning for each model that nothing can run; with `names`, only for these."""
    wanted = None if names is None else frozenset(names)
    for model in find_unrunnable(config):
        if wanted is None or model.name in wanted:
            _log.warning("%s", model)


def explain_unrunnable(name: str, benchmark: ModelBenchmark, config: Config) -> UnrunnableModel | None:
    """Return the tables without which nothing can run a model; None if nothing is missing."""
    own = next((model for model in config.models.values() if model.name.casefold() == name.casefold()), None)
    routes = config.routes_to({name.casefold()})
    if is_reranker(name, config):
        return UnrunnableModel(name, ())
    if (own is not None and routes) or (own is None and (is_known_model(name, config) or _is_folder(name))):
        return None
    provider = _route_provider(benchmark.provider)
    library = provider if provider in LIBRARY_MODULES else ""
    tables = []
    if own is None:
        tables.append((f"[models.{_key(name, config.models)}]", tuple(_model_lines(name, benchmark, library))))
    if not routes:
        tables.append((f"[routes.{_key(name, config.routes)}]", tuple(_route_lines(name, provider))))
    return UnrunnableModel(name, tuple(tables), f"{library}:{printable(name)}" if library else "")


def _is_folder(name: str) -> bool:
    try:
        return name.startswith((".", "/", "~")) or ("/" in name and Path(name).is_dir())
    except (OSError, ValueError):
        return False


def _route_provider(provider: str) -> str:
    """Return the provider of a route: the benchmark's, if it is one, or the one for servers with OpenAI's interface."""
    installed = importlib.metadata.entry_points(group="embedway.providers", name=provider)
    return provider if (provider in BUILT_IN or installed) and provider != "local" else "openai-compatible"


def _key(name: str, taken: Iterable[str]) -> str:
    """Return an unused key for a model's table, made of its name."""
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", name.rpartition("/")[2]).strip("-") or "mine"
    used = {one.casefold() for one in taken}
    return next(one for one in (key, *(f"{key}-{n}" for n in range(2, len(used) + 3))) if one.casefold() not in used)


def _model_lines(name: str, benchmark: ModelBenchmark, library: str) -> Iterator[str]:
    yield f"name = {_quoted(name)}"
    yield f"dimensions = {benchmark.embedding_dimensions}"
    yield f"max_tokens = {benchmark.max_context_length}"
    if library:
        yield 'tokenizer = "library"'
    price = benchmark.cost_per_million_tokens
    text = "" if price is None else f"{price:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if _PRICE.fullmatch(text):
        yield f'price_usd_per_million_tokens = "{text}"'


def _route_lines(name: str, provider: str) -> Iterator[str]:
    yield f"model = {_quoted(name)}"
    yield f"provider = {_quoted(provider)}"
    if provider in _URLS:
        yield f"base_url = {_quoted(_URLS[provider])}"


def _quoted(text: str) -> str:
    """Return a string of TOML."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
