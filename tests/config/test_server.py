"""The section `[server]`: its checks, and that the gateway reads each of its settings."""

import ast
from pathlib import Path

import pytest

import embedway.config.server
import embedway.server
from embedway.config import Config
from embedway.config.server import ServerSettings
from embedway.errors import ConfigError

MODULES = sorted(Path(embedway.server.__file__).parent.rglob("*.py"))


@pytest.fixture(scope="module")
def attributes():
    """Names of all attributes that the modules of the gateway, and the section itself, read."""
    read = [*MODULES, Path(embedway.config.server.__file__)]
    nodes = (node for path in read for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("name", ServerSettings.model_fields)
def test_the_gateway_reads_every_setting(name, attributes):
    assert name in attributes


@pytest.mark.parametrize("origin", ["*", "https://a.example/path", "a.example", "https://user:secret@a.example"])
def test_an_origin_is_an_address_without_a_path(origin):
    with pytest.raises(ConfigError) as raised:
        Config.load([], overrides={"server.cors_origins": [origin]})
    assert "secret" not in str(raised.value)


def test_an_origin_has_no_slash_at_its_end():
    config = Config.load([], overrides={"server.cors_origins": ["https://a.example/"]})
    assert config.server.cors_origins == ("https://a.example",)


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key"])
def test_a_certificate_and_its_key_are_set_together(name, tmp_path):
    file = tmp_path / "file.pem"
    file.touch()
    with pytest.raises(ConfigError, match="must be set together"):
        Config.load([], overrides={f"server.{name}": str(file)})


def test_the_deadline_is_not_above_the_maximum():
    with pytest.raises(ConfigError, match="must not be above max_deadline_s"):
        Config.load([], overrides={"server.deadline_s": 700})
