"""Routes: options, keys, proxies, and the facts of a model's space."""

import asyncio
import base64
import dataclasses
import os

import numpy as np
import pytest
from aiohttp import web

from api_servers import KEY, CompatibleServer, NimServer, VoyageServer
from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import ConfigError, NoRouteError, ProtocolError, UnavailableError, UpstreamError
from embedway.models.base import ModelEnvironment
from embedway.models.opening import open_model
from embedway.providers.base import Endpoint
from embedway.providers.http import JsonHttp
from embedway.providers.registry import make_provider
from embedway.providers.requirements import routes_here, routes_to
from embedway.rerank.base import make_reranker
from inside import provider_of, set_faults

OWN = {"name": "acme/m", "dimensions": 16, "max_tokens": 100, "price_usd_per_million_tokens": "0"}


def load(tmp_path=None, **overrides):
    waits = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.002, "weights.offline": True}
    cache = {"cache.backend": "memory"}
    if tmp_path is not None:
        cache |= {"weights.directory": str(tmp_path / "w"), "weights.hub_cache": str(tmp_path / "hub")}
    return Config.load(environ={}, overrides={**waits, **cache, **overrides})


def endpoint(**options):
    return Endpoint("routes.r", "m", base_url="http://127.0.0.1:1", secret=KEY, options=options)


# ------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("openai-compatible", {"max_inputs": "abc"}, "options.max_inputs: must be an integer greater than 0"),
        ("openai-compatible", {"max_inputs": "0"}, "options.max_inputs: must be an integer greater than 0"),
        ("openai-compatible", {"max_request_tokens": "-1"}, "options.max_request_tokens: must be an integer"),
        ("openai-compatible", {"dimension": "true"}, "options.dimension: is not an option; available: max_inputs"),
        ("openai-compatible", {"dimensions": "big"}, "options.dimensions: must be true or false"),
        ("openai-compatible", {"encoding": "int8"}, "options.encoding: must be one of float, base64"),
        ("azure-openai", {"api_versoin": "1"}, "options.api_versoin: is not an option"),
        *((name, {"a": "b"}, "options.a: is not an option") for name in ("openai", "cohere", "voyage", "jina")),
        *((name, {"allow_http": "maybe"}, "options.allow_http: must be") for name in ("gemini", "mistral")),
        ("fake", {"widht": "3"}, "options.widht: is not an option"),
        ("fake", {"width": "wide"}, "options.width: must be an integer greater than 0"),
    ],
)
def test_invalid_options_are_reported(provider, options, message):
    with pytest.raises(ConfigError, match=message):
        make_provider(provider, endpoint(**options))


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("cohere", {"max_tokens_per_doc": "all"}),
        ("voyage", {"a": "b"}),
        ("jina", {"a": "b"}),
        ("openai-compatible", {"dialect": "vllm"}),
        ("openai-compatible", {"max_inputs": "0"}),
    ],
)
def test_options_of_rerankers_too(provider, options):
    with pytest.raises(ConfigError, match=f"routes.r: options.{next(iter(options))}"):
        make_reranker(provider, endpoint(**options))


# ------------------------------------------------------------ keys and proxies


def test_keys_lose_the_line_end_that_came_with_them_and_nothing_else(tmp_path):
    config = Config.load(environ={"OPENAI_API_KEY": " sk-1\r\n", "COHERE_API_KEY": "a\nb"}, overrides={})
    assert config.key_for("openai") == "sk-1"
    with pytest.raises(ConfigError, match="COHERE_API_KEY: contains a character that no key has") as caught:
        config.key_for("cohere")
    assert "a\nb" not in str(caught.value)
    # Only routes that need the key are unusable.
    (lacks,) = {lacks for _, lacks in routes_here(open_facts("embed-v4.0", config), config)}
    assert "COHERE_API_KEY" in lacks


def open_facts(name, config):
    from embedway.providers.names import service_of

    return service_of(name, config)


def test_nothing_goes_through_a_proxy_without_https(monkeypatch):
    seen = []

    async def proxied(request):
        seen.append(dict(request.headers))
        return web.json_response({})

    async def main():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxied)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{runner.addresses[0][1]}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{runner.addresses[0][1]}")
        server = CompatibleServer()
        server.models = {"acme/m"}
        try:
            async with server.running():
                way = {"model": "acme/m", "provider": "openai-compatible", "base_url": f"{server.url}/v1"}
                config = load(**{"models.m": OWN, "routes.r": {**way, "api_key": KEY}})
                async with AsyncEmbedder(config=config) as embedder:
                    return await embedder.embed(["a text"], model="acme/m")
        finally:
            await runner.cleanup()

    assert np.isfinite(asyncio.run(main()).vectors).all()
    assert seen == []


