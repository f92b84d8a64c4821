"""Requests to a hub: where a token may go, what an answer means, and when to ask again."""

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
from embedway.weights.sources.base import PlaceError, clean

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from typing import IO

    from embedway.weights.types import StoreSettings

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 10
#: Attempts that bring no new byte before a place is given up.
ATTEMPTS = 5
_MAX_WAIT_S = 30.0
#: A listing of a repository is far smaller.
_MAX_JSON_BYTES = 64 * 1024 * 1024


class PassingError(Exception):
    """A failure that another attempt may not meet; `wait_s` is what the server asked for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class StaleRangeError(Exception):
    """What was there is longer than the file."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a hub says of a file: its own hash (sha256, or the sha1 that git gives a blob), size, commit."""

    sha256: str | None
    git_sha1: str | None
    size: int | None
    commit: str | None


@dataclass(slots=True)
class HttpResponse:
    """What a server said; the body is for the caller to close."""

    body: IO[bytes]
    status: int
    headers: Message
    facts: Facts


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed by hand, because a token may not follow them to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(slots=True)
class HubClient:
    """Speaks to one hub. The token goes to the endpoint's own host and nowhere else."""

    settings: StoreSettings
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)
    #: Whether it answered before: only then is a connection that fails worth another attempt.
    _reached: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._opener = urllib.request.build_opener(_NoRedirect, handler)

    def api(self, repository: str, revision: str) -> dict[str, Any]:
        """What the hub says of a repository at a revision, its files with sizes and hashes among it."""
        url = f"{self._endpoint}/api/models/{quote(repository)}/revision/{quote(revision, safe='')}?blobs=true"
        answer = self._retrying(lambda: self._json(url))
        if not isinstance(answer, dict):
            raise PlaceError(f"{_shown(url)} answered with JSON that is no object")
        return answer

    def facts(self, repository: str, revision: str, path: str) -> Facts:
        """What the hub says of a file."""

        def ask() -> Facts:
            answer = self.open(self.file_url(repository, revision, path), "HEAD")
            answer.body.close()
            length = answer.headers.get("Content-Length", "")
            if answer.facts.size is None and answer.status == 200 and length.isdecimal():
                return replace(answer.facts, size=int(length))
            return answer.facts

        return self._retrying(ask)

    @property
    def _endpoint(self) -> str:
        return self.settings.hub_endpoint.rstrip("/")

    def file_url(self, repository: str, revision: str, path: str) -> str:
        """Where a file of a repository begins its way."""
        return f"{self._endpoint}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def _json(self, url: str) -> Any:
        answer = self.open(url)
        try:
            with answer.body:
                data = answer.body.read(_MAX_JSON_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(f"{_shown(url)}: the connection broke ({type(error).__name__})") from None
        if len(data) < int(answer.headers.get("Content-Length") or 0):
            raise PassingError(f"{_shown(url)}: the connection ended too early")
        try:
            return json.loads(data)
        except ValueError:
            raise PlaceError(f"{_shown(url)} did not answer with JSON") from None

    def _retrying(self, ask: Callable[[], T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return ask()
            except PassingError as error:
                if attempt == ATTEMPTS - 1:
                    raise PlaceError(f"{error} ({ATTEMPTS} attempts)") from None
                self.wait(attempt, error.wait_s)
        raise AssertionError

    def wait(self, attempt: int, asked_s: float | None) -> None:
        """Wait before another attempt: as long as the server asked, or twice as long each time."""
        time.sleep(min(asked_s if asked_s is not None else self.settings.retry_wait_s * 2**attempt, _MAX_WAIT_S))

    def open(self, url: str, method: str = "GET", start: int = 0) -> HttpResponse:
        """Ask for an address, following redirects. Raises PlaceError, or PassingError."""
        facts = Facts(None, None, None, None)
        for _ in range(_MAX_REDIRECTS):
            status, headers, body = self._ask(url, method, start)
            if self._is_endpoint(url):
                facts = _facts(headers, facts, final=status not in _REDIRECTS)
            if status not in _REDIRECTS:
                return HttpResponse(body, status, headers, facts)
            body.close()
            if method == "HEAD" and facts.sha256 is not None:
                return HttpResponse(body, status, headers, facts)  # where the bytes are was not asked
            target = urljoin(url, headers.get("Location", ""))
            allowed = {"https", urlsplit(url).scheme}
            if urlsplit(target).scheme not in allowed or not headers.get("Location"):
                raise PlaceError(f"{_shown(url)} redirects to an address that is not https")
            url = target
        raise PlaceError(f"{_shown(url)}: more than {_MAX_REDIRECTS} redirects")

    def _ask(self, url: str, method: str, start: int) -> tuple[int, Message, IO[bytes]]:
        headers = {"User-Agent": f"embedway/{__version__}", "Accept-Encoding": "identity"}
        if self.settings.hub_token and self._is_endpoint(url):
            headers["Authorization"] = f"Bearer {self.settings.hub_token}"
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            # The scheme is http or https: the settings and `open` see to it.
            request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
            response = self._opener.open(request, timeout=self.settings.timeout_s)
        except urllib.error.HTTPError as error:
            self._reached = True
            if error.code in _REDIRECTS:
                return error.code, error.headers, error
            with error:
                raise self._refusal(url, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreached(url, error) from None
        self._reached = True
        return response.status, response.headers, response

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> Exception:
        if error.code == 416:
            return StaleRangeError()
        text = f"{_shown(url)} answered {_meaning(error.code, self.settings.hub_token)}"
        if error.code in _PASSING:
            asked = error.headers.get("Retry-After", "")
            return PassingError(text, float(asked) if asked.isdecimal() else None)
        return PlaceError(text)

    def _unreached(self, url: str, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = clean(str(reason) or type(reason).__name__, self.settings.hub_token)
        text = f"{_shown(url)} cannot be reached: {text}"
        return PassingError(text) if self._reached else PlaceError(text)

    def _is_endpoint(self, url: str) -> bool:
        return _origin(url) == _origin(self._endpoint)


def _facts(headers: Message, before: Facts, *, final: bool) -> Facts:
    # A redirect's own ETag is not the file's; the linked one is.
    etag = headers.get("X-Linked-Etag") or (headers.get("ETag") if final else None) or ""
    etag = etag.removeprefix("W/").strip('"').lower()
    is_hex = not set(etag) - set("0123456789abcdef")
    size = headers.get("X-Linked-Size") or ""
    return Facts(
        sha256=etag if is_hex and len(etag) == 64 else before.sha256,
        git_sha1=etag if is_hex and len(etag) == 40 else before.git_sha1,
        size=int(size) if size.isdecimal() else before.size,
        commit=headers.get("X-Repo-Commit") or before.commit,
    )


def _meaning(status: int, token: str | None) -> str:
    if status in {401, 403}:
        what = "the token is not good for it" if token else "it may need a token (HF_TOKEN)"
        return f"{status}: the repository is private, gated or not there; {what}"
    if status == 404:
        return "404: there is no such repository, revision or file"
    return str(status)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
