"""Keys are sent to their service's own hosts, and elsewhere only if the same layer sets both."""

import asyncio
import logging
import os

import pytest

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.catalog.services import default_services
from embedway.config.addresses import belongs_to_hosts
from embedway.config.known_services import SERVICES
from embedway.errors import AuthenticationError, ConfigError
from embedway.models.base import ModelEnvironment
from embedway.models.opening import open_model
from embedway.providers.opening import routes_of
from embedway.providers.registry import make_provider
from embedway.providers.requirements import routes_here
from embedway.rerank.base import make_reranker

SMALL = "text-embedding-3-small"
GATEWAY = "https://gateway.example.com/v1"
TOKEN = "hf_a"  # noqa: S105  a fake
#: A model of each service.
MODELS = {
    "openai": SMALL,
    "azure-openai": SMALL,
    "cohere": "embed-v4.0",
    "voyage": "voyage-4",
    "jina": "jina-embeddings-v3",
    "gemini": "gemini-embedding-001",
    "mistral": "mistral-embed",
}
#: A URL of each service's own, and one that only looks similar.
OWN = {
    "openai": ["https://api.openai.com/v1", "https://eu.api.openai.com/v1", "https://API.OPENAI.COM:443/v1"],
    "azure-openai": [f"https://name.{host}/openai/v1" for host in ("openai.azure.com", "services.ai.azure.com")],
    "cohere": ["https://api.cohere.com", "https://api.cohere.ai"],
    "voyage": ["https://api.voyageai.com/v1", "https://ai.mongodb.com/v1"],
    "jina": ["https://api.jina.ai/v1"],
    "gemini": ["https://generativelanguage.googleapis.com/v1"],
    "mistral": ["https://api.mistral.ai/v1", "https://api.eu.mistral.ai/v1"],
}
EVIL_NAME = "https://evil-{host}/v1"
FOREIGN = [
    GATEWAY,
    "http://127.0.0.1:1/v1",
    "http://{host}/v1",
    "https://{host}.evil.example/v1",
    EVIL_NAME,
    "https://evil.example/{host}/v1",
    "https://evil.example?{host}",
    "https://{host}:8443/v1",
    "https://{host}@evil.example/v1",
    "https://{host}./v1",
    "https://\uff41pi.{host}/v1",
]
INVALID = [
    "https://evil.example\\@{host}/v1",
    "https://{host}%2eevil.example/v1",
    "https:// {host}/v1",
]


@pytest.fixture(autouse=True)
def _empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [*os.environ]:
        if name.startswith(("EMBEDWAY_", "HF_", "HUGGING_FACE")):
            monkeypatch.delenv(name)


def key_variables():
    return [(provider, variable) for provider, service in SERVICES.items() for variable in service.keys]


def write(path, **fields):
    path.write_text("[routes.r]\n" + "".join(f"{name} = '{value}'\n" for name, value in fields.items()))
    return path


# ------------------------------------------------------------ providers and layers


@pytest.mark.parametrize(("provider", "variable"), key_variables())
def test_a_key_of_the_environment_goes_to_its_services_own_hosts(tmp_path, provider, variable):
    environ = {variable: KEY}
    assert Config.load(environ=environ).key_for(provider) == KEY
    for url in OWN[provider]:
        path = write(tmp_path / "a.toml", model=MODELS[provider], provider=provider, base_url=url)
        access = Config.load([path], environ=environ).access(provider, "r")
        assert (access.secret, access.base_url) == (KEY, url)


@pytest.mark.parametrize(("provider", "variable"), key_variables())
def test_a_key_of_the_environment_goes_to_no_other_address_of_a_file_or_of_arguments(tmp_path, provider, variable):
    host = SERVICES[provider].hosts[0].lstrip(".")
    host = f"name.{host}" if SERVICES[provider].hosts[0].startswith(".") else host
    for pattern in FOREIGN:
        if provider == "azure-openai" and pattern == EVIL_NAME:
            continue  # a resource name, so this host is Azure's too
        fields = {"model": MODELS[provider], "provider": provider, "base_url": pattern.format(host=host)}
        path = write(tmp_path / "a.toml", **fields)
        in_file = Config.load([path], environ={variable: KEY})
        in_arguments = Config.load(environ={variable: KEY}, overrides={"routes.r": fields})
        for config, where in ((in_file, str(path)), (in_arguments, "arguments")):
            with pytest.raises(ConfigError) as caught:
                config.access(provider, "r")
            said = str(caught.value)
            assert f'write api_key_env = "{variable}" beside base_url in {where}' in said
            assert said.startswith(f"{where}: routes.r.base_url: ")
            assert KEY not in said
            assert fields["base_url"] not in said
        facts = default_services()[MODELS[provider].casefold()]
        lacks = dict(routes_here(facts, in_file))["routes.r"]
        assert variable in lacks
    for pattern in INVALID:
        with pytest.raises(ConfigError, match=r"^arguments: routes\.r\.base_url: (is|must) "):
            Config.load(
                environ={variable: KEY}, overrides={"routes.r": {**fields, "base_url": pattern.format(host=host)}}
            )


