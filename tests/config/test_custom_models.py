"""Models that have a benchmark and that nothing runs: what they lack is told, and is complete."""

import asyncio
import json
import logging
import tomllib
from importlib import resources

import pytest

from embedway import Config, Embedder, ModelBenchmark
from embedway.cli.checks.base import Setup
from embedway.cli.checks.routes import check_models
from embedway.config.custom_models import find_unrunnable
from embedway.config.layers import overlay
from embedway.errors import UnknownModelError
from own_model import embed_with

TEMPLATES = resources.files("embedway.config").joinpath("templates")
FIELDS = {
    "avg_latency_ms": 60,
    "quality_score": 88,
    "tokens_per_second": 18000,
    "cost_per_million_tokens": 5.0,
    "max_context_length": 2048,
    "embedding_dimensions": 1024,
}
#: The specification's own custom model.
CUSTOM = {**FIELDS, "model_name": "custom-model", "provider": "fastembed", "cost_per_million_tokens": 0.0}
MINE = {**FIELDS, "model_name": "my-model", "provider": "custom"}


def settings(*models):
    return {"embedding": {"model_benchmarks": {fields["model_name"]: fields for fields in models}}}


def load(*models, **overrides):
    return Config.load(environ={}, overrides={**settings(*models), **overrides})


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "embedway.config"]


def test_the_specifications_custom_model_loads_and_is_logged_once(caplog):
    config = load(CUSTOM)
    (told,) = warnings_of(caplog)
    assert config.embedding.model_benchmarks["custom-model"].quality_score == 88
    assert told.startswith("custom-model has a benchmark, but nothing runs it")
    assert "fastembed:custom-model" in told
    tables = tomllib.loads(told.partition("\n")[2])
    assert tables["models"]["custom-model"] == {
        "name": "custom-model",
        "dimensions": 1024,
        "max_tokens": 2048,
        "tokenizer": "library",
        "price_usd_per_million_tokens": "0",
    }
    assert tables["routes"]["custom-model"] == {"model": "custom-model", "provider": "fastembed"}


@pytest.mark.parametrize("way", ["load", "with_benchmarks", "constructor"])
def test_every_way_to_add_a_model_logs_it(caplog, way):
    if way == "load":
        load(MINE)
    elif way == "with_benchmarks":
        config = Config().with_benchmarks({"my-model": ModelBenchmark(**MINE)})
        config.with_benchmarks({"my-model": {"avg_latency_ms": 50}})
    else:
        Config(**settings(MINE))
    assert len(warnings_of(caplog)) == 1


def test_the_tables_of_the_warning_run_the_model(caplog):
    load(MINE)
    tables = tomllib.loads(warnings_of(caplog)[0].partition("\n")[2])
    caplog.clear()
    result = asyncio.run(embed_with(overlay(settings(MINE), tables)))
    assert (result.vectors.shape, result.receipt.model) == ((1, 1024), "my-model")
    assert warnings_of(caplog) == []


def test_only_what_is_missing_is_named(caplog):
    own = {"name": "my-model", "dimensions": 1024, "max_tokens": 99}
    load(MINE, **{"models.m": own})
    load(MINE, **{"routes.r": {"model": "MY-MODEL", "provider": "openai-compatible", "base_url": "http://127.0.0.1:1"}})
    load(
        {**MINE, "model_name": "other"}, **{"models.other": own, "routes.r": {"model": "my-model", "provider": "fake"}}
    )
    without_model, without_route, other = warnings_of(caplog)
    assert "[models." not in without_model
    assert "[routes.my-model]" in without_model
    assert "[models.my-model]" in without_route
    assert "[routes." not in without_route
    assert "[models.other-2]" in other


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"provider": "openai"}, 'provider = "openai"'),
        ({"provider": "azure-openai"}, 'base_url = "https://NAME.openai.azure.com/openai/v1"'),
        ({"provider": "local"}, 'provider = "openai-compatible"'),
        ({"provider": "sentence-transformers"}, "sentence-transformers:my-model"),
        ({"cost_per_million_tokens": "unknown"}, "max_tokens = 2048\n\n[routes"),
        ({"model_name": "Acme/m v1.5"}, '[models.m-v1-5]\nname = "Acme/m v1.5"'),
        ({"model_name": "BAAI/bge-reranker-v2-m3"}, "it is a reranker, which returns no vectors"),
    ],
)
def test_the_tables_are_those_of_the_model(caplog, model, told):
    load({**MINE, **model})
    assert told in warnings_of(caplog)[0]


def test_models_that_something_can_run_are_not_logged(caplog):
    libraries = ("fastembed:BAAI/bge-small-en", "sentence-transformers:a/b", "hf:a/b", "./folder")
    config = load(*({**MINE, "model_name": name} for name in libraries))
    assert list(find_unrunnable(config)) == []
    assert warnings_of(caplog) == []
    Config.load(environ={})
    assert warnings_of(caplog) == []


def test_selection_doctor_and_errors_give_the_same_reason(caplog):
    caplog.set_level(logging.CRITICAL, "embedway.config")
    config = load(CUSTOM, MINE)
    reasons = {model.name: model.reason for model in find_unrunnable(config)}
    with Embedder(config=config) as embedder:
        table = {row.model: row for row in embedder.select(["a text"], "fast", anywhere=True).table}
        assert table["my-model"].candidate.lacks == reasons["my-model"]
        with pytest.raises(UnknownModelError) as caught:
            embedder.embed(["a text"], model="My-Model")
    assert reasons["my-model"] in str(caught.value)
    lines = {line.name: line for line in check_models(Setup(config, is_loaded=True, files=(), online=False)).lines}
    for name, reason in reasons.items():
        assert (lines[f"benchmark {name}"].status, lines[f"benchmark {name}"].detail) == ("warning", reason)


def test_library_models_and_repositories_are_candidates():
    names = ("fastembed:BAAI/bge-small-en", "hf:acme/none", "./no-folder")
    config = load(*({**MINE, "model_name": name} for name in names))
    with Embedder(config=config) as embedder:
        table = {row.model: row.candidate.lacks for row in embedder.select(["a text"], "fast", anywhere=True).table}
    assert "nothing runs it" not in "".join(table[name] for name in names)
    assert table["hf:acme/none"] == "weights missing: embedway models pull hf:acme/none"
    assert table["./no-folder"].startswith("no folder ")


@pytest.mark.parametrize("file", ["custom-benchmarks.json", "custom-benchmarks.toml"])
def test_the_template_runs_against_a_server(file):
    text = TEMPLATES.joinpath(file).read_text("utf-8")
    settings = json.loads(text) if file.endswith("json") else tomllib.loads(text)
    settings.pop("$schema", None)
    result = asyncio.run(embed_with(settings))
    assert result.vectors.shape == (1, 1024)
    assert result.receipt.cost_nanousd == result.receipt.billed_tokens * 50


def test_both_templates_are_the_same_settings():
    paths = [TEMPLATES.joinpath(f"custom-benchmarks.{kind}") for kind in ("json", "toml")]
    one, other = (Config.load([path], environ={}) for path in paths)
    assert (one.models, one.routes) == (other.models, other.routes)
    assert one.embedding.model_benchmarks["my-model"].model_dump() == (
        other.embedding.model_benchmarks["my-model"].model_dump()
    )
