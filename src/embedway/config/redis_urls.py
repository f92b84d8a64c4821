"""Validation of the URLs of Redis and Valkey servers. A URL that the client would read differently is refused."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import unquote_plus

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from embedway.config.urls import ESCAPES, Url, check_characters, check_escapes, check_user, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Supported schemes, each with the client's scheme for it. Valkey has the same protocol as Redis.
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_EXAMPLE = "redis://:PASSWORD@HOST:6379/0"
_DATABASE = re.compile(r"[0-9]{1,9}")
_FLAG = re.compile("true|false|yes|no|1|0", re.IGNORECASE)
_TEXT = re.compile(".+")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
#: Supported options of the query, with their values. The client accepts others, and fails at the first connection.
_OPTIONS: Mapping[str, re.Pattern[str]] = {
    "client_name": re.compile(r"[!-~]+"),
    "db": _DATABASE,
    "health_check_interval": re.compile(r"[0-9]{1,9}"),
    "max_connections": re.compile(r"[1-9][0-9]{0,8}"),
    "password": _TEXT,
    "protocol": re.compile("[23]"),
    "socket_connect_timeout": _NUMBER,
    "socket_keepalive": _FLAG,
    "socket_timeout": _NUMBER,
    "ssl_ca_certs": _TEXT,
    "ssl_cert_reqs": re.compile("none|optional|required"),
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": _FLAG,
    "ssl_keyfile": _TEXT,
    "username": _TEXT,
}
_POSITIVE = frozenset({"socket_connect_timeout", "socket_timeout"})


def check_redis_url(text: str) -> str:
    """Return a server's URL with a scheme that the client knows. Raises ValueError with the rule that it violates."""
    check_characters(text)
    scheme, separator, rest = text.partition("://")
    known = _SCHEMES.get(scheme.lower())
    if not separator or known is None:
        schemes = ", ".join(f"{one}://" for one in _SCHEMES)
        raise ValueError(f"must start with one of {schemes}, such as {_EXAMPLE}")
    text = f"{known}://{rest}"
    # After an unescaped #, / or ? the password seems to be a path, a query or a port, whose rules would not help.
    end = re.search("[/?#]", rest)
    if known != "unix" and end is not None and "@" in rest[end.start() :]:
        raise ValueError(f"contains {end[0]} before @; in a user name or password, {ESCAPES}")
    parts = _parse_socket(rest) if known == "unix" else parse_url(text, ("redis", "rediss"))
    database = parts.path.removeprefix("/")
    if known != "unix" and database and not _DATABASE.fullmatch(database):
        raise ValueError(f"must have the number of the database after the host, such as {_EXAMPLE}")
    options = _read_options(parts.query)
    if known != "unix" and database and options.get("db", database) != database:
        raise ValueError("must name one database: after the host, or as the option db")
    if parts.user and {"username", "password"} & set(options):
        raise ValueError("must have the user and password before the host or as options, not both")
    if known != "rediss" and any(name.startswith("ssl_") for name in options):
        raise ValueError("must start with rediss:// for the options of TLS (ssl_)")
    return text


def _parse_socket(rest: str) -> Url:
    """Parse the URL of a socket after its scheme: `[USER:PASSWORD@]/PATH[?OPTIONS]`."""
    if "#" in rest:
        raise ValueError("must not contain #; write it as %23")
    before, slash, after = rest.partition("/")
    if not slash or (before and not before.endswith("@")):
        raise ValueError("must have an absolute path, such as unix:///run/valkey.sock")
    check_user(before.removesuffix("@"))
    path, _, query = after.partition("?")
    check_escapes(path, "the path")
    if not path or "%00" in path:
        raise ValueError("must have the path of a socket, such as unix:///run/valkey.sock")
    return Url("unix", before.removesuffix("@"), "", None, f"/{path}", query)


def _read_options(query: str) -> dict[str, str]:
    """Return the options of a query. Raises ValueError, which names only options that the client has."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in _OPTIONS:
            raise ValueError(
                f"has an unsupported option; supported: {', '.join(_OPTIONS)}; write ? in a password as %3F"
            )
        if name in options:
            raise ValueError(f"has the option {name} twice")
        check_escapes(value, f"the option {name}")
        if name in {"username", "password"} and "+" in value:
            raise ValueError(f"contains + in the option {name}; write it as %2B, or a space as %20")
        decoded = unquote_plus(value)
        wrong = not _OPTIONS[name].fullmatch(decoded) or (name in _POSITIVE and math.isclose(float(decoded), 0))
        if wrong:
            raise ValueError(f"has an invalid value of the option {name}")
        options[name] = decoded
    return options


def _check_secret(url: SecretStr) -> SecretStr:
    return SecretStr(check_redis_url(url.get_secret_value()))


def _check_cluster(cluster: bool, info: ValidationInfo) -> bool:
    """Refuse a socket, and a database other than 0: a cluster has neither."""
    url = info.data.get("url")
    if not cluster or url is None:
        return cluster
    text = url.get_secret_value()
    if text.startswith("unix:"):
        raise ValueError("must be false if url names a socket")
    parts = parse_url(text, ("redis", "rediss"))
    if int(_read_options(parts.query).get("db") or parts.path.removeprefix("/") or "0"):
        raise ValueError("must be false if url names a database other than 0")
    return cluster


#: URL of a Redis or Valkey server, which may contain a password.
RedisUrl: TypeAlias = Annotated[SecretStr, AfterValidator(_check_secret)]
#: Whether the server of the section's `url` belongs to a cluster.
Cluster: TypeAlias = Annotated[bool, Field(strict=True), AfterValidator(_check_cluster)]
