"""Routes: natural types of options, names of providers, headers, and ways of authorization."""

import json

import pytest

from embedway import Config
from embedway.config.known_services import BUILT_IN
from embedway.config.routes import RouteSettings
from embedway.errors import ConfigError
from embedway.providers.registry import PROVIDERS, RERANKERS, provider_names

SECRET = "sEcr3t-0f-the-test"  # noqa: S105  a fake
OWN = 'model = "acme/m"\nprovider = "openai-compatible"\nbase_url = "https://gateway.example.com/v1"\n'


def load(tmp_path, text, environ=None):
    path = tmp_path / "a.toml"
    path.write_text(f"[routes.r]\n{text}")
    return Config.load([path], environ=environ or {})


def refused(tmp_path, text, environ=None):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    assert SECRET not in str(caught.value) + repr(caught.value)
    return str(caught.value)


# ------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("true", "true"),
        ("false", "false"),
        ('"true"', "true"),
        ("10", "10"),
        ('" 10 "', "10"),
        ("0.5", "0.5"),
        ("2024-10-21", "2024-10-21"),
        ('"preview"', "preview"),
    ],
)
def test_options_have_the_types_of_toml(tmp_path, written, text):
    config = load(tmp_path, f"{OWN}options = {{ a = {written} }}\n")
    assert config.routes["r"].options == {"a": text}


@pytest.mark.parametrize("written", ["[1, 2]", "{ b = 1 }", "2024-10-21T10:00:00", "10:00:00"])
def test_other_types_are_an_error_that_says_what_is_expected(tmp_path, written):
    said = refused(tmp_path, f"{OWN}options = {{ a = {written} }}\n")
    assert "routes.r.options.a: must be a string, a number, or true or false" in said


@pytest.mark.parametrize("text", ["1", "yes", "on", "TRUE", "true"])
def test_options_of_variables_are_read_as_other_flags(text):
    environ = {
        "EMBEDWAY_ROUTES__R__MODEL": "acme/m",
        "EMBEDWAY_ROUTES__R__PROVIDER": "openai-compatible",
        "EMBEDWAY_ROUTES__R__BASE_URL": "http://ollama:11434/v1",
        "EMBEDWAY_ROUTES__R__OPTIONS__ALLOW_HTTP": text,
    }
    assert Config.load(environ=environ).access("openai-compatible", "r").allow_http
    as_table = {**environ, "EMBEDWAY_ROUTES__R__OPTIONS": '{"allow_http": true, "max_inputs": 10}'}
    del as_table["EMBEDWAY_ROUTES__R__OPTIONS__ALLOW_HTTP"]
    config = Config.load(environ=as_table)
    assert config.access("openai-compatible", "r").allow_http
    assert config.routes["r"].options["max_inputs"] == "10"
    as_key = {**environ, "EMBEDWAY_ROUTES__R__ALLOW_HTTP": text}
    del as_key["EMBEDWAY_ROUTES__R__OPTIONS__ALLOW_HTTP"]
    assert Config.load(environ=as_key).access("openai-compatible", "r").allow_http


@pytest.mark.parametrize("option", ["max_inputs", "batch_size", "max_request_tokens", "device", "max_tokens_per_doc"])
def test_an_option_beside_the_options_is_an_error_that_says_where_it_belongs(tmp_path, option):
    said = refused(tmp_path, f"{OWN}{option} = 10\n")
    assert f"routes.r.{option}: is not a setting; it is an option: write options = {{ {option} = … }}" in said


# ------------------------------------------------------------ providers


def test_the_providers_of_this_package_are_known():
    installed = {*provider_names(PROVIDERS), *provider_names(RERANKERS)}
    assert {*BUILT_IN} <= {*installed, "local"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ollama", 'write provider = "openai-compatible"'),
        ("vLLM", 'write provider = "openai-compatible"'),
        ("lm-studio", 'write provider = "openai-compatible"'),
        ("LM Studio", 'write provider = "openai-compatible"'),
        ("tei", 'write provider = "openai-compatible"'),
        ("llama.cpp", 'write provider = "openai-compatible"'),
        ("opnai", "the nearest is openai"),
        ("OpenAI", "the nearest is openai"),
        ("azure", "the nearest is azure-openai"),
        ("azure_openai", "the nearest is azure-openai"),
        ("google", "the nearest is gemini"),
        ("voyageai", "the nearest is voyage"),
        ("sentence_transformers", "the nearest is sentence-transformers"),
    ],
)
def test_a_wrong_provider_is_an_error_of_the_settings(tmp_path, name, said):
    message = refused(tmp_path, f'model = "acme/m"\nprovider = "{name}"\n')
    assert "routes.r.provider: " in message
    assert said in message


