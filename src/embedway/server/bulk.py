"""Proxy of a worker for bulk requests: separate processes answer them, because they would delay all other requests.

A process that parses many texts or encodes many vectors holds Python's lock for milliseconds at a time. A worker only
forwards the bytes of a bulk request and of its answer, over a Unix socket.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from embedway.errors import OverloadedError
from embedway.server.batches.service import PATHS
from embedway.server.client_watch import ClientWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

_log = logging.getLogger("embedway.server")

#: Headers that are not forwarded: they are of one connection (RFC 9110, 7.6.1), or each server answers or adds them.
_HOP_BY_HOP = frozenset(
    {b"connection", b"date", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_CLOSE = (b"connection", b"close")
#: Time to connect, in seconds: the process is on this machine.
_CONNECT_S = 5.0
#: Maximum bytes of an answer that are read at once.
_READ_BYTES = 1 << 18
#: Time after which a client may send a request again whose process has ended, in seconds.
_RETRY_AFTER_S = 1.0


class BulkProxy:
    """Forwards bulk requests to the processes for them. Used from one event loop; close it at its end."""

    def __init__(self, path: Path, *, least_bytes: int, most_bytes: int, read_timeout_s: float) -> None:
        """Create it for the socket of the processes. Bodies of `least_bytes` to `most_bytes` are bulk.

        `read_timeout_s` is the maximum time until the next part of an answer.
        """
        self._least, self._most = least_bytes, most_bytes
        self._session = aiohttp.ClientSession(
            # Without reuse of connections: a process that ends closes them, possibly while a request is sent.
            connector=aiohttp.UnixConnector(str(path), limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=read_timeout_s),
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
        )

    def is_bulk(self, scope: Scope) -> bool:
        """Return whether a request is bulk: its body is large, or it changes files or batches.

        A body that is too large is not: it is refused before it is read.
        """
        if scope["method"] != "POST":
            return False
        if scope["path"].startswith(PATHS):
            return True
        for name, value in scope["headers"]:
            if name == b"content-length":
                return len(value) < 19 and value.isdigit() and self._least <= int(value) <= self._most
        return False

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Forward a request and its answer. Returns False if no process accepts it: then nothing was read or sent.

        Raises OverloadedError if the process ends before it answers, and ConnectionError if the client disconnects
        before the process knows of the request. If either happens later, the answer stays incomplete.
        """
        request = _Request(receive)
        try:
            async with self._session.post(
                URL.build(
                    scheme="http",
                    host="bulk",
                    path=scope["raw_path"].decode("latin-1"),
                    query_string=scope["query_string"].decode("latin-1"),
                    encoded=True,
                ),
                headers=_headers_to_send(scope["headers"]),
                data=request.body(),
                allow_redirects=False,
            ) as answer:
                await _send_back(answer, request, send)
        except asyncio.CancelledError:
            if not request.has_left:
                raise
            request.uncancel()
        except aiohttp.ClientConnectorError:
            return False
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if request.has_left and not request.is_begun:
                raise ConnectionError from None
            if not request.has_left and not request.is_answered:
                _log.error("the process for bulk requests did not answer: %s", type(error).__name__)
                message = "the process that answers large requests has ended; try again"
                raise OverloadedError(message, retry_after_s=_RETRY_AFTER_S) from None
        finally:
            request.end()
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class _Request:
    """The body of a request that is being forwarded, and its client."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watch: ClientWatch | None = None
        self._task = asyncio.current_task()
        self._is_cut = False
        #: Whether the head is sent, which waits for the first part of the body.
        self.is_begun = False
        #: Whether the client has received the beginning of an answer.
        self.is_answered = False

    @property
    def has_left(self) -> bool:
        """Whether the client has disconnected, while it sent the body or later."""
        return self._is_cut or (self._watch is not None and self._watch.has_left)

    def uncancel(self) -> None:
        """Take the cancellation of a client that has left back."""
        if self._watch is not None:
            self._watch.uncancel()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body. Raises ConnectionError if the client disconnects."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_cut = True
                raise ConnectionError
            if message.get("body"):
                self.is_begun = True
                yield message["body"]
            more = message.get("more_body", False)
        self.is_begun = True
        self._watch = ClientWatch(self._receive, self._task)

    def end(self) -> None:
        """Stop watching the client."""
        if self._watch is not None:
            self._watch.end()


async def _send_back(answer: aiohttp.ClientResponse, request: _Request, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in answer.raw_headers]
    kept = [header for header in headers if header[0] not in _HOP_BY_HOP or header == _CLOSE]
    request.is_answered = True
    await send({"type": "http.response.start", "status": answer.status, "headers": kept})
    async for part in answer.content.iter_any():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _headers_to_send(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in _HOP_BY_HOP]
    # An empty host replaces the one that would be added to a request without it. The process must not close the
    # connection after an answer to an incomplete body: the rest of the body could then not be written, which would be
    # an error before the answer is read.
    return [("host", ""), *kept, ("connection", "keep-alive")]
