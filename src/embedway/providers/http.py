"""JSON over HTTP for providers: one request, one parsed answer or one EmbedwayError.

Errors contain nothing of a request's body, and of an answer's body only a code of known words. Keys are sent only in
headers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson
from typing_extensions import override

from embedway.concurrency import compute_in_thread
from embedway.config.addresses import is_loopback
from embedway.config.certificates import authorities, tls_context
from embedway.config.proxies import proxy_for
from embedway.errors import AuthenticationError, ConfigError, ProtocolError
from embedway.providers import connections
from embedway.providers.connections import TlsQuestion, Way
from embedway.providers.delivery import of_attempt, record_connection, record_request
from embedway.providers.entra import TOKEN_WAIT_S, EntraToken
from embedway.providers.error_body import error_inside
from embedway.providers.http_body import (
    ACCEPT_ENCODING,
    NOT_JSON,
    PAGE,
    Bounds,
    Parsed,
    TooLargeError,
    is_page,
    parse,
    read_body,
)
from embedway.providers.http_errors import SentRequest, error_in_success, error_of
from embedway.providers.http_headers import read_rates
from embedway.providers.options import known, yes
from embedway.providers.request_headers import RequestHeaders, headers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from embedway.config.proxies import Proxy
    from embedway.providers.base import Declared, Endpoint
    from embedway.types import RateState

V = TypeVar("V")

_CONNECT_S = 10.0
_CONNECTIONS = 64
#: Size above which a thread parses an answer. Parsing this much and decoding its vectors takes about a millisecond; for
#: less, a thread costs more than it saves.
_LARGE_BYTES = 1_000_000
#: Size above which a body is sent as a stream: aiohttp then sends it in pieces, without blocking the event loop.
_LARGE_BODY_BYTES = 2**20
_JSON = {"accept": "application/json", "accept-encoding": ACCEPT_ENCODING, "content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed answer with status 2xx."""

    body: Any
    rates: RateState
    #: Whether reading it takes too long for the event loop.
    large: bool = False

    async def read(self, function: Callable[..., V], *arguments: Any, **more: Any) -> V:
        """Call a function that reads the answer and return its result; use a thread if the answer is large."""
        if self.large:
            return await compute_in_thread(function, *arguments, **more)
        return function(*arguments, **more)


class _RecordingConnector(aiohttp.TCPConnector):
    """Connector that records when a request gets a connection. Tracing would take a tenth of the request's CPU time."""

    @override
    async def connect(self, *arguments: Any, **more: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*arguments, **more)
        record_connection()
        return connection