def test_a_provider_that_may_be_another_packages_is_no_error_of_the_settings(tmp_path):
    assert load(tmp_path, 'model = "acme/m"\nprovider = "acme"\n').routes["r"].provider == "acme"


# ------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:11434/v1", "write http://localhost:11434/v1"),
        ("127.0.0.1:8000", "write http://127.0.0.1:8000"),
        ("api.example.com/v1", "write https://api.example.com/v1"),
        ("//api.example.com/v1", "write https://api.example.com/v1"),
    ],
)
def test_a_url_without_a_scheme_is_an_error_with_the_url_to_write(tmp_path, url, said):
    assert said in refused(tmp_path, f'model = "m"\nprovider = "openai"\nbase_url = "{url}"\n')


@pytest.mark.parametrize("url", [f"u:{SECRET}@api.example.com", f"api.example.com?key={SECRET}"])
def test_a_url_that_may_contain_a_secret_is_not_repeated(tmp_path, url):
    assert "must start with https://" in refused(tmp_path, f'model = "m"\nprovider = "openai"\nbase_url = "{url}"\n')


def test_the_advice_about_http_works_when_it_is_pasted(tmp_path):
    from embedway.providers.base import Endpoint
    from embedway.providers.openai import openai_compatible
    from embedway.providers.opening import endpoint_of

    text = 'model = "m"\nprovider = "openai-compatible"\nbase_url = "http://ollama:11434/v1"\n'
    with pytest.raises(ConfigError, match=r"add allow_http = true in \[routes\.r\]"):
        openai_compatible(Endpoint("routes.r", "m", base_url="http://ollama:11434/v1"))
    for line in ("allow_http = true", "options = { allow_http = true }", 'options = { allow_http = "true" }'):
        config = load(tmp_path, f"{text}{line}\n")
        access = config.access("openai-compatible", "r")
        openai_compatible(endpoint_of("routes.r", "m", access, config.routes["r"].options))


# ------------------------------------------------------------ headers


def test_headers_are_secrets(tmp_path):
    config = load(tmp_path, f'{OWN}headers = {{ "Ocp-Apim-Subscription-Key" = " {SECRET} ", "X-Team" = "search" }}\n')
    access = config.access("openai-compatible", "r")
    assert access.headers == {"ocp-apim-subscription-key": SECRET, "x-team": "search"}
    for shown in (repr(config), str(config.routes), repr(access), config.model_dump_json(), str(config.sources)):
        assert SECRET not in shown


@pytest.mark.parametrize("table", ["headers", "headers_env", "headers_file"])
@pytest.mark.parametrize("name", [f"X T:{SECRET}", f"X.{SECRET}"])
def test_no_invalid_name_of_a_header_is_shown(tmp_path, table, name):
    with pytest.raises(ConfigError, match=rf"routes\.\w+\.{table}: must be the name of a header") as caught:
        load(tmp_path, f'{OWN}{table} = {{ "{name}" = "x" }}\n')
    assert SECRET not in str(caught.value)


