"""Whatever a settings file, a variable or an argument contains, the only error is ConfigError."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.catalog import Catalog
from embedway.cli.checks.settings import changed_settings
from embedway.config import Config
from embedway.config.load import KEYS
from embedway.errors import ConfigError

KEYS_OF_A_USER = [key.replace("*", "mine") for key in KEYS.all]
TABLES = sorted({key.rpartition(".")[0] for key in KEYS_OF_A_USER} | set(KEYS.sections))
ODD_TEXTS = [
    "",
    " ",
    "\0",
    "nan",
    "-inf",
    "1e999",
    "0x10",
    "none",
    "auto",
    "\ud800",
    "\x1b[31m",
    "a" * 10_000,
    "1" * 5_000,
]
ODD_TEXTS += [
    "[",
    "{",
    "[[",
    '{"a":',
    "[1,",
    "~nobody/x",
    "redis://[",
    "https://℀",
    "00:00",
    "2026-13-01",
    "50,x",
    "../..",
]
ODD = st.sampled_from(ODD_TEXTS)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**400), 2**63, 0, 1]),
    st.floats(),
    st.text(),
    ODD,
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | ODD, inner, max_size=3)
)
SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def load(files=(), environ=None, overrides=None):
    """Load settings, and show them if they are valid."""
    try:
        config = Config.load(files, environ=environ or {}, overrides=overrides)
    except ConfigError:
        return None
    repr(changed_settings(config))
    return config


@SOME
@given(st.sampled_from(KEYS_OF_A_USER + TABLES), VALUES)
def test_any_value_of_any_key_in_json(tmp_path_factory, key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    path = tmp_path_factory.mktemp("settings") / "a.json"
    path.write_text(json.dumps(value))
    load([path])


@SOME
@given(st.sampled_from(KEYS_OF_A_USER + TABLES), VALUES)
def test_any_value_of_any_key_in_arguments(key, value):
    load(overrides={key: value})


@SOME
@given(
    st.dictionaries(
        st.sampled_from(KEYS_OF_A_USER + TABLES).map(lambda key: f"EMBEDWAY_{key.upper().replace('.', '__')}")
        | st.text(max_size=8).map(lambda name: f"EMBEDWAY_{name}"),
        st.text() | ODD | VALUES.map(json.dumps),
        min_size=1,
        max_size=3,
    )
)
def test_any_text_of_any_variable(environ):
    load(environ={name: text for name, text in environ.items() if name})


VALID = b"""# \xc3\xa9
embedding.default_model = "auto"
[cache]
url = "redis://:p%23@127.0.0.1:6379/0"
ttl_s = 1.5
[routes.mine]
model = "text-embedding-3-small"
provider = "openai"
options = {allow_http = "true"}
[embedding.model_benchmarks."text-embedding-3-small"]
quality_score = 62.5
measured_on = 2026-11-26
[budgets.a]
usd = "5"
warn_at = [50, 80]
"""
FRAGMENTS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"'",
    b"=",
    b".",
    b",",
    b"\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"nan",
    b"1e999",
]
FRAGMENTS += [
    b"[" * 3_000,
    b"{a=" * 3_000,
    b"a." * 3_000,
    b"9" * 5_000,
    b"0x",
    b'"""',
    b"\\ud800",
    b"2026-99-99",
    b"[[a]]",
]


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_damaged_bytes(tmp_path, ending):
    chance = random.Random(20261126)
    valid = VALID
    if ending == "json":
        valid = json.dumps({"cache": {"ttl_s": 1.5}, "budgets": {"a": {"usd": 5, "warn_at": [50]}}}).encode()
    path = tmp_path / f"a.{ending}"
    path.write_bytes(valid)
    assert load([path]) is not None
    for _ in range(400):
        data = bytearray(valid)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.choice([0, 0, 1, 5, 40])] = chance.choice(FRAGMENTS)
        path.write_bytes(data)
        load([path])


HOSTILE = {
    "a key of 1 MB": b'"' + b"a" * 2**20 + b'" = 1\n',
    "a text of 3 MB": b'embedding.default_model = "' + b"a" * (3 * 2**20) + b'"\n',
    "deep lists": b"a = " + b"[" * 100_000,
    "deep tables": b"a = " + b"{a=" * 100_000,
    "a deep list": b"[weights]\nfolders = " + b"[" * 500 + b"]" * 500,
    "an integer of 5000 digits": b"[local]\nthreads = " + b"9" * 5_000,
    "a null byte": b"[local]\nthreads = 1\0",
    "a mark of UTF-16": "[local]\nthreads = 1".encode("utf-16"),
    "bytes": bytes(range(256)),
    "the same table twice": b"[local]\n[local]\n",
    "the same key twice": b"[local]\nthreads = 1\nthreads = 2\n",
    "nothing but a mark": b"\xef\xbb\xbf",
    "a list for a section": b"[[cache]]\nbackend = 'none'\n",
    "a list for a model": b"[[embedding.model_benchmarks.a]]\nquality_score = 50\n",
    "a date for a number": b"[local]\nthreads = 2026-11-26\n",
    "a time for a path": b"[cache]\npath = 12:00:00\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, name):
    path = tmp_path / "a.toml"
    path.write_bytes(HOSTILE[name])
    assert (load([path]) is not None) == (name in {"nothing but a mark", "a text of 3 MB"})


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_catalog_files(tmp_path, name):
    path = tmp_path / "catalog.toml"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ConfigError):
        Catalog.load([path])
