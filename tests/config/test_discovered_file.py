"""A discovered `embedway.toml`, not named by the user: allowed settings, ignored ones, and the log line."""

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.catalog import DEFAULT_MODEL
from embedway.config import Config, discovered_file
from embedway.config.discovered_file import BUDGET_SUFFIX
from embedway.config.load import KEYS
from embedway.errors import ConfigError
from embedway.ledger.base import Limit, Purpose, Refused, Settlement
from embedway.ledger.opening import limits_of
from embedway.ledger.sqlite import SqliteLedger
from embedway.providers.names import full_name
from embedway.selection.candidates import Candidates
from embedway.selection.criteria import PRESETS, ModelSelectionCriteria
from embedway.selection.scoring import score

#: Every setting that is always allowed in a discovered file, with a value other than the default.
HARMLESS = {"run.chunk_tokens": 200, "run.overlap": 20, "embedding.on_overflow": "error"}
#: Settings that are allowed by their value.
JUDGED = {"embedding.default_model", "rerank.default_model"}
SERVER = "text-embedding-3-small"
FILE = Path("embedway.toml")


@pytest.fixture(autouse=True)
def _empty_place(tmp_path, monkeypatch):
    """Use a working directory without settings, and no settings or token of the user who runs the tests."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in [*os.environ]:
        if name.startswith(("EMBEDWAY_", "HF_", "HUGGING_FACE", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def warnings(caplog):
    """Lines that a load logged."""
    caplog.set_level(logging.WARNING, logger="embedway.config")
    return lambda: caplog.messages


@pytest.fixture
def with_weights(default_model_directory):
    """Environment of a machine that has only the default model."""
    return {"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory)}


def toml(values, above=()):
    """Return nested values as TOML. Its scalars, lists and strings equal JSON's for the values used here."""
    lines = [f"[{'.'.join(map(json.dumps, above))}]"] if above else []
    lines += [f"{json.dumps(name)} = {json.dumps(one)}" for name, one in values.items() if not isinstance(one, dict)]
    tables = [toml(one, (*above, name)) for name, one in values.items() if isinstance(one, dict)]
    return "\n".join([*lines, *tables])


def find(text, environ=None, **overrides):
    """Load the settings with such a file in the working directory."""
    FILE.write_text(text if isinstance(text, str) else toml(text), encoding="utf-8")
    return Config.load(environ=environ or {}, overrides=overrides)


# ------------------------------------------------------------ every key


def everything():
    """Return a value for every key, with tables named `t`. Ignored keys may have any value."""
    values = {}
    for key in KEYS.all:
        *tables, name = key.replace("*", "t").split(".")
        inner = values
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[name] = HARMLESS.get(key, "no-such-value")
    del values["budgets"]  # they are extra budgets, see below
    return values


def test_every_key_is_ignored_but_those_that_are_listed(warnings):
    config = find(everything())
    assert {key for key in config.sources if not key.startswith("services.")} == set(HARMLESS)
    ignored = {key.replace("*", "t") for key in KEYS.all if key not in HARMLESS and not key.startswith("budgets.")}
    assert set(config.ignored) == ignored
    assert ignored >= JUDGED
    assert (config.run.chunk_tokens, config.run.overlap, config.embedding.on_overflow) == (200, 20, "error")
    others = {name for name in type(config).model_fields if name not in {"run", "embedding"}}
    default = Config.load([_empty_file()], environ={})
    assert all(getattr(config, name) == getattr(default, name) for name in others)
    assert len(warnings()) == 1


def _empty_file():
    Path("empty.toml").touch()
    return "empty.toml"


def test_keys_that_no_version_knows_are_ignored_too(warnings):
    config = find('run = 5\n"run.overlap" = 3\n[later]\nkey = 1\n[run2]\na.b.c.d.e.f = 1\n[[routes]]\nmodel = "m"\n')
    assert config.sources == {}
    assert config.ignored == ("run", "run.overlap", "later.key", "run2.a.b.c", "routes")


def test_a_named_file_is_used_and_nothing_is_logged(warnings):
    find("[local]\nthreads = 3\n")
    assert len(warnings()) == 1
    named = Config.load(["embedway.toml"], environ={})
    assert (named.local.threads, named.ignored) == (3, ())
    other = Config.load([_empty_file()], environ={})
    assert (other.local.threads, other.ignored) == (None, ())
    assert len(warnings()) == 1


