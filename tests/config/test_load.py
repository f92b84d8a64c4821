"""Settings: layers, rules, errors that name every problem, and secrets that stay secret."""

import functools
import itertools
import json
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.cache.factory import open_secret_keys
from embedway.config import Config, ModelBenchmark
from embedway.config.load import KEYS
from embedway.config.problems import key_types
from embedway.config.routes import RouteSettings
from embedway.errors import ConfigError, UsageError

SECRET = "hf_thisIsTheSecret1234567890"  # noqa: S105  a fake

#: A value for every key, none of them the default.
EVERY_KEY = {
    "embedding.default_model": "BAAI/bge-small-en-v1.5",
    "embedding.on_overflow": "error",
    "rerank.default_model": "rerank-2.5",
    "local.backend": "onnxruntime",
    "local.precision": "f32",
    "local.threads": 3,
    "local.streams": 2,
    "local.token_budget": 4096,
    "weights.directory": "/srv/weights",
    "weights.places": ["wheel", "folder"],
    "weights.folders": ["/srv/models", "/srv/more"],
    "weights.offline": True,
    "weights.allow_http": True,
    "weights.hub_endpoint": "http://mirror.example:8080/hub",
    "weights.hub_token": SECRET,
    "weights.hub_cache": "/srv/hub",
    "weights.fastembed_cache": "/srv/fastembed",
    "tune.directory": "/srv/tune",
    "search.directory": "/srv/search",
    "cache.backend": "memory",
    "cache.path": "/srv/vectors.sqlite",
    "cache.url": "redis://cache.example:6380/0",
    "cache.cluster": True,
    "cache.codec": "f16",
    "cache.zstd": True,
    "cache.tiered": False,
    "cache.memory_mib": 7,
    "cache.disk_mib": 70,
    "cache.ttl_s": 12.5,
    "cache.redis_mib": 80,
    "cache.refresh_on_hit": True,
    "cache.lease_s": 3.5,
    "cache.namespace": "tenant",
    "cache.secret": "correct-horse-battery-staple",
    "cache.secret_previous": "another-horse-battery-staple",
    "cache.secret_file": "/srv/secret",
    "batching.across_callers": False,
    "batching.max_wait_ms": 7.5,
    "batching.max_batch_size": 64,
    "upstream.max_attempts": 3,
    "upstream.first_wait_s": 0.25,
    "upstream.longest_wait_s": 5.5,
    "upstream.deadline_s": 30.5,
    "upstream.timeout_s": 12.5,
    "upstream.concurrency": 2,
    "upstream.verify_every_s": 90.0,
    "selection.preset": "cheap",
    "selection.accuracy_weight": 0.5,
    "selection.speed_weight": 0.125,
    "selection.cost_weight": 0.25,
    "selection.max_cost_per_million": "0.13",
    "selection.require_multilingual": True,
    "selection.require_local": True,
    "selection.min_accuracy": 0.6,
    "selection.max_latency_ms": 150.5,
    "selection.min_context": 2048,
    "selection.dimensions": 768,
    "selection.languages": ["de", "zh"],
    "selection.licences": ["mit", "apache-2.0"],
    "selection.max_total_cost": "12.50",
    "selection.match_languages": True,
    "selection.require_fit": True,
    "selection.models": ["thenlper/gte-base"],
    "selection.any_scale": True,
    "alerts.enabled": False,
    "alerts.error_rate": 0.5,
    "alerts.window_s": 60.0,
    "alerts.min_requests": 3,
    "alerts.webhook": "https://hooks.example/alerts",
    "telemetry.prometheus": False,
    "telemetry.opentelemetry": True,
    "telemetry.log_requests": True,
    "telemetry.log_format": "json",
    "telemetry.push_gateway": "https://push.example",
    "telemetry.push_job": "docs",
    "telemetry.push_every_s": 5.0,
    "quality.check_diversity": False,
    "quality.check_scripts": False,
    "quality.check_every_s": 3600.0,
    "quality.on_drift": "quarantine",
    "quality.min_accuracy_ratio": 0.95,
    "ledger.backend": "redis",
    "ledger.path": "/srv/ledger.sqlite",
    "ledger.url": "redis://ledger.example:6380/0",
    "ledger.cluster": True,
    "ledger.lease_s": 12.5,
    "ledger.webhook": "https://hooks.example/budgets",
    "pins.backend": "redis",
    "pins.path": "/srv/pins.sqlite",
    "pins.url": "redis://pins.example:6380/0",
    "pins.cluster": True,
    "server.access_log": True,
    "server.auth": "keys",
    "server.body_mib": 8,
    "server.bulk_kib": 64,
    "server.bulk_workers": 2,
    "server.cors_origins": ["https://search.example"],
    "server.deadline_s": 60.0,
    "server.drain_s": 20.0,
    "server.hang_s": 30.0,
    "server.host": "192.0.2.1",
    "server.idle_timeout_s": 30.0,
    "server.inference": "worker",
    "server.keep_alive_s": 300.0,
    "server.keys_stale_s": 30.0,
    "server.load_wait_s": 10.0,
    "server.max_connections": 100,
    "server.max_deadline_s": 300.0,
    "server.max_inputs": 2048,
    "server.max_running": 64,
    "server.max_tokens": 1_000_000,
    "server.max_wait_s": 2.0,
    "server.max_waiting": 500,
    "server.metrics_host": "192.0.2.2",
    "server.metrics_port": 9090,
    "server.models": ["all-MiniLM-L6-v2"],
    "server.models_mib": 2048,
    "server.port": 8081,
    "server.read_timeout_s": 10.0,
    "server.run_directory": "/srv/run",
    "server.state_directory": "/srv/state",
    "server.tls_certificate": "/srv/chain.pem",
    "server.tls_key": "/srv/key.pem",
    "server.warm": ["all-MiniLM-L6-v2"],
    "server.workers": 2,
    "server.write_timeout_s": 20.0,
    "run.chunk_tokens": 200,
    "run.overlap": 20,
    "run.on_error": "skip",
}