@pytest.fixture
def proxied(monkeypatch, tmp_path):
    """Return the headers of a request through a proxy that answers 403, and the error.

    The call uses https, and a netrc contains a password for every server.
    """
    (tmp_path / "netrc").write_text("default login user-of-netrc password of-netrc\n")
    (tmp_path / "netrc").chmod(0o600)
    for name in [name for name in os.environ if "PROXY" in name.upper()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def call(proxy="http://127.0.0.1:{port}", secret=KEY):
        seen = []

        async def answer(reader, writer):
            seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=server.sockets[0].getsockname()[1]))
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            http = JsonHttp("https://127.0.0.1:1/v1", route="r", headers=headers, timeout_s=5, allow_http=False)
            try:
                with pytest.raises(UpstreamError) as caught:
                    await http.post("/embeddings", {})
            finally:
                await http.aclose()
        return "".join(seen), caught.value

    return lambda *arguments, **more: asyncio.run(call(*arguments, **more))


@pytest.mark.parametrize("secret", [KEY, ""])
def test_no_password_of_netrc_is_read_for_a_service_or_its_proxy(proxied, secret):
    asked, error = proxied(secret=secret)
    assert asked.startswith("CONNECT 127.0.0.1:1 ")
    assert "authorization" not in asked.casefold()
    assert isinstance(error, ProtocolError)
    assert (error.status, error.billed) == (403, False)


def test_user_and_password_of_the_proxys_address_go_to_the_proxy(proxied):
    asked, _ = proxied("http://user:pass@127.0.0.1:{port}")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:pass').decode()}" in asked
    assert KEY not in asked
    asked, _ = proxied("127.0.0.1:{port}")
    assert asked.startswith("CONNECT 127.0.0.1:1 ")