def test_the_line_names_keys_and_what_allows_them_and_nothing_of_their_values(warnings):
    find('[routes.x]\nbase_url = "https://secret-host.example"\napi_key = "sk-secret"\n')
    (line,) = warnings()
    assert "\n" not in line
    assert os.path.realpath("embedway.toml") in line
    for word in ("routes.x.base_url", "routes.x.api_key", "`embedway trust`", "--config embedway.toml"):
        assert word in line
    assert "secret" not in line


def test_the_line_is_short_and_plain_whatever_the_file_holds(warnings):
    names = [f"\x1b[31m{'n' * 70}\u202e{number}" for number in range(400)]
    config = find({"routes": {name: {"model": "m"} for name in names}, "a\nb": 1})
    (line,) = warnings()
    assert line.isprintable()
    assert len(line) < 1200
    assert "and 395 more" in line
    assert len(config.ignored) == 401
    assert all(key.isprintable() and len(key) < 200 for key in config.ignored)


# ------------------------------------------------------------ reading


def test_a_file_that_is_no_toml_is_an_error_with_its_place():
    with pytest.raises(ConfigError, match=r"embedway\.toml:2:6: is not TOML"):
        find("[run]\nthis is\n")


def test_tables_in_tables_are_ignored_as_one_and_without_end_they_are_an_error():
    assert find(".".join(["a"] * 100) + " = 1\n").ignored == ("a.a.a.a",)
    with pytest.raises(ConfigError, match=r"embedway\.toml:2: has more than 200 dots"):
        find("\n" + ".".join(["a"] * 500) + " = 1\n")
    with pytest.raises(ConfigError, match=r"embedway\.toml: contains a value that is too large or too deeply nested"):
        find("a = " + "[" * 50_000)


def test_what_takes_seconds_to_read_is_an_error_that_names_what_to_do():
    header = f"[{'.'.join(['a'] * 100)}]\n"
    with pytest.raises(ConfigError, match=r"embedway\.toml:3: has more than 40 dots; pass the file with --config"):
        find(f"\n\n  {header}" + "".join(f"x{number}=1\n" for number in range(5_000)))
    with pytest.raises(ConfigError, match=r"embedway\.toml: has more than 4,000 dots and is not trusted; pass"):
        find("".join(f"x{number}{'.a' * 150} = 1\n" for number in range(100)))
    with pytest.raises(ConfigError, match=r"embedway\.toml: has more than 65,536 bytes and is not trusted; pass"):
        find("".join(f"[budgets.b{number}]\nusd=1\n" for number in range(10_000)))


def test_named_a_file_may_be_larger_and_deeper():
    text = "".join(f"[budgets.b{number}]\nusd=1\n" for number in range(4_000)) + "# " + "." * 5_000
    FILE.write_text(text)
    assert len(Config.load([FILE], environ={}).budgets) == 4_000


def test_pipes_folders_and_large_files_are_errors_and_do_not_block(tmp_path):
    os.mkfifo(FILE)
    with pytest.raises(ConfigError, match="is not a regular file"):
        Config.load(environ={})
    FILE.unlink()
    FILE.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is not a regular file"):
        Config.load(environ={})
    FILE.unlink()
    FILE.mkdir()
    with pytest.raises(ConfigError, match="is not a regular file"):
        Config.load(environ={})
    FILE.rmdir()
    FILE.symlink_to("nothing")
    assert Config.load(environ={}).ignored == ()
    FILE.unlink()
    with pytest.raises(ConfigError, match="has more than 1,048,576 bytes"):
        find("# " + "x" * 2**20)


# ------------------------------------------------------------ models


def test_a_model_of_the_catalog_is_taken_where_its_weights_are_here(with_weights):
    for name in ("all-MiniLM-L6-v2", DEFAULT_MODEL):
        config = find({"embedding": {"default_model": name}}, with_weights)
        assert (config.embedding.default_model, config.ignored) == (name, ())


