"""Settings of the gateway in `embedway doctor`."""

import pytest

from embedway.cli.checks import gateway, libraries
from embedway.cli.checks.base import Setup
from embedway.config import Config


def check(**settings):
    config = Config.load(environ={}, overrides=settings)
    (line,) = gateway.check_gateway(Setup(config, is_loaded=True)).lines
    return line


def test_the_address_access_and_place_of_batches_are_reported(tmp_path):
    line = check(server={"port": 9000, "state_directory": str(tmp_path)})
    assert (line.status, line.detail) == (
        "ok",
        f"http on 127.0.0.1 port 9000, no API keys required, batches in {tmp_path}",
    )
    line = check(server={"host": "0.0.0.0"}, ledger={"backend": "redis"})  # noqa: S104
    assert line.status == "ok"
    assert line.detail.endswith("API keys required, batches in the ledger's server")


def test_a_gateway_for_everyone_is_a_warning():
    line = check(server={"host": "0.0.0.0", "auth": "none"})  # noqa: S104
    assert line.status == "warning"
    assert "spend money" in line.detail
    assert "server.auth" in line.remedy


def test_served_models_without_a_key_are_warnings():
    names = ("text-embedding-3-small", "all-MiniLM-L6-v2", "voyage-4", "auto")
    settings = {"server": {"models": names}, "routes": {"v": {"model": "voyage-4", "provider": "voyage"}}}
    config = Config.load(environ={}, overrides=settings)
    first, *lines = gateway.check_gateway(Setup(config, is_loaded=True)).lines
    assert first.status == "ok"
    assert [(line.status, line.detail) for line in lines] == [
        ("warning", "server.models: 'text-embedding-3-small' cannot answer: no key: set OPENAI_API_KEY"),
        ("warning", "server.models: 'voyage-4' cannot answer: no key: set VOYAGE_API_KEY"),
    ]
    config = Config.load(environ={"OPENAI_API_KEY": "sk-x", "VOYAGE_API_KEY": "pa-x"}, overrides=settings)
    assert len(gateway.check_gateway(Setup(config, is_loaded=True)).lines) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"server": {"models": ("no-such-model",)}}, "server.models: no model is called"),
        ({"server": {"auth": "keys"}, "ledger": {"backend": "none"}}, "ledger.backend: API keys are stored"),
        ({"server": {"tls_certificate": "/none.pem", "tls_key": "/none.pem"}}, "server.tls_certificate"),
    ],
)
def test_what_serve_refuses_is_a_warning(settings, message):
    line = check(**settings)
    assert line.status == "warning"
    assert message in line.detail


def test_nothing_is_checked_without_the_extra(monkeypatch):
    monkeypatch.setattr(gateway, "version_of", lambda package: None if package == "uvicorn" else "1")
    line = check(server={"models": ("no-such-model",)})
    assert (line.status, line.remedy) == ("skipped", "pip install 'embedway[server]'")
    assert "uvicorn" in libraries.EXTRAS["server"]
