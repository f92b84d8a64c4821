"""JSON over HTTP for providers: one request, one parsed answer or one EmbedwayError.

Errors contain nothing of a request's body, and of an answer's body only the provider's short error code. Keys are sent
only in headers.
"""

from __future__ import annotations

import asyncio
import io
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson

from embedway.config.addresses import is_loopback
from embedway.config.certificates import authorities, tls_context
from embedway.config.proxies import proxy_for
from embedway.errors import AuthenticationError, ConfigError, ProtocolError
from embedway.providers import connections
from embedway.providers.connections import Way
from embedway.providers.delivery import record_request, tracing
from embedway.providers.entra import EntraToken
from embedway.providers.http_errors import error_of
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

#: Maximum size of an answer. 2,048 vectors of 4,096 numbers as JSON text are about 180 MB.
_MAX_BODY_BYTES = 400_000_000
_CONNECT_S = 10.0
_CONNECTIONS = 64
#: Size above which a thread parses an answer. Parsing this much and decoding its vectors takes about a millisecond; for
#: less, a thread costs more than it saves.
_LARGE_BYTES = 1_000_000
#: Size above which a body is sent as a stream: aiohttp then sends it in pieces, without blocking the event loop.
_LARGE_BODY_BYTES = 2**20
_JSON = {"accept": "application/json", "content-type": "application/json"}


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
            return await asyncio.to_thread(function, *arguments, **more)
        return function(*arguments, **more)


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
    ) -> None:
        check_base_url(base_url, where=route, allow_http=allow_http)
        self._base_url = base_url.rstrip("/")
        self._route = route
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

    async def post(self, path: str, body: Any) -> Reply:
        """Send a JSON document and parse the answer. Raises UpstreamErrors.

        If the key is refused, it is read again from its file, or the token is renewed. If that changes it, the document
        is sent once more.
        """
        record_request()  # of the attempt: nothing was sent while a token is renewed
        headers = await self._headers.current()
        try:
            return await self._send(path, body, headers)
        except AuthenticationError as error:
            if error.status == 407:
                raise
            renewed = await self._headers.renewed(headers, expired=error.status == 401)
            if renewed is None:
                raise
        return await self._send(path, body, renewed)

    async def _send(self, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        session, data, delivery = self._open(), orjson.dumps(body), record_request()
        proxy = self._way.proxy
        try:
            async with session.post(
                self._base_url + path,
                data=io.BytesIO(data) if len(data) > _LARGE_BODY_BYTES else data,
                # Not the session's headers: aiohttp also sends those to a proxy, which must not get the key.
                headers={**_JSON, **headers},
                allow_redirects=False,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=None if proxy is None else proxy.headers,
                trace_request_ctx=delivery,
            ) as response:
                content = await self._read(response)
                if not self._is_https and connections.says_wants_tls(response.status, content):
                    raise connections.wants_tls(self._way)
                self._has_answered = True
                if response.status == 404 and (advice := _advice_for_404(self._base_url, path, content)):
                    raise ProtocolError(advice, route=self._route, status=404)
                if 200 <= response.status < 300:
                    large = len(content) > _LARGE_BYTES
                    parse = asyncio.to_thread(self._parse, content, response) if large else None
                    parsed = await parse if parse else self._parse(content, response)
                    return Reply(parsed, read_rates(response.headers), large)
                raise error_of(response.status, response.headers, content, route=self._route)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            failed: Exception = error
        # Not raised above, so that it is not chained: the library's errors contain the request's headers and the key.
        raise await connections.failure_of(
            failed,
            self._way,
            may_have_begun=delivery.may_have_begun,
            ask_for_tls=not self._is_https and not self._has_answered,
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
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                # aiohttp would also read netrc, whose passwords are for other servers and conflict with a key.
                trust_env=False,
                trace_configs=[tracing()],
            )
        return self._session

    def _proxy_of_environment(self) -> Proxy | None:
        """Return the proxy for the service. Raises ProtocolError."""
        try:
            return proxy_for(self._base_url)
        except ValueError as error:
            reason = str(error)
        raise ProtocolError(reason, route=self._route)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > _MAX_BODY_BYTES:
            raise ProtocolError("the answer is too large", route=self._route, status=response.status, billed=True)
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MAX_BODY_BYTES:
                raise ProtocolError("the answer is too large", route=self._route, status=response.status, billed=True)
            chunks.append(chunk)
        return b"".join(chunks)

    def _parse(self, content: bytes, response: aiohttp.ClientResponse) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            kind = response.content_type
            raise ProtocolError(
                f"the answer is {kind or 'of unknown type'}, not JSON; check base_url",
                route=self._route,
                status=response.status,
                billed=True,
            ) from None


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
        raise ConfigError(
            f"is not set; set {variable}, or api_key of a route{instead}", where=endpoint.route, key="api_key"
        )
    return make_http(endpoint, url, header=header)


def make_http(endpoint: Endpoint, url: str = "", *, header: str = "authorization") -> JsonHttp:
    """Create the connection pool of a route, with its key if it has one. Its base URL overrides `url`."""
    base_url = endpoint.base_url or url
    token = EntraToken(base_url, route=endpoint.route) if endpoint.auth == "entra" else None
    return JsonHttp(
        base_url,
        route=endpoint.route,
        headers=headers_of(endpoint, header if endpoint.auth == "key" else "authorization", token),
        timeout_s=endpoint.timeout_s,
        allow_http=endpoint.allow_http or yes(endpoint, "allow_http"),
        ca_file=endpoint.ca_file,
    )


def _has_header(endpoint: Endpoint, key_header: str) -> bool:
    """Return whether the headers of a route replace its key."""
    header = key_header if endpoint.auth == "key" else "authorization"
    return any(name.casefold() == header for name in endpoint.headers)


def _way_to(base_url: str, route: str) -> Way:
    parts = urlsplit(base_url)
    return Way(route, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _advice_for_404(base_url: str, path: str, content: bytes) -> str:
    """Return what a 404 of a server most likely means: the version is missing in `base_url`; empty if it has one."""
    is_json_error = content.lstrip().startswith(b"{") and b'"error"' in content[:65536]
    above = urlsplit(base_url).path
    if is_json_error or re.search(r"/v\d|/openai\b|/api\b", above) or path.startswith(("/v", "/openai", "/models")):
        return ""
    return f"the server has no {above}{path}; base_url usually ends in /v1: try {base_url}/v1"


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
