"""Checks of URLs that keys and texts are sent to."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from embedway.errors import ConfigError


def belongs_to_hosts(base_url: str, hosts: tuple[str, ...]) -> bool:
    """Return whether a URL is https and its parsed host is one of `hosts`; never search it as text."""
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url or "\\" in base_url:
        return False  # URL parsers disagree about these
    parts = _split(base_url)
    if parts is None or parts.scheme != "https" or "@" in parts.netloc or parts.port not in {None, 443}:
        return False
    host = parts.hostname or ""
    return any(host.endswith(one) and host != one if one.startswith(".") else host == one for one in hosts)


def check_address(base_url: str, *, where: str, allow_http: bool) -> None:
    """Raise ConfigError unless a URL is https, or http to this machine. `where` is the variable that sets it."""
    parts = _split(base_url)
    if parts is None or not parts.hostname or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise ConfigError("must be a URL such as https://api.example.com/v1", where=where)
    if "@" in parts.netloc:
        raise ConfigError("must not contain a user or password", where=where)
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        raise ConfigError("must be https, or http to this machine, because keys and texts are sent there", where=where)


def redact_address(base_url: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    parts = _split(base_url)
    if parts is None:
        return "invalid URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _split(base_url: str) -> SplitResult | None:
    try:
        parts = urlsplit(base_url)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def is_loopback(host: str) -> bool:
    """Return whether a host name refers to this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
