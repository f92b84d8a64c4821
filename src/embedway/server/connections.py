"""HTTP connections that are closed if a client is too slow, and that are limited in number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from embedway.config.server import ServerSettings

#: Maximum bytes of the head of a request.
_MOST_HEAD = 64 * 1024


def guarded_protocol(settings: ServerSettings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class GuardedProtocol(_GuardedProtocol):
        read_timeout_s = settings.read_timeout_s
        write_timeout_s = settings.write_timeout_s
        max_connections = settings.max_connections

    return GuardedProtocol


class _GuardedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head, or whose reading of an answer, takes too long.

    uvicorn limits only the time between two requests. The time of a body is limited where it is read.
    """

    read_timeout_s: float
    write_timeout_s: float
    max_connections: int
    #: Closes the connection unless a complete head arrives before.
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    #: Bytes of a head that is not complete.
    _head = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._reading = self.loop.call_later(self.read_timeout_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_reading()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, and begin to wait for the rest of its head."""
        if self._reading is None and (self.cycle is None or self.cycle.response_complete):
            self._reading = self.loop.call_later(self.read_timeout_s, self.transport.abort)
        if self._reading is not None:
            self._head += len(data)
        super().data_received(data)
        if self._reading is not None and self._head > _MOST_HEAD and self.parser is not None:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Start the request: its head is complete."""
        self._stop_reading()
        super().on_headers_complete()

    def _stop_reading(self) -> None:
        self._head = 0
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read its answer."""
        super().pause_writing()  # type: ignore[no-untyped-call, unused-ignore]
        if self._writing is None:
            self._writing = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop to wait: the client reads."""
        super().resume_writing()  # type: ignore[no-untyped-call, unused-ignore]
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
