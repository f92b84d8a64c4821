"""JSON over HTTP for providers: one request, one parsed answer or one EmbedwayError.

Errors contain nothing of a request's body, and of an answer's body only the provider's short error code. Keys are sent
only in headers.
"""

from __future__ import annotations

import asyncio
import email.utils
import io
import logging
import re
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson

from embedway.config.addresses import is_loopback
from embedway.errors import (
    AuthenticationError,
    ConfigError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.options import known, yes
from embedway.types import NO_RATES, RateState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedway.providers.base import Declared, Endpoint

V = TypeVar("V")

_log = logging.getLogger(__name__)

#: Maximum size of an answer. 2,048 vectors of 4,096 numbers as JSON text are about 180 MB.
_MAX_BODY_BYTES = 400_000_000
_CONNECT_S = 10.0
_CONNECTIONS = 64
#: Size above which a thread parses an answer. Parsing this much and decoding its vectors takes about a millisecond; for
#: less, a thread costs more than it saves.
_LARGE_BYTES = 1_000_000
#: Size above which a body is sent as a stream: aiohttp then sends it in pieces, without blocking the event loop.
_LARGE_BODY_BYTES = 2**20
#: Identifiers that services use for "no money left" with status 429.
_EXHAUSTED = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "quota_exceeded",
        "AUTHZ_INSUFFICIENT_BALANCE",
        "AUTHZ_RESOURCE_LIMIT_EXCEEDED",
    }
)
#: Gemini's error codes for an invalid key, which it answers with status 400.
_NO_KEY = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})
#: Transient statuses below 500, and permanent ones above: not implemented, version not supported.
_PASSING = frozenset({408, 409, 425})
_LASTING = frozenset({501, 505})
_RATES = "x-ratelimit-"
_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
#: Maximum digits of a number in a header. Python refuses to convert some thousands, and a float overflows earlier.
_MOST_DIGITS = 30
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")


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
        self._headers = {"accept": "application/json", "content-type": "application/json", **headers}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def post(self, path: str, body: Any) -> Reply:
        """Send a JSON document and parse the answer. Raises UpstreamErrors."""
        session, data = self._open(), orjson.dumps(body)
        try:
            async with session.post(
                self._base_url + path,
                data=io.BytesIO(data) if len(data) > _LARGE_BODY_BYTES else data,
                # Not the session's headers: aiohttp also sends those to a proxy, which must not get the key.
                headers=self._headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                content = await self._read(response)
                if 200 <= response.status < 300:
                    large = len(content) > _LARGE_BYTES
                    parse = asyncio.to_thread(self._parse, content, response) if large else None
                    parsed = await parse if parse else self._parse(content, response)
                    return Reply(parsed, read_rates(response.headers), large)
                raise error_of(response.status, response.headers, content, route=self._route)
        except TimeoutError:
            failed, billed = "no answer in time", True
        except aiohttp.ClientConnectorError as error:
            # Nothing was sent.
            failed, billed = f"the service is unreachable: {error.strerror or 'no connection'}", False
        except (aiohttp.ClientError, ConnectionError) as error:
            failed, billed = f"the connection was lost ({type(error).__name__})", True
        # Not raised above, so that it is not chained: the library's errors contain the request's headers and the key.
        raise UnavailableError(failed, route=self._route, billed=billed)

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


def error_of(status: int, headers: Mapping[str, str], content: bytes, *, route: str) -> UpstreamError:
    """Return the error for a status and a body, with the rate limits from the headers.

    The body's message is not shown: it may repeat the request.
    """
    error = _error_of(status, headers, content, route=route)
    error.rates = read_rates(headers)
    return error


def _error_of(status: int, headers: Mapping[str, str], content: bytes, *, route: str) -> UpstreamError:
    code = _error_code(content)
    said = f": {code}" if code else ""
    if status == 402 or code in _EXHAUSTED:
        return QuotaExceededError(f"the account's quota is used up{said}", route=route, status=status)
    if status in {401, 403} or code in _NO_KEY:
        return AuthenticationError(f"the key was refused{said}; check api_key", route=route, status=status)
    wait = retry_after_s(headers)
    if wait is None:
        wait = _retry_delay_s(content)
    if status == 429:
        return RateLimitedError(f"too many requests{said}", route=route, status=status, retry_after_s=wait)
    if status in _PASSING or (status >= 500 and status not in _LASTING):
        return UnavailableError(
            f"the service failed{said}", route=route, status=status, billed=True, retry_after_s=wait
        )
    if status in {400, 413, 422}:
        return RefusedInputError(f"the service refused the request{said}", route=route, status=status)
    advice = "; check model and base_url" if status == 404 else ""
    return ProtocolError(f"unexpected answer{said}{advice}", route=route, status=status)


def _error_body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content[:65536])
    except orjson.JSONDecodeError:
        return {}
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return Google's typed details of an error (google.rpc.ErrorInfo, RetryInfo)."""
    details = error.get("details")
    return [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _retry_delay_s(content: bytes) -> float | None:
    for detail in _details(_error_body(content)):
        if isinstance(detail.get("retryDelay"), str):
            return duration_s(detail["retryDelay"])
    return None


def _error_code(content: bytes) -> str:
    """Return the short identifier in an error body, if any; never its message."""
    error = _error_body(content)
    for detail in _details(error):
        if detail.get("reason") in _NO_KEY:
            return str(detail["reason"])
    for key in ("code", "type", "error_type", "status"):
        value = error.get(key)
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3), or None."""
    exact = headers.get("retry-after-ms", "")
    if _is_number(exact):
        return float(exact) / 1000
    value = headers.get("Retry-After", "").strip()
    if _is_number(value):
        return float(value)
    until = _date_s(value)
    if until is None:
        return None
    # Relative to the service's own clock, because this machine's may be wrong by days.
    now = _date_s(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _date_s(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def read_rates(headers: Mapping[str, str]) -> RateState:
    """Parse the `x-ratelimit-*` headers in OpenAI's form (platform.openai.com/docs/guides/rate-limits)."""
    if not any(name.lower().startswith(_RATES) for name in headers):
        return NO_RATES

    def count(name: str) -> int | None:
        value = headers.get(name, "")
        return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None

    return RateState(
        requests_limit=count("x-ratelimit-limit-requests"),
        requests_remaining=count("x-ratelimit-remaining-requests"),
        requests_reset_s=duration_s(headers.get("x-ratelimit-reset-requests", "")),
        tokens_limit=count("x-ratelimit-limit-tokens"),
        tokens_remaining=count("x-ratelimit-remaining-tokens"),
        tokens_reset_s=duration_s(headers.get("x-ratelimit-reset-tokens", "")),
    )


def duration_s(text: str) -> float | None:
    """Return the seconds of a duration such as `1m30s`, `6ms`, `0.5s` or `12`; None for anything else."""
    if _is_number(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if not text or found is None or len(text) > _MOST_DIGITS:
        return None
    try:
        days, hours, minutes, seconds, thousandths = (float(part or 0) for part in found.groups())
    except ValueError:
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + thousandths / 1000


def _is_number(text: str) -> bool:
    return len(text) <= _MOST_DIGITS and re.fullmatch(r"\d+(\.\d+)?", text) is not None