@pytest.mark.parametrize(("provider", "variable"), [*key_variables(), ("openai-compatible", "MY_KEY")])
def test_a_layer_that_names_address_and_variable_has_the_key_sent(tmp_path, provider, variable):
    fields = {"model": SMALL, "provider": provider}
    both = {**fields, "base_url": GATEWAY, "api_key_env": variable}
    environ = {variable: KEY}
    assert Config.load([write(tmp_path / "a.toml", **both)], environ=environ).key_for(provider, "r") == KEY
    assert Config.load(environ=environ, overrides={"routes.r": both}).key_for(provider, "r") == KEY
    named = {f"EMBEDWAY_ROUTES__R__{name.upper()}": value for name, value in both.items()}
    assert Config.load(environ={**environ, **named}).key_for(provider, "r") == KEY
    # A URL from the environment belongs to the user, as the key does.
    path = write(tmp_path / "b.toml", **fields, api_key_env=variable)
    address = {"EMBEDWAY_ROUTES__R__BASE_URL": GATEWAY}
    assert Config.load([path], environ={**environ, **address}).key_for(provider, "r") == KEY


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
def test_address_and_variable_of_two_layers_have_no_key_sent(tmp_path, provider):
    key = write(tmp_path / "key.toml", model=SMALL, provider=provider, api_key_env="MY_KEY")
    address = write(tmp_path / "address.toml", base_url=GATEWAY)
    for load in (
        lambda: Config.load([key, address], environ={"MY_KEY": KEY}),
        lambda: Config.load([key], environ={"MY_KEY": KEY}, overrides={"routes.r.base_url": GATEWAY}),
        lambda: Config.load(
            [write(tmp_path / "a.toml", model=SMALL, provider=provider, base_url=GATEWAY)],
            environ={"MY_KEY": KEY, "EMBEDWAY_ROUTES__R__API_KEY_ENV": "MY_KEY"},
        ),
    ):
        with pytest.raises(ConfigError, match=r'api_key_env = "MY_KEY" beside base_url'):
            load().access(provider, "r")
    again = write(tmp_path / "again.toml", api_key_env="MY_KEY", base_url=GATEWAY)
    assert Config.load([key, address, again], environ={"MY_KEY": KEY}).key_for(provider, "r") == KEY