@pytest.fixture(autouse=True)
def _empty_place(tmp_path, monkeypatch):
    """Use no settings file, and no token of the user who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith(("EMBEDWAY_", "HF_", "XDG_", "HUGGING_FACE", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def nested(flat):
    tables = {}
    for key, value in flat.items():
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = value
    return tables


def toml(tables):
    """Return TOML. Its scalars, lists and strings equal JSON's for the values used here."""
    lines = []
    for section, values in tables.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def value_of(config, key):
    section, name = key.split(".")
    value = getattr(getattr(config, section), name)
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refused(*files, **options):
    with pytest.raises(ConfigError) as caught:
        Config.load(files, environ=options.pop("environ", {}), **options)
    return caught.value


def test_every_key_is_exercised_here():
    assert set(EVERY_KEY) == {key for key in KEYS.all if "*" not in key}


def test_toml_with_every_key(tmp_path):
    path = write(tmp_path / "all.toml", toml(nested(EVERY_KEY)))
    config = Config.load([path], environ={})
    assert {key: value_of(config, key) for key in EVERY_KEY} == EVERY_KEY
    assert dict(config.sources) == dict.fromkeys(EVERY_KEY, str(path))
    assert all(value_of(Config(), key) != value for key, value in EVERY_KEY.items())


def test_json_with_every_key(tmp_path):
    path = write(tmp_path / "all.json", json.dumps(nested(EVERY_KEY)))
    config = Config.load([path], environ={})
    assert {key: value_of(config, key) for key in EVERY_KEY} == EVERY_KEY


def test_environment_with_every_key():
    def text(value):
        if isinstance(value, list):
            return (os.pathsep if value[0].startswith("/") else ",").join(value)
        return str(value)

    environ = {f"EMBEDWAY_{key.upper().replace('.', '__')}": text(value) for key, value in EVERY_KEY.items()}
    config = Config.load(environ=environ)
    assert {key: value_of(config, key) for key in EVERY_KEY} == EVERY_KEY
    assert config.sources["local.threads"] == "environment: EMBEDWAY_LOCAL__THREADS"


def test_arguments_with_every_key():
    config = Config.load(environ={}, overrides=EVERY_KEY)
    assert {key: value_of(config, key) for key in EVERY_KEY} == EVERY_KEY
    assert set(config.sources.values()) == {"arguments"}


FLAT = st.fixed_dictionaries(
    {},
    optional={
        "embedding.default_model": st.sampled_from(["a", "b/c", "é"]),
        "embedding.on_overflow": st.sampled_from(["truncate", "error", "mean"]),
        "local.threads": st.integers(1, 64),
        "local.precision": st.sampled_from(["auto", "f32", "bf16"]),
        "weights.offline": st.booleans(),
        "weights.places": st.lists(st.sampled_from(["folder", "hub", "wheel"]), min_size=1, unique=True),
        "weights.folders": st.lists(st.sampled_from(["/a", "/b c", "/d"])),
        "run.overlap": st.integers(0, 100),
        "run.on_error": st.sampled_from(["stop", "skip"]),
    },
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.lists(st.tuples(FLAT, st.booleans()), max_size=4), last=FLAT)
def test_files_are_overlaid_field_by_field(tmp_path, layers, last):
    files = []
    for number, (flat, as_toml) in enumerate(layers):
        text = toml(nested(flat)) if as_toml else json.dumps(nested(flat))
        files.append(write(tmp_path / f"{number}.{'toml' if as_toml else 'json'}", text))
    config = Config.load(files, environ={}, overrides=last)
    merged, places = {}, {}
    for flat, place in [*((flat, str(file)) for (flat, _), file in zip(layers, files, strict=True))]:
        merged.update(flat)
        places.update(dict.fromkeys(flat, place))
    merged.update(last)
    places.update(dict.fromkeys(last, "arguments"))
    assert {key: value_of(config, key) for key in merged} == merged
    assert dict(config.sources) == places
    default = Config()
    assert all(value_of(config, key) == value_of(default, key) for key in set(EVERY_KEY) - set(merged))


