"""Tokens of Microsoft Entra ID: renewed before they expire and when they are refused; azure-identity itself too."""

import asyncio
import contextlib
import logging
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from aiohttp import web

from api_servers import AzureServer
from clocks import Clock
from embedway import AsyncEmbedder, Config
from embedway.errors import AuthenticationError, ConfigError, UnavailableError
from embedway.providers.base import Endpoint
from embedway.providers.delivery import record_attempt
from embedway.providers.entra import EntraToken, _default_credential
from embedway.providers.http import JsonHttp
from embedway.providers.openai import azure
from embedway.providers.request_headers import RequestHeaders
from serving import serving_app

SMALL = "text-embedding-3-small"
SECRET = "t0ken-of-the-test"  # noqa: S105  a fake


class Credential:
    """Credential whose tokens are numbered; `errors` are raised first."""

    opened = 0

    def __init__(self, clock, errors=()):
        self.clock, self.errors, self.scopes = clock, [*errors], []
        type(self).opened += 1

    def get_token(self, scope):
        self.scopes.append(scope)
        if self.errors:
            raise self.errors.pop(0)
        return SimpleNamespace(token=f"{SECRET}-{len(self.scopes)}", expires_on=self.clock() + 3600)


def token_of(credential, clock, url="https://n.openai.azure.com/openai/v1"):
    return EntraToken(url, route="routes.r", open_credential=lambda: credential, clock=clock)


def test_a_token_is_kept_until_it_is_about_to_expire():
    async def main():
        clock = Clock()
        credential = Credential(clock)
        token = token_of(credential, clock)
        first = await asyncio.gather(*(token.current() for _ in range(20)))
        assert set(first) == {f"{SECRET}-1"}
        clock.now += 3600 - 301
        assert await token.current() == f"{SECRET}-1"
        clock.now += 1
        assert await token.current() == f"{SECRET}-2"
        assert credential.scopes == ["https://cognitiveservices.azure.com/.default"] * 2

    asyncio.run(main())


def test_a_refused_token_is_renewed_once_for_all_requests():
    async def main():
        clock = Clock()
        credential = Credential(clock)
        token = token_of(credential, clock)
        refused = await token.current()
        renewed = await asyncio.gather(*(token.renewed(refused) for _ in range(20)))
        assert set(renewed) == {f"{SECRET}-2"}
        assert len(credential.scopes) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("https://n.openai.azure.us/openai/v1", "https://cognitiveservices.azure.us/.default"),
        ("https://n.openai.azure.cn/openai/v1", "https://cognitiveservices.azure.cn/.default"),
        ("https://gateway.example.com/v1", "https://cognitiveservices.azure.com/.default"),
    ],
)
def test_the_scope_is_that_of_the_cloud(url, scope):
    async def main():
        credential = Credential(Clock())
        await token_of(credential, Clock(), url).current()
        assert credential.scopes == [scope]

    asyncio.run(main())


class ClientAuthenticationError(Exception):
    """As azure.core's, whose messages contain tenants and answers."""


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ClientAuthenticationError(f"{SECRET} tenant"), AuthenticationError, "run `az login`, or set the variables"),
        (OSError(f"{SECRET} refused"), UnavailableError, "Microsoft Entra ID returned no token (OSError)"),
        (ClientAuthenticationError(f"{SECRET} none"), AuthenticationError, "no credential was found"),
        (ClientAuthenticationError(f"Authentication failed: {SECRET}"), AuthenticationError, "credential was refused"),
        (ClientAuthenticationError(f"Failed to resolve 'h' {SECRET}"), UnavailableError, "proxy, set HTTPS_PROXY"),
    ],
)
def test_a_missing_token_is_an_error_without_the_librarys_message(error, kind, said):
    async def main():
        clock = Clock()
        token = token_of(Credential(clock, [error]), clock)
        with pytest.raises(kind) as caught:
            await token.current()
        assert said in str(caught.value)
        assert SECRET not in str(caught.value)
        assert not caught.value.billed
        assert caught.value.__context__ is None
        assert await token.current() == f"{SECRET}-2"

    asyncio.run(main())


def test_a_valid_token_is_used_while_no_other_can_be_got():
    async def main():
        clock = Clock()
        credential = Credential(clock)
        token = token_of(credential, clock)
        await token.current()
        clock.now += 3500
        credential.errors = [OSError(), OSError()]
        assert await token.current() == f"{SECRET}-1"
        clock.now += 101
        with pytest.raises(UnavailableError):
            await token.current()

    asyncio.run(main())


class Hanging(Credential):
    """Credential that gives no token until `released` is set."""

    def __init__(self, clock):
        super().__init__(clock)
        self.released = threading.Event()
        self.threads = []

    def get_token(self, scope):
        self.threads.append(threading.current_thread())
        assert self.released.wait(60)
        return super().get_token(scope)


def test_a_credential_that_hangs_holds_one_thread_and_callers_only_once():
    clock = Clock()
    credential = Hanging(clock)
    token = EntraToken("https://h", route="routes.r", open_credential=lambda: credential, clock=clock, wait_s=0.05)

    async def refused():
        for one in await asyncio.gather(*(token.current() for _ in range(20)), return_exceptions=True):
            assert isinstance(one, UnavailableError)
            assert str(one) == "routes.r: Microsoft Entra ID gave no token in time"

    async def at_once():
        coroutine = token.current()
        with pytest.raises(UnavailableError, match="gave no token in time"):
            coroutine.send(None)  # it fails before its first wait

    asyncio.run(refused())
    asyncio.run(at_once())
    assert [thread.daemon for thread in credential.threads] == [True]
    credential.released.set()
    credential.threads[0].join(60)
    assert asyncio.run(token.current()) == f"{SECRET}-1"
    assert len(credential.threads) == 1