def test_keys_of_the_settings_are_sent_where_the_settings_say(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    for own in ({"api_key": KEY}, {"api_key_file": str(tmp_path / "key")}):
        path = write(tmp_path / "a.toml", model=SMALL, provider="openai", **own)
        environ = {"OPENAI_API_KEY": "sk-other"}
        config = Config.load([path], environ=environ, overrides={"routes.r.base_url": GATEWAY})
        assert config.key_for("openai", "r") == KEY


def test_routes_that_a_program_puts_in_itself_get_no_key_of_the_environment():
    from embedway.config.routes import RouteSettings

    route = RouteSettings(model=SMALL, provider="openai", base_url=GATEWAY, api_key_env="OPENAI_API_KEY")
    config = Config.load(environ={"OPENAI_API_KEY": KEY}).model_copy(update={"routes": {"r": route}})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        config.access("openai", "r")


def test_rerankers_and_their_keys_are_under_the_same_rule(tmp_path):
    path = write(tmp_path / "a.toml", model="rerank-v3.5", provider="cohere", base_url=GATEWAY)
    facts = default_services()["rerank-v3.5"]
    with pytest.raises(ConfigError, match=r'api_key_env = "CO_API_KEY" beside base_url'):
        routes_of(facts, Config.load([path], environ={"CO_API_KEY": KEY}), make_reranker)
    seen = []
    routes_of(facts, Config.load(environ={"CO_API_KEY": KEY, "CO_API_URL": GATEWAY}), lambda _, one: seen.append(one))
    assert [(one.base_url, one.secret) for one in seen] == [(GATEWAY, KEY)]


# ------------------------------------------------------------ URLs from the environment


def endpoints(provider, environ, tmp_path, **route):
    """Return the endpoints of a service's model, with a route without a URL before the catalog's."""
    path = write(tmp_path / "a.toml", model=MODELS[provider], provider=provider)
    config = Config.load([path], environ=environ, overrides={f"routes.r.{name}": one for name, one in route.items()})
    found = []
    routes_of(default_services()[MODELS[provider].casefold()], config, lambda _, one: found.append(one))
    return config, found


@pytest.mark.parametrize(
    ("provider", "environ", "url"),
    [
        ("openai", {"OPENAI_BASE_URL": GATEWAY}, GATEWAY),
        ("openai", {"OPENAI_BASE_URL": f" {GATEWAY}/\n"}, GATEWAY),
        ("openai", {"OPENAI_BASE_URL": "", "OPENAI_API_BASE": GATEWAY}, ""),
        ("cohere", {"CO_API_URL": GATEWAY}, GATEWAY),
        ("cohere", {"CO_API_URL": "https://api.cohere.ai/v1"}, "https://api.cohere.ai"),
        ("gemini", {"GOOGLE_GEMINI_BASE_URL": "https://g.example/"}, "https://g.example/v1beta"),
        (
            "gemini",
            {"GOOGLE_GEMINI_BASE_URL": "https://g.example", "GOOGLE_GENAI_API_VERSION": "v1"},
            "https://g.example/v1",
        ),
        ("gemini", {"GOOGLE_GENAI_API_VERSION": "v1"}, "https://generativelanguage.googleapis.com/v1"),
        ("gemini", {"GOOGLE_GENAI_API_VERSION": "beta"}, "https://generativelanguage.googleapis.com/v1beta"),
        ("voyage", {"VOYAGE_BASE_URL": GATEWAY, "VOYAGE_API_BASE": GATEWAY}, ""),
        ("mistral", {"MISTRAL_BASE_URL": GATEWAY, "MISTRAL_SERVER_URL": GATEWAY}, ""),
        ("jina", {"JINA_BASE_URL": GATEWAY}, ""),
    ],
)
def test_addresses_are_those_that_the_official_clients_read(tmp_path, provider, environ, url):
    config, found = endpoints(provider, {**environ, SERVICES[provider].keys[0]: KEY}, tmp_path)
    assert [(one.base_url, one.secret) for one in found] == [(url, KEY)] * 2
    for one in found:
        asyncio.run(make_provider(provider, one).aclose())
    assert dict(config.addresses) == ({provider: url} if url else {})
    variable = SERVICES[provider].address if environ.get(SERVICES[provider].address) else SERVICES[provider].version
    assert config.sources.get(f"services.{provider}.base_url") == (f"environment: {variable}" if url else None)


def test_azures_endpoint_and_version_are_taken_together(tmp_path):
    environ = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "https://name.openai.azure.com/"}
    _, (first, *_) = endpoints("azure-openai", environ, tmp_path)
    assert (first.base_url, dict(first.options)) == ("https://name.openai.azure.com/openai/v1", {})
    versioned = {**environ, "OPENAI_API_VERSION": "2024-10-21"}
    _, (first, *_) = endpoints("azure-openai", versioned, tmp_path)
    assert (first.base_url, first.options["api_version"]) == ("https://name.openai.azure.com", "2024-10-21")
    _, (first, *_) = endpoints("azure-openai", versioned, tmp_path, options={"api_version": "2023-05-15"})
    assert first.options["api_version"] == "2023-05-15"
    # A route's own URL never matches the variable.
    named = "https://name.services.ai.azure.com/openai/v1"
    _, (first, *_) = endpoints("azure-openai", versioned, tmp_path, base_url=named)
    assert (first.base_url, dict(first.options)) == (named, {})


def test_a_routes_own_address_goes_before_that_of_the_environment(tmp_path):
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": GATEWAY}
    _, (own, listed) = endpoints("openai", environ, tmp_path, base_url="https://eu.api.openai.com/v1")
    assert (own.base_url, listed.base_url) == ("https://eu.api.openai.com/v1", GATEWAY)