class JsonHttp:
    """A connection pool to one service, opened lazily on the first event loop that uses it."""

    def __init__(
        self,
        base_url: str,
        *,
        route: str,
        headers: Mapping[str, str] | RequestHeaders,
        timeout_s: float = 60.0,
        allow_http: bool = False,
        ca_file: Path | None = None,
        credential: str = "api_key",
    ) -> None:
        check_base_url(base_url, where=route, allow_http=allow_http)
        self._base_url = base_url.rstrip("/")
        self._route = route
        self._credential = credential
        self._headers = headers if isinstance(headers, RequestHeaders) else RequestHeaders(headers)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._session: aiohttp.ClientSession | None = None
        self._trusted = authorities(ca_file)
        self._is_https = self._base_url.casefold().startswith("https:")
        if self._is_https:
            tls_context(self._trusted, where=route)  # an unusable file is reported before anything is sent
        self._way = _way_to(self._base_url, route)
        #: Whether the service has answered in HTTP, so that its scheme is right.
        self._has_answered = False
        self._tls = TlsQuestion()

    async def post(self, path: str, body: Any, *, texts: int = 1) -> Reply:
        """Send a JSON document and parse the answer, whose size is bounded by the number of texts.

        Raises UpstreamErrors.

        If the key is refused, it is read again from its file, or the token is renewed. If that changes it, the document
        is sent once more.
        """
        record_request()  # of the attempt: nothing was sent while a token is renewed
        attempt = of_attempt()
        had_connection = attempt.had_connection
        headers = await self._headers.current()
        try:
            return await self._send(path, body, headers, texts)
        except AuthenticationError as error:
            if error.status == 407:
                raise
            attempt.had_connection = had_connection  # a refused request is not billed
            renewed = await self._headers.renewed(headers, expired=error.status == 401)
            if renewed is None:
                raise
        return await self._send(path, body, renewed, texts)

    async def _send(self, path: str, body: Any, headers: Mapping[str, str], texts: int) -> Reply:
        session, data, delivery = self._open(), orjson.dumps(body), record_request()
        proxy, bounds = self._way.proxy, Bounds.of(texts, len(data))
        try:
            async with session.post(
                self._base_url + path,
                data=io.BytesIO(data) if len(data) > _LARGE_BODY_BYTES else data,
                # Not the session's headers: aiohttp also sends those to a proxy, which must not get the key.
                headers={**_JSON, **headers},
                allow_redirects=False,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=None if proxy is None else proxy.headers,
                # http_body.py decompresses, and distinguishes cut, corrupt and uncompressed answers.
                auto_decompress=False,
            ) as response:
                content = await read_body(response, bounds)
                self._has_answered = True
                request = SentRequest(self._base_url, path, data, self._credential)
                if 200 <= response.status < 300:
                    large = len(content.content) > _LARGE_BYTES
                    parsed = await compute_in_thread(parse, content, bounds) if large else parse(content, bounds)
                    return self._reply(parsed, response, request, large=large)
                status = response.status
                raise error_of(status, response.headers, content.content, route=self._route, request=request)
        except TooLargeError:
            raise ProtocolError("the answer is too large", route=self._route, billed=True) from None
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            failed: Exception = error
        # Not raised above, so that it is not chained: the library's errors contain the request's headers and the key.
        raise await connections.failure_of(
            failed,
            self._way,
            may_have_begun=delivery.may_have_begun,
            tls=None if self._is_https or self._has_answered else self._tls,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._way = replace(self._way, proxy=self._proxy_of_environment(), trusted=self._trusted)
            context = tls_context(self._trusted, where=self._route) if self._is_https else True
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=_RecordingConnector(limit=_CONNECTIONS, ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                # aiohttp would also read netrc, whose passwords are for other servers and conflict with a key.
                trust_env=False,
            )
        return self._session

    def _proxy_of_environment(self) -> Proxy | None:
        """Return the proxy for the service. Raises ProtocolError."""
        try:
            return proxy_for(self._base_url)
        except ValueError as error:
            reason = str(error)
        raise ProtocolError(reason, route=self._route)

    def _reply(self, parsed: Parsed, response: aiohttp.ClientResponse, request: SentRequest, *, large: bool) -> Reply:
        """Return the answer. Raises UpstreamErrors for anything but JSON, and for an error inside it."""
        status, headers = response.status, response.headers
        inside = error_inside(parsed.value)
        if inside is not None:
            raise error_in_success(inside, headers, status=status, route=self._route, request=request)
        if parsed.problem == NOT_JSON and is_page(b"", response.content_type):
            parsed = Parsed(problem=PAGE)
        if parsed.problem:
            raise parsed.error(route=self._route, status=status)
        return Reply(parsed.value, read_rates(headers), large)


class HttpModel:
    """Base class of models of a service; it owns the connections."""

    def __init__(self, endpoint: Endpoint, http: JsonHttp, declared: Declared) -> None:
        self.declared = declared
        self._endpoint = endpoint
        self._http = http

    async def aclose(self) -> None:
        await self._http.aclose()


def make_http_with_key(
    endpoint: Endpoint, url: str, *, variable: str, header: str = "authorization", options: Sequence[str] = ()
) -> JsonHttp:
    """Create the connection pool of a service that requires a key. A route's base URL overrides `url`.

    Raises ConfigError without a key, which usually comes from the environment variable `variable`, and for options not
    in `options`.
    """
    known(endpoint, (*options, "allow_http"))
    if not endpoint.secret and endpoint.auth in {"key", "bearer"} and not _has_header(endpoint, header):
        instead = '; or auth = "none" if its headers contain the key' if endpoint.headers else ""
        needed = f"{variable}, or api_key of a route"
        if not endpoint.takes_usual_key:
            needed = "it, or api_key_env, beside base_url"
        raise ConfigError(f"is not set; set {needed}{instead}", where=endpoint.route, key="api_key")
    return make_http(endpoint, url, header=header)


def make_http(endpoint: Endpoint, url: str = "", *, header: str = "authorization") -> JsonHttp:
    """Create the connection pool of a route, with its key if it has one. Its base URL overrides `url`."""
    base_url = endpoint.base_url or url
    token = None
    if endpoint.auth == "entra":
        # A third of the time, so that some is left for another route.
        token = EntraToken(base_url, route=endpoint.route, wait_s=min(TOKEN_WAIT_S, endpoint.timeout_s / 3))
    return JsonHttp(
        base_url,
        route=endpoint.route,
        headers=headers_of(endpoint, header if endpoint.auth == "key" else "authorization", token),
        timeout_s=endpoint.timeout_s,
        allow_http=endpoint.allow_http or yes(endpoint, "allow_http"),
        ca_file=endpoint.ca_file,
        credential=endpoint.credential,
    )


def _has_header(endpoint: Endpoint, key_header: str) -> bool:
    """Return whether the headers of a route replace its key."""
    header = key_header if endpoint.auth == "key" else "authorization"
    return any(name.casefold() == header for name in endpoint.headers)


def _way_to(base_url: str, route: str) -> Way:
    parts = urlsplit(base_url)
    return Way(route, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def check_base_url(base_url: str, *, where: str, allow_http: bool) -> None:
    """Raise ConfigError unless the URL is https, or http to this machine or with `allow_http`."""
    try:
        parts = urlsplit(base_url)
        host, user = parts.hostname, parts.username
    except ValueError:
        host = user = None
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise ConfigError("must be a URL such as https://api.example.com/v1", where=where, key="base_url")
    if user is not None:
        raise ConfigError("must not contain a user or password; set api_key", where=where, key="base_url")
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        place = where if where.startswith("routes.") else "routes.NAME"
        raise ConfigError(
            f"must be https, because keys and texts are sent there; to allow http, add allow_http = true in [{place}]",
            where=where,
            key="base_url",
        )