@pytest.mark.parametrize(
    "name",
    [
        SERVER,
        "voyage-4",
        "BAAI/bge-small-en-v1.5",
        "hf:acme/x",
        "hf:../../x",
        "./model",
        "/model",
        "~/model",
        "acme/model",
        "fastembed:BAAI/bge-small-en-v1.5",
        "sentence-transformers:acme/model",
        "BAAI/bge-reranker-v2-m3",
        "no model at all",
        "",
        7,
    ],
)
def test_a_model_that_sends_texts_away_fetches_or_is_a_folder_is_not(with_weights, name):
    for folder in ("model", "acme/model", "BAAI/bge-small-en-v1.5"):
        Path(folder).mkdir(parents=True)
    environ = {**with_weights, "OPENAI_API_KEY": "k", "VOYAGE_API_KEY": "k"}
    config = find({"embedding": {"default_model": name}, "rerank": {"default_model": name}}, environ)
    assert config.ignored == ("embedding.default_model", "rerank.default_model")
    assert (config.embedding.default_model, config.rerank.default_model) == ("auto", None)


@pytest.mark.parametrize("provider", ["fastembed", "sentence-transformers"])
def test_a_librarys_model_with_a_name_that_no_file_has_is_ignored(provider):
    config = find({"embedding": {"default_model": f"{provider}:a/{'b' * 5_000}"}})
    assert config.ignored == ("embedding.default_model",)


@pytest.mark.parametrize(
    "route",
    [
        {"provider": "openai-compatible", "base_url": "http://127.0.0.1:1"},
        {"provider": "sentence-transformers", "options": {"trust_remote_code": "true"}},
    ],
)
def test_a_local_model_with_a_route_of_the_users_that_leads_elsewhere_is_not(with_weights, route):
    overrides = {f"routes.r.{key}": value for key, value in route.items()} | {"routes.r.model": "all-MiniLM-L6-v2"}
    config = find({"embedding": {"default_model": DEFAULT_MODEL}}, with_weights, **overrides)
    assert config.ignored == ("embedding.default_model",)


def test_a_model_of_the_settings_does_not_become_the_default(with_weights):
    own = {"name": "acme/m", "dimensions": 16, "max_tokens": 100}
    environ = {**with_weights}
    config = find({"embedding": {"default_model": "acme/m"}}, environ, **{"models.m": own})
    assert config.ignored == ("embedding.default_model",)


def test_a_librarys_model_is_taken_where_library_and_weights_are_here(tmp_path, monkeypatch, with_weights):
    package = tmp_path / "site/sentence_transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    name = "sentence-transformers:acme/small"
    environ = {**with_weights, "HF_HUB_CACHE": str(tmp_path / "hub")}
    assert find({"embedding": {"default_model": name}}, environ).ignored == ("embedding.default_model",)
    (tmp_path / "hub/models--acme--small/snapshots/0").mkdir(parents=True)
    assert find({"embedding": {"default_model": name}}, environ).ignored == ("embedding.default_model",)
    monkeypatch.syspath_prepend(package.parent)
    assert find({"embedding": {"default_model": name}}, environ).embedding.default_model == name
    assert find({"rerank": {"default_model": name}}, environ).rerank.default_model == name
    # The library would use the folder as the model.
    Path("acme/small").mkdir(parents=True)
    assert find({"embedding": {"default_model": name}}, environ).ignored == ("embedding.default_model",)


# ------------------------------------------------------------ budgets


def test_a_discovered_budget_is_added_and_replaces_no_other():
    mine = {"usd": "5.00", "hard": True}
    found = {"mine": {"usd": "1000", "hard": False, "warn_at": [1]}, "other": {"usd": "1", "later": "x"}}
    config = find({"budgets": found}, **{"budgets.mine": mine, f"budgets.other{BUDGET_SUFFIX}": {"usd": "7"}})
    assert config.budgets["mine"].usd == "5.00"
    assert (config.budgets["mine"].hard, config.budgets["mine"].warn_at) == (True, (50, 80, 100))
    assert config.budgets[f"other{BUDGET_SUFFIX}"].usd == "7.00"
    assert config.budgets[f"other{BUDGET_SUFFIX}{BUDGET_SUFFIX}"].usd == "1.00"
    assert config.budgets[f"mine{BUDGET_SUFFIX}"].usd == "1000.00"
    assert config.ignored == ("budgets.other.later",)
    # Two names of the file never merge into one.
    both = {"a": {"usd": "1"}, f"a{BUDGET_SUFFIX}": {"usd": "2"}}
    config = find({"budgets": both}, **{f"budgets.a{BUDGET_SUFFIX}": {"usd": "3"}})
    assert sorted(budget.usd for budget in config.budgets.values()) == ["1.00", "2.00", "3.00"]


