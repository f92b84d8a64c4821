"""The page of the gateway: one document with its style and script. It contains no data; those need a key."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from embedway.files import read_package_text
from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange

_MEDIA = "text/html; charset=utf-8"
#: Parts of the script, in order; they are one module.
_SCRIPTS = ("elements.js", "charts.js", "tables.js", "page.js")


async def page(exchange: Exchange) -> Reply:
    """Answer `GET /`."""
    del exchange
    return page_reply()


@cache
def page_reply() -> Reply:
    """Return the page and its headers. The policy allows its own style and script, and requests to the gateway."""
    html, style = read_package_text(__package__, "page.html"), read_package_text(__package__, "page.css")
    script = "\n".join(read_package_text(__package__, name) for name in _SCRIPTS)
    document = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        "default-src 'none'",
        f"script-src {_source(script)}",
        f"style-src {_source(style)}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # Values of the gateway are inserted as text: in browsers that know this rule, the script cannot insert HTML.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    headers = (
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )
    return Reply(document.encode(), media=_MEDIA.encode(), headers=headers)


def _source(text: str) -> str:
    """Return the source expression of a text: its SHA-256, as browsers compute it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


ENDPOINTS = (
    Endpoint(
        "GET",
        "/",
        page,
        "The page: what the gateway serves and does, for people",
        openai.error,
        "page",
        access="open",
        media=_MEDIA,
        error_schema=openai.ERROR_SCHEMA,
    ),
)
