"""Strict parser of URLs in settings. Errors contain no part of the URL, because each part may belong to a password."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

_PORT = re.compile(r"[0-9]{1,5}")
_MOST_PORT = 65535
#: Characters that end or divide the part before the host, and must be escaped inside it.
_RESERVED = "@[]"
_NO_HOST = frozenset('%<>"{}|^`[]@')


@dataclass(frozen=True, slots=True)
class Url:
    """Parts of a URL, still percent-encoded. `user` is the part before `@`, which may contain a password."""

    scheme: str
    user: str = field(repr=False)
    host: str
    port: int | None
    path: str = field(repr=False)
    query: str = field(repr=False)


def escape(character: str) -> str:
    """Return the percent-encoding of an ASCII character."""
    return f"%{ord(character):02X}"


def parse_url(text: str, schemes: Sequence[str]) -> Url:
    """Parse a URL with one of these schemes, which are lower case. Raises ValueError with the rule that it violates."""
    check_characters(text)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        raise ValueError(f"must start with {' or '.join(f'{one}://' for one in schemes)}")
    if "#" in rest:
        raise ValueError("must not contain #; write # in a password as %23")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    user, at, place = authority.rpartition("@")
    if at:
        check_user(user)
    try:
        host, port = _split_host(place)
    except ValueError as error:
        if not at and "@" in rest:
            raise ValueError(f"{error}; in a password, {ESCAPES}") from None
        raise
    path, _, query = rest[len(authority) :].partition("?")
    return Url(scheme, user, host, port, path, query)


#: Advice for characters that end the part before the host.
ESCAPES = "write / as %2F, ? as %3F, # as %23 and @ as %40"


def check_characters(text: str) -> None:
    """Raise ValueError for white space, control characters and backslashes, which URL parsers drop or change."""
    if not all(character.isprintable() for character in text) or any(character.isspace() for character in text):
        raise ValueError("must not contain spaces, line breaks or control characters; write a space as %20")
    if "\\" in text:
        raise ValueError("must not contain a backslash; write it as %5C")


def check_user(user: str) -> None:
    """Raise ValueError for unescaped characters in a user name or password."""
    for character in _RESERVED:
        if character in user:
            raise ValueError(f"contains {character} in the user name or password; write it as {escape(character)}")
    if _is_ambiguous(user):
        raise ValueError("contains a character in the user name or password that must be percent-encoded")
    check_escapes(user, "the user name or password")


def _is_ambiguous(text: str) -> bool:
    """Return whether Unicode normalization turns a character into a delimiter; URL parsers refuse such characters."""
    return any(set(unicodedata.normalize("NFKC", character)) & set("/?#@:") for character in text if character > "~")


def check_escapes(text: str, what: str) -> None:
    """Raise ValueError for a percent sign that starts no escape, and for escapes that are not UTF-8."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f"contains % in {what}; write it as %25")
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"contains % escapes in {what} that are not UTF-8; write % itself as %25") from None


def _split_host(place: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", place)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("must have an IPv6 address in the brackets") from None
        return host, None if port is None else _read_port(port)
    if place.count(":") > 1:
        raise ValueError("must have one colon before the port; write an IPv6 address in brackets, such as [::1]")
    host, colon, port = place.partition(":")
    if not host:
        raise ValueError("must name a host")
    try:
        host.rstrip(".").encode("idna")
    except UnicodeError:
        raise ValueError("must name a valid host") from None
    if _NO_HOST & set(host) or _is_ambiguous(host):
        raise ValueError("must name a valid host")
    return host.lower(), _read_port(port) if colon else None


def _read_port(port: str) -> int:
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= _MOST_PORT:
        raise ValueError(f"must have a port from 1 to {_MOST_PORT}")
    return int(port)
