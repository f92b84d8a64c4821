"""Clients that are slow or many: their connections are closed, and others are answered."""

import asyncio
import contextlib
import socket
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


MIB = 2**20
#: Requests that are answered before their body is read: path, further headers, form of the body, status.
EARLY = {
    "too large": ("/v1/embeddings", b"", "length", 413),
    "too large, in chunks": ("/v1/embeddings", b"", "chunks", 413),
    "no key": ("/v1/embeddings", b"", "length", 401),
    "no key, closing": ("/v1/embeddings", b"connection: close\r\n", "length", 401),
    "no key, in chunks, closing": ("/v1/embeddings", b"connection: close\r\n", "chunks", 401),
    "no address": ("/v1/nothing", b"connection: close\r\n", "length", 404),
    "encoded": ("/v1/embeddings", b"content-encoding: gzip\r\nconnection: close\r\n", "length", 415),
    "a file without a key": ("/v1/files", b"connection: close\r\n", "length", 401),
}


def send_all_then_read(url, head, parts):
    """Send everything before anything is read, as simple clients do; return the answers."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(head)
        for part in parts:
            connection.sendall(part)
        connection.settimeout(30)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
        return answer


@pytest.mark.parametrize("case", EARLY)
def test_an_answer_before_the_end_of_the_body_reaches_a_client_that_still_sends(case):
    path, more, form, status = EARLY[case]
    keyed = status == 401
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\n%s" % (path.encode(), more)
    part, count = b"x" * 16_384, 120  # nearly twice the limit, and more than a socket takes before it is read
    if form == "length":
        head += b"content-length: %d\r\n\r\n" % (len(part) * count)
        parts = [part] * count
    else:
        head += b"transfer-encoding: chunked\r\n\r\n"
        parts = [*[chunk(part)] * count, b"0\r\n\r\n"]
    # A connection that stays open has its next request, after which it is closed.
    last = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

    async def main():
        settings = {"server.body_mib": 1, "server.auth": "keys" if keyed else "auto"}
        async with gateway_at(**settings) as (url, _):
            return await asyncio.to_thread(send_all_then_read, url, head, [*parts, last])

    answer = asyncio.run(main())
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    stays_open = case == "no key"
    assert answer.count(b"HTTP/1.1 ") == 1 + stays_open
    assert (b"connection: close" in answer.partition(b"\r\n\r\n")[0]) != stays_open


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_a_body_after_its_answer_has_an_end(more):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n%stransfer-encoding: chunked\r\n\r\n" % more

    async def main():
        async with gateway_at(**{"server.body_mib": 1, "server.auth": "keys"}) as (url, _):
            return await exchange(int(url.rpartition(":")[2]), head, *[chunk(b"x" * 65_536)] * 1_000)

    assert asyncio.run(main())[1] is False


async def write_on(writer):
    """Write until the connection is closed."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_a_body_that_stops_after_its_answer_is_not_waited_for_longer_than_a_request(more):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n%scontent-length: 50000\r\n\r\n" % more

    async def main():
        settings = {"server.read_timeout_s": 0.2, "server.auth": "keys"}
        async with gateway_at(**settings) as (url, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(head + b"x" * 40_000)
            answer = await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while await asyncio.wait_for(reader.read(65_536), 30):
                    pass
            with pytest.raises(ConnectionError):  # the connection is closed, not only the answer complete
                await asyncio.wait_for(write_on(writer), 30)
            writer.close()
            return answer

    assert asyncio.run(main()).startswith(b"HTTP/1.1 401")


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