def test_budgets_without_end_or_with_names_for_a_terminal_are_ignored():
    names = [*(f"b{number}" for number in range(60)), "\x1b[31m", "n" * 61, " "]
    config = find({"budgets": {name: {"usd": "1"} for name in names}})
    assert len(config.budgets) == 50
    assert len(config.ignored) == 13


def test_budgets_above_the_maximum_are_not_checked(monkeypatch):
    """Each budget is compared with every model of the settings, so thousands would take seconds."""
    looked = []
    monkeypatch.setattr(discovered_file, "is_known_model", lambda name, _: looked.append(name) or True)
    config = find({"budgets": {f"b{number}": {"usd": "1", "model": f"m{number}"} for number in range(900)}})
    assert len(config.budgets) == len(looked) == 50


def test_a_budget_of_a_model_that_the_file_describes_itself_is_ignored_with_it(with_weights):
    text = {
        "models": {"m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50}},
        "budgets": {
            "own": {"usd": "1", "model": "acme/m"},
            "known": {"usd": "1", "model": "OPENAI/text-embedding-3-small"},
        },
    }
    config = find(text, with_weights)
    assert {"budgets.own.usd", "budgets.own.model"} <= set(config.ignored)
    assert [limit.scope for limit in limits_of(config, full_name)] == [f"model:{SERVER}"]


AMOUNTS = st.integers(0, 6)
SCOPES = st.sampled_from([{}, {"collection": "docs"}, {"api_key": "team"}])
BUDGETS = st.dictionaries(
    st.sampled_from(["a", "b", f"a{BUDGET_SUFFIX}", "a (settings)"]),
    st.builds(
        lambda usd, scope, period, hard, levels: {
            **scope,
            "usd": usd,
            "period": period,
            "hard": hard,
            "warn_at": levels,
        },
        AMOUNTS,
        SCOPES,
        st.sampled_from(["total", "day", "month"]),
        st.booleans(),
        st.lists(st.integers(1, 100), max_size=2),
    ),
    max_size=3,
)
CALLS = st.lists(st.tuples(AMOUNTS, st.sampled_from(["", "docs"]), st.sampled_from(["", "team"])), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own=BUDGETS, found=BUDGETS, kept=st.dictionaries(st.sampled_from(["a", "b"]), AMOUNTS), calls=CALLS)
def test_found_budgets_allow_no_call_that_is_refused_without_them(tmp_path_factory, own, found, kept, calls):
    overrides = {f"budgets.{name}": table for name, table in own.items()}
    without = Config.load([_empty_file()], environ={}, overrides=overrides)
    with_found = find({"budgets": found}, **overrides)
    assert {name: with_found.budgets[name] for name in without.budgets} == without.budgets
    folder = tmp_path_factory.mktemp("ledgers")
    allowed = asyncio.run(_spend(folder / "a.sqlite", with_found, kept, calls))
    assert asyncio.run(_spend(folder / "b.sqlite", without, kept, allowed)) == allowed


async def _spend(path, config, kept, calls):
    """Return the number of calls that a real ledger allows, each of them spent. The ledger also has its own budgets."""
    ledger = SqliteLedger(path)
    limits = limits_of(config, lambda name, _: name)
    for name, dollars in kept.items():
        await ledger.set_limit(Limit(name, dollars * 10**9))
    allowed = []
    for dollars, collection, key in calls:
        nanousd = dollars * 10**9
        entry = await ledger.reserve(Purpose("m", collection, key), nanousd, limits, lease_s=60, texts=1)
        if isinstance(entry, Refused):
            continue
        allowed.append((dollars, collection, key))
        if nanousd:
            assert await ledger.send(entry, nanousd, limits) is None
            await ledger.settle(entry, Settlement(nanousd, nanousd, 1, "reported"), limits)
        await ledger.close(entry)
    await ledger.aclose()
    return allowed


# ------------------------------------------------------------ benchmarks


def test_a_benchmark_may_only_make_a_model_of_this_machine_better():
    before = Config().embedding.model_benchmarks
    table = {
        "all-minilm-l6-v2": {"quality_score": 99.0},
        DEFAULT_MODEL.upper(): {"quality_score": 99.0, "avg_latency_ms": 0.1, "tokens_per_second": 10**6},
        "BAAI/bge-small-en-v1.5": {"quality_score": 1.0, "avg_latency_ms": 9e9, "multilingual": True, "licence": "mit"},
        SERVER: {"quality_score": 100.0, "cost_per_million_tokens": 0, "cost_confirmed": True, "provider": "local"},
        "acme/new": {"quality_score": 100.0},
    }
    config = find({"embedding": {"model_benchmarks": table}})
    after = config.embedding.model_benchmarks
    own = after[DEFAULT_MODEL]
    assert (own.quality_score, own.avg_latency_ms, own.tokens_per_second) == (99.0, 0.1, 10**6)
    assert {name: one for name, one in after.items() if one != before[name]}.keys() == {DEFAULT_MODEL}
    assert len(config.ignored) == 10


@pytest.mark.parametrize("field", ["quality_score", "tokens_per_second", "avg_latency_ms"])
@pytest.mark.parametrize("value", ["1" + "0" * 400, "-1" + "0" * 400, "inf", "-inf", "nan"])
def test_numbers_that_are_no_measure_are_ignored_or_refused(field, value):
    text = f'[embedding.model_benchmarks."{DEFAULT_MODEL}"]\n{field} = {value}\n'
    try:
        config = find(text)
    except ConfigError as error:
        assert f"{DEFAULT_MODEL}.{field}: is " in str(error)  # noqa: PT017  either is right
    else:
        assert config.ignored == (f"embedding.model_benchmarks.{DEFAULT_MODEL}.{field}",)


NUMBERS = {
    "quality_score": st.floats(0, 100),
    "avg_latency_ms": st.floats(0.1, 1e5),
    "tokens_per_second": st.floats(1, 5e5),
    "cost_per_million_tokens": st.sampled_from([0, 0.01, 100]),
    "cost_confirmed": st.just(value=True),
    "provider": st.sampled_from(["local", "openai"]),
    "multilingual": st.booleans(),
    "strengths": st.sampled_from([[], ["code"]]),
}
#: Any number is then accepted, also one that looks like another unit's.
CONFIRMED = {"quality_confirmed": st.just(value=True), "speed_confirmed": st.just(value=True)}
OVERLAYS = st.dictionaries(
    st.sampled_from([DEFAULT_MODEL, SERVER, "text-embedding-3-large", "voyage-4", "BAAI/bge-base-en-v1.5"]),
    st.fixed_dictionaries(CONFIRMED, optional=NUMBERS),
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=OVERLAYS, preset=st.sampled_from(PRESETS), minimum=st.floats(0, 1))
def test_found_benchmarks_turn_no_winner_of_this_machine_into_a_service(with_weights, table, preset, minimum):
    environ = {**with_weights, "EMBEDWAY_WEIGHTS__OFFLINE": "1", "OPENAI_API_KEY": "k", "VOYAGE_API_KEY": "k"}
    criteria = ModelSelectionCriteria.preset(preset, min_accuracy=minimum)
    without = score(Candidates(Config.load([_empty_file()], environ=environ)).all(), criteria)[0]
    with_found = score(Candidates(find({"embedding": {"model_benchmarks": table}}, environ)).all(), criteria)[0]
    if without.rank and not without.candidate.leaves_machine:
        assert with_found.rank
        assert not with_found.candidate.leaves_machine


def test_a_route_of_the_user_makes_a_local_models_benchmark_one_of_a_service():
    overrides = {"routes.r": {"model": "all-MiniLM-L6-v2", "provider": "openai-compatible", "base_url": "http://[::1]"}}
    config = find({"embedding": {"model_benchmarks": {DEFAULT_MODEL: {"quality_score": 99.0}}}}, **overrides)
    assert config.ignored == (f"embedding.model_benchmarks.{DEFAULT_MODEL}.quality_score",)


# ------------------------------------------------------------ with other layers


def test_the_environment_and_arguments_are_above_it():
    config = find("[run]\nchunk_tokens = 99\noverlap = 9\n", {"EMBEDWAY_RUN__OVERLAP": "3"}, **{"run.chunk_tokens": 50})
    assert (config.run.chunk_tokens, config.run.overlap) == (50, 3)


def test_errors_of_other_layers_and_ignored_settings_are_both_reported(warnings):
    with pytest.raises(ConfigError, match=r"routes\.mine"):
        find('[routes.mine]\nmodel = "m"\nprovider = "fake"\n', {"EMBEDWAY_ROUTES__MINE__API_KEY": "k"})
    assert "routes.mine.model" in warnings()[0]


def test_loading_creates_no_file():
    find("[cache]\npath = 'here.sqlite'\n")
    assert list(Path().iterdir()) == [FILE]
