"""JSON over HTTP for providers: one request, one parsed answer or one EmbedwayError.

Errors contain nothing of a request's body, and of an answer's body only the provider's short error code. Keys are sent
only in headers.
"""

from __future__ import annotations

import asyncio
import io
import logging
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson

from embedway.config.addresses import is_loopback
from embedway.errors import ConfigError, ProtocolError, UnavailableError
from embedway.providers.delivery import record_request, tracing
from embedway.providers.error_body import error_inside
from embedway.providers.http_body import (
    ACCEPT_ENCODING,
    NOT_JSON,
    PAGE,
    Parsed,
    TooLargeError,
    is_page,
    parse,
    read_body,
)
from embedway.providers.http_errors import SentRequest, error_in_success, error_of
from embedway.providers.http_headers import read_rates
from embedway.providers.options import known, yes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.providers.base import Declared, Endpoint
    from embedway.types import RateState

V = TypeVar("V")

_log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_CONNECTIONS = 64
#: Size above which a thread parses an answer. Parsing this much and decoding its vectors takes about a millisecond; for
#: less, a thread costs more than it saves.
_LARGE_BYTES = 1_000_000
#: Size above which a body is sent as a stream: aiohttp then sends it in pieces, without blocking the event loop.
_LARGE_BODY_BYTES = 2**20


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
        headers: Mapping[str, str],
        timeout_s: float = 60.0,
        allow_http: bool = False,
    ) -> None:
        check_base_url(base_url, where=route, allow_http=allow_http)
        self._base_url = base_url.rstrip("/")
        self._route = route
        self._headers = {
            "accept": "application/json",
            "accept-encoding": ACCEPT_ENCODING,
            "content-type": "application/json",
            **headers,
        }
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def post(self, path: str, body: Any) -> Reply:
        """Send a JSON document and parse the answer. Raises UpstreamErrors."""
        session, data, delivery = self._open(), orjson.dumps(body), record_request()
        try:
            async with session.post(
                self._base_url + path,
                data=io.BytesIO(data) if len(data) > _LARGE_BODY_BYTES else data,
                # Not the session's headers: aiohttp also sends those to a proxy, which must not get the key.
                headers=self._headers,
                allow_redirects=False,
                proxy=self._proxy,
                # http_body.py decompresses, and distinguishes cut, corrupt and uncompressed answers.
                auto_decompress=False,
                trace_request_ctx=delivery,
            ) as response:
                content = await read_body(response)
                request = SentRequest(self._base_url, path, data)
                if 200 <= response.status < 300:
                    large = len(content.content) > _LARGE_BYTES
                    parsed = await asyncio.to_thread(parse, content) if large else parse(content)
                    return self._reply(parsed, response, request, large=large)
                status, headers = response.status, response.headers
                raise error_of(status, headers, content.content, route=self._route, request=request)
        except TooLargeError:
            raise ProtocolError("the answer is too large", route=self._route, billed=True) from None
        except TimeoutError:
            failed, billed = "no answer in time", True
        except aiohttp.ClientConnectorError as error:
            failed, billed = f"the service is unreachable: {error.strerror or 'no connection'}", False
        except (aiohttp.ClientError, ConnectionError) as error:
            failed, billed = f"the connection was lost ({type(error).__name__})", True
        # Not raised above, so that it is not chained: the library's errors contain the request's headers and the key.
        raise UnavailableError(failed, route=self._route, billed=billed and delivery.may_have_begun)

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._proxy = self._proxy_of_environment()
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                # aiohttp would also read netrc, whose passwords are for other servers and conflict with a key.
                trust_env=False,
                trace_configs=[tracing()],
            )
        return self._session

    def _proxy_of_environment(self) -> str | None:
        """Return the URL of the proxy for the service, with user and password, or None.

        A service without https gets no proxy, which could read key and texts. Raises ProtocolError.
        """
        parts = urlsplit(self._base_url)
        if parts.scheme != "https" or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
            return None
        proxy = urllib.request.getproxies().get("https", "")
        if not proxy:
            return None
        address = proxy if "://" in proxy else f"http://{proxy}"
        try:
            scheme, host, _ = (named := urlsplit(address)).scheme, named.hostname, named.port
        except ValueError:
            scheme, host = "", None
        if scheme == "https" and host:
            # The request goes directly to the service, over TLS.
            _log.warning("HTTPS_PROXY is an https URL, and proxies over https are not supported; no proxy is used")
            return None
        if scheme != "http" or not host:
            # The value is not shown: it may contain a password.
            raise ProtocolError("HTTPS_PROXY must be like http://proxy.example.com:3128", route=self._route)
        return address

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
    if not endpoint.secret:
        raise ConfigError(f"is not set; set {variable}, or api_key of a route", where=endpoint.route, key="api_key")
    return make_http(endpoint, url, header=header)


def make_http(endpoint: Endpoint, url: str = "", *, header: str = "authorization") -> JsonHttp:
    """Create the connection pool of a route, with its key if it has one. Its base URL overrides `url`."""
    secret = f"Bearer {endpoint.secret}" if header == "authorization" else endpoint.secret
    return JsonHttp(
        endpoint.base_url or url,
        route=endpoint.route,
        headers={**endpoint.headers, header: secret} if endpoint.secret else {},
        timeout_s=endpoint.timeout_s,
        allow_http=yes(endpoint, "allow_http"),
    )


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
        raise ConfigError(
            "must be https, because keys and texts are sent there; set allow_http = true to allow http",
            where=where,
            key="base_url",
        )
