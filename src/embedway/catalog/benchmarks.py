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
#: Scales of quality scores: the board whose scores selection compares; the user's estimate; the user's measurement.
MTEB_EN, OWN_SCALE, BENCH_SCALE = "mteb-en", "own", "bench"
#: Scales whose scores are compared with one another. Others are compared only if the criteria say so.
COMPARED_SCALES = frozenset({MTEB_EN, OWN_SCALE, BENCH_SCALE})


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
    return {name: _fields(facts, with_same_weights(rows, name), speeds, boards) for name, facts in models.items()}


def with_same_weights(rows: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Return a model's row, with quality and board of the model with the same weights if it names one."""
    row = rows[name]
    other = rows[row["same_weights"]] if "same_weights" in row else {}
    return {**{field: other[field] for field in ("quality", "board", "listed_as") if field in other}, **row}


def _quality_source(row: Mapping[str, Any], boards: Mapping[str, Any], name: str) -> str:
    if "board" not in row:
        return ""
    board = {**boards[row["board"]], **{field: row[field] for field in ("url", "date") if field in row}}
    listed = row.get("listed_as", row.get("same_weights", name))
    weights = " (the same weights)" if "same_weights" in row else ""
    return f"{board['metric']}, for {listed}{weights}, {board['date']}: {board['url']}"


def _fields(
    facts: ModelFacts | ServiceFacts, row: Mapping[str, Any], speeds: Mapping[str, Any], boards: Mapping[str, Any]
) -> dict[str, Any]:
    speed = speeds[row["speed"]]
    source = row.get("strengths_source")
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
        "strengths_source": f"{source['claim']}, {source['date']}: {source['url']}" if source else "",
        "quality_source": _quality_source(row, boards, facts.name),
        "quality_scale": row.get("board", OWN_SCALE),
        "speed_source": speed["by"],
        "measured_on": speed.get("date"),
    }
