"""Default quality and speed numbers of models, from `benchmarks.toml`, whose rows name their sources."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any

from embedway.catalog.load import default_catalog
from embedway.catalog.services import ServiceFacts, default_services
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.catalog.types import ModelFacts

_FILE = "embedway/catalog/benchmarks.toml"
#: Providers that run models on this machine: they are free, and no text leaves it.
LOCAL_PROVIDERS = frozenset({"local", "fastembed", "sentence-transformers"})


@functools.cache
def default_benchmarks() -> Mapping[str, Mapping[str, Any]]:
    """Return the benchmark fields of every embedding model, by its canonical name.

    Prices, limits, sizes and languages are from the catalog. Raises ConfigError for a row without a model, and for a
    model without a row.
    """
    text = resources.files("embedway.catalog").joinpath("benchmarks.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    rows, speeds, boards = document["models"], document["speeds"], document["boards"]
    services = {facts.name: facts for facts in default_services().values() if facts.task == "embed"}
    models: dict[str, ModelFacts | ServiceFacts] = {
        facts.name: facts for facts in default_catalog() if facts.dimensions
    }
    models |= services
    for name in rows:
        if name not in models:
            raise ConfigError("no embedding model in the catalog has this name", where=_FILE, key=f"models.{name}")
    for name in models:
        if name not in rows:
            raise ConfigError("this model in the catalog has no row", where=_FILE, key=f"models.{name}")
    return {name: _fields(facts, rows[name], speeds, boards) for name, facts in models.items()}


def _fields(
    facts: ModelFacts | ServiceFacts, row: Mapping[str, Any], speeds: Mapping[str, Any], boards: Mapping[str, Any]
) -> dict[str, Any]:
    speed = speeds[row["speed"]]
    board = boards[row["board"]] if "board" in row else None
    service = isinstance(facts, ServiceFacts)
    price = facts.price_usd_per_million_tokens if isinstance(facts, ServiceFacts) else 0
    return {
        "model_name": facts.name,
        "provider": facts.routes[0].provider if isinstance(facts, ServiceFacts) else "local",
        "avg_latency_ms": speed["avg_latency_ms"],
        "quality_score": row.get("quality"),
        "tokens_per_second": speed["tokens_per_second"],
        "cost_per_million_tokens": price,
        "max_context_length": facts.max_tokens,
        "embedding_dimensions": facts.default_dimensions if isinstance(facts, ServiceFacts) else facts.dimensions,
        "multilingual": facts.languages == ("mul",) or len(facts.languages) > 1,
        "languages": facts.languages,
        "licence": facts.licence,
        "strengths": tuple(row.get("strengths", ())),
        "quality_source": f"{board['metric']}: {board['url']}" if board else "",
        "quality_comparable": bool(board and board["comparable"]),
        "speed_source": speed["by"],
        "measured_on": (board if service and board else speed).get("date"),
    }