def test_hosts_in_no_proxy_are_reached_directly(proxied, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked, error = proxied()
    assert (asked, error.billed) == ("", False)


@pytest.mark.parametrize("proxy", ["socks5://user:pass@127.0.0.1:{port}", "http://user:pass@127.0.0.1:port", "http://"])
def test_an_unusable_proxy_is_reported_and_never_bypassed(proxied, proxy):
    asked, error = proxied(proxy)
    assert asked == ""
    assert str(error).startswith("r: HTTPS_PROXY ")
    assert "http://proxy.example.com:3128" in str(error)
    assert "pass" not in str(error)


# ------------------------------------------------------------ spaces and entries


class Family(VoyageServer):
    """Two models of one family, with different vectors."""

    models = ("voyage-4-lite", "voyage-4-large")

    def vectors(self, texts, width, **more):
        name = self.bodies[-1]["model"]
        return super().vectors([f"{name}: {text}" for text in texts], width, **more)


def test_models_of_a_family_share_a_space_and_no_entry():
    async def main():
        server = Family()
        async with server.running():
            way = {"provider": "voyage", "base_url": f"{server.url}/v1", "api_key": KEY}
            names = ("voyage-4-lite", "voyage-4-large")
            config = load(**{f"routes.{name}": {**way, "model": name} for name in names})
            async with AsyncEmbedder(config=config) as embedder:
                return [await embedder.embed(["a text"], model=name) for name in (*names, names[0])]

    lite, large, again = asyncio.run(main())
    assert lite.space == large.space
    assert (lite.receipt.cache_hits, large.receipt.cache_hits, again.receipt.cache_hits) == (0, 0, 1)
    assert not np.allclose(lite.vectors, large.vectors)
    np.testing.assert_array_equal(lite.vectors, again.vectors)


def test_voyages_widths_are_asked_for_whatever_its_own_is():
    async def main(backend):
        server = VoyageServer()
        server.models = ("voyage-3.5",)
        async with server.running():
            way = {"model": "voyage-3.5", "provider": "voyage", "base_url": f"{server.url}/v1", "api_key": KEY}
            async with AsyncEmbedder(config=load(**{"routes.r": way, "cache.backend": backend})) as embedder:
                sizes = (None, 2048, 1024, 512)
                found = [await embedder.embed(["a text"], model="voyage-3.5", dimensions=size) for size in sizes]
                return [result.vectors.shape[1] for result in found], server

    assert asyncio.run(main("memory"))[0] == [1024, 2048, 1024, 512]
    widths, server = asyncio.run(main("none"))
    assert widths == [1024, 2048, 1024, 512]
    assert server.refused == []


def test_a_models_revision_is_part_of_its_space():
    route = {"model": "acme/m", "provider": "fake"}
    spaces = [
        open_model("acme/m", ModelEnvironment(load(**{"models.m": {**OWN, **more}, "routes.r": route}))).space
        for more in ({}, {"revision": "2"}, {"revision": "2"})
    ]
    assert spaces[0] != spaces[1] == spaces[2]
    assert spaces[0].id != spaces[1].id


def test_nv_embed_is_available_from_a_server(tmp_path):
    async def main():
        server = NimServer()
        server.width, server.models = 4096, {"nvidia/NV-Embed-v2"}
        async with server.running():
            way = {
                "model": "nvidia/NV-Embed-v2",
                "provider": "openai-compatible",
                "base_url": f"{server.url}/v1",
                "api_key": KEY,
                "options": {"input_type": "true"},
            }
            async with AsyncEmbedder(config=load(tmp_path, **{"routes.nim": way})) as embedder:
                result = await embedder.embed(["a text"], model="nvidia/NV-Embed-v2", input_type="query")
                return result, server.bodies[0]

    result, body = asyncio.run(main())
    assert result.vectors.shape == (1, 4096)
    assert (body["input_type"], body["input"]) == ("query", ["a text"])
    # Its tokenizer is on the hub, which is not available here.
    assert result.receipt.tokens_estimated


# ------------------------------------------------------------ missing parts of a route


def test_missing_parts_of_routes_are_reported_before_they_are_used(tmp_path):
    routes = {
        "routes.typo": {"model": "acme/m", "provider": "acme-inc"},
        "routes.bare": {"model": "acme/m", "provider": "openai-compatible"},
        "routes.azure": {"model": "acme/m", "provider": "azure-openai", "api_key": KEY},
        "routes.good": {"model": "acme/m", "provider": "fake"},
        "routes.folder": {"model": "acme/m", "provider": "fastembed", "options": {"path": str(tmp_path / "none")}},
    }
    config = load(tmp_path, **{"models.m": OWN}, **routes)
    found = dict(routes_to({"acme/m"}, config))
    assert "no provider is called 'acme-inc'" in found["routes.typo"]
    assert (found["routes.bare"], found["routes.azure"], found["routes.good"]) == ("no base_url", "no base_url", "")
    assert found["routes.folder"].startswith(("no folder", "no library"))


def test_weights_of_libraries_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    names = ("fastembed-bge-base-en-v1.5", "nvidia/NV-Embed-v2")

    def lacking(*, offline):
        more = {"weights.fastembed_cache": str(tmp_path / "fe"), "weights.offline": offline}
        config = load(tmp_path, **more)
        trusted = {
            name: dataclasses.replace(facts, routes=tuple(map(plain, facts.routes)))
            for name, facts in [(name, open_facts(name, config)) for name in names]
        }
        return [routes_here(trusted[name], config)[0][1] for name in names]

    def plain(route):
        return dataclasses.replace(route, options={})

    assert lacking(offline=True) == ["weights missing, and weights.offline is set"] * 2
    assert lacking(offline=False) == ["weights missing: they are downloaded at the first use"] * 2
    (tmp_path / "fe" / "models--qdrant--bge-base-en-v1.5-onnx-q").mkdir(parents=True)
    (tmp_path / "hub" / "models--nvidia--NV-Embed-v2" / "snapshots" / "abc").mkdir(parents=True)
    assert lacking(offline=True) == ["", ""]


# ------------------------------------------------------------ alternatives


def test_the_error_of_a_models_only_route_lists_the_alternatives(tmp_path):
    async def main(**options):
        own = {"models.m": OWN, "routes.r": {"model": "acme/m", "provider": "fake", "base_url": "x"}}
        other = {"models.n": {**OWN, "name": "acme/n"}, "routes.s": {"model": "acme/n", "provider": "fake"}}
        async with AsyncEmbedder(config=load(tmp_path, **own, **other, **{"upstream.max_attempts": 1})) as embedder:
            await embedder.models.describe("acme/m")
            down = UnavailableError("it is down", route="routes.r")
            set_faults(provider_of(embedder), lambda _number, _texts: down)
            try:
                result = await embedder.embed(["a"], model="acme/m", **options)
            except UnavailableError as error:
                return error
            return result.errors[0]

    for options in ({}, {"partial": True}):
        error = asyncio.run(main(**options))
        assert error.elsewhere == ("acme/n",)
        assert "Other models that are set up here, each with its own space: acme/n" in str(error)
    assert str(NoRouteError("m", failed=[("a", "b")])) == "no route of m succeeded:\n  - a: b"


def test_a_missing_key_of_settings_that_were_not_loaded_names_the_way_to_load_them(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    config = Config(embedding={"default_model": "text-embedding-3-small"}, cache={"backend": "none"})
    with (
        Embedder(config=config) as embedder,
        pytest.raises(ConfigError, match=r"api_key: is not set: Config\(\) does not read .* use Config\.load\(\)"),
    ):
        embedder.embed_query("a query")
    changed = Config.load(environ={}).with_benchmarks({"text-embedding-3-small": {"quality_score": 80}})
    assert changed.is_loaded
    with (
        Embedder("text-embedding-3-small", config=changed) as embedder,
        pytest.raises(ConfigError, match="is not set; set OPENAI_API_KEY"),
    ):
        embedder.embed_query("a query")
