"""End of the HTTP server: requests that are on their way, and connections that wait, are answered."""

import asyncio
import contextlib
import socket

from embedway.config.server import ServerSettings
from embedway.server.listening import listen
from embedway.server.worker import make_server

REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


async def app(scope, receive, send):
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving():
    """Run a server; yield it, its socket and its address. It is ended by the test."""
    server = make_server(app, ServerSettings())
    (own,) = listen("127.0.0.1", 0, 1)
    task = asyncio.create_task(server.serve(sockets=[own]))
    while not server.started:  # noqa: ASYNC110  uvicorn has no event
        await asyncio.sleep(0.005)
    yield server, own, own.getsockname()[:2]
    server.should_exit = True
    await task


async def answer(reader):
    return await asyncio.wait_for(reader.readuntil(b"ok"), 30)


def test_a_request_that_arrives_after_the_end_began_is_answered_and_its_connection_closed():
    async def main():
        async with serving() as (server, own, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUEST)
            first = await answer(reader)
            ending = asyncio.create_task(server.shutdown([own]))
            await asyncio.sleep(0)  # it begins
            writer.write(REQUEST)
            second, end = await answer(reader), await asyncio.wait_for(reader.read(), 30)
            writer.close()
            await ending
            return first, second, end

    first, second, end = asyncio.run(main())
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" not in first
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in second
    assert end == b""


def test_connections_that_wait_to_be_accepted_are_answered():
    async def main():
        async with serving() as (server, own, address):
            # Nothing is accepted meanwhile, because this function does not wait.
            waiting = [socket.create_connection(address) for _ in range(8)]
            for one in waiting:
                one.sendall(REQUEST)
            ending = asyncio.create_task(server.shutdown([own]))
            found = [await asyncio.to_thread(read_all, one) for one in waiting]
            await ending
            return found

    assert all(found.startswith(b"HTTP/1.1 200 ") for found in asyncio.run(main()))


def test_an_unused_connection_delays_the_end_only_briefly():
    async def main():
        async with serving() as (server, own, address):
            _, writer = await asyncio.open_connection(*address)
            await asyncio.wait_for(server.shutdown([own]), 10)
            writer.close()

    asyncio.run(main())


def read_all(connection):
    connection.settimeout(30)
    data = b""
    with connection:
        while part := connection.recv(65536):
            data += part
    return data