def test_a_cancelled_caller_does_not_cancel_the_renewal_of_others():
    async def main():
        clock = Clock()
        credential = Hanging(clock)
        token = token_of(credential, clock)
        first, second = asyncio.ensure_future(token.current()), asyncio.ensure_future(token.current())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        credential.released.set()
        assert await second == f"{SECRET}-1"
        assert len(credential.threads) == 1

    asyncio.run(main())


def test_a_valid_token_is_used_while_the_credential_hangs():
    clock = Clock()
    credential = Hanging(clock)
    credential.released.set()
    token = EntraToken("https://h", route="routes.r", open_credential=lambda: credential, clock=clock, wait_s=0.05)
    assert asyncio.run(token.current()) == f"{SECRET}-1"
    credential.released.clear()
    clock.now += 3500
    assert asyncio.run(token.current()) == f"{SECRET}-1"
    clock.now += 101
    with pytest.raises(UnavailableError, match="gave no token in time"):
        asyncio.run(token.current())
    credential.released.set()


def test_a_renewal_that_hangs_after_a_refusal_costs_nothing():
    async def main():
        server = AzureServer()
        server.refusal = lambda _request, _body: server.failure(401, "Unauthorized")
        clock = Clock()
        credential = Hanging(clock)
        credential.released.set()
        token = EntraToken("https://h", route="routes.r", open_credential=lambda: credential, clock=clock, wait_s=0.05)
        await token.current()
        credential.released.clear()
        async with server.running():
            http = JsonHttp(f"{server.url}/v1", route="routes.r", headers=RequestHeaders({}, token=token))
            delivery = record_attempt()
            with pytest.raises(UnavailableError, match="gave no token in time"):
                await http.post("/embeddings", {"input": ["a"], "model": "m"})
            await http.aclose()
        credential.released.set()
        assert not delivery.may_have_begun

    asyncio.run(main())


def test_warnings_of_the_library_are_not_logged(monkeypatch):
    identity = pytest.importorskip("azure.identity")
    log = logging.getLogger("azure.identity")
    monkeypatch.setattr(log, "level", logging.NOTSET)
    monkeypatch.setattr(identity, "DefaultAzureCredential", object)
    _default_credential()
    assert not logging.getLogger("azure.identity._credentials.chained").isEnabledFor(logging.WARNING)
    log.setLevel(logging.INFO)
    _default_credential()
    assert log.level == logging.INFO
    log.setLevel(logging.NOTSET)


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure", None)
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"routes\.r: auth: .*pip install 'embedway\[azure\]'"):
        azure(Endpoint("routes.r", "m", base_url="https://n.openai.azure.com/openai/v1", auth="entra"))


class Entra(AzureServer):
    """Azure that accepts one token, and a managed identity's endpoint, which gives the next token at each request."""

    width = 1536

    def __init__(self):
        super().__init__()
        self.given = 0
        self.resources = []
        self.accepted = 1

    def refusal(self, request, body):
        assert "api-key" not in request.headers
        if request.headers.get("authorization") != f"Bearer {SECRET}-{self.accepted}":
            return super().failure(401, "Unauthorized")
        return self.refusal_of_body(body)

    async def identity(self, request):
        self.resources.append((request.query.get("resource"), request.headers.get("x-identity-header")))
        self.given += 1
        ends = str(int(time.time()) + 86_400)
        return web.json_response({"access_token": f"{SECRET}-{self.given}", "expires_on": ends, "token_type": "Bearer"})

    @contextlib.asynccontextmanager
    async def identity_running(self):
        app = web.Application()
        app.router.add_get("/token", self.identity)
        async with serving_app(app) as port:
            yield f"http://127.0.0.1:{port}/token"


def test_azure_identity_gives_the_token_of_a_managed_identity(monkeypatch):
    pytest.importorskip("azure.identity")

    async def main():
        server = Entra()
        async with server.running(), server.identity_running() as url:
            # The endpoint of App Service, over plain http on this machine.
            monkeypatch.setenv("IDENTITY_ENDPOINT", url)
            monkeypatch.setenv("IDENTITY_HEADER", "header-of-the-test")
            route = {"model": SMALL, "provider": "azure-openai", "upstream_model": "my-deployment", "auth": "entra"}
            route["base_url"] = f"{server.url}/v1"
            values = {"cache.backend": "none", "ledger.backend": "none", "upstream.max_attempts": 1}
            values |= {f"routes.r.{name}": value for name, value in route.items()}
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=values)) as embedder:
                await embedder.embed(["a text"], model=SMALL)
                await embedder.embed(["a second text"], model=SMALL)
                assert server.given == 1
                server.accepted = 2
                result = await embedder.embed(["a third text"], model=SMALL)
                assert (server.given, result.receipt.attempts) == (2, 1)
        assert set(server.resources) == {("https://cognitiveservices.azure.com", "header-of-the-test")}

    asyncio.run(main())
