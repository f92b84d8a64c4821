"""Settings are read-only: every change is checked, and each assignment says what to do instead."""

import copy
import pickle

import pytest

from embedway import Config, ModelBenchmark
from embedway.config.benchmarks import shipped_benchmarks
from embedway.config.routes import RouteSettings
from embedway.errors import ConfigError, UsageError

SMALL = "text-embedding-3-small"
ROUTE = {"model": "m", "provider": "fake", "options": {"a": "1"}, "headers": {"X-Team": "search"}}
SETTINGS = {
    "routes.x": ROUTE,
    "budgets.main.usd": 1,
    "models.m": {"name": "m", "dimensions": 8, "max_tokens": 99},
}


@pytest.fixture
def config():
    return Config.load(environ={}, overrides=SETTINGS)


def test_the_assignments_of_the_specification_name_the_call_to_write(config):
    benchmarks = config.embedding.model_benchmarks
    with pytest.raises(UsageError) as caught:
        benchmarks[SMALL].avg_latency_ms = 65
    call = f"config.with_benchmarks({{'{SMALL}': {{'avg_latency_ms': 65}}}})"
    assert str(caught.value).endswith(f"write config = {call}")
    assert eval(call).embedding.model_benchmarks[SMALL].avg_latency_ms == 65  # noqa: S307  the error's own call
    with pytest.raises(
        UsageError, match=r"write config = config\.with_benchmarks\(\{'my-model': ModelBenchmark\(…\)\}"
    ):
        benchmarks["my-model"] = benchmarks[SMALL]
    assert "my-model" not in benchmarks


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: setattr(config.cache, "backend", "none"), "overrides={'cache.backend': …}"),
        (lambda config: setattr(config.upstream, "max_attempts", 3), "overrides={'upstream.max_attempts': 3}"),
        (lambda config: setattr(config, "cache", None), "overrides={'cache': …}"),
        (lambda config: setattr(config.routes["x"], "model", "n"), "overrides={'routes.NAME.model': …}"),
        (lambda config: setattr(config.embedding, "model_benchmarks", {}), "with_benchmarks({'NAME': {…}})"),
        (lambda config: setattr(config.cache, "colour", 1), "CacheSettings has no field colour"),
        (lambda config: delattr(config.cache, "backend"), "overrides={'cache.backend': …}"),
        (lambda config: config.budgets.update(other=5), "overrides={'budgets.other': …}"),
        (lambda config: config.routes.__setitem__("y", 5), "overrides={'routes.y': …}"),
        (lambda config: config.routes["x"].options.update({"b": "2"}), "overrides={'routes.x.options.b': …}"),
        (lambda config: config.routes["x"].headers.__setitem__("b", "2"), "overrides={'routes.x.headers.b': …}"),
        (lambda config: config.routes["x"].options.clear(), "routes.x.options cannot be removed from settings"),
        (lambda config: config.models["m"].__init__(name="n"), "model_copy(update={…}), or a new ModelSettings(…)"),
        (lambda config: config.cache.__init__(backend="redis"), "or a new CacheSettings(…)"),
        (lambda config: config.__init__(), "or a new Config(…)"),
        (lambda config: RouteSettings(**ROUTE).options.update(a="2"), "overrides={'routes.NAME.options.a': …}"),
        (lambda config: config.models.pop("m"), "models cannot be removed from settings; load them without"),
        (lambda config: config.embedding.model_benchmarks.clear(), "limit a selection to models with selection.models"),
        (lambda config: Config().budgets.setdefault("x", 5), "overrides={'budgets.x': …}"),
    ],
)
def test_assignments_are_refused_in_every_section(config, change, told):
    before = config.model_dump()
    with pytest.raises(UsageError) as caught:
        change(config)
    assert told in str(caught.value)
    assert config.model_dump() == before


@pytest.mark.parametrize("table", ["options", "headers"])
def test_the_advice_of_a_table_within_a_route_can_be_followed(config, table):
    with pytest.raises(UsageError) as caught:
        getattr(config.routes["x"], table)["b"] = "2"
    key = str(caught.value).partition("{'")[2].partition("'")[0]
    changed = Config.load(environ={}, overrides={**SETTINGS, key: "2"})
    assert set(getattr(changed.routes["x"], table)) == {*ROUTE[table], "b"}


def test_no_secret_is_in_the_error_of_an_assignment(config):
    with pytest.raises(UsageError) as caught:
        config.routes["x"].api_key = "sk-secret"
    assert "sk-secret" not in str(caught.value)


def test_copies_with_changes_are_checked(config):
    benchmark = config.embedding.model_benchmarks[SMALL]
    assert benchmark.model_copy(update={"quality_score": 87}).quality_score == 87
    assert config.model_copy(update={"cache": {"backend": "memory"}}).cache.backend == "memory"
    assert config.model_copy(update={"run": config.run}).sources == config.sources
    for copied in (benchmark.model_copy, benchmark.__replace__):
        with pytest.raises(
            ConfigError, match="ModelBenchmark: quality_score: is 187; must be less than or equal to 100"
        ):
            copied(update={"quality_score": 187}) if copied == benchmark.model_copy else copied(quality_score=187)
    with pytest.raises(ConfigError, match="colour: is not a setting"):
        benchmark.model_copy(update={"colour": 1})
    with pytest.raises(ConfigError, match="must be a mapping of fields to values"):
        benchmark.model_copy(update=5)
    with pytest.raises(UsageError, match="write ModelBenchmark"):
        ModelBenchmark.model_construct(quality_score=999)
    with pytest.raises(UsageError, match="write model_copy"):
        benchmark.copy(update={"quality_score": 187})


def test_changes_behind_the_checks_stay_in_one_configuration():
    object.__setattr__(Config().embedding.model_benchmarks[SMALL], "quality_score", 187)
    assert Config().embedding.model_benchmarks[SMALL] == shipped_benchmarks()[SMALL]


def test_read_only_settings_are_copied_and_pickled(config):
    for same in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):  # noqa: S301  our own
        assert same == config
        with pytest.raises(UsageError):
            same.budgets["x"] = 5
    assert type(config.budgets | {"x": 5}) is dict
