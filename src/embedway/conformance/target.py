"""The server to judge: its URL, model and key, and what is known about its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.config.addresses import is_loopback, parse_address
from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.conformance.reference import Reference

_EXAMPLE = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and how long one of its answers may take. The key is in no repr."""

    #: Candidates for the URL that a path such as `/embeddings` follows, the likeliest first.
    base_urls: tuple[str, ...]
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    #: Maximum time that a short request may take after others were abandoned, in seconds.
    patience_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server whose API was found, and the model to ask for. `max_tokens` includes special tokens."""

    place: Place
    base_url: str
    model: str
    #: Reranker that was named, if any.
    rerank_model: str | None = None
    reference: Reference | None = None
    max_tokens: int | None = None


def parse_place(
    url: str, *, key: str | None = None, timeout_s: float = 60.0, patience_s: float = 2.0, allow_http: bool = False
) -> Place:
    """Return the place of a URL with or without `/v1`. Raises UsageError."""
    try:
        parse_address(url, example=_EXAMPLE, instead="; use --api-key-env")
    except ValueError as error:
        raise UsageError(f"URL {error}") from None
    parts = urlsplit(url)
    if key is not None and parts.scheme.lower() == "http" and not (allow_http or is_loopback(parts.hostname or "")):
        raise UsageError("the key would be sent without encryption; use https, or add --allow-http")
    base = url.rstrip("/").removesuffix("/embeddings").rstrip("/")
    last = base.rpartition("/")[2]
    has_version = last.startswith("v") and last[1:].isdigit()
    return Place((base,) if has_version else (f"{base}/v1", base), key, timeout_s, patience_s)
