"""Values and tables from environment variables."""

import datetime as dt

import pytest

from embedway.config import Config
from embedway.errors import ConfigError

ROUTE = {"EMBEDWAY_ROUTES__R__MODEL": "m", "EMBEDWAY_ROUTES__R__PROVIDER": "fake"}
BENCHMARKS = "EMBEDWAY_EMBEDDING__MODEL_BENCHMARKS"
SMALL = "text-embedding-3-small"


def load(environ, **given):
    return Config.load(
        environ={f"EMBEDWAY_{name}".replace("EMBEDWAY_EMBEDWAY_", "EMBEDWAY_"): text for name, text in environ.items()},
        **given,
    )


def refused(environ):
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return str(caught.value)


@pytest.mark.parametrize("text", ['{"a": "b"}', '{a = "b"}', '{"a"="b"}'])
def test_a_table_in_json_or_toml(text):
    config = load({**ROUTE, "ROUTES__R__OPTIONS": text})
    assert config.routes["r"].options == {"a": "b"}
    assert config.sources["routes.r.options.a"] == "environment: EMBEDWAY_ROUTES__R__OPTIONS"
    assert load({**ROUTE, "ROUTES__R__OPTIONS__ALLOW_HTTP": "true"}).routes["r"].options == {"allow_http": "true"}


def test_names_that_a_variable_cannot_spell():
    table = '{"text-embedding-3-small": {"quality_score": 62.5}, "BAAI/bge-m3": {"avg_latency_ms": 7}}'
    held = load({BENCHMARKS: table}).embedding.model_benchmarks
    assert (held[SMALL].quality_score, held["BAAI/bge-m3"].avg_latency_ms) == (62.5, 7)
    toml = f'{{"{SMALL}" = {{measured_on = 2026-11-26}}}}'
    assert load({BENCHMARKS: toml}).embedding.model_benchmarks[SMALL].measured_on == dt.date(2026, 11, 26)
    budgets = load({"BUDGETS": '{"Team A/b.c": {"usd": 5}}', "BUDGETS__A__USD": "3"}).budgets
    assert {name: budget.usd for name, budget in budgets.items()} == {"Team A/b.c": "5.00", "a": "3.00"}


