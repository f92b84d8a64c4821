"""No secret of the settings, the environment or a library's message is ever printed."""

import dataclasses
import logging

import pytest

from embedway.cli.checks import registry
from embedway.cli.checks.registry import CHECKS
from embedway.cli.checks.secrets import collect
from embedway.config import Config
from embedway.config.known_services import service_variables
from embedway.config.load import KEYS

#: Marker of a secret, and its form in URLs.
MARK = "MaRkEr0fAs3cret"
#: Values for settings with their own rules.
URLS = {
    "cache.url": f"redis://user:{MARK}@127.0.0.1:9/0?password={MARK}",
    "ledger.url": f"rediss://:{MARK}@127.0.0.1:9/0",
    "pins.url": f"redis://:{MARK}/{MARK}@127.0.0.1:9/0",
    "ledger.webhook": f"https://hooks.example.com/services/T0/{MARK}?token={MARK}#{MARK}",
}
ROUTE = f"""
[routes.r]
model = "text-embedding-3-small"
provider = "openai"
api_key = "sk-{MARK}"
base_url = "https://user:{MARK}@h.example/v1?key={MARK}"
[routes.r.options]
api_version = "https://x:{MARK}@h"
authorization = "Bearer {MARK}"
headers = "x-key: {MARK}"
[routes.f]
model = "text-embedding-3-small"
provider = "openai-compatible"
base_url = "http://127.0.0.1:9/{{}}/v1"
api_key_file = "key.txt"
[routes.e]
model = "text-embedding-3-small"
provider = "openai"
api_key_env = "MY_OWN_VARIABLE"
"""
#: Secrets of variables that embedway does not read as settings.
VARIABLES = {
    **{name: f"sk-{MARK}" for name in service_variables() if not name.endswith(("URL", "ENDPOINT", "VERSION"))},
    "OPENAI_BASE_URL": f"https://user:{MARK}@h.example/v1",
    "AZURE_OPENAI_ENDPOINT": f"https://h.example/?key={MARK}",
    "HF_TOKEN": f"hf_{MARK}",
    "MY_OWN_VARIABLE": MARK,
    "HTTPS_PROXY": f"http://user:{MARK}@127.0.0.1:9",
    "HTTP_PROXY": f"user:{MARK}@127.0.0.1:9",
    "ALL_PROXY": f"socks5://{MARK}@127.0.0.1:9",
    "PIP_INDEX_URL": f"https://user:{MARK}@pypi.example/simple",
    "AWS_SECRET_ACCESS_KEY": MARK,
    "DATABASE_PASSWORD": MARK,
    "AUTHORIZATION": f"Bearer {MARK}",
}


def written(place, command, *arguments, **variables):
    """Return everything that the command prints, in all its forms."""
    runs = [
        command(*arguments, *before, "doctor", *after, variables=variables)
        for before in ((), ("--traceback",))
        for after in ((), ("--json",))
    ]
    assert {done.code for done in runs} <= {0, 1}
    return "".join(done.stdout + done.stderr for done in runs)


def as_setting(key):
    return f"EMBEDWAY_{key.upper().replace('.', '__').replace('*', 'N')}"


@pytest.mark.parametrize("key", sorted(KEYS.secrets))
def test_no_secret_setting_is_shown(command, place, key):
    value = URLS.get(key, f"sk-{MARK}-and-more")
    variables = {as_setting(key): value, f"EMBEDWAY_{key.split('.')[0].upper()}__BACKEND": "redis"}
    if key not in URLS or key == "ledger.webhook":
        del variables[f"EMBEDWAY_{key.split('.')[0].upper()}__BACKEND"]
    if key == "cache.secret_previous":
        variables["EMBEDWAY_CACHE__SECRET"] = "x" * 20
    if key.startswith("routes."):
        variables |= {"EMBEDWAY_ROUTES__N__MODEL": "text-embedding-3-small", "EMBEDWAY_ROUTES__N__PROVIDER": "openai"}
    shown = written(place, command, **variables)
    assert key.split(".")[-1].upper() in shown.upper()
    assert MARK not in shown


@pytest.mark.parametrize("key", sorted(KEYS.secrets))
@pytest.mark.parametrize("wrong", [f" {MARK} {MARK}\n{MARK}", f"ftp://user:{MARK}@h/{MARK}?{MARK}"])
def test_no_invalid_secret_is_shown(command, place, key, wrong):
    assert MARK not in written(place, command, **{as_setting(key): wrong})


@pytest.mark.parametrize("url", [f"https://h/?token={MARK}", f"https://{MARK}@h", f"ftp://u:{MARK}@h", f"u:{MARK}@h/x"])
def test_no_secret_in_the_hub_s_url_is_shown(command, place, url):
    shown = written(place, command, HF_ENDPOINT=url)
    assert "hub_endpoint" in shown
    assert MARK not in shown


@pytest.mark.parametrize("ending", ["", "[local]\nthreads = 'x'\n", "[broken\n"], ids=["valid", "invalid", "no TOML"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "discovered"])
def test_no_secret_of_a_file_or_the_environment_is_shown(command, place, ending, named):
    (place / "embedway.toml").write_text(ROUTE + ending)
    (place / "key.txt").write_text(f"{MARK}\n")
    arguments = ("--config", "embedway.toml") if named else ()
    shown = written(place, command, *arguments, **VARIABLES)
    assert "routes.r" in shown or ending or not named
    assert MARK not in shown


@pytest.mark.parametrize("field", ["api_key_env", "apikey", "api-key", "token", "headers.Authorization"])
def test_no_secret_in_a_wrong_field_is_shown(command, place, field):
    value = f"{MARK}-and-more!"
    (place / "s.toml").write_text(
        f'[routes.r]\nmodel = "text-embedding-3-small"\nprovider = "openai"\n{field} = "{value}"\n'
    )
    shown = written(place, command, "--config", "s.toml")
    assert field.partition(".")[0] in shown
    assert MARK not in shown