@pytest.mark.parametrize(
    ("provider", "variable"),
    [(name, service.address) for name, service in SERVICES.items() if service.address],
)
@pytest.mark.parametrize(
    "url", ["http://gateway.example", "gateway.example/v1", "ftp://a.example", "https://u:sk-p@a.b"]
)
def test_an_address_that_is_not_safe_is_refused_by_its_variables_name(tmp_path, provider, variable, url):
    with pytest.raises(ConfigError, match=f"^{variable}: must ") as caught:
        endpoints(provider, {variable: url, SERVICES[provider].keys[0]: KEY}, tmp_path)
    assert "sk-p" not in str(caught.value)
    config = Config.load(environ={variable: url})
    assert "sk-p" not in str(config.sources) + str(config.addresses)


def test_a_routes_address_of_the_environment_is_under_the_same_rule(tmp_path):
    environ = {"EMBEDWAY_ROUTES__R__BASE_URL": "http://gateway.example/v1", "OPENAI_API_KEY": KEY}
    with pytest.raises(ConfigError, match=r"^EMBEDWAY_ROUTES__R__BASE_URL: must be https"):
        endpoints("openai", environ, tmp_path)
    _, (first, _) = endpoints("openai", environ, tmp_path, options={"allow_http": "true"})
    assert first.base_url == "http://gateway.example/v1"


# ------------------------------------------------------------ over the wire


class Gateway(OpenAIServer):
    path = "/v1/embeddings"
    width = 1536


def embed(environ, **overrides):
    server = Gateway()

    async def main():
        async with server.running():
            filled = {name: value.format(url=server.url) for name, value in environ.items()}
            waits = {"cache.backend": "none", "ledger.backend": "none", "upstream.max_attempts": 1}
            routes = {name: value.format(url=server.url) for name, value in overrides.items()}
            config = Config.load(environ=filled, overrides={**waits, **routes})
            async with AsyncEmbedder(config=config) as embedder:
                return await embedder.embed(["a text"], model=SMALL)

    return server, main


def test_a_gateway_of_the_environment_gets_key_organization_and_project_and_the_space_stays():
    environ = {
        "OPENAI_BASE_URL": "{url}/v1",
        "OPENAI_API_KEY": KEY,
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj-1",
    }
    server, main = embed(environ)
    result = asyncio.run(main())
    (headers,) = server.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
    assert result.space == open_model(SMALL, ModelEnvironment(Config.load(environ={"OPENAI_API_KEY": KEY}))).space
    assert result.receipt.route == f"openai:{SMALL}"


def test_another_key_and_another_address_get_neither_organization_nor_project():
    own = {"routes.r.model": SMALL, "routes.r.provider": "openai", "routes.r.base_url": "{url}/v1"}
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"}
    for key in ({"routes.r.api_key": KEY}, {"routes.r.api_key_env": "OPENAI_API_KEY"}):
        server, main = embed(environ, **own, **key)
        asyncio.run(main())
        assert len(server.headers) == 2  # a probe, because there is the catalog's route too, then the text
        for headers in server.headers:
            assert headers["authorization"] == f"Bearer {KEY}"
            assert not {"openai-organization", "openai-project"} & {name.lower() for name in headers}


def test_a_server_that_a_file_names_without_the_key_is_asked_nothing():
    own = {"routes.r.model": SMALL, "routes.r.provider": "openai", "routes.r.base_url": "{url}/v1"}
    server, main = embed({"OPENAI_API_KEY": KEY}, **own)
    with pytest.raises(ConfigError, match="is not on openai's own hosts"):
        asyncio.run(main())
    assert not server.headers


