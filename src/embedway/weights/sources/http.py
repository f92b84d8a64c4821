"""HTTP client of a hub: token scope, response handling and retries."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from embedway._version import __version__
from embedway.text import redact
from embedway.weights.sources.base import FetchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from typing import IO

    from embedway.weights.types import StoreSettings

T = TypeVar("T")

_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 10
_MAX_WAIT_S = 30.0
#: Maximum size of a JSON response in bytes; a repository listing is far smaller.
_MAX_JSON_BYTES = 64 * 1024 * 1024
#: Maximum digits of a number in a header.
_MOST_DIGITS = 15
#: Minimum speed of a response, in bytes per second, and the time over which it is measured, in read timeouts.
_LEAST_BYTES_PER_S, _PACE_TIMEOUTS = 1024, 6


class TransientError(Exception):
    """A failure that may succeed on retry; `wait_s` is the wait that the server requests."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class RangeNotSatisfiableError(Exception):
    """The partial file is longer than the file (HTTP 416)."""


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """Metadata of a file on a hub: hash (sha256, or the sha1 of a git blob), size in bytes, commit."""

    sha256: str | None
    git_sha1: str | None
    size: int | None
    commit: str | None


@dataclass(slots=True)
class HttpResponse:
    """HTTP response; the caller closes the body."""

    body: IO[bytes]
    status: int
    headers: Message
    metadata: FileMetadata

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes as soon as there are any; empty at the end."""
        read1 = getattr(self.body, "read1", None)
        data: bytes = self.body.read(most) if read1 is None else read1(most)
        return data


class Pace:
    """Check of a response's speed. A server that sends one byte per second never exceeds the timeout of a read."""

    def __init__(self, window_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._start = clock()
        self._received = 0

    def check(self, size: int, name: str) -> None:
        """Count received bytes. Raises FetchError if the speed of a complete window is below the minimum."""
        self._received += size
        elapsed = self._clock() - self._start
        if elapsed < self._window_s:
            return
        if self._received < _LEAST_BYTES_PER_S * elapsed:
            raise FetchError(f"{name}: too slow, the server sent {self._received:,} bytes in {elapsed:.0f} s")
        self._start, self._received = self._clock(), 0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handler that follows no redirect. `HubClient.open` does, because a token must not go to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(slots=True)
class HubClient:
    """Client of one hub. The token is sent only to the endpoint's own host."""

    settings: StoreSettings
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)
    #: Whether the hub has responded before: only then is a failed connection retried.
    _reached: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._opener = urllib.request.build_opener(_NoRedirect, handler)

    def model_info(self, repository: str, revision: str) -> dict[str, Any]:
        """Return the hub's facts about a repository at a revision, with the sizes and hashes of its files."""
        url = f"{self._endpoint}/api/models/{quote(repository)}/revision/{quote(revision, safe='')}?blobs=true"
        response = self._retry(lambda: self._get_json(url))
        if not isinstance(response, dict):
            raise FetchError(f"{_redacted_url(url)} returned JSON that is not an object")
        return response

    def file_metadata(self, repository: str, revision: str, path: str) -> FileMetadata:
        """Return the hub's metadata of a file."""

        def request() -> FileMetadata:
            response = self.open(self.file_url(repository, revision, path), "HEAD")
            response.body.close()
            length = count_of(response.headers, "Content-Length")
            if response.metadata.size is None and response.status == 200 and length is not None:
                return replace(response.metadata, size=length)
            return response.metadata

        return self._retry(request)

    @property
    def _endpoint(self) -> str:
        return self.settings.hub_endpoint.rstrip("/")

    def file_url(self, repository: str, revision: str, path: str) -> str:
        """Return the URL of a file in a repository."""
        return f"{self._endpoint}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def _get_json(self, url: str) -> Any:
        response = self.open(url)
        data, pace = bytearray(), self.pace()
        try:
            with response.body:
                while len(data) < _MAX_JSON_BYTES and (chunk := response.read(2**16)):
                    data += chunk
                    pace.check(len(chunk), _redacted_url(url))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"{_redacted_url(url)}: the connection broke ({type(error).__name__})") from None
        if len(data) < (count_of(response.headers, "Content-Length") or 0):
            raise TransientError(f"{_redacted_url(url)}: the connection ended too early")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise FetchError(f"{_redacted_url(url)} did not return JSON") from None

    def pace(self) -> Pace:
        """Return a new check of the speed of a response."""
        return Pace(_PACE_TIMEOUTS * self.settings.timeout_s)

    def _retry(self, request: Callable[[], T]) -> T:
        for attempt in range(self.settings.attempts):
            try:
                return request()
            except RangeNotSatisfiableError:
                raise FetchError("the hub returned 416 for a request without a range") from None
            except TransientError as error:
                if attempt == self.settings.attempts - 1:
                    raise FetchError(f"{error} ({self.settings.attempts} attempts)") from None
                self.wait(attempt, error.wait_s)
        raise AssertionError

    def wait(self, attempt: int, retry_after_s: float | None) -> None:
        """Wait before a retry: as long as the server requests, else twice as long each time."""
        wait_s = retry_after_s if retry_after_s is not None else self.settings.retry_wait_s * 2**attempt
        time.sleep(min(wait_s, _MAX_WAIT_S))

    def open(self, url: str, method: str = "GET", start: int = 0) -> HttpResponse:
        """Request a URL and follow redirects. Raises FetchError or TransientError."""
        metadata = FileMetadata(None, None, None, None)
        for _ in range(_MAX_REDIRECTS):
            status, headers, body = self._request(url, method, start)
            if self._is_endpoint(url):
                metadata = _metadata(headers, metadata, final=status not in _REDIRECT_STATUSES)
            if status not in _REDIRECT_STATUSES:
                return HttpResponse(body, status, headers, metadata)
            body.close()
            if method == "HEAD" and metadata.sha256 is not None:
                return HttpResponse(body, status, headers, metadata)  # metadata is complete without further redirects
            target = _redirect_target(url, headers.get("Location", ""))
            if target is None:
                raise FetchError(f"{_redacted_url(url)} redirects to a URL that is not https, or is invalid")
            url = target
        raise FetchError(f"{_redacted_url(url)}: more than {_MAX_REDIRECTS} redirects")

    def _request(self, url: str, method: str, start: int) -> tuple[int, Message, IO[bytes]]:
        headers = {"User-Agent": f"embedway/{__version__}", "Accept-Encoding": "identity"}
        if self.settings.hub_token and self._is_endpoint(url):
            headers["Authorization"] = f"Bearer {self.settings.hub_token}"
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            # The scheme is http or https: checked by the settings and by `open`.
            request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
            response = self._opener.open(request, timeout=self.settings.timeout_s)
        except urllib.error.HTTPError as error:
            self._reached = True
            if error.code in _REDIRECT_STATUSES:
                return error.code, error.headers, error
            with error:
                raise self._status_error(url, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._connection_error(url, error) from None
        self._reached = True
        return response.status, response.headers, response

    def _status_error(self, url: str, error: urllib.error.HTTPError) -> Exception:
        if error.code == 416:
            return RangeNotSatisfiableError()
        text = f"{_redacted_url(url)} returned {_explain_status(error.code, self.settings.hub_token)}"
        if error.code in _TRANSIENT_STATUSES:
            return TransientError(text, count_of(error.headers, "Retry-After"))
        return FetchError(text)

    def _connection_error(self, url: str, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = redact(str(reason) or type(reason).__name__, self.settings.hub_token)
        text = f"{_redacted_url(url)} cannot be reached: {text}"
        return TransientError(text) if self._reached else FetchError(text)

    def _is_endpoint(self, url: str) -> bool:
        return _origin(url) == _origin(self._endpoint)


def count_of(headers: Message, name: str) -> int | None:
    """Return the number in a header, which has at most `_MOST_DIGITS` ASCII digits; None for anything else."""
    value = headers.get(name) or ""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS else None


def _redirect_target(url: str, location: str) -> str | None:
    """Return the URL that a redirect names; None if it is invalid, or less secure than `url`."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        _ = parts.port  # raises ValueError for an invalid one
    except ValueError:
        return None
    return target if location and parts.hostname and parts.scheme in {"https", urlsplit(url).scheme} else None


def _metadata(headers: Message, before: FileMetadata, *, final: bool) -> FileMetadata:
    # The ETag of a redirect is not that of the file; the linked ETag is.
    etag = headers.get("X-Linked-Etag") or (headers.get("ETag") if final else None) or ""
    etag = etag.removeprefix("W/").strip('"').lower()
    is_hex = not set(etag) - set("0123456789abcdef")
    return FileMetadata(
        sha256=etag if is_hex and len(etag) == 64 else before.sha256,
        git_sha1=etag if is_hex and len(etag) == 40 else before.git_sha1,
        size=before.size if (size := count_of(headers, "X-Linked-Size")) is None else size,
        commit=headers.get("X-Repo-Commit") or before.commit,
    )


def _explain_status(status: int, token: str | None) -> str:
    if status in {401, 403}:
        what = "the token has no access to it" if token else "it may require a token (HF_TOKEN)"
        return f"{status}: the repository is private, gated or missing; {what}"
    if status == 404:
        return "404: the repository, revision or file does not exist"
    return str(status)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _redacted_url(url: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