def test_headers_of_variables_and_files(tmp_path):
    (tmp_path / "header").write_text(f"{SECRET}\n")
    config = load(
        tmp_path, f'{OWN}headers_env = {{ X-A = "MY_A" }}\nheaders_file = {{ X-B = "header" }}\n', {"MY_A": "a"}
    )
    access = config.access("openai-compatible", "r")
    assert access.headers == {"x-a": "a", "x-b": SECRET}
    assert access.files == {"x-b": tmp_path / "header"}
    table = {"X-C": SECRET}
    environ = {"EMBEDWAY_ROUTES__R__HEADERS": json.dumps(table)}
    assert load(tmp_path, OWN, environ).access("openai-compatible", "r").headers == {"x-c": SECRET}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Host", "must not be set"),
        ("content-length", "must not be set"),
        ("Content-Type", "must not be set"),
        ("ACCEPT", "must not be set"),
        ("accept-encoding", "must not be set"),
        ("connection", "must not be set"),
        ("Transfer-Encoding", "must not be set"),
        ("Proxy-Authorization", "are in the URL of HTTPS_PROXY"),
        ("X Team", "must be the name of a header"),
        ("X-Team:", "must be the name of a header"),
        ("X-Team\\r\\nX-Other", "must be the name of a header"),
        ("X-Größe", "must be the name of a header"),
        ("", "must be the name of a header"),
    ],
)
@pytest.mark.parametrize("table", ["headers", "headers_env", "headers_file"])
def test_headers_that_a_route_must_not_set(tmp_path, table, name, said):
    assert said in refused(tmp_path, f'{OWN}{table} = {{ "{name}" = "{SECRET}" }}\n')


@pytest.mark.parametrize("value", [f"{SECRET}\\r\\nX-Other: 1", f"{SECRET}\\u0000", f"{SECRET}ü", "", "  "])
def test_values_that_no_header_has(tmp_path, value):
    message = refused(tmp_path, f'{OWN}headers = {{ "X-Key" = "{value}" }}\n')
    assert message.startswith(f"{tmp_path / 'a.toml'}: routes.r.headers: must ")


@pytest.mark.parametrize("value", ["[1]", "{ env = 1 }", "true", "1"])
def test_values_are_strings(tmp_path, value):
    assert "routes.r.headers" in refused(tmp_path, f'{OWN}headers = {{ "X-Key" = {value} }}\n')


def test_a_header_is_set_once(tmp_path):
    text = f'{OWN}headers = {{ "X-Key" = "{SECRET}" }}\nheaders_env = {{ "x-key" = "A" }}\n'
    assert "the header x-key is set twice; set it once" in refused(tmp_path, text)


def test_a_value_of_a_variable_or_a_file_is_checked_when_it_is_used(tmp_path):
    config = load(tmp_path, f'{OWN}headers_env = {{ X-A = "MY_A" }}\n', {"MY_A": f"{SECRET}\r\nX-B: 1"})
    with pytest.raises(
        ConfigError, match=r"^routes\.r: headers_env\.X-A: the variable MY_A must be printable"
    ) as caught:
        config.access("openai-compatible", "r")
    assert SECRET not in str(caught.value)
    config = load(tmp_path, f'{OWN}headers_env = {{ X-A = "MY_A" }}\n')
    with pytest.raises(ConfigError, match=r"^routes\.\w+: headers_env\.X-A: the variable MY_A is not set"):
        config.access("openai-compatible", "r")
    (tmp_path / "header").write_text("")
    config = load(tmp_path, f'{OWN}headers_file = {{ X-A = "header" }}\n')
    with pytest.raises(ConfigError, match=r"^routes\.r: headers_file\.X-A: .*header must not be empty"):
        config.access("openai-compatible", "r")


# ------------------------------------------------------------ authorization


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('auth = "none"\napi_key = "k"', 'must be unset if auth is "none"'),
        ('auth = "entra"\napi_key_env = "K"', 'must be unset if auth is "entra"'),
        ('auth = "oauth"', "must be 'key', 'bearer', 'entra' or 'none'"),
        ('api_key = "k"\nheaders = { Authorization = "Bearer x" }', "has a key and the header authorization"),
    ],
)
def test_a_request_is_authorized_in_one_way(tmp_path, text, said):
    assert said in refused(tmp_path, f"{OWN}{text}\n")


def test_a_header_replaces_a_key_only_if_it_is_the_keys_header(tmp_path):
    azure = 'model = "text-embedding-3-small"\nprovider = "azure-openai"\nbase_url = "https://n.openai.azure.com"\n'
    basic = load(tmp_path, f'{azure}api_key = "k"\nheaders = {{ authorization = "Basic x" }}\n')
    assert (basic.access("azure-openai", "r").secret, basic.access("azure-openai", "r").needs_no_key) == ("k", False)
    own = load(tmp_path, f'{azure}headers = {{ api-key = "{SECRET}" }}\n', {"AZURE_OPENAI_API_KEY": "of-environment"})
    access = own.access("azure-openai", "r")
    assert (access.secret, access.needs_no_key, access.is_authorized) == ("", True, True)
    none = load(tmp_path, f'{azure}auth = "none"\n', {"AZURE_OPENAI_API_KEY": "of-environment"})
    assert none.access("azure-openai", "r").secret == ""


