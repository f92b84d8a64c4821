"""Clients that are slow or many: their connections are closed, and others are answered."""

import asyncio
import contextlib

import pytest

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


def test_a_slow_body_that_goes_on_is_read():
    body = b'{"model":"m","input":"a"}' + b" " * 50_000

    async def main():
        async with gateway_at(**{"server.read_timeout_s": 0.3}) as (url, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body))
            for start in range(0, len(body), 1000):
                writer.write(body[start : start + 1000])
                await asyncio.sleep(0.02)  # one second in all, three times the limit for a head
            answer = await read_to_end(reader)
            writer.close()
            return answer

    assert b" 404 " in asyncio.run(main())


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