def test_names_have_the_case_of_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[budgets.Main]\nusd = 1\n[budgets.x]\nusd = 1\n[budgets.X]\nusd = 2\n")
    environ = {"BUDGETS__MAIN__USD": "7", "BUDGETS__X__PERIOD": "day"}
    config = load(environ, files=[path])
    assert {name: (one.usd, one.period) for name, one in config.budgets.items()} == {
        "Main": ("7.00", "total"),
        "x": ("1.00", "day"),
        "X": ("2.00", "total"),
    }
    assert config.sources["budgets.Main.usd"] == "environment: EMBEDWAY_BUDGETS__MAIN__USD"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("UPSTREAM__FIRST_WAIT_S", " 1e-3 ", 0.001),
        ("UPSTREAM__FIRST_WAIT_S", "5", 5.0),
        ("UPSTREAM__MAX_ATTEMPTS", "+7", 7),
        ("WEIGHTS__PLACES", "hub, wheel", ("hub", "wheel")),
        ("WEIGHTS__PLACES", '["hub"]', ("hub",)),
        ("BUDGETS__B__USD", "1e-3", "0.001"),
        ("BUDGETS__B__HARD", "no", False),
        ("BUDGETS__B__WARN_AT", "50, 80", (50, 80)),
        ("BUDGETS__B__WARN_AT", "[50, 80]", (50, 80)),
        (f"{BENCHMARKS[9:]}__ACME__QUALITY_SCORE", "62.5", 62.5),
    ],
)
def test_numbers_booleans_and_lists(variable, text, value):
    rest = {"model_name": "acme", "provider": "p", "avg_latency_ms": 1, "quality_score": 60, "tokens_per_second": 100}
    rest |= {"cost_per_million_tokens": 0, "max_context_length": 1, "embedding_dimensions": 1}
    acme = {f"{BENCHMARKS}__ACME__{name.upper()}": str(one) for name, one in rest.items()}
    config = load({"BUDGETS__B__USD": "1", **acme, variable: text})
    found = config
    for part in variable.lower().split("__"):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LOCAL__THREADS": "0x10"}, "local.threads: is '0x10'; must be an integer (set by EMBEDWAY_LOCAL__THREADS)"),
        ({"LOCAL__THREADS": "1e3"}, "must be an integer (set by EMBEDWAY_LOCAL__THREADS)"),
        ({"LOCAL__THREADS": "9" * 5000}, "must be an integer (set by"),
        ({"LOCAL__THREADS": "9999999999999"}, "must be less than or equal to 1000000000000 (set by"),
        ({"UPSTREAM__TIMEOUT_S": "1e999"}, "must be a finite number (set by"),
        ({"UPSTREAM__TIMEOUT_S": "NaN"}, "must be a number (set by"),
        ({"UPSTREAM__TIMEOUT_S": "1,5"}, "must be a number (set by"),
        ({"UPSTREAM__TIMEOUT_S": "1e12"}, "must be less than or equal to 1000000000 (set by"),
        ({"BUDGETS__A__PERIOD": "day"}, "budgets.a: lacks usd (set by EMBEDWAY_BUDGETS__A__PERIOD)"),
        ({"BUDGETS": '{"a": {}}'}, "budgets.a: lacks usd (set by EMBEDWAY_BUDGETS)"),
        (
            {"BUDGETS": '{"a": {"usd": 1, "usd": 2}}'},
            "budgets.a.usd: is set twice; set it once (set by EMBEDWAY_BUDGETS)",
        ),
        ({"CACHE": "none"}, "cache: must be a table of settings, in JSON or TOML"),
        ({"CACHE": '{"a":'}, "is neither a JSON object nor an inline table of TOML"),
        ({"CACHE": "{a = 1}\nb = 2"}, "is neither a JSON object nor an inline table of TOML"),
        ({"CACHE": '{"a":' * 100_000}, "too large or too deeply nested (set by EMBEDWAY_CACHE)"),
        ({"CACHE": '{"a":' * 30 + "1" + "}" * 30}, "too deeply nested (set by EMBEDWAY_CACHE)"),
        ({"CACHE": f'{{"memory_mib": {"9" * 5000}}}'}, "too large or too deeply nested (set by EMBEDWAY_CACHE)"),
        ({"WEIGHTS__FOLDERS": "[" * 100_000}, "too large or too deeply nested (set by EMBEDWAY_WEIGHTS__FOLDERS)"),
        ({"CACHE__NAMESPACE": "\udcff"}, "cache.namespace: is not UTF-8 (set by EMBEDWAY_CACHE__NAMESPACE)"),
        ({"CACHE__\udcff": "1"}, "is not a setting (set by EMBEDWAY_CACHE__"),
        ({"CACHE_BACKEND": "none"}, "is not a setting; the nearest is cache.backend (set by EMBEDWAY_CACHE_BACKEND)"),
    ],
)
def test_invalid_texts_name_the_variable(environ, message):
    assert message in refused(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"CACHE__BACKEND": "none", "cache__backend": "memory"},
        {"CACHE": '{"backend": "none"}', "CACHE__BACKEND": "memory"},
        {"BUDGETS": '{"a": {"usd": 1}}', "BUDGETS__A__USD": "2"},
        {"BUDGETS": '{"a": 5}', "BUDGETS__A__USD": "2"},
        {"CACHE__BACKEND": "none", "CACHE__BACKEND__X": "1"},
    ],
)
def test_a_key_of_two_variables_is_an_error_that_names_both(environ):
    message = refused(environ)
    assert all(f"EMBEDWAY_{name}" in message for name in environ)
    assert "is set twice, by" in message


def test_a_table_and_other_keys_of_it_are_merged():
    config = load({"CACHE": '{"backend": "none"}', "CACHE__CODEC": "f16"})
    assert (config.cache.backend, config.cache.codec) == ("none", "f16")


@pytest.mark.parametrize(
    "name", ["CACHE", "BUDGETS", "ROUTES__R__OPTIONS", "EMBEDDING__MODEL_BENCHMARKS", "BUDGETS__A__USD"]
)
def test_empty_variables_of_tables_and_of_user_names_are_unset(name):
    assert load({name: " "}) == Config.load(environ={})


def test_a_path_may_contain_other_bytes():
    assert str(load({"CACHE__PATH": "/tmp/\udcff"}).cache.path) == "/tmp/\udcff"  # noqa: S108  not created


def test_a_secret_in_a_table_is_not_shown():
    for text in (
        '{"url": "redis://:TOPSECRETpw#@h"}',
        '{"url": ["TOPSECRETpw"]}',
        '{"url": "TOPSECRETpw"',
        "TOPSECRETpw",
    ):
        assert "TOPSECRETpw" not in refused({"CACHE": text})