def test_order_of_layers(tmp_path):
    first = write(tmp_path / "first.toml", "[local]\nthreads = 2\nstreams = 2\ntoken_budget = 2\n")
    second = write(tmp_path / "second.json", '{"local": {"streams": 3, "token_budget": 3}}')
    config = Config.load(
        [first, second],
        environ={"EMBEDWAY_LOCAL__TOKEN_BUDGET": "4", "EMBEDWAY_RUN__OVERLAP": "4"},
        overrides={"run.overlap": 5},
    )
    assert (config.local.threads, config.local.streams, config.local.token_budget) == (2, 3, 4)
    assert config.run.overlap == 5


def test_file_of_the_working_directory_unless_others_are_named(tmp_path):
    write(tmp_path / "embedway.toml", "[run]\nchunk_tokens = 77\n")
    other = write(tmp_path / "other.toml", "[local]\nstreams = 5\n")
    assert Config.load(environ={}).run.chunk_tokens == 77
    assert Config.load([other], environ={}).run.chunk_tokens is None


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("EMBEDWAY_LOCAL__THREADS", "6")
    assert Config.load().local.threads == 6


def test_relative_folders_start_at_the_file(tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    path = write(
        deep / "a.toml",
        '[weights]\ndirectory = "w"\nfolders = ["m", "/abs", "~/x"]\n[tune]\ndirectory = "t"\n',
    )
    config = Config.load([path], environ={"EMBEDWAY_WEIGHTS__HUB_CACHE": "h"})
    assert config.weights.directory == deep / "w"
    assert config.weights.folders == (deep / "m", Path("/abs"), Path("~/x").expanduser())
    assert config.tune.directory == deep / "t"
    assert config.weights.hub_cache == tmp_path / "h"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("local.thread", "local.threads"),
        ("local.token_budgett", "local.token_budget"),
        ("weights.hub_tokn", "weights.hub_token"),
        ("weights.threads", "local.threads"),
        ("embeding.default_model", "the nearest is embedding\n"),
        ("lokal.threads", "the nearest is local\n"),
        ("sever.port", "the nearest is server\n"),
        ("model.name", "the nearest is models\n"),
        ("server_port", "the nearest is server.port"),
        ("threads", "local.threads"),
        ("local.zzz", "backend"),
    ],
)
def test_unknown_key_names_the_nearest(tmp_path, key, nearest):
    section, _, name = key.rpartition(".")
    path = write(tmp_path / "a.toml", f"[{section}]\n{name} = {SECRET!r}\n" if section else f"{name} = {SECRET!r}\n")
    message = str(refused(path))
    assert message.startswith(f"{path}: {key if section in Config.model_fields or not section else section}: ")
    assert "is not a setting" in message
    assert nearest in f"{message}\n"
    assert SECRET not in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "'weights.hub_endpoint' = 'https://hub.example'\n"),
        ("a.json", '{"weights.hub_endpoint": "https://hub.example"}'),
    ],
)
def test_a_dotted_key_in_quotes_is_reported_as_a_single_key(tmp_path, name, text):
    message = str(refused(write(tmp_path / name, text)))
    assert "weights.hub_endpoint: is one key with a dot in its name; write hub_endpoint in the table weights" in message


def test_unknown_variable_is_named():
    error = refused(environ={"EMBEDWAY_LOCAL__THREDS": "4"})
    assert (error.where, error.key) == ("environment", "local.threds")
    assert str(error) == (
        "environment: local.threds: is not a setting; the nearest is local.threads (set by EMBEDWAY_LOCAL__THREDS)"
    )


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("local.threads", 0, "must be greater than 0"),
        ("local.threads", True, "must be an integer"),
        ("local.threads", "4", "must be an integer"),
        ("local.threads", 2.5, "must be an integer"),
        ("local.backend", "tensorrt", "must be 'auto', 'openvino' or 'onnxruntime'"),
        ("weights.offline", 1, "must be true or false"),
        ("weights.places", "hub", "must be a list"),
        ("weights.places", [], "must not be empty"),
        ("weights.places", ["hub", "hub"], "must name each source once"),
        ("weights.places", ["hub", "moon"], "must be 'folder', 'hub' or 'wheel'"),
        ("weights.directory", "", "must name a folder"),
        ("weights.directory", 3, "must be a path"),
        ("weights.hub_endpoint", "http://mirror.example", "must be https"),
        ("weights.hub_endpoint", "ftp://mirror.example", "must be a URL"),
        ("weights.hub_endpoint", "https://[", "must be a URL"),
        ("run.overlap", -1, "must be greater than or equal to 0"),
        ("embedding.default_model", "", "must not be empty"),
        ("local", 3, "must be a table of settings"),
    ],
)
def test_wrong_value_names_file_key_value_and_rule(tmp_path, key, value, rule):
    section, _, name = key.rpartition(".")
    tables = {section: {name: value}} if section else {name: value}
    error = refused(write(tmp_path / "a.json", json.dumps(tables)))
    assert (error.where, error.key) == (str(tmp_path / "a.json"), key)
    assert rule in str(error)
    assert f"is {value!r}" in str(error) or isinstance(value, list) or not section


