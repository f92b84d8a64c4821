"""Destinations without their secrets."""

from __future__ import annotations

import re

#: URL of a table as libpq reads it: a password may have `?` and `#`, but no `/`. `@` is only between user and host.
POSTGRES_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^@/:?#]*)(?P<password>:[^@/]*)?@)?"
    r"(?P<host>(?:[^@/?#:,\[\]]*|\[[0-9A-Fa-f:.%]*\])(?::[0-9]*)?(?:,(?:[^@/?#:,\[\]]*|\[[0-9A-Fa-f:.%]*\])(?::[0-9]*)?)*)"
    r"(?P<path>/[^@?#]*)?(?:\?(?P<query>[^@#]*))?#(?P<table>[^@#?]*)"
)
#: A scheme, and the one of the server after it, as in `qdrant:http://`.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:[A-Za-z][A-Za-z0-9+.-]*:(?=//))?/*")
_PORT = re.compile(r"[^/?#:\[]*(?:\[[^\]]*\])?(?::[0-9]*)?(?=[/?#,]|$)")
_PARAMETER = re.compile(r"([?&;])([^=&;#?]*)(=?)[^&;#?]*")
_WORD = re.compile(r"(?i)((?:passw|pwd|secret|token|api_?key)\w*\s*=\s*)('[^']*'|\S+)")
#: Parameters of a connection whose values are not secret.
_KNOWN = frozenset({"host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout", "target_session_attrs"})


def shown(destination: str) -> str:
    """Return a destination as messages may show it.

    Of a URL of PostgreSQL, the user's name stays. Of any other text with a scheme, nothing between the scheme and the
    last @ stays, because a password that is not escaped may contain any character. Parameters stay if they are known.
    """
    if exact := POSTGRES_URL.fullmatch(destination):
        user = "" if exact["user"] is None else f"{exact['user']}@"
        query = "" if exact["query"] is None else _parameters(f"?{exact['query']}")
        return f"{exact['scheme']}://{user}{exact['host']}{exact['path'] or ''}{query}#{exact['table']}"
    scheme = _SCHEME.match(destination)
    if scheme is None:
        return _WORD.sub(r"\1***", destination)
    start, rest = scheme.group(), destination[scheme.end() :]
    if "@" in rest:
        return f"{start}***@{_parameters(rest.rpartition('@')[2])}"
    if start.endswith("//") and not _PORT.match(rest):
        return f"{start}{rest.partition(':')[0]}:***"
    return start + _parameters(rest)


def _parameters(text: str) -> str:
    """Return a text in which only known parameters have values."""

    def one(found: re.Match[str]) -> str:
        mark, name, equals = found.groups()
        if name in _KNOWN:
            return found.group()
        return f"{mark}{name}=***" if equals else f"{mark}***"

    return _PARAMETER.sub(one, text)