def test_no_secret_in_an_error_of_a_check_is_shown(command, place, monkeypatch):
    url = f"redis://user:p%40{MARK}%2F@h/0"

    def fail(_):
        try:
            raise ValueError(f"cannot connect to {url}")  # noqa: TRY301  chained
        except ValueError as error:
            message = f"connection with p@{MARK}/ and sk-{MARK} and https://x.example/?q={MARK}"
            logging.getLogger("a.library").warning("cannot use %s\x1b[31m", url)
            raise ConnectionError(message) from error

    checks = (dataclasses.replace(check, run=fail) for check in CHECKS)
    monkeypatch.setattr(registry, "CHECKS", tuple(checks))
    variables = {"EMBEDWAY_CACHE__URL": url, "OPENAI_API_KEY": f"sk-{MARK}"}
    shown = written(place, command, **variables)
    assert "check cache failed: ConnectionError: connection with ***" in shown
    assert "Traceback" in shown
    assert "cannot use redis://***@h/0" in shown
    assert "\x1b" not in shown
    assert MARK not in shown


def test_plain_settings_are_shown(command):
    variables = {
        "EMBEDWAY_RUN__CHUNK_TOKENS": "99",
        "EMBEDWAY_LOCAL__TOKEN_BUDGET": "16384",
        "EMBEDWAY_BUDGETS__B__USD": "5",
        "EMBEDWAY_BUDGETS__B__API_KEY": "team-of-search",
        "EMBEDWAY_CACHE__SECRET_FILE": "/nowhere/secret-file",
        "TOKENIZERS_PARALLELISM": "false",
        "GIT_AUTHOR_NAME": "root",
        "SSH_AUTH_SOCK": "/dev/null",
    }
    settings = {one["key"]: one["value"] for one in command("doctor", "--json", variables=variables).json["settings"]}
    assert settings == {
        "run.chunk_tokens": "99",
        "local.token_budget": "16384",
        "budgets.b.usd": "5.00",
        "budgets.b.api_key": "team-of-search",
        "cache.secret_file": "/nowhere/secret-file",
    }


def test_sources_that_cannot_be_read_have_no_secrets(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff")
    (tmp_path / "b.json").write_text("[" * 100_000)
    collect(Config(), (tmp_path / "a.toml", tmp_path / "b.json", tmp_path / "none.toml"))
    collect(None, ())


@pytest.mark.parametrize("ending", ["", "[local]\nthreads = 'x'\n"], ids=["valid", "invalid"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "discovered"])
def test_no_header_of_a_route_is_shown(command, place, ending, named):
    (place / "embedway.toml").write_text(
        f"""[routes.r]
model = "text-embedding-3-small"
provider = "openai"
base_url = "https://gateway.example/v1"
auth = "none"
headers = {{ X-Team = "{MARK}-team" }}
headers_env = {{ X-Other = "PLAIN_NAME" }}
headers_file = {{ X-Third = "third.txt" }}
{ending}"""
    )
    (place / "third.txt").write_text(f"{MARK}-third\n")
    arguments = ("--config", "embedway.toml") if named else ()
    shown = written(place, command, *arguments, PLAIN_NAME=f"{MARK}-other")
    assert MARK not in shown
    if named and not ending:
        assert "with the headers x-other, x-team, x-third" in shown


def test_words_and_names_are_shown(command, place):
    (place / "s.toml").write_text(
        """[alerts]
webhook = "https://hooks.example.com/alerts"
[ledger]
webhook = "https://hooks.example.com/budgets/everything"
[budgets.everything]
usd = "50"
[routes.plain]
model = "text-embedding-3-small"
provider = "openai-compatible"
base_url = "https://gateway.example/azure/plain/v1"
auth = "none"
headers = { X-Version = "2026", X-Team = "routes", X-Kind = "openai-compatible" }
[routes.other]
model = "text-embedding-3-small"
provider = "openai-compatible"
base_url = "https://gateway.example/azure/plain/v1"
auth = "none"
headers_env = { X-Key = "APIM_KEY" }
"""
    )
    done = command(
        "--config", "s.toml", "doctor", variables={"OPENAI_BASE_URL": "https://gateway.example/azure/plain-text"}
    )
    for shown in (
        "alerts.webhook ",
        "ledger.webhook ",
        "budgets.everything.usd ",
        "route plain ",
        "openai-compatible at https://gateway.example/azure/plain/v1",
        "APIM_KEY",
        "routes.other.headers_env.X-Key ",
        "https://gateway.example/azure/plain-text",
    ):
        assert shown in done.stdout
    assert "***" not in done.stdout


@pytest.mark.parametrize(
    ("webhook", "secrets"),
    [
        ("https://h/services/T0ABCDEFG/kLmNoPqRsTuV", {"T0ABCDEFG", "kLmNoPqRsTuV", "services/T0ABCDEFG/kLmNoPqRsTuV"}),
        ("https://h/embedway-alerts/everything", set()),
    ],
)
def test_of_a_webhook_tokens_are_secret_and_words_are_not(tmp_path, webhook, secrets):
    file = tmp_path / "s.toml"
    file.write_text(f'[alerts]\nwebhook = "{webhook}"\n')
    assert collect(None, (file,)) == {webhook, *secrets}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_of_a_server_only_the_password_is_secret(tmp_path, scheme):
    file = tmp_path / "s.toml"
    file.write_text(f'[cache]\nurl = "{scheme}://user:{MARK}@valkey.example:6379/0"\n')
    assert collect(None, (file,)) == {MARK, "user", f"user:{MARK}"}