def test_wrong_variable_and_argument_say_so():
    assert str(refused(environ={"EMBEDWAY_LOCAL__THREADS": "many"})) == (
        "environment: local.threads: is 'many'; must be an integer (set by EMBEDWAY_LOCAL__THREADS)"
    )
    assert str(refused(overrides={"local.streams": -2})) == ("arguments: local.streams: is -2; must be greater than 0")
    assert "is not a JSON list" in str(refused(environ={"EMBEDWAY_WEIGHTS__FOLDERS": "[oops"}))
    assert "--config" in str(refused(environ={"EMBEDWAY_CONFIG": "a.toml"}))


def test_all_problems_are_reported_at_once(tmp_path):
    path = write(tmp_path / "a.toml", "[local]\nthreads = 0\nbackend = 'x'\n[rum]\n")
    broken = write(tmp_path / "b.json", "{")
    message = str(refused(path, broken, environ={"EMBEDWAY_RUN__OVERLAP": "x"}, overrides={"run.on_error": "maybe"}))
    for part in (
        f"{path}: local.threads",
        f"{path}: local.backend",
        f"{path}: rum",
        f"{broken}:1:2: is not JSON",
        "environment: run.overlap",
        "arguments: run.on_error",
    ):
        assert part in message
    assert len(message.splitlines()) == 7


def test_overlap_must_be_below_the_chunk():
    assert "must be less than run.chunk_tokens, which is 16" in str(
        refused(overrides={"run.chunk_tokens": 16, "run.overlap": 16})
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[local]\nthreads = = 2\n", "a.toml:2:11: is not TOML"),
        ("a.toml", "[local]\nthreads =", "a.toml:2:10: is not TOML"),
        ("a.toml", "[local]\nthreads = nan\n", "a.toml: local.threads: is NaN; must be an integer"),
        ("a.json", '{"local":\n {"threads": }}', "a.json:2:14: is not JSON"),
        ("a.json", '{"local": {"threads": NaN}}', "a.json: local.threads: is NaN; must be an integer"),
        ("a.json", '{"local": {"threads": -Infinity}}', "a.json: local.threads: is -Infinity; must be an integer"),
        ("a.json", '{"local": {"threads": 1e999}}', "a.json: local.threads: is Infinity; must be an integer"),
        ("a.json", '{"local": {}, "local": {}}', "a.json: local: is set twice"),
        ("a.json", "[]", "a.json: must contain one JSON object"),
        ("a.json", "[" * 100_000, "too deep"),
        ("a.json", '{"local": {"threads": ' + "9" * 5000 + "}}", "too large"),
        ("a.yaml", "local: {}", "must end in .toml or .json"),
    ],
)
def test_malformed_file_is_an_error_with_its_place(tmp_path, name, text, message):
    assert message in str(refused(write(tmp_path / name, text)))


def test_file_that_is_not_there_or_not_utf8(tmp_path):
    assert "cannot be read: No such file" in str(refused(tmp_path / "none.toml"))
    assert "cannot be read" in str(refused(tmp_path.parent / "x.toml"))
    (tmp_path / "latin.toml").write_bytes(b"[local]\n# caf\xe9\n")
    assert f"{tmp_path / 'latin.toml'}:2:6: is not UTF-8" in str(refused(tmp_path / "latin.toml"))


@pytest.mark.parametrize(
    "text",
    [
        '[models."\\u001b[2J"]\nname = "m"\n',
        '[routes."\\u001b[2J"]\nmodel = "m"\nprovider = "p"\nno = 1\n',
        '"\\u001b[2J" = 1\n',
        '[budgets."\\u009b2J\\u202e"]\nusd = -1\n',
        '[embedding.model_benchmarks."\\u001b[2J"]\nno = 1\n',
        '[local]\nthreads = 0\n["\\n\\u001b[2J"]\n',
    ],
)
def test_no_key_of_a_file_reaches_a_terminal_raw(tmp_path, text):
    message = str(refused(write(tmp_path / "a.toml", text)))
    assert message.replace("\n", "").isprintable()
    assert "2J" in message


#: A user that does not exist.
NOBODY = "~no-such-user"
PATHS = sorted({key for key, kinds in key_types(Config) if Path in kinds})


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("path", "rule"), [(f"{NOBODY}/x", NOBODY), ("a\0b", "invalid in a path"), ("\ud800", "invalid in a path")]
)
def test_paths_that_no_file_can_have_are_refused(tmp_path, key, path, rule):
    value = [path] if key == "weights.folders" else {"X-Key": path} if key.endswith("headers_file") else path
    *tables, name = key.replace("*", "r").split(".")
    table = {"model": "m", "provider": "openai", name: value} if tables[0] == "routes" else {name: value}
    for above in reversed(tables):
        table = {above: table}
    for error in (refused(overrides=table), refused(write(tmp_path / "a.json", json.dumps(table)))):
        assert key.replace("*", "r") in str(error)
        assert rule in str(error)
        assert "\0" not in str(error)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HF_HOME", f"{NOBODY}/x"),
        ("XDG_CACHE_HOME", NOBODY),
        ("HF_HUB_CACHE", f"{NOBODY}/x"),
        ("FASTEMBED_CACHE_PATH", f"{NOBODY}/x"),
        ("HF_TOKEN_PATH", "a\0b"),
        ("HF_TOKEN_PATH", "\ud800"),
        ("HF_TOKEN_PATH", "x" * 5_000),
        ("EMBEDWAY" + "__A" * 3_000, "1"),
        ("EMBEDWAY_" + "__A" * 3_000, "1"),
        ("EMBEDWAY_\ud800", "1"),
    ],
)
def test_variables_that_cannot_be_are_refused(variable, value):
    message = str(refused(environ={variable: value}))
    assert message.isprintable()
    assert variable[:20] in message or "token file" in message or "ud800" in message