def test_organization_and_project_are_sent_by_a_route_of_openai(tmp_path):
    text = 'model = "m"\nprovider = "openai"\napi_key = "k"\norganization = "org-2"\n'
    environ = {"OPENAI_API_KEY": "e", "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"}
    assert load(tmp_path, text, environ).access("openai", "r").headers == {"openai-organization": "org-2"}
    text = 'model = "m"\nprovider = "openai"\nproject = "proj-2"\n'
    expected = {"openai-organization": "org-1", "openai-project": "proj-2"}
    assert load(tmp_path, text, environ).access("openai", "r").headers == expected
    assert "accounts of OpenAI" in refused(tmp_path, 'model = "m"\nprovider = "cohere"\nproject = "p"\n')


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (f'\\"{SECRET}\\"', "is in quotation marks; remove them"),
        (f"'{SECRET}'", "is in quotation marks"),
        (f"Bearer {SECRET}", "starts with Bearer; write only the key"),
        (f"{SECRET}\\nx", "contains a character that no key has"),
    ],
)
def test_a_key_that_is_more_than_a_key_is_an_error(tmp_path, key, said):
    config = load(tmp_path, f'{OWN}api_key = "{key}"\n')
    with pytest.raises(ConfigError, match=said) as caught:
        config.access("openai-compatible", "r")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)


# ------------------------------------------------------------ secrets of the environment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'headers_env = { X-A = "MY_A" }',
            "the value of MY_A is not sent there; to allow it, write headers_env beside",
        ),
        ('auth = "entra"', "the token of Microsoft Entra ID is not sent there"),
    ],
)
def test_a_secret_of_the_environment_goes_only_where_its_own_layer_says(tmp_path, text, said):
    base = {"model": "text-embedding-3-small", "provider": "azure-openai"}
    (tmp_path / "a.toml").write_text(f'[routes.r]\nmodel = "m"\nprovider = "azure-openai"\n{text}\n')
    (tmp_path / "b.toml").write_text('[routes.r]\nbase_url = "https://evil.example.com"\n')
    environ = {"MY_A": SECRET, "AZURE_OPENAI_API_KEY": "k"}
    if "entra" not in text:
        (tmp_path / "a.toml").write_text((tmp_path / "a.toml").read_text() + 'auth = "none"\n')
    two = Config.load([tmp_path / "a.toml", tmp_path / "b.toml"], environ=environ)
    with pytest.raises(ConfigError) as caught:
        two.access("azure-openai", "r")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    (tmp_path / "b.toml").write_text(f'[routes.r]\nbase_url = "https://evil.example.com"\n{text}\n')
    one = Config.load([tmp_path / "a.toml", tmp_path / "b.toml"], environ=environ)
    assert one.access("azure-openai", "r").base_url == "https://evil.example.com/openai/v1"
    own = {f"routes.r.{name}": value for name, value in {**base, "base_url": "https://n.openai.azure.com"}.items()}
    assert Config.load([tmp_path / "a.toml"], environ=environ, overrides=own).access("azure-openai", "r").base_url


def test_a_discovered_file_sets_no_headers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "embedway.toml").write_text(f'[routes.r]\n{OWN}headers_env = {{ X-A = "MY_A" }}\nauth = "entra"\n')
    config = Config.load(environ={"MY_A": SECRET})
    assert not config.routes
    assert any("headers_env" in key for key in config.ignored)


def test_a_route_of_a_program_is_checked_in_the_same_way():
    with pytest.raises(ConfigError, match="RouteSettings: headers: must be printable ASCII") as caught:
        RouteSettings(model="m", provider="openai", headers={"X-A": f"{SECRET}\n1"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("line", [f'api_key_env = "{SECRET}"', f'headers_env = {{ X-Key = "{SECRET}" }}'])
def test_a_key_in_place_of_its_variables_name_is_an_error_without_it(tmp_path, line):
    assert "must be the name of an environment variable, not a key" in refused(tmp_path, f"{OWN}{line}\n")
