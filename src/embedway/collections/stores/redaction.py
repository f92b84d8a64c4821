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
_PARAMETER = re.compile(r"[?&;]([^=&;#?]*)(=?)[^&;#?]*")
#: A password in a text of libpq; a quoted value may contain escaped quotes, and may lack the last one.
_PASSWORD = re.compile(r"(?i)((?:passw|pwd|secret|token|api_?key)\w*\s*=\s*)(?!\*\*\*)('(?:\\.|[^'\\])*(?:'|$)|\S+)")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
#: Parameters of a connection whose values are not secret.
_KNOWN = frozenset({"host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout", "target_session_attrs"})


def shown(destination: str) -> str:
    """Return a destination as messages may show it.

    Of a URL of PostgreSQL, the user's name stays. Of any other text with a scheme, nothing between the scheme and the
    last @ stays, because a password that is not escaped may contain any character. The same holds for a text without
    scheme in which a colon precedes the @. Known parameters stay up to the first unknown one; of the rest, only what
    follows the last # stays.
    """
    if exact := POSTGRES_URL.fullmatch(destination):
        user = "" if exact["user"] is None else f"{exact['user']}@"
        query = "" if exact["query"] is None else _parameters(f"?{exact['query']}")
        return f"{exact['scheme']}://{user}{exact['host']}{exact['path'] or ''}{query}#{exact['table']}"
    scheme = _SCHEME.match(destination)
    start = "" if scheme is None else scheme.group()
    rest = destination[len(start) :]
    head, _, tail = rest.rpartition("@")
    if scheme is None and (":" not in head or _DRIVE.match(destination)):
        return _PASSWORD.sub(r"\1***", destination)
    if "=" in head:  # the @ may be in the password of a parameter
        return f"{start}***"
    if "@" in rest:
        return f"{start}***@{_parameters(tail)}"
    if start.endswith("//") and not _PORT.match(rest):
        return f"{start}{rest.partition(':')[0]}:***"
    return start + _parameters(rest)


def _parameters(text: str) -> str:
    """Return a text in which only known parameters have values."""
    unknown = next((found for found in _PARAMETER.finditer(text) if found[1] not in _KNOWN), None)
    if unknown is not None:
        # Its value may contain any character that ends a value, so all of the text up to the table is hidden.
        hidden = unknown.end(2) if unknown[2] else unknown.start(1)
        table = text.rfind("#", hidden)
        text = f"{text[:hidden]}***{text[table:] if table >= 0 else ''}"
    return _PASSWORD.sub(r"\1***", text)