ENDLESS = {}
for _ in range(3_000):
    ENDLESS = {"a": ENDLESS}


@pytest.mark.parametrize(
    "overrides",
    [
        {5: 1},
        [1],
        "local.threads",
        {"routes": {5: {"model": "m"}}},
        {".".join("a" * 3_000): 1},
        ENDLESS,
        {"weights.folders": [[ENDLESS]]},
        {None: 1},
    ],
)
def test_arguments_that_are_no_settings_are_refused(overrides):
    error = refused(overrides=overrides)
    assert error.where == "arguments"
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    "files", [["a\0b.toml"], ["\ud800.toml"], ["a" * 5_000 + ".toml"], [5], "a.toml", [None], None, 5]
)
def test_files_that_cannot_be_are_refused(files):
    with pytest.raises(ConfigError, match=r"cannot be read|files must be a list of paths") as caught:
        Config.load(files, environ={})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("environ", [{"EMBEDWAY_A": 5}, {5: "a"}, ["A=5"], "HOME"])
def test_an_environment_of_anything_but_texts_is_refused(environ):
    assert str(refused(environ=environ)) == "arguments: environ must be a mapping of strings to strings"


@pytest.mark.parametrize("price", ["1e999999999", "1e-999999999", "1e12"])
def test_a_price_beyond_all_prices_is_refused(price):
    benchmark = {"BAAI/bge-m3": {"cost_per_million_tokens": price, "cost_confirmed": True}}
    message = str(refused(overrides={"embedding": {"model_benchmarks": benchmark}}))
    assert "must be 0, or from 0.000000001 to 1,000,000,000 dollars" in message


class TestReading:
    """Files named in settings: endless and blocking ones are refused."""

    @pytest.fixture(params=["pipe", "endless", "large"])
    def unending(self, request, tmp_path):
        """Return a file that cannot be read to its end, and the reason."""
        path = tmp_path / "file.toml"
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "endless":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(b"#" * (2**22 + 1))
        return path, "it has more than" if request.param == "large" else "it is not a regular file"

    def test_a_named_file_of_settings(self, unending):
        path, reason = unending
        assert str(refused(path)).startswith(f"{path}: cannot be read: {reason}")

    def test_the_key_of_a_route(self, unending):
        path, reason = unending
        route = {"routes.r.model": "m", "routes.r.provider": "openai", "routes.r.api_key_file": str(path)}
        with pytest.raises(ConfigError, match=f"cannot be read: {reason}"):
            Config.load(environ={}, overrides=route).key_for("openai", "r")

    def test_the_token_of_the_hub(self, unending):
        path, reason = unending
        assert f"the hub's token file cannot be read: {reason}" in str(refused(environ={"HF_TOKEN_PATH": str(path)}))

    def test_the_secret_of_the_cache(self, unending):
        path, reason = unending
        config = Config.load(environ={}, overrides={"cache.secret_file": str(path)})
        with pytest.raises(ConfigError, match=f"cache.secret_file: cannot be read: {reason}"):
            open_secret_keys(config.cache)

    @pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
    def test_a_pipe_of_the_shell_is_read_to_its_end(self, folder):
        read, write = os.pipe()
        with os.fdopen(read), subprocess.Popen(["printf", "%s\n", SECRET], stdout=write):
            os.close(write)
            token = Config.load(environ={"HF_TOKEN_PATH": f"{folder}/{read}"}).weights.hub_token
        assert token.get_secret_value() == SECRET

    def test_the_null_device_holds_nothing(self):
        assert Config.load(environ={"HF_TOKEN_PATH": "/dev/null"}).weights.hub_token is None


def test_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[local]\r\nthreads = 2\r\n")
    assert Config.load([tmp_path / "a.toml"], environ={}).local.threads == 2


def test_empty_variables_are_unset():
    config = Config.load(
        environ={
            "EMBEDWAY_LOCAL__BACKEND": "",
            "EMBEDWAY_LOCAL__THREADS": "",
            "EMBEDWAY_LOCAL__STREAMS": "none",
            "EMBEDWAY_WEIGHTS__HUB_TOKEN": "",
            "HF_TOKEN": SECRET,
            "HF_ENDPOINT": "",
        },
    )
    assert config.local.backend == "auto"
    assert (config.local.threads, config.local.streams) == (None, None)
    assert config.weights.hub_token is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("ON", True), ("0", False), ("No", False), ("off", False)],
)
def test_words_for_true_and_false(text, value):
    assert Config.load(environ={"EMBEDWAY_WEIGHTS__OFFLINE": text}).weights.offline is value


