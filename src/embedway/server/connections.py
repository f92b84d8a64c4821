"""HTTP connections with limits on slow clients, on their number, and on the rest of a body after its answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from embedway.config.server import ServerSettings

#: Maximum bytes of the head of a request, and of what follows its body: chunks without data, and trailers.
_MOST_HEAD = 64 * 1024
#: Maximum requests that a client sends before it has received the answer to an earlier one.
_MOST_PIPELINED = 100
#: Least bytes of a body per second.
_LEAST_RATE = 16 * 1024


def guarded_protocol(settings: ServerSettings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings."""

    class GuardedProtocol(_GuardedProtocol):
        read_timeout_s = settings.read_timeout_s
        most_unread = 2 * settings.body_mib << 20  # a body of up to twice the maximum size
        write_timeout_s = settings.write_timeout_s
        max_connections = settings.max_connections

    return GuardedProtocol


class _GuardedProtocol(HttpToolsProtocol):
    """Closes a connection if a client sends a request, or reads an answer, too slowly.

    uvicorn limits only the time between two requests. A head must be complete in `read_timeout_s`. A body must arrive
    in that time, or at a rate of at least `_LEAST_RATE`.

    The rest of a body that is answered before its end is read and dropped, at most `most_unread` bytes in
    `read_timeout_s`. A connection that was closed before would be reset, and a client that still sends would not read
    the answer (RFC 9112, section 9.6).
    """

    read_timeout_s: float
    most_unread: int
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
    #: Bytes since the last ones of a body, or since the start of the head.
    _without_body = 0
    #: Bytes of a body after its answer, and whether the connection is closed at the end of this body.
    _unread = 0
    _is_last = False
    #: Bytes that are being read, and the head of a request that asks for another protocol, without that header.
    _data = b""
    _plain_head = b""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
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
        self._without_body += len(data)
        self._data = data
        if self._is_answered():
            self._unread += len(data)
            if self._unread > self.most_unread:
                self.transport.abort()
                return
        super().data_received(data)
        if self._reading is None and self._received and self.parser is not None:
            self._wait()
        if self._without_body > _MOST_HEAD and not self.transport.is_closing():
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are ignored: they could replace headers, and are not limited in number."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request: its head is complete. Raises ValueError, which ends the connection, for too many."""
        if self._is_last:
            return
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests at once")
        if self._asks_for_upgrade():
            self._plain_head = self._head_without_upgrade()
            return
        self._in_body, self._received, self._without_body, self._unread = True, 0, 0, 0
        super().on_headers_complete()
        self.cycle.transport = _Answering(self)  # type: ignore[assignment, unused-ignore]
        if self.is_ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Read a part of the body."""
        self._without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting: the body is complete."""
        if self._asks_for_upgrade():
            return
        self._stop_reading()
        super().on_message_complete()
        if self._is_last:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the rest of the body if it is not complete, else for the next request."""
        if self._is_answered() and self._reading is not None:
            self._reading.cancel()
            self._wait()
        if not self._is_last:
            super().on_response_complete()

    def close_after_body(self) -> None:
        """Close the connection after an answer: at once, or when the rest of the body was read."""
        if self._in_body and not self.transport.is_closing():
            self._is_last = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _is_answered(self) -> bool:
        """Return whether the request whose body arrives has its answer."""
        return self._in_body and self.cycle.response_complete

    def _asks_for_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _unsupported_upgrade_warning(self) -> None:
        """Read a request again as one that does not ask for another protocol.

        A server may ignore that (RFC 9110, 7.8). Java's HTTP client has it in each first request, for HTTP/2. The
        parser reads no body of such a request, and uvicorn would answer without it.
        """
        upgrade = sys.exception()
        if not self._plain_head or upgrade is None:  # CONNECT, which is answered
            return
        head, self._plain_head = self._plain_head, b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._data = head + self._data[upgrade.args[0] :]
        HttpToolsProtocol.data_received(self, self._data)

    def _wait(self) -> None:
        self._reading = self.loop.call_later(self.read_timeout_s, self._check)

    def _check(self) -> None:
        """Close the connection, unless its body arrives fast enough, or waits to be read here, and has no answer."""
        arrives = self.flow.read_paused or self._received > self.read_timeout_s * _LEAST_RATE
        if self._in_body and arrives and not self._is_answered():
            self._received = 1
            self._wait()
        else:
            self.transport.abort()

    def _stop_reading(self) -> None:
        self._in_body, self._received, self._without_body = False, 0, 0
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read its answer."""
        super().pause_writing()  # type: ignore[no-untyped-call, unused-ignore]
        if self._writing is None:
            self._writing = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client reads."""
        super().resume_writing()  # type: ignore[no-untyped-call, unused-ignore]
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


class _Answering:
    """Transport of an answer, which closes it only after the body of its request."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: _GuardedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.close_after_body()
