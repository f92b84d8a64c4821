"""Requests that certainly did not reach a service cost nothing; those that may have been read are unsure."""

import asyncio
import contextlib
import os
import socket

import pytest

from books import MODEL, PRICE, PaidServer, route_to, settings_of, sqlite_books
from embedway import AsyncEmbedder
from embedway.errors import DeadlineError, EmbedwayError, ProtocolError, UnavailableError
from embedway.providers import http
from serving import serving

TEXT = "a text of some words"
#: Maximum cost of one attempt with the text: twice the estimate.
MOST = 2 * PaidServer().billed(TEXT) * PRICE


async def close_at_once(reader, writer):
    """Close a connection without reading."""


async def say_nothing(reader, writer):
    await reader.read(-1)


def refuse(status):
    async def refused(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()

    return refused


async def read_and_close(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
    await reader.readexactly(length)


async def answer_without_tls(reader, writer):
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


def closed_port():
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Return a function that embeds a text at a URL, and returns the error and the ledger's entry."""
    for name in [name for name in os.environ if "PROXY" in name.upper()]:
        monkeypatch.delenv(name)
    books = sqlite_books(tmp_path)

    async def asked(url, *, cancel=None, **more):
        route = route_to(PaidServer(), base_url=url)
        made = settings_of(PaidServer(), books, **{"upstream.max_attempts": 2, "routes.r": route, **more})
        async with AsyncEmbedder(config=made) as embedder:
            call = asyncio.create_task(embedder.embed([TEXT], model=MODEL))
            if cancel is not None:
                await cancel.wait()
                call.cancel()
            (error,) = await asyncio.gather(call, return_exceptions=True)
        (entry,) = await books.entries()
        return error, entry

    return asked


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/v1", "https://127.0.0.1:{port}/v1"])
def test_a_refused_connection_costs_nothing(ask, address):
    error, entry = asyncio.run(ask(address.format(port=closed_port())))
    assert isinstance(error, UnavailableError)
    assert (error.billed, entry.spent, entry.unsure) == (False, 0, 0)


def test_an_unknown_host_costs_nothing(ask):
    error, entry = asyncio.run(ask("https://no-such-host.invalid/v1"))
    assert (error.billed, entry.spent, entry.unsure) == (False, 0, 0)


@pytest.mark.parametrize("answer", [close_at_once, answer_without_tls])
def test_a_failed_handshake_costs_nothing(ask, answer):
    async def main():
        async with serving(answer) as port:
            return await ask(f"https://127.0.0.1:{port}/v1")

    error, entry = asyncio.run(main())
    assert isinstance(error, (ProtocolError, UnavailableError))
    assert (error.billed, entry.spent, entry.unsure) == (False, 0, 0)


@pytest.mark.parametrize("answer", [refuse(407), refuse(403), refuse(502), close_at_once])
def test_a_proxy_that_opens_no_tunnel_costs_nothing(ask, answer, monkeypatch):
    async def main():
        async with serving(answer) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            return await ask("https://service.invalid/v1")

    error, entry = asyncio.run(main())
    assert isinstance(error, EmbedwayError)
    assert (getattr(error, "billed", None), entry.spent, entry.unsure) == (False, 0, 0)


def test_a_handshake_that_takes_too_long_costs_nothing(ask, monkeypatch):
    monkeypatch.setattr(http, "_CONNECT_S", 0.05)

    async def main():
        async with serving(say_nothing) as port:
            return await ask(f"https://127.0.0.1:{port}/v1")

    error, entry = asyncio.run(main())
    assert isinstance(error, UnavailableError)
    assert (error.billed, entry.spent, entry.unsure) == (False, 0, 0)


@pytest.mark.parametrize("through", ["handshake", "proxy"])
def test_a_deadline_before_the_connection_is_open_costs_nothing(ask, through, monkeypatch):
    async def main():
        async with serving(say_nothing) as port:
            if through == "proxy":
                monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            url = "https://service.invalid/v1" if through == "proxy" else f"https://127.0.0.1:{port}/v1"
            return await ask(url, **{"upstream.deadline_s": 0.2})

    error, entry = asyncio.run(main())
    assert isinstance(error, DeadlineError)
    assert (entry.spent, entry.unsure) == (0, 0)


def test_a_caller_that_is_cancelled_before_the_connection_is_open_pays_nothing(ask):
    async def main():
        connected = asyncio.Event()

        async def accept(reader, writer):
            connected.set()
            await say_nothing(reader, writer)

        async with serving(accept) as port:
            return await ask(f"https://127.0.0.1:{port}/v1", cancel=connected)

    error, entry = asyncio.run(main())
    assert isinstance(error, asyncio.CancelledError)
    assert (entry.spent, entry.unsure) == (0, 0)


def test_a_caller_that_waits_for_a_free_connection_pays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "_CONNECTIONS", 1)
    books = sqlite_books(tmp_path)

    async def main():
        async with PaidServer().running() as server:
            server.misdeeds = ["stall"]
            # Two requests at a time, which are not merged, over one connection.
            made = settings_of(server, books, **{"batching.across_callers": False})
            async with AsyncEmbedder(config=made) as embedder:
                first = asyncio.create_task(embedder.embed([TEXT], model=MODEL))
                await server.arrived.wait()
                second = asyncio.create_task(embedder.embed([TEXT + "."], model=MODEL))
                while True:
                    # The second is sent as far as the ledger knows.
                    entries = await books.entries()
                    if len(entries) == 2 and entries[1].sent:
                        break
                second.cancel()
                await asyncio.gather(second, return_exceptions=True)
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            return len(server.bodies), await books.entries()

    received, (first, second) = asyncio.run(main())
    assert received == 1
    assert (first.unsure, second.unsure, second.spent) == (MOST, 0, 0)


@pytest.mark.parametrize("answer", [read_and_close, close_at_once])
def test_a_connection_that_the_service_closes_may_have_delivered_the_request(ask, answer):
    async def main():
        async with serving(answer) as port:
            return await ask(f"http://127.0.0.1:{port}/v1")

    error, entry = asyncio.run(main())
    assert isinstance(error, UnavailableError)
    assert error.billed
    assert entry.unsure == entry.spent == 2 * MOST


def test_a_caller_that_is_cancelled_after_the_request_was_sent_may_be_billed(ask):
    async def main():
        received = asyncio.Event()

        async def receive(reader, writer):
            await read_and_close(reader, writer)
            received.set()
            await say_nothing(reader, writer)

        async with serving(receive) as port:
            return await ask(f"http://127.0.0.1:{port}/v1", cancel=received)

    error, entry = asyncio.run(main())
    assert isinstance(error, asyncio.CancelledError)
    assert entry.unsure == MOST


def test_a_caller_that_is_cancelled_after_the_key_was_renewed_may_be_billed(ask, tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-old\n")
    key.chmod(0o600)

    async def main():
        answered = asyncio.Event()

        async def serve(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"sk-old" in head:
                key.write_text("sk-new\n")
                writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n")
            await writer.drain()
            answered.set()
            await say_nothing(reader, writer)

        async with serving(serve) as port:
            route = route_to(PaidServer(), base_url=f"http://127.0.0.1:{port}/v1")
            del route["api_key"]
            return await ask("", cancel=answered, **{"routes.r": {**route, "api_key_file": str(key)}})

    error, entry = asyncio.run(main())
    assert isinstance(error, asyncio.CancelledError)
    assert entry.unsure == entry.spent == MOST


def test_a_reused_connection_that_the_service_closes_may_have_delivered_the_request(tmp_path):
    books = sqlite_books(tmp_path)

    async def main():
        async with PaidServer().running() as server:
            server.misdeeds = [None, "hang up"]
            made = settings_of(server, books, **{"upstream.max_attempts": 1})
            async with AsyncEmbedder(config=made) as embedder:
                await embedder.embed([TEXT], model=MODEL)
                with pytest.raises(UnavailableError) as caught:
                    await embedder.embed([TEXT], model=MODEL)
            return caught.value, await books.entries()

    error, (_, entry) = asyncio.run(main())
    assert error.billed
    assert entry.unsure == MOST


@pytest.mark.parametrize("status", ["400", "401", "402", "403", "404", "409", "413", "422", "429 at once"])
def test_a_refusal_costs_nothing(tmp_path, status):
    books = sqlite_books(tmp_path)

    async def main():
        async with PaidServer().running() as server:
            server.misdeeds = [status] * 9
            async with AsyncEmbedder(config=settings_of(server, books)) as embedder:
                with pytest.raises(EmbedwayError):
                    await embedder.embed([TEXT], model=MODEL)
            return await books.entries()

    (entry,) = asyncio.run(main())
    assert (entry.spent, entry.unsure) == (0, 0)