def test_store_settings_hold_every_key_of_weights():
    config = Config.load(environ={}, overrides=EVERY_KEY)
    store = config.store_settings()
    assert (store.root, store.hub_cache) == (Path("/srv/weights"), Path("/srv/hub"))
    assert (store.places, store.folders) == (("wheel", "folder"), (Path("/srv/models"), Path("/srv/more")))
    assert (store.offline, store.hub_endpoint) == (True, "http://mirror.example:8080/hub")
    assert store.hub_token == SECRET
    assert SECRET not in repr(store)


def test_config_is_immutable_and_travels():
    config = Config.load(environ={}, overrides=EVERY_KEY)
    with pytest.raises(UsageError, match=r"overrides=\{'local\.threads': 9\}"):
        config.local.threads = 9
    with pytest.raises(UsageError, match=r"overrides=\{'local': …\}"):
        config.local = config.local
    with pytest.raises(TypeError):
        config.sources["local.threads"] = "x"
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert copy == config
    assert copy.sources == config.sources


class TestHub:
    """Variables of huggingface_hub."""

    def test_all_of_them(self, tmp_path):
        config = Config.load(
            environ={
                "HF_HUB_OFFLINE": "1",
                "HF_ENDPOINT": "https://mirror.example/",
                "HF_TOKEN": f" {SECRET}\n",
                "HF_HUB_CACHE": "$BASE/cache",
                "BASE": "/srv",
            }
        )
        assert config.weights.offline is True
        assert config.weights.hub_endpoint == "https://mirror.example"
        assert config.weights.hub_token.get_secret_value() == SECRET
        assert config.weights.hub_cache == Path("/srv/cache")
        assert config.sources["weights.hub_token"].endswith(": HF_TOKEN")

    @pytest.mark.parametrize("value", ["1", " 1", "true\n", " Yes "])
    def test_blanks_around_offline(self, value):
        assert Config.load(environ={"HF_HUB_OFFLINE": value}).weights.offline is True

    def test_home_holds_cache_and_token(self, tmp_path):
        write(tmp_path / "token", f"{SECRET}\n")
        config = Config.load(environ={"HF_HOME": str(tmp_path)})
        assert config.weights.hub_cache == tmp_path / "hub"
        assert config.weights.hub_token.get_secret_value() == SECRET
        assert config.sources["weights.hub_token"].endswith(str(tmp_path / "token"))

    def test_token_path_and_default_home(self, tmp_path):
        path = write(tmp_path / "my-token", SECRET)
        assert Config.load(environ={"HF_TOKEN_PATH": str(path)}).weights.hub_token is not None
        assert Config.load(environ={}).weights.hub_token is None
        default = tmp_path / "home/.cache/huggingface"
        default.mkdir(parents=True)
        write(default / "token", SECRET)
        config = Config.load(environ={})
        assert config.weights.hub_token.get_secret_value() == SECRET
        assert config.weights.hub_cache == default / "hub"
        assert Config.load(environ={"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).weights.hub_token is None

    def test_files_and_our_variables_beat_them(self, tmp_path):
        path = write(tmp_path / "a.toml", "[weights]\nhub_endpoint = 'https://file.example'\noffline = false\n")
        environ = {"HF_ENDPOINT": "https://hf.example", "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_a"}
        config = Config.load([path], environ=environ)
        assert config.weights.hub_endpoint == "https://file.example"
        assert config.weights.offline is False
        config = Config.load(environ={**environ, "EMBEDWAY_WEIGHTS__HUB_TOKEN": "hf_b"})
        assert config.weights.hub_token.get_secret_value() == "hf_b"

    def test_unsafe_endpoint_is_refused_by_name(self):
        message = str(refused(environ={"HF_ENDPOINT": "http://mirror.example"}))
        assert "weights.hub_endpoint" in message
        assert "(set by HF_ENDPOINT)" in message

    @pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1:9", "[::1]:9", "hub.localhost"])
    def test_http_to_this_machine_is_fine(self, host):
        assert Config.load(environ={"HF_ENDPOINT": f"http://{host}"}).weights.hub_endpoint == f"http://{host}"

    def test_unreadable_token_file(self, tmp_path):
        (tmp_path / "token").write_bytes(b"\xff\xfe")
        error = refused(environ={"HF_HOME": str(tmp_path)})
        assert error.where == str(tmp_path / "token")
        assert "not UTF-8" in str(error)


class TestSecrets:
    """No key in a repr, a dump or an error."""

    def test_repr_and_dump(self):
        config = Config.load(environ={"HF_TOKEN": SECRET})
        shown = [repr(config), str(config), repr(config.weights), repr(config.model_dump())]
        shown += [config.model_dump_json(), repr(config.sources), repr(config.weights.hub_token)]
        assert all(SECRET not in text for text in shown)
        assert config.weights.hub_token.get_secret_value() == SECRET

    @pytest.mark.parametrize(
        "environ",
        [
            {"EMBEDWAY_WEIGHTS__HUB_TOKEN": f"{SECRET} {SECRET}"},
            {"EMBEDWAY_WEIGHTS__HUB_TOKEN": f"{SECRET}é"},
            {"EMBEDWAY_WEIGHTS__HUB_TOKN": SECRET},
            {"EMBEDWAY_HUB_TOKEN": SECRET},
            {"EMBEDWAY_WEIGHTS": SECRET},
            {"EMBEDWAY_LOCAL__THREADS__HUB_TOKEN": SECRET},
            {"HF_ENDPOINT": f"https://user:{SECRET}@mirror.example"},
            {"HF_TOKEN": f"{SECRET}\n{SECRET}"},
        ],
    )
    def test_errors(self, environ):
        error = refused(environ=environ)
        assert SECRET not in str(error)
        assert error.__cause__ is None
        assert error.__suppress_context__


def test_a_route_from_the_environment(tmp_path):
    path = write(tmp_path / "a.toml", '[routes.mine]\nmodel = "m"\nprovider = "openai"\napi_key_file = "keys/k"\n')
    environ = {"EMBEDWAY_ROUTES__MINE__REQUESTS_PER_MINUTE": "60", "EMBEDWAY_ROUTES__MINE__API_KEY": SECRET}
    mine = Config.load([path], environ=environ).routes["mine"]
    assert (mine.model, mine.requests_per_minute) == ("m", 60)
    assert mine.api_key.get_secret_value() == SECRET
    assert mine.api_key_file == tmp_path / "keys" / "k"


def test_a_route_that_is_wrong_names_its_keys_and_never_its_secret(tmp_path):
    text = f'[routes.mine]\nmodle = "m"\nprovider = "openai"\napi_key = ["{SECRET}"]\nrequests_per_minute = 0\n'
    error = refused(write(tmp_path / "a.toml", text))
    for said in ("routes.mine.modle: is not a setting; the nearest is routes.mine.model", "routes.mine.model", "is 0"):
        assert said in str(error)
    assert SECRET not in str(error)


def test_files_that_are_no_files_are_refused_at_once(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    with (tmp_path / "huge.toml").open("wb") as huge:
        huge.truncate(2**30)
    reasons = {
        "folder.toml": "it is not a regular file",
        "loop.toml": "Too many levels of symbolic links",
        "huge.toml": "it has more than 4,194,304 bytes",
        "folder.toml/a.toml": "No such file or directory",
        "huge.toml/a.toml": "Not a directory",
    }
    for name, reason in reasons.items():
        assert str(refused(tmp_path / name)) == f"{tmp_path / name}: cannot be read: {reason}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write(tmp_path / "a.toml", "[local]\nthreads = 1\n")
    path.chmod(0)
    assert str(refused(path)) == f"{path}: cannot be read: Permission denied"


def test_a_relative_path_without_a_working_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    message = str(refused(overrides={"cache.path": "a.sqlite"}))
    assert (
        "cache.path: is 'a.sqlite'; must be absolute, because the working directory does not exist any more" in message
    )


def test_a_file_that_is_replaced_while_it_is_read_is_one_of_both(tmp_path, monkeypatch):
    path = write(tmp_path / "a.toml", "[local]\nthreads = 1\n")
    other = write(tmp_path / "b.toml", "[local]\nthreads = 2\n")
    opened = os.fstat

    def replace(descriptor):
        if other.exists():
            other.replace(path)
        return opened(descriptor)

    monkeypatch.setattr(os, "fstat", replace)
    assert Config.load([path], environ={}).local.threads == 1
    assert Config.load([path], environ={}).local.threads == 2


def test_overrides_are_merged_in_any_order_and_are_not_changed():
    route = {"model": "m", "provider": "fake"}
    given = {"cache.backend": "none", "cache": {"codec": "f16"}, "routes.r": route, "routes.r.options": {"a": "b"}}
    for items in (given.items(), reversed(given.items())):
        config = Config.load(environ={}, overrides=dict(items))
        assert (config.cache.backend, config.cache.codec) == ("none", "f16")
        assert config.routes["r"].options == {"a": "b"}
    assert route == {"model": "m", "provider": "fake"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"cache.namespace": "\ud800"},
        {"selection.languages": ["de", "\udfff"]},
        {"budgets": {"\ud800": {"usd": 5}}},
        {"routes.r": {"model": "\ud800", "provider": "fake"}},
    ],
)
def test_texts_that_are_not_unicode_are_refused(tmp_path, overrides):
    error = refused(overrides=overrides)
    assert "must be valid Unicode" in str(error)
    nested = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        nested[section] = {name: value} if name else value
    path = write(tmp_path / "a.json", json.dumps(nested))
    assert "valid Unicode" in str(refused(path))
    with pytest.raises(ConfigError, match="must be a mapping of model names"):
        Config().with_benchmarks({"\ud800": {"quality_score": 50}})


class Failing:
    """Object whose class, truth and text fail."""

    def fail(self, *_):
        raise RuntimeError("a text of the user")

    __class__ = property(fail)
    __bool__ = __iter__ = __str__ = __repr__ = __eq__ = __fspath__ = fail
    __hash__ = object.__hash__


def recursive():
    table = {}
    table["a"] = table
    return table


@pytest.mark.parametrize("made", [Failing, object, lambda: np.zeros(3), lambda: itertools.repeat("a"), lambda: {1, 2}])
@pytest.mark.parametrize("key", ["embedding", "embedding.default_model", "weights.folders", "models.m", "run.overlap"])
def test_an_object_that_is_no_plain_value_is_refused_by_its_key(key, made):
    with pytest.raises(ConfigError, match=f"arguments: {key}: is of type .*, which no setting has") as caught:
        Config.load(environ={}, overrides={key: made()})
    assert "user" not in str(caught.value)


@pytest.mark.parametrize("made", [recursive, lambda: functools.reduce(lambda value, _: [value], range(5000), "a")])
def test_endless_nesting_is_refused(made):
    with pytest.raises(ConfigError, match=r"nested too deeply|which is too long"):
        Config.load(environ={}, overrides={"models": made()})


def test_numbers_and_texts_of_other_classes_are_plain_values():
    class Text(str):
        __slots__ = ()
        __str__ = __repr__ = Failing.fail

    config = Config.load(environ={}, overrides={"run.overlap": np.int64(7), "embedding.default_model": Text("a/b")})
    assert (type(config.run.overlap), config.run.overlap) == (int, 7)
    assert type(config.embedding.default_model) is str


@pytest.mark.parametrize("value", [10**400, -(10**5000), "x" * 100_000, float("nan")], ids=lambda _: "value")
def test_a_long_value_is_not_repeated(value):
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides={"run.overlap": value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("files", [lambda: itertools.repeat("a.toml"), Failing, lambda: [Failing()], lambda: "a.toml"])
def test_files_are_a_list_of_paths_with_an_end(files):
    with pytest.raises(ConfigError, match="files must be a list of paths"):
        Config.load(files(), environ={})


@pytest.mark.parametrize("name", ["nothing", "x" * 5000])
def test_a_route_that_does_not_exist_is_named(name):
    for call in (Config().access, Config().key_for):
        with pytest.raises(UsageError, match="is not a route; available: none") as caught:
            call("openai", name)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Config(nonsense=1), "Config: nonsense: is not a setting"),
        (lambda: Config(local={"streams": 0}), "Config: local.streams: is 0; must be greater than 0"),
        (lambda: Config(budgets={"a": {"usd": "x"}}), "budgets.a.usd: is 'x'; must be dollars, such as 0.05"),
        (lambda: Config(routes={"r": {"model": "m", "api_key": 5}}), "2 settings are invalid:"),
        (lambda: ModelBenchmark(model_name="m"), "ModelBenchmark: lacks provider, avg_latency_ms"),
        (
            lambda: RouteSettings(model="m", provider="p", options={"token": [SECRET]}),
            "RouteSettings: options.token: must be a string",
        ),
    ],
)
def test_settings_that_are_made_directly_raise_our_error(make, said):
    with pytest.raises(ConfigError) as raised:
        make()
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None


