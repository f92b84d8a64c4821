"""Rules for URLs to which keys and texts are sent."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from embedway.config.urls import Url, parse_url
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


def parse_address(url: str, *, example: str, instead: str = "") -> Url:
    """Parse the http or https URL of a service. Raises ValueError with the rule that it violates.

    `instead` says where a key belongs that the URL must not contain.
    """
    try:
        parts = parse_url(url, ("https", "http"))
    except ValueError as error:
        if "@" not in url:
            raise ValueError(f"must be a URL such as {example}; it {error}") from None
        parts = None
    if parts is None or parts.user:
        raise ValueError(f"must not contain a user or password{instead}")
    if "?" in url:
        raise ValueError(f"must be a URL such as {example}, without ?")
    return parts


def normalized(url: str, *, http_port: int = 80) -> str:
    """Return the URL of a service with its scheme and host in lower case, its port, and no / at the end."""
    parts = parse_url(url, ("https", "http"))
    port = parts.port or (443 if parts.scheme == "https" else http_port)
    return f"{parts.scheme}://{parts.host.lower()}:{port}{parts.path.rstrip('/')}"


def parse_http_url(url: str, *, rule: str) -> Url:
    """Parse an http or https URL, which may contain a user, a password and a query. Raises ValueError with the rule."""
    try:
        return parse_url(url, ("https", "http"))
    except ValueError as error:
        raise ValueError(f"{rule}; it {error}") from None


def check_address(base_url: str, *, where: str, allow_http: bool) -> None:
    """Raise ConfigError unless a URL is https, or http to this machine. `where` is the variable that sets it."""
    try:
        parts = parse_address(base_url, example="https://api.example.com/v1")
    except ValueError as error:
        raise ConfigError(str(error), where=where) from None
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.host)):
        raise ConfigError(
            "must be https, or http to this machine, because keys and texts are sent there; to allow http, set "
            "allow_http = true in a route to the model",
            where=where,
        )


def redact_address(base_url: str) -> str:
    """Return a URL without user, password, query and fragment, which may be secret.

    If there is an @ behind the host, a password may contain an unescaped character, so the URL is not returned.
    """
    parts = _split(base_url)
    if parts is None or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return "invalid URL" if parts is None else "hidden URL, because it contains @ behind the host"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def server_of(base_url: str) -> tuple[str, int]:
    """Return host and port of a URL; an empty host for an empty URL, or if the host may be part of a secret."""
    parts = _split(base_url)
    if parts is None or not parts.hostname or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return "", 0
    return parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)


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


def suggest_scheme(url: str) -> str:
    """Return the URL with its missing scheme, as the end of an error; empty if the URL may contain a secret."""
    if "://" in url or set(url) & set("@?#\\ ") or not url.isascii() or url.startswith(("http:", "https:")):
        return ""
    try:
        parts = parse_url(f"http://{url.lstrip('/')}", ("http",))
    except ValueError:
        return ""
    return f"; write {'http' if is_loopback(parts.host) else 'https'}://{url.lstrip('/')}"
