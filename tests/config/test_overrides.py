"""Overrides of a call: names with dots, and keys that are set twice."""

import pytest

from embedway.config import Config
from embedway.errors import ConfigError

MODEL = "BAAI/bge-small-en-v1.5"
BENCHMARKS = "embedding.model_benchmarks"


@pytest.mark.parametrize(
    "overrides",
    [
        {f"{BENCHMARKS}.{MODEL}.avg_latency_ms": 5},
        {f"{BENCHMARKS}.{MODEL}": {"avg_latency_ms": 5}},
        {BENCHMARKS: {MODEL: {"avg_latency_ms": 5}}},
        {"embedding": {"model_benchmarks": {MODEL: {"avg_latency_ms": 5}}}},
    ],
)
def test_a_models_name_may_contain_dots(overrides):
    config = Config.load(environ={}, overrides=overrides)
    assert config.embedding.model_benchmarks[MODEL].avg_latency_ms == 5
    assert config.sources[f"{BENCHMARKS}.{MODEL}.avg_latency_ms"] == "arguments"


def test_names_of_routes_models_and_budgets_may_contain_dots():
    overrides = {
        "routes.v1.5.model": "m.2",
        "routes.v1.5.provider": "fake",
        "routes.v1.5.options.a": "1",
        "models.m.2": {"name": "m.2", "dimensions": 8, "max_tokens": 99},
        "budgets.team.a.usd": 5,
    }
    config = Config.load(environ={}, overrides=overrides)
    assert (config.routes["v1.5"].model, config.routes["v1.5"].options["a"]) == ("m.2", "1")
    assert (config.models["m.2"].dimensions, config.budgets["team.a"].usd) == (8, "5.00")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({f"{BENCHMARKS}.{MODEL}.avg_latency": 5}, f"{MODEL}.avg_latency: is not a setting; the nearest is"),
        ({"routes.v1.5.modle": "m"}, "routes.v1.5.modle: is not a setting; the nearest is routes.v1.5.model"),
        ({"budgets.team.a.hard": True}, "budgets.team.a: lacks usd"),
    ],
)
def test_errors_name_the_whole_name(overrides, told):
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=overrides)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"run": {"overlap": 1}, "run.overlap": 2},
        {"run.overlap": 2, "run": {"overlap": 1}},
        {"run.overlap": 2, "run": 5},
        {"run": 5, "run.overlap": 2},
        {f"{BENCHMARKS}.{MODEL}.avg_latency_ms": 5, BENCHMARKS: {MODEL: {"avg_latency_ms": 6}}},
    ],
)
def test_a_key_is_set_once(overrides):
    with pytest.raises(ConfigError, match="is set twice; set it once"):
        Config.load(environ={}, overrides=overrides)


def test_other_keys_of_one_table_are_merged_and_the_callers_tables_are_not_changed():
    run = {"chunk_tokens": 100}
    config = Config.load(environ={}, overrides={"run": run, "run.overlap": 2})
    assert (config.run.chunk_tokens, config.run.overlap, run) == (100, 2, {"chunk_tokens": 100})


def test_a_file_s_names_with_dots_keep_their_secrets_and_folders(tmp_path):
    path = tmp_path / "embedway.toml"
    path.write_text('[routes."v1.5"]\nmodel = "m"\nprovider = "openai"\nca_file = "ca.pem"\n')
    assert Config.load([path], environ={}).routes["v1.5"].ca_file == tmp_path / "ca.pem"
    path.write_text('[routes."v1.5"]\nmodel = "m"\nprovider = "openai"\napi_key = ["sk-secret"]\n')
    with pytest.raises(ConfigError) as caught:
        Config.load([path], environ={})
    assert "sk-secret" not in str(caught.value)
