"""Connections over TLS and through proxies: each failure is named, is not billed, and fails at once if it must."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import pytest

from api_servers import KEY
from embedway import AsyncEmbedder, Config
from embedway.config.certificates import BUNDLES, OPENSSL
from embedway.errors import AuthenticationError, ConfigError, ProtocolError, UnavailableError
from embedway.providers.http import JsonHttp
from serving import serving
from tls_servers import HOST, Gateway, Proxy, served, server_context, write_authority

SMALL = "text-embedding-3-small"
PASSWORD = "pr0xy-p4ss"  # noqa: S105  a fake
BODY = {"input": ["a text"], "model": SMALL}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [*os.environ]:
        if "PROXY" in name.upper() or name in {*OPENSSL, *BUNDLES}:
            monkeypatch.delenv(name)


@pytest.fixture
def trusted(monkeypatch, tmp_path):
    """Trust the authority of the tests, and return its file."""
    path = write_authority(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


async def ask(url, **more):
    http = JsonHttp(url, route="routes.r", headers={"authorization": f"Bearer {KEY}"}, timeout_s=20, **more)
    try:
        return await http.post("/embeddings", BODY)
    finally:
        await http.aclose()


async def failure(url, **more):
    """Return the error of a request, which contains no secret and chains no error of a library."""
    with pytest.raises((AuthenticationError, ProtocolError, UnavailableError)) as caught:
        await ask(url, **more)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert KEY not in str(error)
    assert PASSWORD not in str(error)
    assert not error.billed
    return error


# ------------------------------------------------------------ certificates


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("expired", "has expired: renew it on the server, or check this machine's clock"),
        ("other host", "is for another"),
        ("unknown", "is signed by an unknown authority"),
        ("self-signed", "is self-signed"),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", HOST])
def test_a_certificate_that_is_refused_is_named_and_nothing_is_sent(trusted, monkeypatch, kind, said, host):
    async def main():
        server = Gateway()
        async with served(server, server_context(kind)) as port, Proxy(port).running() as proxy:
            if host == HOST:
                monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            place = f"{host}:443" if host == HOST else f"{host}:{port}"
            error = await failure(f"https://{place}/v1")
            assert server.headers == []
        assert isinstance(error, ProtocolError)
        assert str(error).startswith(f"routes.r: the certificate of the server {place} {said}")
        if kind in {"unknown", "self-signed"}:
            assert f"SSL_CERT_FILE = {trusted}" in str(error)
            assert "set SSL_CERT_FILE, or ca_file of the route" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize("source", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "ca_file"])
def test_an_authority_of_a_company_is_trusted(monkeypatch, tmp_path, source):
    path = write_authority(tmp_path / "ca.pem")

    async def main():
        async with served(Gateway(), server_context()) as port:
            url = f"https://localhost:{port}/v1"
            error = await failure(url)
            assert "(trusted are the authorities of the system)" in str(error)
            if source != "ca_file":
                monkeypatch.setenv(source, str(path))
            reply = await ask(url, ca_file=path if source == "ca_file" else None)
            assert len(reply.body["data"]) == 1

    asyncio.run(main())


def test_a_routes_file_is_used_instead_of_the_environments(trusted, tmp_path):
    import trustme

    other = write_authority(tmp_path / "other.pem", trustme.CA())

    async def main():
        async with served(Gateway(), server_context()) as port:
            error = await failure(f"https://localhost:{port}/v1", ca_file=other)
            assert f"ca_file = {other}" in str(error)
            await ask(f"https://localhost:{port}/v1")

    asyncio.run(main())
    assert trusted.exists()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_unusable_file_of_certificates_is_an_error_before_anything_is_sent(monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=f"^{name}: .*none.pem cannot be read"):
        JsonHttp("https://api.example.com/v1", route="r", headers={})
    JsonHttp("http://127.0.0.1:1/v1", route="r", headers={})


def embed_once(url, tmp_path, **route):
    """Embed a text with up to 5 attempts, booked in a ledger."""
    values = {"cache.backend": "none", "ledger.path": str(tmp_path / "ledger.sqlite"), "upstream.first_wait_s": 0.001}
    values["weights.directory"] = str(tmp_path / "w")
    base = {"model": SMALL, "provider": "openai", "api_key": KEY, "base_url": url, **route}
    overrides = {**values, **{f"routes.r.{name}": value for name, value in base.items()}}

    async def main():
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            return await embedder.embed(["a text"], model=SMALL, partial=True)

    return main()


def test_a_refused_certificate_is_not_tried_again_and_costs_nothing(trusted, tmp_path):
    async def main():
        async with served(Gateway(), server_context("expired")) as port:
            result = await embed_once(f"https://localhost:{port}/v1", tmp_path)
            assert "has expired" in str(result.errors[0])
            return result.receipt

    receipt = asyncio.run(main())
    assert (receipt.attempts, receipt.cost_nanousd, receipt.unsure_nanousd) == (1, 0, 0)


# ------------------------------------------------------------ the wrong scheme


def test_plain_http_on_a_port_for_https_is_named(trusted):
    async def main():
        async with served(Gateway(), None) as port:
            error = await failure(f"https://localhost:{port}/v1")
        assert isinstance(error, ProtocolError)
        assert f"localhost:{port} does not speak TLS on this port: check the port, or whether base_url" in str(error)

    asyncio.run(main())


def test_https_on_a_port_for_plain_http_is_named():
    async def main():
        async with served(Gateway(), server_context()) as port:
            error = await failure(f"http://127.0.0.1:{port}/v1")
        assert isinstance(error, ProtocolError)
        assert str(error) == f"routes.r: the server 127.0.0.1:{port} expects TLS: write https:// in base_url"

    asyncio.run(main())


@pytest.mark.parametrize(
    "content",
    [
        b"<center>The plain HTTP request was sent to HTTPS port</center>",
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.",
        b"<html>You're speaking plain HTTP to an SSL-enabled server port.<br /></html>",
    ],
)
def test_answers_of_servers_that_expect_tls_are_named(content):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
        await writer.drain()
        writer.close()

    async def main():
        async with serving(serve) as port:
            error = await failure(f"http://127.0.0.1:{port}/v1")
        assert "start base_url with https://" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
@pytest.mark.parametrize("path", ["", "/v1"])
def test_a_missing_version_in_the_url_is_named_whatever_answers(kind, path):
    content = b"<html><body>404 page not found</body></html>" if kind == "text/html" else b"404 page not found"

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 404 Not Found\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        writer.close()

    async def main():
        async with serving(serve) as port:
            url = f"http://127.0.0.1:{port}{path}"
            error = await failure(url)
        assert (f"usually ends in /v1, such as {url}/v1" in str(error)) == (not path)

    asyncio.run(main())


# ------------------------------------------------------------ proxies


@contextlib.asynccontextmanager
async def behind(proxy_of, monkeypatch, *, context=None):
    """Run a service over TLS behind a proxy that the environment names; yield both."""
    server = Gateway()
    async with served(server, server_context()) as port, proxy_of(port).running(context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield server, proxy


def test_requests_go_through_the_proxy_and_the_key_does_not(trusted, monkeypatch):
    async def main():
        async with behind(lambda port: Proxy(port, user=f"u:{PASSWORD}@"), monkeypatch) as (server, proxy):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//u:{PASSWORD}%40@"))
            await ask(f"https://{HOST}/v1")
            assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
            assert KEY not in proxy.headers[0]
            assert "proxy-authorization" not in {name.casefold() for name in server.headers[0]}

    asyncio.run(main())


def test_a_proxy_over_tls_is_used(trusted, monkeypatch):
    async def main():
        async with behind(Proxy, monkeypatch, context=server_context()) as (_, proxy):
            await ask(f"https://{HOST}/v1")
            assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
        async with behind(Proxy, monkeypatch, context=server_context("unknown")) as (_, proxy):
            error = await failure(f"https://{HOST}/v1")
            assert str(error).startswith(
                "routes.r: the certificate of the proxy in HTTPS_PROXY is signed by an unknown"
            )
            assert proxy.asked == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (407, AuthenticationError, "the proxy in HTTPS_PROXY refused the user or the password in its URL"),
        (403, ProtocolError, f"refuses connections to {HOST}:443: allow {HOST} there, or add it to NO_PROXY"),
        (401, ProtocolError, f"refuses connections to {HOST}:443"),
        (404, ProtocolError, "check that it is an HTTP proxy that supports CONNECT"),
        (405, ProtocolError, "check that it is an HTTP proxy that supports CONNECT"),
        (302, ProtocolError, "check that it is an HTTP proxy that supports CONNECT"),
        (429, UnavailableError, f"the proxy in HTTPS_PROXY could not connect to {HOST}:443"),
        (500, UnavailableError, "could not connect"),
        (502, UnavailableError, "could not connect"),
        (503, UnavailableError, "could not connect"),
        (504, UnavailableError, "could not connect"),
    ],
)
def test_the_status_of_a_proxy_is_named_as_the_proxys(trusted, monkeypatch, status, kind, said):
    async def main():
        async with behind(lambda port: Proxy(port, status=status), monkeypatch) as (server, proxy):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//u:{PASSWORD}@"))
            error = await failure(f"https://{HOST}/v1")
            assert (type(error), error.status) == (kind, status)
            assert said in str(error)
            assert (len(proxy.asked), server.headers) == (1, [])

    asyncio.run(main())


def test_a_proxy_that_requires_a_user_is_named(trusted, monkeypatch):
    async def main():
        async with behind(lambda port: Proxy(port, user="u:p"), monkeypatch):
            error = await failure(f"https://{HOST}/v1")
            assert "the proxy in HTTPS_PROXY requires a user and a password: write HTTPS_PROXY as" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"SSH-2.0-OpenSSH\r\n", ProtocolError, "the proxy in HTTPS_PROXY does not answer in HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x28", ProtocolError, "the proxy in HTTPS_PROXY does not answer in HTTP"),
        (b"", UnavailableError, f"the proxy in HTTPS_PROXY ended the connection to {HOST}:443 before it was ready"),
        (b"HTTP/1.1 200 OK\r\n\r\n", UnavailableError, f"the connection to {HOST}:443 was lost before it was ready"),
    ],
)
def test_a_proxy_that_does_not_behave_is_named(trusted, monkeypatch, answer, kind, said):
    async def main():
        async with behind(lambda port: Proxy(port, answer=answer), monkeypatch):
            error = await failure(f"https://{HOST}/v1")
            assert type(error) is kind
            assert said in str(error)

    asyncio.run(main())


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    async def main():
        async with Proxy().running() as proxy:
            pass
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        error = await failure(f"https://{HOST}/v1")
        place = proxy.url.rpartition("/")[2].rpartition("@")[2]
        assert f"the proxy in ALL_PROXY is unreachable: {place} refuses the connection" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize("status", [407, 403])
def test_a_refusing_proxy_is_asked_once_and_costs_nothing(trusted, monkeypatch, tmp_path, status):
    async def main():
        async with behind(lambda port: Proxy(port, status=status), monkeypatch) as (_, proxy):
            result = await embed_once(f"https://{HOST}/v1", tmp_path)
            assert "HTTPS_PROXY" in str(result.errors[0])
            return result.receipt, proxy.asked

    receipt, asked = asyncio.run(main())
    assert len(asked) == 1
    assert (receipt.attempts, receipt.cost_nanousd, receipt.unsure_nanousd) == (1, 0, 0)


def test_a_proxy_that_fails_is_retried_and_costs_nothing(trusted, monkeypatch, tmp_path):
    async def main():
        async with behind(lambda port: Proxy(port, status=503), monkeypatch) as (_, proxy):
            result = await embed_once(f"https://{HOST}/v1", tmp_path)
            return result.receipt, proxy.asked

    receipt, asked = asyncio.run(main())
    assert (len(asked), receipt.attempts, receipt.cost_nanousd, receipt.unsure_nanousd) == (5, 5, 0, 0)


def test_the_library_for_tokens_is_not_imported_without_its_option():
    code = "import sys, embedway.providers.http; print(json.dumps([n for n in sys.modules if n.startswith('azure')]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
