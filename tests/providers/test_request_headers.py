"""Headers of requests over HTTP: headers of routes, keys in files that change, and bearer tokens."""

import asyncio
import contextlib

import pytest

from api_servers import KEY, AzureServer, GeminiServer, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import AuthenticationError
from embedway.providers.base import Endpoint
from embedway.providers.request_headers import headers_of
from tls_servers import Gateway

SMALL = "text-embedding-3-small"
NEW = "sk-new-key-of-the-test"


@contextlib.asynccontextmanager
async def embedder_of(server, environ=None, **route):
    """Open an embedder with one route to a server, without retries."""
    async with server.running():
        base = {"model": SMALL, "provider": "openai", "base_url": f"{server.url}/v1", **route}
        values = {"cache.backend": "none", "ledger.backend": "none", "upstream.max_attempts": 1}
        overrides = {**values, **{f"routes.r.{name}": value for name, value in base.items()}}
        async with AsyncEmbedder(config=Config.load(environ=environ or {}, overrides=overrides)) as embedder:
            yield embedder


class Rotating(Gateway):
    """Server that accepts one key, which changes."""

    def __init__(self):
        super().__init__()
        self.key = KEY

    def refusal(self, request, body):
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return super().failure(401, "wrong key")
        return self.refusal_of_body(body)


def test_headers_of_a_route_are_sent_with_each_request_and_replace_the_key():
    async def main():
        server = Gateway()
        headers = {"Authorization": f"Bearer {KEY}", "X-Team": "search"}
        async with embedder_of(server, {"OPENAI_API_KEY": "sk-other"}, headers=headers) as embedder:
            await embedder.embed(["a text"], model=SMALL)
        assert len(server.headers) == 2  # a probe, because OpenAI's own route exists too, and the text
        for sent in server.headers:
            assert (sent.getall("authorization"), sent["x-team"]) == ([f"Bearer {KEY}"], "search")

    asyncio.run(main())


def test_a_subscription_key_in_place_of_the_services_key():
    class Apim(Gateway):
        def refusal(self, request, body):
            assert "api-key" not in request.headers
            assert "authorization" not in request.headers
            right = request.headers.get("ocp-apim-subscription-key") == KEY
            return self.refusal_of_body(body) if right else super().failure(401, "no subscription")

    async def main():
        server = Apim()
        server.models = {"my-deployment"}
        more = {"provider": "azure-openai", "upstream_model": "my-deployment", "auth": "none"}
        environ = {"AZURE_OPENAI_API_KEY": "sk-other"}
        async with embedder_of(server, environ, headers={"Ocp-Apim-Subscription-Key": KEY}, **more) as embedder:
            await embedder.embed(["a text"], model=SMALL)

    asyncio.run(main())


def test_azure_accepts_a_bearer_token_in_place_of_its_key(tmp_path):
    class Entra(AzureServer):
        width = 1536

        def refusal(self, request, body):
            return OpenAIServer.refusal(self, request, body)

    async def main():
        server = Entra()
        more = {"provider": "azure-openai", "upstream_model": "my-deployment", "auth": "bearer"}
        (tmp_path / "token").write_text(KEY)
        async with embedder_of(server, api_key_file=str(tmp_path / "token"), **more) as embedder:
            await embedder.embed(["a text"], model=SMALL)
        assert "api-key" not in server.headers[0]

    asyncio.run(main())


@pytest.mark.parametrize("table", ["api_key_file", "headers_file"])
def test_a_key_file_that_changes_is_read_before_the_next_request(tmp_path, table):
    async def main():
        server, path = Rotating(), tmp_path / "key"
        prefix = "" if table == "api_key_file" else "Bearer "
        path.write_text(f"{prefix}{KEY}")
        own = {table: str(path) if table == "api_key_file" else {"Authorization": str(path)}}
        async with embedder_of(server, **own) as embedder:
            await embedder.embed(["a text"], model=SMALL)
            server.key = NEW
            path.write_text(f"{prefix}{NEW}")
            result = await embedder.embed(["a second text"], model=SMALL)
            assert (len(server.headers), result.receipt.attempts) == (2, 1)

    asyncio.run(main())


def test_a_refused_key_is_read_again_once_and_sent_once_more(tmp_path):
    class Replacing(Rotating):
        def refusal(self, request, body):
            refused = super().refusal(request, body)
            if refused is not None:
                path.write_text(NEW)  # the key is replaced while the request is in flight
            return refused

    path = tmp_path / "key"

    async def main():
        server = Replacing()
        server.key = NEW
        path.write_text(KEY)
        async with embedder_of(server, api_key_file=str(path)) as embedder:
            result = await embedder.embed(["a text"], model=SMALL)
            assert [one["authorization"] for one in server.headers] == [f"Bearer {KEY}", f"Bearer {NEW}"]
            assert result.receipt.attempts == 1
            # The same key again is not sent twice.
            server.key = "sk-third"
            with pytest.raises(AuthenticationError) as caught:
                await embedder.embed(["another text"], model=SMALL)
            assert len(server.headers) == 3
            assert NEW not in str(caught.value)

    asyncio.run(main())


def test_requests_in_flight_share_a_new_key(tmp_path):
    async def main():
        server, path = Rotating(), tmp_path / "key"
        path.write_text(KEY)
        async with embedder_of(server, api_key_file=str(path)) as embedder:
            await embedder.embed(["a text"], model=SMALL)
            server.key = NEW
            path.write_text(NEW)
            calls = [embedder.embed([f"text {n}"], model=SMALL) for n in range(20)]
            results = await asyncio.gather(*calls)
            assert all(len(result.vectors) == 1 for result in results)
            path.unlink()
            await embedder.embed(["while the file is missing"], model=SMALL)

    asyncio.run(main())


def test_gemini_refuses_a_key_with_400_and_the_file_is_read_again(tmp_path):
    class Refusing(GeminiServer):
        def refusal(self, request, body):
            if request.headers.get("x-goog-api-key") != KEY:
                (tmp_path / "key").write_text(KEY)
            return super().refusal(request, body)

    async def main():
        server = Refusing()
        (tmp_path / "key").write_text("sk-wrong")
        more = {"model": "gemini-embedding-001", "provider": "gemini", "api_key_file": str(tmp_path / "key")}
        async with server.running():
            more["base_url"] = f"{server.url}/v1beta"
            values = {"cache.backend": "none", "ledger.backend": "none", "upstream.max_attempts": 1}
            values |= {f"routes.r.{name}": value for name, value in more.items()}
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=values)) as embedder:
                await embedder.embed(["a text"], model="gemini-embedding-001")
        assert [one["x-goog-api-key"] for one in server.headers] == ["sk-wrong", KEY]

    asyncio.run(main())


def test_no_value_is_in_a_repr():
    endpoint = Endpoint("r", "m", secret=KEY, headers={"X-Key": NEW})
    shown = repr(endpoint) + repr(headers_of(endpoint, "authorization"))
    assert KEY not in shown
    assert NEW not in shown
