"""Sockets of the gateway."""

import asyncio
import socket

from embedway.server.listening import listen


def test_answers_do_not_wait_for_acknowledgements():
    async def accept(one):
        found = asyncio.get_running_loop().create_future()

        async def connected(_, writer):
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        server = await asyncio.start_server(connected, sock=one)
        async with server:
            _, writer = await asyncio.open_connection(*one.getsockname())
            no_delay = await found
            writer.close()
            await writer.wait_closed()
            return no_delay

    (one,) = listen("127.0.0.1", 0, 1)
    with one:
        assert asyncio.run(accept(one)) == 1
