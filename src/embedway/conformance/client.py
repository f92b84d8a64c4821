"""HTTP client of the checks: one request, one answer whose size and time are bounded.

Answers are values, also those with an error status: checks judge them. Only a request without a complete answer is an
exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson

from embedway.config.certificates import authorities, tls_context
from embedway.config.proxies import proxy_for
from embedway.conformance.verdicts import NoAnswerError, NoAnswerInTimeError
from embedway.errors import ProtocolError
from embedway.providers.http_body import ACCEPT_ENCODING, Bounds, TooLargeError, parse, read_body
from embedway.providers.http_headers import retry_after_s
from embedway.text import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from embedway.conformance.target import Place

_CONNECT_S = 10.0
_CONNECTIONS = 100
_LARGE_BODY_BYTES = 2**20
#: Rows whose size and number of values an OpenAPI document may have.
_DOCUMENT_ROWS = 100_000 // 16
#: Requests with these statuses are sent again this often.
_BUSY, _REPEATS = frozenset({429, 503}), 2
#: Wait before that if the server names none, and the longest one, in seconds.
_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
#: Time that an abandoned request has to reach the server's model, in seconds.
_ABANDON_S = 0.2
#: Errors of a connection that the server closed, and how often such a request is sent again.
_CLOSED, _STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError), 2
#: Maximum characters of a server's error message that a report repeats.
_MESSAGE_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and JSON of an answer. `problem` says why the body is not JSON, and is empty if it is."""

    status: int
    headers: Mapping[str, str]
    value: Any
    problem: str
    seconds: float
    #: Whether the request used a connection of an earlier one.
    is_reused: bool
    #: Beginning of the server's own error message, on one line and without the key.
    message: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the status is 200."""
        return self.status == 200

    @property
    def is_refusal(self) -> bool:
        """Whether the server refused the request: 4xx, but not because it is busy."""
        return 400 <= self.status < 500 and self.status != 429

    @property
    def shown(self) -> str:
        """The status and the message, for a report."""
        return f"{self.status} ({self.message})" if self.message else str(self.status)


class _StaleError(NoAnswerError):
    """A connection of an earlier request was closed before it had an answer."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request; `rows` bounds its answer."""

    method: str
    url: str
    key: str | None = field(repr=False)
    data: bytes | None = field(default=None, repr=False)
    rows: int = 0
    #: Maximum time; None for that of the place.
    timeout_s: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request."""
        found = {"accept": "application/json", "accept-encoding": ACCEPT_ENCODING}
        found |= {} if self.data is None else {"content-type": "application/json"}
        return found if self.key is None else {**found, "authorization": f"Bearer {self.key}"}

    @property
    def body(self) -> bytes | io.BytesIO | None:
        """Body for aiohttp, which sends a large one in pieces if it is a stream."""
        is_large = self.data is not None and len(self.data) > _LARGE_BODY_BYTES
        return io.BytesIO(self.data or b"") if is_large else self.data


@dataclass(slots=True)
class _Sent:
    """Facts of a request while it is sent."""

    is_reused: bool = False
    has_body: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Client:
    """Connections to one server. Use it as an asynchronous context manager."""

    place: Place
    #: Answers with 429 or 503: whether each says when to come back.
    busy_answers: list[bool] = field(default_factory=list)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        is_https = self.place.base_urls[0].lower().startswith("https:")
        context = tls_context(authorities()) if is_https else True
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.on_request_chunk_sent.append(_note_body)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.place.timeout_s, sock_connect=_CONNECT_S),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # netrc and proxies for http would receive the key
            trace_configs=[trace],
            auto_decompress=False,  # http_body.py bounds the decompressed size
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, *, is_document: bool = False) -> Answer:
        """Send a GET request for a list, or for a long document. Raises NoAnswerError."""
        rows = _DOCUMENT_ROWS if is_document else 0
        return await self._send(_Request("GET", url, self.place.key, rows=rows))

    async def post(self, url: str, body: Any, *, rows: int = 1, timeout_s: float | None = None) -> Answer:
        """Send a JSON document, or bytes as they are. `rows` bounds the answer. A busy server is asked again.

        Raises NoAnswerError.
        """
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        request = _Request("POST", url, self.place.key, data, rows, timeout_s)
        for _ in range(_REPEATS):
            answer = await self._send(request)
            if answer.status not in _BUSY:
                return answer
            wait_s = retry_after_s(answer.headers)
            await self.sleep(_WAIT_S if wait_s is None else min(wait_s, _LONGEST_WAIT_S))
        return await self._send(request)

    async def post_with_key(self, url: str, body: Any, key: str | None) -> Answer:
        """Send a JSON document with another key, or with none. Raises NoAnswerError."""
        return await self._send(_Request("POST", url, key, orjson.dumps(body), rows=1))

    async def abandon(self, url: str, body: Any, *, rows: int) -> None:
        """Send a JSON document, and disconnect before its answer."""
        sent, request = _Sent(), _Request("POST", url, self.place.key, orjson.dumps(body), rows)
        work = asyncio.ensure_future(self._send_once(request, sent))
        begun = asyncio.ensure_future(sent.has_body.wait())
        try:
            await asyncio.wait({work, begun}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({work}, timeout=_ABANDON_S)
        finally:
            begun.cancel()
            work.cancel()
            await asyncio.gather(work, begun, return_exceptions=True)

    async def _send(self, request: _Request) -> Answer:
        """Send a request. If its connection of an earlier one was just closed, send it again."""
        for _ in range(_STALE):
            with contextlib.suppress(_StaleError):
                return await self._send_once(request, _Sent())
        try:
            return await self._send_once(request, _Sent())
        except _StaleError as error:
            raise NoAnswerError(str(error)) from None

    async def _send_once(self, request: _Request, sent: _Sent) -> Answer:
        session, start = self._opened(), time.monotonic()
        bounds = Bounds.of(request.rows, len(request.data or b""))
        proxy = self._proxy(request.url)
        limit_s = self.place.timeout_s if request.timeout_s is None else request.timeout_s
        try:
            async with (
                asyncio.timeout(limit_s),
                session.request(
                    request.method,
                    request.url,
                    data=request.body,
                    headers=request.headers,
                    allow_redirects=False,
                    trace_request_ctx=sent,
                    proxy=proxy[0],
                    proxy_headers=proxy[1],
                ) as response,
            ):
                content = await read_body(response, bounds)
                parsed = await asyncio.to_thread(parse, content, bounds)
        except TooLargeError:
            raise NoAnswerError("the answer is larger than any answer to this request") from None
        except TimeoutError:
            raise NoAnswerInTimeError(f"no complete answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Libraries' messages may contain the request's headers, so only the kind is shown.
            kind = _StaleError if sent.is_reused and isinstance(error, _CLOSED) else NoAnswerError
            raise kind(f"the connection failed or was dropped ({type(error).__name__})") from None
        answer = Answer(
            response.status,
            response.headers,
            parsed.value,
            parsed.problem or content.problem,
            time.monotonic() - start,
            sent.is_reused,
            _cut(redact(message_of(parsed.value), request.key, self.place.key)),
        )
        if answer.status in _BUSY:
            self.busy_answers.append(retry_after_s(answer.headers) is not None)
        return answer

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as a context manager")
        return self._session

    def _proxy(self, url: str) -> tuple[str | None, Mapping[str, str] | None]:
        try:
            proxy = proxy_for(url)
        except ValueError as error:
            reason = str(error)
        else:
            return (None, None) if proxy is None else (proxy.url, proxy.headers)
        raise ProtocolError(reason, route=url)


async def _note_reuse(session: object, context: Any, parameters: object) -> None:
    del session, parameters
    context.trace_request_ctx.is_reused = True


async def _note_body(session: object, context: Any, parameters: object) -> None:
    del session, parameters
    context.trace_request_ctx.has_body.set()


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARACTERS else f"{text[: _MESSAGE_CHARACTERS - 1]}…"


def message_of(value: Any) -> str:
    """Return the message of an error body, of OpenAI's shape or of FastAPI's; empty without one."""
    error = value.get("error", value.get("detail", value.get("message"))) if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
