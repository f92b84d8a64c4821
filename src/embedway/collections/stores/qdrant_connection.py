"""Connections to Qdrant: destinations, the key, and errors in plain words."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.library_errors import LIBRARY_ERRORS
from embedway.collections.stores.redaction import shown
from embedway.config.addresses import is_loopback, normalized, parse_address
from embedway.config.variables import set_variables
from embedway.errors import EmbedwayError, MissingExtraError, SinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORM = "qdrant:http://HOST:6333#COLLECTION"
KEY = "QDRANT_API_KEY"
MAX_NAME_CHARACTERS = 200
_TIMEOUT_S = 60
#: Characters that are not possible in the name of a collection. Source: the rules of the server.
_BAD_CHARACTERS = frozenset('<>:"/\\|?*\0')
_ADVICE = {
    400: "the server refuses the request; it may be too old",
    401: f"the key is missing or wrong; set {KEY}",
    403: f"the key has no right for this; set {KEY} to one that may write",
    404: "the collection was removed by another program",
    408: "the server did not answer in time; run the same command again",
    413: "a request is too large; raise service.max_request_size_mb of the server",
    429: "the server limits requests; run the same command again later",
    507: "the server's disk is full",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A collection of a server."""

    url: str
    name: str
    host: str
    encrypted: bool

    @classmethod
    def of(cls, destination: str) -> Place:
        """Return the place of a destination. Raises `UsageError`, which never repeats a secret."""
        url, mark, name = destination.partition(":")[2].partition("#")
        try:
            parts = parse_address(url, example="http://localhost:6333", instead=f"; set {KEY}")
        except ValueError as error:
            raise UsageError(f"the URL of a Qdrant server {error}; the form is {FORM}") from None
        if "@" in url:  # behind the host: a part of a password that is not escaped
            raise UsageError(f"the URL of a Qdrant server must not contain a user or password; set {KEY}")
        if not mark or not name or len(name) > MAX_NAME_CHARACTERS or set(name) & _BAD_CHARACTERS:
            raise UsageError(f"{shown(destination)!r} does not name a collection of Qdrant; the form is {FORM}")
        return cls(url, name, parts.host, parts.scheme == "https")

    @property
    def identity(self) -> str:
        """The same text for all spellings of the URL."""
        return f"qdrant:{normalized(self.url, http_port=6333)}#{self.name}"


def connect(place: Place) -> Any:
    """Return a client, which connects at the first request. Raises `UsageError` and MissingExtraError."""
    try:
        from qdrant_client import QdrantClient  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise MissingExtraError("a collection in Qdrant", extra="qdrant", package="qdrant-client") from None
    key = set_variables((KEY,)).get(KEY, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"{KEY} is not a key; it has characters that a header cannot have")
    if key and not place.encrypted and not is_loopback(place.host):
        raise UsageError(f"{KEY} is not sent to {place.host} without encryption; use https, or unset {KEY}")
    port = None if place.url.count(":") > 1 else 443 if place.encrypted else 6333
    return QdrantClient(url=place.url, port=port, api_key=key or None, timeout=_TIMEOUT_S, check_compatibility=False)


@contextmanager
def qdrant_errors(connected: Callable[[], Any], destination: str, action: str) -> Iterator[Any]:
    """Give a client, and convert its errors to `SinkError`.

    They are not chained, because they hold requests with the key.
    """
    client = connected()
    from qdrant_client.http.exceptions import ApiException  # noqa: PLC0415 - heavy, and an extra

    try:
        yield client
    except EmbedwayError:
        raise
    except (ApiException, *LIBRARY_ERRORS) as error:
        reason = _reason(error)
    else:
        return
    raise SinkError(f"{action} failed: {reason}", destination=destination) from None


def _reason(error: Any) -> str:
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        fallback = "the server has a fault; read its log" if status >= 500 else "the server refuses the request"
        return f"{_ADVICE.get(status, fallback)} (HTTP {status})"
    source = getattr(error, "source", None)
    if source is None:
        return type(error).__name__
    name = type(source).__name__
    if "Timeout" in name:
        return "the server does not answer; check host, port and firewall, and run the same command again"
    if "Connect" in name:
        return "no server listens there; check host and port, and that the server runs"
    return f"the connection failed; run the same command again ({name})"