CONTRADICTIONS = {
    # Fields of a section that contradict one another, and a harmless field that a higher layer sets.
    "server": ("[server]\ndeadline_s = 900\n", {"server.port": 1}, "deadline_s must not be above"),
    "cache": ("[cache]\nsecret_previous = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'\n", {"cache.ttl_s": 5}, "secret is unset"),
    "models.m": (
        "[models.m]\nname = 'm'\ntask = 'embed'\nmax_tokens = 9\n",
        {"models.m.query_prompt": "q"},
        "dimensions must be set",
    ),
    "routes.r": (
        "[routes.r]\nmodel = 'm'\nprovider = 'openai'\napi_key_env = 'A_KEY'\nauth = 'none'\n",
        {"routes.r.upstream_model": "m"},
        "must be unset if auth",
    ),
}


@pytest.mark.parametrize("section", CONTRADICTIONS)
def test_fields_that_contradict_are_blamed_on_their_own_layer(section, tmp_path):
    """Not on the layer that last set another field of the section, such as a flag of the command."""
    text, more, message = CONTRADICTIONS[section]
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load([file], environ={}, overrides=more)
    assert (caught.value.where, caught.value.key) == (str(file), section)


def test_fields_of_two_layers_that_contradict_name_both_and_the_variable(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[server]\ndeadline_s = 900\n")
    with pytest.raises(ConfigError) as caught:
        Config.load([file], environ={"EMBEDWAY_SERVER__MAX_DEADLINE_S": "800"}, overrides={"server.port": 1})
    assert str(caught.value) == (
        f"{file}, environment: server: deadline_s must not be above max_deadline_s "
        "(set by EMBEDWAY_SERVER__MAX_DEADLINE_S)"
    )
