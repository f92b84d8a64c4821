"""HTTP connections that are closed if a client is too slow, and that are limited in number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from embedway.config.server import ServerSettings

#: Maximum bytes of the head of a request.
_MOST_HEAD = 64 * 1024
#: Least bytes of a body per second.
_LEAST_RATE = 16 * 1024


def guarded_protocol(settings: ServerSettings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class GuardedProtocol(_GuardedProtocol):
        read_timeout_s = settings.read_timeout_s
        write_timeout_s = settings.write_timeout_s
        max_connections = settings.max_connections

    return GuardedProtocol


class _GuardedProtocol(HttpToolsProtocol):
    """Closes a connection if a client sends a request, or reads an answer, too slowly.

    uvicorn limits only the time between two requests. A head must be complete in `read_timeout_s`. A body must arrive
    in that time, or at a rate of at least `_LEAST_RATE`.
    """

    read_timeout_s: float
    write_timeout_s: float
    max_connections: int
    #: Whether the server ends, so that each connection is closed after its next answer.
    is_ending = False
    #: Closes the connection unless the head, or enough of the body, arrives before.
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    #: Whether the head is complete, and the bytes since then, or of a head that is not complete.
    _in_body = False
    _received = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_reading()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, and begin to wait for the rest."""
        self._received += len(data)
        super().data_received(data)
        if self._reading is None and self._received and self.parser is not None:
            self._wait()
        if not self._in_body and self._received > _MOST_HEAD and not self.transport.is_closing():
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Start the request: its head is complete."""
        self._in_body, self._received = True, 0
        super().on_headers_complete()
        if self.is_ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Stop to wait: the body is complete."""
        self._stop_reading()
        super().on_message_complete()

    def _wait(self) -> None:
        self._reading = self.loop.call_later(self.read_timeout_s, self._check)

    def _check(self) -> None:
        """Close the connection, unless its body arrives fast enough or waits to be read here."""
        if self._in_body and (self.flow.read_paused or self._received > self.read_timeout_s * _LEAST_RATE):
            self._received = 1
            self._wait()
        else:
            self.transport.abort()

    def _stop_reading(self) -> None:
        self._in_body, self._received = False, 0
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
