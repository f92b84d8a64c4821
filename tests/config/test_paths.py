"""A URL in the place of a path is an error that says what to set."""

import pytest

from embedway.config import Config
from embedway.errors import ConfigError

URLS = {
    "cache.path": "redis://h",
    "ledger.path": "rediss://h:6379/0",
    "pins.path": "valkey://h",
    "cache.secret_file": "https://h/s",
    "weights.directory": "https://h/x",
    "weights.folders": ["https://h/x"],
    "weights.hub_cache": "s3://bucket/x",
    "weights.fastembed_cache": "HTTPS://h",
    "tune.directory": "file:///tmp/x",
    "search.directory": "file:///tmp/x",
}


@pytest.mark.parametrize("key", URLS)
def test_a_url_is_not_a_path(tmp_path, key):
    with pytest.raises(ConfigError) as by_argument:
        Config.load(environ={}, overrides={key: URLS[key]})
    section, _, name = key.partition(".")
    path = tmp_path / "embedway.toml"
    path.write_text(f"[{section}]\n{name} = {URLS[key]!r}\n")
    with pytest.raises(ConfigError) as by_file:
        Config.load([path], environ={})
    for caught in (by_argument, by_file):
        assert "must be a path, not a URL" in str(caught.value)
        assert ('set backend = "redis" and url' in str(caught.value)) == key.endswith(".path")


def test_a_url_in_a_route_or_a_variable_is_not_a_path():
    route = {"model": "m", "provider": "openai"}
    for fields in ({"api_key_file": "https://h/k"}, {"ca_file": "https://h/k"}, {"headers_file": {"X-A": "https://h"}}):
        with pytest.raises(ConfigError, match="must be a path, not a URL"):
            Config.load(environ={}, overrides={"routes.x": {**route, **fields}})
    with pytest.raises(ConfigError, match=r"EMBEDWAY_CACHE__PATH"):
        Config.load(environ={"EMBEDWAY_CACHE__PATH": "redis://h"})


def test_a_password_in_such_a_url_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides={"cache.path": "redis://u:secret@h"})
    assert "secret" not in str(caught.value)


def test_names_with_a_colon_are_paths(tmp_path):
    assert Config.load(environ={}, overrides={"cache.path": f"{tmp_path}/a:b"}).cache.path == tmp_path / "a:b"
