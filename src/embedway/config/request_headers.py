"""Rules for the headers of requests that a route sets. Errors contain no value, because values are secrets."""

from __future__ import annotations

import re

#: A token of HTTP without a dot, which divides the keys of settings.
_NAME = re.compile(r"[!#$%&'*+^_`|~0-9A-Za-z-]+")
#: Key of a header of a route, also of one that is created directly.
_IN_TABLE = re.compile(r"(?P<table>(?:routes\..*?\.)?headers(?:_env|_file)?)\.(?P<name>.*)", re.DOTALL)
#: Headers that the HTTP client sets itself, that belong to one connection, or that change what an answer looks like.
_RESERVED = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_LONGEST_VALUE = 16_384


def check_header_name(name: object) -> str:
    """Return the name of a header. Raises ValueError for an invalid name, and for one that a route must not set."""
    text = name.strip() if isinstance(name, str) else ""
    if not _NAME.fullmatch(text):
        raise ValueError("must be the name of a header: letters, digits and -")
    if text.casefold() in _RESERVED:
        if text.casefold().startswith("proxy-"):
            raise ValueError("must not be set: the proxy's user and password are in the URL of HTTPS_PROXY")
        raise ValueError("must not be set: embedway or its connection sets this header")
    return text


def known_part(key: str) -> str:
    """Return a key of settings without the name of a header that is invalid, because it may be a pasted header."""
    found = _IN_TABLE.fullmatch(key)
    return key if found is None or _NAME.fullmatch(found["name"]) else found["table"]


def check_header_value(text: str) -> str:
    """Return the value of a header without white space around it. Raises ValueError for characters it must not have."""
    text = text.strip()
    if not text:
        raise ValueError("must not be empty")
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII, without line breaks")
    if len(text) > _LONGEST_VALUE:
        raise ValueError(f"must have at most {_LONGEST_VALUE:,} characters")
    return text


def check_key(key: str) -> str:
    """Return a key without white space around it. Raises ValueError for text that is not a key alone."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("contains a character that no key has, such as a line break; paste it again")
    if len(key) > 1 and key[0] == key[-1] and key[0] in "\"'":
        raise ValueError("is in quotation marks; remove them")
    if key.casefold().startswith("bearer "):
        raise ValueError("starts with Bearer; write only the key behind it")
    return key
