"""Clients that are slow or many: their connections are closed, and others are answered."""

import asyncio
import contextlib
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from async_tests import in_loop
from embedway.config.server import ServerSettings
from embedway.server.connections import guarded_protocol
from gateways import gateway_at

SLOW = {
    "nothing": b"",
    "a part of a head": b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n",
    "a part of a body": b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
}


async def read_to_end(reader):
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 30)
    return b""


@pytest.mark.parametrize("sent", SLOW)
def test_a_client_that_sends_too_slowly_is_cut_off(sent):
    async def main():
        async with gateway_at(**{"server.read_timeout_s": 0.2}) as (url, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(SLOW[sent])
            answer = await read_to_end(reader)
            writer.close()
            return answer

    assert asyncio.run(main()) == b""


class Timers:
    """The running event loop, but with timers that wait for the test."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._now = 0.0
        self._waiting = []

    def __getattr__(self, name):
        return getattr(self._loop, name)

    def call_later(self, delay, callback):
        timer = SimpleNamespace(due=self._now + delay, run=callback, cancel=lambda: self._waiting.remove(timer))
        self._waiting.append(timer)
        return timer

    async def pass_time(self, seconds):
        """Let the application read what has arrived, and then run the timers that are due."""
        for _ in range(5):
            await asyncio.sleep(0)
        self._now += seconds
        for timer in [one for one in self._waiting if one.due <= self._now]:
            self._waiting.remove(timer)
            timer.run()


async def read_body(scope, receive, send):
    del scope
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read"})


@pytest.mark.parametrize(("rate", "is_read"), [(20_000, True), (12_000, False)])
@in_loop
async def test_a_body_may_take_longer_than_the_limit_if_it_arrives_fast_enough(rate, is_read):
    timers, transport = Timers(), Mock(spec=asyncio.Transport)
    transport.is_closing = lambda: transport.abort.called
    protocol = guarded_protocol(ServerSettings(read_timeout_s=10.0))(
        uvicorn.Config(read_body, lifespan="off", log_config=None), ServerState(), {}, timers
    )
    protocol.connection_made(transport)
    protocol.data_received(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (100 * rate))
    for second in range(100):
        if transport.is_closing():
            break
        assert is_read or second <= 10
        protocol.data_received(b" " * rate)
        await timers.pass_time(1.0)
    sent = b"".join(call.args[0] for call in transport.write.call_args_list)
    assert transport.is_closing() is not is_read
    assert sent.startswith(b"HTTP/1.1 200") is is_read


def test_a_head_without_end_is_cut_off():
    async def main():
        async with gateway_at() as (url, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\n")
                for number in range(100):
                    writer.write(b"x-%d: " % number + b"a" * 10_000 + b"\r\n")
                    await writer.drain()
            answer = await read_to_end(reader)
            writer.close()
            return answer

    assert b" 200 " not in asyncio.run(main())


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def exchange(port, *parts):
    """Send parts of bytes until the gateway closes the connection; return what it sent, and whether it read all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(read_to_end(reader))
    is_complete = True
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        is_complete = False
    answer = await reading
    writer.close()
    return answer, is_complete


TRAILERS = {
    "many": [b"x: yyyyyyyyyyyy\r\n" * 1_000] * 1_000,
    "one without end": [b"x: ", *[b"y" * 16_000] * 1_000],
    "an extension of a chunk": [b"1;x=", *[b"y" * 16_000] * 1_000],
}


@pytest.mark.parametrize("sent", TRAILERS)
def test_what_follows_a_body_has_an_end(sent):
    """Nothing of it is kept: without a key, one connection could otherwise take all memory."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    begin = chunk(b"{}") + (b"0\r\n" if sent != "an extension of a chunk" else b"")

    async def main():
        async with gateway_at() as (url, _):
            return await exchange(int(url.rpartition(":")[2]), head + begin, *TRAILERS[sent])

    assert asyncio.run(main())[1] is False


def test_trailers_are_no_headers():
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    body = chunk(b'{"model":"m","input":"a"}') + b"0\r\norigin: https://other.example\r\n\r\n"

    async def main():
        async with gateway_at() as (url, _):
            return await exchange(int(url.rpartition(":")[2]), head + body)

    assert asyncio.run(main())[0].startswith(b"HTTP/1.1 404")


def test_small_chunks_are_read():
    body = b'{"model":"m","input":"a"}' + b" " * 20_000
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(chunk(body[at : at + 1]) for at in range(len(body)))

    async def main():
        async with gateway_at() as (url, _):
            return await exchange(int(url.rpartition(":")[2]), head + chunks + b"0\r\n\r\n")

    assert asyncio.run(main())[0].startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("form", ["length", "chunks"])
@pytest.mark.parametrize("parts", [1, 2, 1_000])
def test_a_wish_for_another_protocol_is_ignored(form, parts):
    """As Java's HTTP client sends it: the body is read, and so are the next requests."""
    body = b'{"model":"m","input":"a"}'
    wish = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
    if form == "length":
        sent = head + wish + b"content-length: %d\r\n\r\n" % len(body) + body
    else:
        sent = head + wish + b"transfer-encoding: chunked\r\n\r\n" + chunk(body) + b"0\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    sent = sent * 2 + last
    size = -(-len(sent) // parts)

    async def main():
        async with gateway_at() as (url, _):
            pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
            return (await exchange(int(url.rpartition(":")[2]), *pieces))[0]

    answer = asyncio.run(main())
    assert answer.count(b"HTTP/1.1 404") == 2  # the model is unknown, which is in the body
    assert answer.count(b"HTTP/1.1 200") == 1


def test_requests_that_wait_on_a_connection_are_limited():
    one = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"

    async def main():
        async with gateway_at() as (url, _):
            few = asyncio.create_task(
                exchange(int(url.rpartition(":")[2]), one * 50 + one[:-2] + b"connection: close\r\n\r\n")
            )
            many = await exchange(int(url.rpartition(":")[2]), one * 1_000)
            return (await few)[0].count(b"HTTP/1.1 200"), many[0].count(b"HTTP/1.1 200")

    few, many = asyncio.run(main())
    assert few == 51
    assert many <= 101


def test_connections_are_limited():
    async def main():
        async with gateway_at(**{"server.max_connections": 2}) as (url, _):
            port = int(url.rpartition(":")[2])
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            answers = []
            for reader, writer in opened:
                with contextlib.suppress(ConnectionError):
                    writer.write(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                    await writer.drain()
                answers.append(await read_to_end(reader))
                writer.close()
            return answers

    answers = asyncio.run(main())
    assert [answer.startswith(b"HTTP/1.1 200") for answer in answers] == [True, True, False]
