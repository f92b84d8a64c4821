"""Proxies for requests to services, from the environment, and the hosts that are reached without one."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from embedway.config.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMPLE = "http://proxy.example.com:3128"


@dataclass(frozen=True, slots=True)
class Proxy:
    """HTTP proxy: its variable, its URL without user and password, and the header that contains them."""

    variable: str
    url: str
    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def proxy_for(url: str, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy for a service, or None. Raises ValueError, without any part of the proxy's URL.

    Only services with https get a proxy: it could read the key and the texts of others. The proxy is in HTTPS_PROXY, or
    else in ALL_PROXY; lower-case names take precedence. Hosts in NO_PROXY have none.
    """
    given = os.environ if environ is None else environ
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or bypasses(parts.hostname, parts.port or 443, given):
        return None
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        if value := given.get(variable, "").strip():
            return parse_proxy(variable, value)
    if environ is not None:
        return None
    # Windows and macOS have a setting of the system.
    found = urllib.request.getproxies().get("https", "")
    return parse_proxy("the system's proxy", found) if found else None


def parse_proxy(variable: str, value: str) -> Proxy:
    """Parse the URL of a proxy. Raises ValueError, without any part of it, because each may belong to a password."""
    scheme, separator, _ = value.partition("://")
    if separator and scheme.casefold().startswith("socks"):
        raise ValueError(
            f"{variable} is a SOCKS proxy, which is not supported: set HTTPS_PROXY to an HTTP proxy such as "
            f"{_EXAMPLE}, or add the host to NO_PROXY"
        )
    try:
        parts = parse_url(value if separator else f"http://{value}", ("http", "https"))
    except ValueError as error:
        raise ValueError(f"{variable} must be a URL such as {_EXAMPLE}; it {error}") from None
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    url = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not parts.user:
        return Proxy(variable, url, parts.host, port)
    user, colon, password = parts.user.partition(":")
    both = f"{unquote(user)}:{unquote(password)}" if colon else f"{unquote(user)}:"
    basic = base64.b64encode(both.encode()).decode()
    return Proxy(variable, url, parts.host, port, {"Proxy-Authorization": f"Basic {basic}"})


def bypasses(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Return whether NO_PROXY names a host, so that it is reached without a proxy.

    An entry is `*`; a host, with or without a leading dot or `*.`, which names its subdomains too; an address; or a
    network such as `10.0.0.0/8`; each with an optional port.
    """
    listed = environ.get("no_proxy", "").strip() or environ.get("NO_PROXY", "").strip()
    if not listed:
        return environ is os.environ and bool(urllib.request.proxy_bypass(host))
    return any(_names(entry, host.casefold().rstrip("."), port) for entry in re.split(r"[\s,;]+", listed) if entry)


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, its_port = _split_port(entry.casefold())
    if its_port is not None and its_port != port:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        name = name.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split the port off an entry; an address of IPv6 with a port is in brackets."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](/\d+)?(?::(\d{1,5}))?", entry)
    if bracketed is not None:
        return bracketed[1] + (bracketed[2] or ""), int(bracketed[3]) if bracketed[3] else None
    name, colon, port = entry.rpartition(":")
    if colon and name.count(":") == 0 and port.isdecimal():
        return name, int(port)
    return entry, None
