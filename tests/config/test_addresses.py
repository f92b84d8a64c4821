"""URLs of services, hubs and webhooks in the settings."""

import pytest

from embedway.cli.checks.settings import changed_settings
from embedway.config import Config
from embedway.config.addresses import redact_address, server_of
from embedway.errors import ConfigError
from embedway.providers.http import JsonHttp

SECRET = "TOPSECRETpw"  # noqa: S105  a fake
ROUTE = {"model": "text-embedding-3-small", "provider": "openai"}
INVALID = [
    f"https://u:{SECRET}#1@h/v1",
    f"https://u:{SECRET}/1@h/v1",
    f"https://u:{SECRET}?1@h/v1",
    f"https://u:{SECRET}@1@h/v1",
    f"https://u:{SECRET} 1@h/v1",
    f"https://u:{SECRET}[1@h/v1",
    f"https://u:{SECRET}℀1@h/v1",
    f"https://u:{SECRET}@h:99999/v1",
    f"https://h/v1#{SECRET}",
    "https://h:99999/v1",
    "https://h:x/v1",
    "https://h:0/v1",
    "https:///v1",
    "https://a..b/v1",
    "https://[h]/v1",
    "https://::1/v1",
    "https://h /v1",
    "https:/h/v1",
    "https//h/v1",
    "h/v1",
]


@pytest.mark.parametrize("url", INVALID)
@pytest.mark.parametrize("key", ["routes.r.base_url", "weights.hub_endpoint", "ledger.webhook"])
def test_an_invalid_url_is_refused_without_its_password(key, url):
    given = {"routes.r": ROUTE, key: url} if key.startswith("routes") else {key: url}
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=given)
    assert (caught.value.key, SECRET in str(caught.value)) == (key, False)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("url", [f"https://h/v1?key={SECRET}", f"https://{SECRET}@h/v1"])
def test_a_url_of_a_service_has_no_user_and_no_query(url):
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides={"weights.hub_endpoint": url})
    assert (caught.value.key, SECRET in str(caught.value)) == ("weights.hub_endpoint", False)
    config = Config.load(environ={}, overrides={"routes.r": {**ROUTE, "api_key": "k", "base_url": url}})
    assert SECRET not in str(changed_settings(config))
    with pytest.raises(ConfigError, match="base_url: must ") as caught:
        JsonHttp(config.access("openai", "r").base_url, route="routes.r", headers={}, timeout_s=1, allow_http=False)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.example/services/T0/{SECRET}",
        f"https://u:{SECRET}%23@hooks.example:8443/a?token={SECRET}",
        "https://hooks.example/webhook/a@b/Incoming/c",
        "http://[::1]:9/x",
    ],
)
def test_a_webhook_may_contain_a_token(url):
    config = Config.load(environ={}, overrides={"ledger.webhook": url})
    assert config.ledger.webhook.get_secret_value() == url
    assert SECRET not in str(changed_settings(config))


def test_a_plug_ins_own_address_is_its_own():
    route = {"model": "text-embedding-3-small", "provider": "fake", "base_url": "host:50051"}
    assert Config.load(environ={}, overrides={"routes.r": route}).routes["r"].base_url == "host:50051"
    with pytest.raises(ConfigError, match="a port from 1 to 65535"):
        Config.load(environ={}, overrides={"routes.r": {**route, "base_url": "http://host:x"}})


@pytest.mark.parametrize("url", [*INVALID[:8], f"https://h/v1?key=a@{SECRET}", f"https://u:443/{SECRET}@h"])
def test_a_shown_url_contains_no_password(url):
    assert SECRET not in redact_address(url)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://api.example.com/v1", ("api.example.com", 443)),
        ("http://localhost:8080/v1", ("localhost", 8080)),
        ("http://h", ("h", 80)),
        (f"https://user:{SECRET}@h/v1?key={SECRET}", ("h", 443)),
        ("https://[::1]:9/v1", ("::1", 9)),
        ("", ("", 0)),
        ("https://h:port/v1", ("", 0)),
        (f"https://u:443/{SECRET}@h", ("", 0)),  # perhaps an unescaped password
    ],
)
def test_a_server_of_a_url_contains_no_secret(url, server):
    assert server_of(url) == server
