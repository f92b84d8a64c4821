"""Routes, models and budgets of the settings: what each lacks, without sending anything."""

import pytest
import trustme

from embedway.cli.checks import routes
from embedway.cli.checks.base import Setup
from embedway.config import Config

SMALL = "text-embedding-3-small"
KEY = "sk-12345678"


def check(environ=None, **overrides):
    """Return the lines of all checks of routes, by name, for overrides such as `r__model`."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    setup = Setup(Config.load(environ=environ or {}, overrides=given), is_loaded=True)
    found = [*routes.check_models(setup).lines, *routes.check_budgets(setup).lines]
    found += [line for one in routes.route_checks(setup) for line in one.run(setup).lines]
    return {line.name: line for line in found}


def route(**fields):
    return {f"routes__r__{name}": value for name, value in fields.items()}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    from embedway.config.known_services import service_variables

    for name in service_variables():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("fields", "said", "remedy"),
    [
        ({"model": "text-embedding-9", "provider": "openai"}, "no [models.NAME] describes", "correct routes.r"),
        ({"model": SMALL, "provider": "acme"}, "no provider is called 'acme'", "correct routes.r"),
        ({"model": SMALL, "provider": "openai"}, "no key", "set OPENAI_API_KEY"),
        (
            {"model": SMALL, "provider": "openai", "api_key_env": "MINE"},
            "api_key_env: the variable MINE is not set",
            "correct routes.r",
        ),
        (
            {"model": SMALL, "provider": "openai", "api_key_file": "/no/f"},
            "key_file: /no/f cannot be read",
            "correct routes.r",
        ),
        ({"model": SMALL, "provider": "openai-compatible"}, "no base_url", "correct routes.r"),
        ({"model": SMALL, "provider": "openai-compatible", "base_url": "http://h/v1"}, "https", "correct routes.r"),
        ({"model": SMALL, "provider": "openai", "api_key": KEY, "options.x": "1"}, "options.x", "correct routes.r"),
        ({"model": SMALL, "provider": "openai", "api_key": "a\nb"}, "a character that no key has", "correct routes.r"),
        ({"model": "rerank-v3.5", "provider": "openai", "api_key": KEY}, "no provider", "correct routes.r"),
    ],
)
def test_what_a_route_lacks_is_a_warning_with_its_remedy(fields, said, remedy):
    line = check(**route(**fields))["route r"]
    assert line.status == "warning"
    assert said in line.detail
    assert line.remedy == remedy
    assert KEY not in line.detail


def test_the_certificates_of_a_route_are_shown(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    line = check(**route(model=SMALL, provider="openai", api_key=KEY, ca_file=str(path)))["route r"]
    assert line.status == "ok"
    assert f"key in api_key, with the certificates in {path} (ca_file)" in line.detail


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    line = check(**route(model="BAAI/bge-small-en-v1.5", provider="fastembed"))["route r"]
    assert line.remedy == "pip install 'embedway[fastembed]'"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"api_key": KEY}, "key in api_key"),
        ({"api_key_env": "MINE"}, "key in MINE"),
        ({"api_key": KEY, "base_url": "https://u:secretword@h/v1?k=secretword"}, "base_url: must be a URL"),
        ({}, "key in OPENAI_API_KEY"),
    ],
)
def test_the_source_of_the_key_is_named(monkeypatch, fields, said):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    environ = {"OPENAI_API_KEY": KEY, "MINE": KEY}
    line = check(environ, **route(model=SMALL, provider="openai", **fields))["route r"]
    assert said in line.detail
    assert "secretword" not in line.detail


def test_a_key_file_is_named(tmp_path):
    (tmp_path / "key").write_text(KEY)
    line = check(**route(model=SMALL, provider="openai", api_key_file=str(tmp_path / "key")))["route r"]
    assert line.status == "ok"
    assert f"key in the file {tmp_path / 'key'}" in line.detail
    assert "1536 dimensions, 8,191 tokens" in line.detail


def test_two_routes_of_a_model_have_a_line_each():
    found = check(
        routes__a__model=SMALL,
        routes__a__provider="openai",
        routes__b__model=SMALL,
        routes__b__provider="openai",
        routes__b__api_key=KEY,
    )
    assert (found["route a"].status, found["route b"].status) == ("warning", "ok")


def test_a_service_with_a_key_is_listed(monkeypatch):
    assert check()["routes"].status == "skipped"
    monkeypatch.setenv("CO_API_KEY", KEY)
    line = check({"CO_API_KEY": KEY})["service cohere"]
    assert (line.status, line.detail.startswith("key in CO_API_KEY, ")) == ("ok", True)


def test_a_key_that_is_no_key_is_a_warning(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a\nb")
    line = check({"OPENAI_API_KEY": "a\nb"})["service openai"]
    assert (line.status, line.remedy) == ("warning", "correct or unset OPENAI_API_KEY")


def test_a_url_without_a_key_is_a_warning():
    line = check({"OPENAI_BASE_URL": "https://gateway.example/v1"})["service openai"]
    assert (line.detail, line.remedy) == ("no key at https://gateway.example/v1", "set OPENAI_API_KEY")


def test_models_need_a_route_and_a_free_name():
    own = {"models__m__name": "acme/m", "models__m__dimensions": 8, "models__m__max_tokens": 512}
    assert check(**own)["model m"].remedy == 'add [routes.NAME] with model = "acme/m"'
    found = check(**own, **route(model="acme/M", provider="openai-compatible", base_url="https://h/v1"))
    assert (found["model m"].status, found["route r"].status) == ("ok", "ok")
    assert "acme/m (8 dimensions, 512 tokens), no key" in found["route r"].detail
    assert check(**{**own, "models__m__name": SMALL})["models"].status == "problem"


def test_budgets_need_an_existing_model():
    found = check(budgets__a__usd="5", budgets__b__usd="1", budgets__b__model="nope", budgets__b__period="day")
    assert found["budget a"].detail == "$5.00 in total for everything"
    assert (found["budget b"].status, found["budget b"].remedy) == ("problem", "correct budgets.b.model")
    assert "$1.00 per day for model:nope" in found["budget b"].detail


def test_a_route_shows_its_authorization_and_the_names_of_its_headers(tmp_path):
    base = {"model": SMALL, "provider": "azure-openai", "base_url": "https://n.openai.azure.com", "auth": "none"}
    headers = {"headers": {"X-Team": "search"}, "headers_env": {"Ocp-Apim-Subscription-Key": "APIM_KEY"}}
    line = check({"APIM_KEY": KEY}, **route(**base, **headers))["route r"]
    assert line.status == "ok"
    assert "no key, with the headers ocp-apim-subscription-key, x-team" in line.detail
    assert KEY not in line.detail
    line = check(**route(**{**base, "auth": "entra"}))["route r"]
    assert "token of Microsoft Entra ID" in line.detail
    line = check(**route(**base, ca_file=str(tmp_path / "none.pem")))["route r"]
    assert (line.status, line.remedy) == ("warning", "correct routes.r")
    assert "none.pem cannot be read" in line.detail
