"""Hosts that are unknown, servers that refuse connections, and answers that are not HTTP: each is named."""

import asyncio
import os
import socket

import pytest

from embedway.errors import ProtocolError, UnavailableError
from embedway.providers.http import JsonHttp
from serving import serving

BODY = {"input": ["a text"], "model": "text-embedding-3-small"}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in [*os.environ]:
        if "PROXY" in name.upper():
            monkeypatch.delenv(name)


async def failure(url):
    http = JsonHttp(url, route="routes.r", headers={}, timeout_s=20)
    try:
        with pytest.raises(UnavailableError) as caught:
            await http.post("/embeddings", BODY)
    finally:
        await http.aclose()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert not caught.value.billed
    return caught.value


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_the_unknown_host_is_named(monkeypatch, proxied, number):
    async def unknown(*_arguments, **_options):
        raise socket.gaierror(number, "Name or service not known")

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", unknown)
    monkeypatch.setattr("aiohttp.connector.DefaultResolver.resolve", unknown)
    if proxied:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:8080")
    host = "the host of the proxy in HTTPS_PROXY, proxy.example.com," if proxied else "the host api.example.com"
    says = "is unknown" if number == socket.EAI_NONAME else "cannot be looked up now"
    assert f"{host} {says}" in str(asyncio.run(failure("https://api.example.com/v1")))


def test_a_server_that_refuses_the_connection_is_named():
    async def main():
        async with serving(lambda _reader, _writer: asyncio.sleep(0)) as port:
            pass
        error = await failure(f"http://127.0.0.1:{port}/v1")
        assert f"the service is unreachable: 127.0.0.1:{port} refuses the connection" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("head", "says", "connections"),
    [
        (b"SECRET-garbage\r\n\r\n", "does not answer in HTTP", 3),
        (b"HTTP/1.1 abc SECRET\r\n\r\n", "does not answer in HTTP", 3),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", "does not answer in HTTP", 3),
        (b"HTTP/1.1 200 OK\r\nx: " + b"SECRET" * 2000 + b"\r\n\r\n{}", "headers of the answer are too large", 2),
        (b"HTTP/1.1 200 OK\r\n" + b"x: SECRET\r\n" * 200 + b"\r\n{}", "headers of the answer are too large", 2),
    ],
)
def test_an_answer_that_is_not_http_is_named_and_asked_about_tls_once(head, says, connections):
    opened = []

    async def handle(reader, writer):
        opened.append(reader)
        await reader.read(65_536)
        writer.write(head)

    async def main():
        async with serving(handle) as port:
            http = JsonHttp(f"http://127.0.0.1:{port}/v1", route="r", headers={}, timeout_s=20)
            try:
                for _ in range(2):
                    with pytest.raises(ProtocolError, match=says) as caught:
                        await http.post("/embeddings", BODY)
                    assert caught.value.billed
                    assert "SECRET" not in str(caught.value)
                    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
            finally:
                await http.aclose()

    asyncio.run(main())
    assert len(opened) == connections
