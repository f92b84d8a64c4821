"""Requests from pages in browsers: refused unless the page is the gateway's own or of an allowed origin.

A page of any site can send requests to a gateway on the same machine. Browsers name the page's origin in them. A
page that resolves its own host name to the gateway's address (DNS rebinding) is recognized by the header `Host`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.config.addresses import is_loopback
from embedway.server.problems import BodyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.server.replies import Header


def check_browser(headers: Sequence[Header], origins: Sequence[str], *, loopback_only: bool) -> None:
    """Raise BodyError for a request from a foreign page.

    With `loopback_only`, the gateway needs no keys, so that the host must be this machine.
    """
    origin = host = b""
    for name, value in headers:
        if name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    if loopback_only and host and not is_loopback(_host_of(host.decode("latin-1"))):
        raise BodyError(
            "the host of the request is not this machine: use 127.0.0.1 or localhost; to serve other names, set "
            "server.auth = 'keys', or server.metrics_host for the port of metrics",
            status=403,
            code="foreign_host",
        )
    if not origin:
        return
    asked = origin.decode("latin-1")
    if asked not in origins and not _is_of_host(asked, host.decode("latin-1")):
        raise BodyError(
            "pages of this origin may not use the gateway; add it to server.cors_origins",
            status=403,
            code="foreign_origin",
        )


#: Headers of an answer that a page may read.
_EXPOSED = (
    b"retry-after, x-embedway-averaged, x-embedway-cache, x-embedway-cost-usd, x-embedway-model, x-embedway-notes, "
    b"x-embedway-request-id, x-embedway-space, x-embedway-truncated, x-should-retry"
)


def cors_headers(headers: Sequence[Header], origins: Sequence[str], *, preflight: bool = False) -> tuple[Header, ...]:
    """Return the headers that let a page of an allowed origin read the answer; none for other requests."""
    origin = next((value for name, value in headers if name == b"origin"), b"")
    if not origin or origin.decode("latin-1") not in origins:
        return ()
    found = ((b"access-control-allow-origin", origin), (b"vary", b"origin"))
    if preflight:
        # Clients send headers of their own, such as x-stainless-lang of OpenAI's. What is restricted is the origin.
        asked = b", ".join(value for name, value in headers if name == b"access-control-request-headers")
        return (
            *found,
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", asked),
            (b"access-control-max-age", b"600"),
        )
    return (*found, (b"access-control-expose-headers", _EXPOSED))


def _is_of_host(origin: str, host: str) -> bool:
    """Return whether an origin has the host and the port of a request."""
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False


def _host_of(host: str) -> str:
    """Return the host of a header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