# ------------------------------------------------------------ the hub


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "EMBEDWAY_WEIGHTS__HUB_TOKEN", "file"])
def test_the_hubs_token_of_the_environment_goes_to_no_endpoint_that_a_file_names(tmp_path, variable, caplog):
    caplog.set_level(logging.WARNING, logger="embedway.config")
    environ = {variable: "hf_a"}
    if variable == "file":
        (tmp_path / "token").write_text("hf_a")
        environ = {"HF_TOKEN_PATH": str(tmp_path / "token")}
    path = tmp_path / "a.toml"
    path.write_text("[weights]\nhub_endpoint = 'https://mirror.example'\n")
    config = Config.load([path], environ=environ)
    assert config.store_settings().hub_token is None
    assert "weights.hub_token" not in config.sources
    (line,) = caplog.messages
    assert "HF_ENDPOINT" in line
    assert str(path) in line
    assert "hf_a" not in line
    arguments = Config.load(environ=environ, overrides={"weights.hub_endpoint": "https://mirror.example"})
    assert arguments.store_settings().hub_token is None


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"HF_TOKEN": "hf_a"}, ""),
        ({"HF_TOKEN": "hf_a"}, "[weights]\nhub_endpoint = 'https://huggingface.co/'\n"),
        ({"HF_TOKEN": "hf_a", "HF_ENDPOINT": "https://mirror.example"}, ""),
        ({"HF_TOKEN": "hf_a", "EMBEDWAY_WEIGHTS__HUB_ENDPOINT": "https://mirror.example"}, ""),
        ({}, "[weights]\nhub_endpoint = 'https://mirror.example'\nhub_token = 'hf_a'\n"),
        ({"HF_TOKEN": "hf_b"}, "[weights]\nhub_endpoint = 'https://mirror.example'\nhub_token = 'hf_a'\n"),
    ],
)
def test_the_hubs_token_goes_where_the_same_layer_says(tmp_path, environ, text, caplog):
    path = tmp_path / "a.toml"
    path.write_text(text)
    assert Config.load([path], environ=environ).store_settings().hub_token == TOKEN
    assert not caplog.messages


def test_own_hosts_are_compared_whole():
    assert belongs_to_hosts("https://a.b.example/x", (".b.example",))
    assert not belongs_to_hosts("https://b.example/x", (".b.example",))
    assert not belongs_to_hosts("https://xb.example/x", (".b.example",))
    assert not belongs_to_hosts("", ("",))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "the variable OPENAI_API_KEY"),
        ({"api_key": "sk-a"}, "api_key"),
        ({"api_key_env": "MINE"}, "the variable MINE (api_key_env)"),
        ({"api_key_file": "/dev/null"}, ""),
        ({"auth": "none", "headers": {"X-A": "a"}}, "headers.X-A"),
        ({"auth": "none", "headers_env": {"X-A": "MINE"}}, "the variable MINE (headers_env.X-A)"),
        (
            {"auth": "none", "headers": {"X-B": "b"}, "headers_env": {"X-A": "MINE"}},
            "headers.X-B and the variable MINE (headers_env.X-A)",
        ),
        (
            {"headers": {"X-B": "b"}, "headers_env": {"Authorization": "MINE"}},
            "the variable MINE (headers_env.Authorization)",
        ),
        ({"auth": "entra"}, "the role of the identity in Microsoft Entra ID"),
    ],
)
def test_the_source_of_a_credential_is_named(tmp_path, fields, said):
    if "api_key_file" in fields:
        path = tmp_path / "key"
        path.write_text("sk-file")
        fields, said = {"api_key_file": path}, f"the key in {path} (api_key_file)"
    route = {"model": "text-embedding-3-small", "provider": "openai", **fields}
    config = Config.load(environ={"OPENAI_API_KEY": "sk-b", "MINE": "sk-c"}, overrides={"routes.r": route})
    assert config.access("openai", "r").credential == said


@pytest.mark.parametrize(("status", "said"), [(401, "refused; check"), (403, "no right to this; check")])
def test_the_error_for_a_refused_header_names_its_variable(status, said):
    async def main():
        server = OpenAIServer()
        server.refusal = lambda _request, _body: server.failure(status, "no")
        async with server.running():
            route = {"model": "text-embedding-3-small", "provider": "openai-compatible", "base_url": f"{server.url}/v1"}
            route |= {"auth": "none", "headers_env": {"X-Key": "APIM_KEY"}}
            values = {"routes.r": route, "cache.backend": "none", "ledger.backend": "none"}
            config = Config.load(environ={"APIM_KEY": KEY}, overrides=values)
            async with AsyncEmbedder("text-embedding-3-small", config=config) as embedder:
                with pytest.raises(AuthenticationError) as caught:
                    await embedder.embed(["a"])
        assert f"{said} the variable APIM_KEY (headers_env.X-Key)" in str(caught.value)
        assert KEY not in str(caught.value)

    asyncio.run(main())
