"""uvicorn's server with an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

#: Maximum time at the end for requests that were sent before, and are on their way, in seconds.
_ARRIVAL_S = 0.5
_TICK_S = 0.02


class HttpServer(uvicorn.Server):
    """uvicorn's server without its handlers of signals.

    uvicorn ends by closing unused connections and the sockets at once. Requests that are on their way at that moment,
    and connections that wait to be accepted, would be reset. Here, the latter are accepted. Each connection answers
    one more request if it arrives soon, and tells the client that the connection is closed (RFC 9112, section 9.6).
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals: the worker does."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was sent, and end."""
        loop = asyncio.get_running_loop()
        protocol: Any = self.config.http_protocol_class
        protocol.is_ending = True
        accepting = [loop.create_task(self._begin(one)) for one in _accept_waiting(sockets or ())]
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            if connection.cycle is not None:
                connection.cycle.keep_alive = False
        limit = loop.time() + _ARRIVAL_S
        while (connections or not all(task.done() for task in accepting)) and loop.time() < limit:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)  # uvicorn has no event
        for task in accepting:
            task.cancel()
        await super().shutdown(sockets)

    async def _begin(self, accepted: socket.socket) -> None:
        """Serve a connection, after its TLS handshake if there is one."""
        with contextlib.suppress(OSError):  # with the errors of TLS
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, accepted, ssl=self.config.ssl)

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg, unused-ignore]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_waiting(sockets: Iterable[socket.socket]) -> list[socket.socket]:
    """Accept the connections that wait in the kernel: closing the listening sockets would reset them."""
    found = []
    for one in sockets:
        with contextlib.suppress(OSError):  # none waits any more
            one.setblocking(False)
            while True:
                found.append(one.accept()[0])
    for one in found:
        one.setblocking(False)
    return found
