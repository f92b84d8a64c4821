"""Reasons and remedies for stores that cannot be used: Redis and Valkey servers, and SQLite files.

A failure contains our own words only. The message of a server may repeat a password, a key or an address.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from embedway.text import printable


@dataclass(frozen=True, slots=True)
class StoreFailure:
    """Failure of a store: the kind, for comparisons; the reason and the remedy in plain words."""

    kind: str
    reason: str
    remedy: str
    #: Whether nothing of the store can be used; false if one kind of call failed and others may succeed.
    whole: bool = False

    def __str__(self) -> str:
        """Return the reason and the remedy."""
        return f"{self.reason}: {self.remedy}" if self.remedy else self.reason


@dataclass(frozen=True, slots=True)
class _Known:
    """A known failure, recognized by the code of a server's answer, the class of an error, or a part of its message.

    `{setting}` in the remedy is the setting of the URL or the path.
    """

    kind: str
    codes: tuple[str, ...]
    classes: tuple[str, ...]
    message: str
    reason: str
    remedy: str


#: Commands of embedway's stores. Only these are repeated from a server's refusal.
_COMMANDS = frozenset(
    {"client", "del", "eval", "get", "getrange", "hello", "hget", "hincrby", "hscan", "hset", "hsetnx", "incr", "info"}
    | {"mget", "ping", "scan", "select", "set", "strlen", "unlink"}
)
_NEVER = r"(?!)"
#: Known failures of servers, the most specific first.
_SERVER = (
    _Known("no password", ("NOAUTH",), (), _NEVER, "it requires a password", "set the user and password in {setting}"),
    _Known(
        "password",
        ("WRONGPASS",),
        ("AuthenticationError", "AuthenticationWrongNumberOfArgsError", "AuthorizationError"),
        "invalid password|WRONGPASS",
        "it refuses the user or password",
        "correct the user and password in {setting}",
    ),
    _Known(
        "permission",
        ("NOPERM",),
        ("NoPermissionError",),
        "ACL failure in script|no permissions to|user executing the script can't",
        "its user may not run the command{command}",
        "give the user in {setting} the commands and keys (`embedway:*`, `{{embedway:*`) of embedway",
    ),
    _Known(
        "replica",
        ("READONLY",),
        ("ReadOnlyError",),
        _NEVER,
        "it is a read-only replica",
        "set {setting} to the primary",
    ),
    _Known("loading", ("LOADING",), ("BusyLoadingError",), _NEVER, "it is still loading its data", "wait until it has"),
    _Known(
        "memory",
        ("OOM",),
        ("OutOfMemoryError",),
        _NEVER,
        "its memory is full",
        "raise its maxmemory{room}",
    ),
    _Known(
        "disk of the server",
        ("MISCONF",),
        (),
        _NEVER,
        "it cannot save to its disk, and refuses writes (MISCONF)",
        "free space on the server, and read its log",
    ),
    _Known(
        "primary",
        ("MASTERDOWN",),
        ("MasterDownError",),
        _NEVER,
        "it is a replica without a connection to its primary",
        "set {setting} to the primary",
    ),
    _Known(
        "cluster down",
        ("CLUSTERDOWN",),
        ("ClusterDownError", "SlotNotCoveredError"),
        "slots? not covered|slot .* not covered",
        "its cluster is down, or does not cover all slots",
        "repair the cluster (`CLUSTER INFO`)",
    ),
    _Known(
        "cluster",
        ("MOVED", "ASK", "CROSSSLOT"),
        ("MovedError", "AskError", "ClusterCrossSlotError", "CrossSlotTransactionError"),
        "SELECT is not allowed in cluster mode",
        "it is a node of a cluster",
        "set {section}.cluster = true",
    ),
    _Known(
        "no cluster",
        (),
        (),
        "cluster support disabled|cluster mode is not enabled",
        "it is not a node of a cluster",
        "set {section}.cluster = false",
    ),
    _Known("resharding", ("TRYAGAIN",), ("TryAgainError",), _NEVER, "its cluster is moving slots", "wait until it has"),
    _Known(
        "protected mode",
        ("DENIED",),
        (),
        "protected mode",
        "it accepts only local connections (protected mode)",
        "set a password on the server and in {setting}",
    ),
    _Known(
        "clients",
        (),
        ("MaxConnectionsError",),
        "max number of clients|too many connections",
        "it has too many connections",
        "raise its maxclients, or close unused clients",
    ),
    _Known("replicas", ("NOREPLICAS",), (), _NEVER, "too few of its replicas are connected", "repair its replicas"),
    _Known("busy", ("BUSY", "UNKILLABLE"), (), _NEVER, "it is busy with a script", "wait until the script has ended"),
    _Known(
        "database",
        (),
        (),
        "DB index is out of range|invalid database|invalid DB index",
        "it has no database of this number",
        "correct the number of the database in {setting}",
    ),
    _Known(
        "type",
        ("WRONGTYPE",),
        (),
        _NEVER,
        "another program uses keys of embedway",
        "set {setting} to another database or server",
    ),
    _Known(
        "command",
        (),
        (),
        "unknown (sub)?command",
        "it does not know the command{command}",
        "use Redis 5 or newer, or Valkey, without disabled commands",
    ),
    _Known(
        "expired certificate",
        (),
        (),
        "certificate has expired|certificate is not yet valid",
        "its certificate is not valid now",
        "renew the certificate, and check the clocks of both machines",
    ),
    _Known(
        "name of the certificate",
        (),
        (),
        "hostname mismatch|IP address mismatch|certificate is not valid for",
        "its certificate is of another host",
        "use a host name of the certificate in {setting}",
    ),
    _Known(
        "certificate",
        (),
        ("SSLCertVerificationError",),
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted",
        "set SSL_CERT_FILE, or the option ssl_ca_certs in {setting}, to the file of its CA",
    ),
    _Known(
        "client certificate",
        (),
        (),
        "ALERT_CERTIFICATE_REQUIRED|certificate required|ALERT_HANDSHAKE_FAILURE",
        "it requires a certificate of the client, or another version of TLS",
        "set the options ssl_certfile and ssl_keyfile in {setting}",
    ),
    _Known(
        "no TLS",
        (),
        ("SSLError",),
        r"\[SSL|SSL:",
        "it does not speak TLS on this port",
        "use redis:// in {setting}, or the port for TLS",
    ),
    _Known(
        "protocol",
        ("NOPROTO",),
        ("InvalidResponse",),
        "Protocol Error",
        "it does not answer as Redis does",
        "check host and port in {setting}; use rediss:// if the port is for TLS",
    ),
    _Known(
        "connection",
        (),
        (),
        "timeout connecting",
        "no {tls}connection in time",
        "check host, port and scheme (redis:// without TLS, rediss:// with TLS) in {setting}, and the firewall",
    ),
    _Known(
        "timeout",
        (),
        ("TimeoutError",),
        "timeout|timed out",
        "no answer within {answer_s}",
        "check host, port and scheme (redis:// without TLS, rediss:// with TLS) in {setting}, and the firewall",
    ),
    _Known(
        "closed",
        (),
        ("ConnectionResetError", "BrokenPipeError", "IncompleteReadError"),
        "closed by server|reset by peer|closed the connection",
        "it closes the connection",
        "use rediss:// in {setting} if the port is for TLS; check host and port",
    ),
)
#: Advice on a full server: of the cache, and of the other parts.
_ROOM = {
    "cache": ", lower cache.redis_mib, or set maxmemory-policy to allkeys-lru on a server that is only a cache",
    "": ", or remove keys of others; if the cache uses the same server, set cache.url to another one, or lower "
    "cache.redis_mib and run `embedway cache clear --all`",
}
#: Code of a server's answer. The library writes the command before the answer of a pipeline's command.
_CODE = re.compile(r"(?:^|caused error: )([A-Z]{2,16})\b")
_COMMAND = re.compile(r"command,? ['`\"]?(?:with )?['`\"]?([A-Za-z]{2,10})\b|the '([A-Za-z]{2,10})(?:\|\w+)?' command")
#: Numbers of system errors of a connection, with their reasons.
_ERRNO = {
    errno.ECONNREFUSED: "it refuses the connection",
    errno.ENOENT: "its socket does not exist, or a file of TLS is missing",
    errno.EACCES: "no permission to connect",
    errno.EPERM: "no permission to connect",
    errno.EHOSTUNREACH: "its host cannot be reached",
    errno.ENETUNREACH: "its network cannot be reached",
    errno.EMFILE: "this process has too many open files",
}


def explain_server(error: BaseException, url: str, *, setting: str, answer_s: float) -> StoreFailure:
    """Explain an error of the Redis library for a server's URL, which `setting` names.

    `answer_s` is the time limit of an answer.
    """
    causes = _causes(error)
    names = {cls.__name__ for one in causes for cls in type(one).__mro__}
    messages = " ".join(str(one) for one in causes)
    codes = {code for one in causes if (code := _code(one))}
    values = {"setting": setting, "section": setting.partition(".")[0], "answer_s": f"{round(answer_s, 1):g} s"}
    values["room"] = _ROOM["cache" if setting == "cache.url" else ""]
    values["tls"] = "TLS " if url.startswith("rediss:") else ""
    whole = "ResponseError" not in names
    for known in _SERVER:
        if codes.intersection(known.codes) or (
            names.intersection(known.classes) or re.search(known.message, messages, re.IGNORECASE)
        ):
            reason = known.reason.format(command=_command(messages), **values)
            return StoreFailure(known.kind, reason, known.remedy.format(**values), whole)
    if "gaierror" in names:
        reason, remedy = "it cannot be reached: its host name is unknown", f"correct the host in {setting}"
        return StoreFailure("host", reason, remedy, whole)
    if "ConnectionError" in names or "OSError" in names:
        number = next((one.errno for one in causes if isinstance(one, OSError) and one.errno in _ERRNO), 0)
        why = f": {_ERRNO[number]}" if number else ""
        remedy = f"start the server, or correct host and port in {setting}"
        return StoreFailure(f"unreachable {number}", f"it cannot be reached{why}", remedy, whole)
    kind = type(error).__name__
    reason, remedy = f"its answer is an unknown error ({kind})", f"check {setting}, and the server's log"
    return StoreFailure(kind, reason, remedy, whole)


def _code(error: BaseException) -> str:
    """Return the code of a server's answer, such as `OOM`; empty for other errors."""
    code = getattr(error, "status_code", None)
    if isinstance(code, str) and code and code != "ERR":
        return code
    found = _CODE.search(str(error)) if type(error).__name__ == "ResponseError" else None
    return found[1] if found else ""


def _command(messages: str) -> str:
    """Return the command that a server refuses, if it is one of ours, with a space before it."""
    for found in _COMMAND.finditer(messages):
        name = (found[1] or found[2]).lower()
        if name in _COMMANDS:
            return f" {name.upper()}"
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def server_address(url: str) -> str:
    """Return host, port and database of a server's URL, or the path of its socket, without credentials."""
    try:
        parts = urlsplit(url)
        database = parse_qs(parts.query).get("db", [""])[0]
        if parts.scheme == "unix":
            place = unquote(parts.path)
        else:
            host = parts.hostname or "localhost"
            place = f"[{host}]" if ":" in host else host
            place += f":{parts.port or 6379}"
            database = database or parts.path.strip("/")
    except ValueError:  # settings are checked, so this is another caller's URL
        return "an invalid URL"
    return printable(place + (f"/{database}" if database.isdecimal() and int(database) else ""))


#: Known failures of SQLite files, by the lowest byte of SQLite's code.
_SQLITE = {
    sqlite3.SQLITE_FULL: ("full", "the disk is full", "free some space, or set {setting}"),
    sqlite3.SQLITE_READONLY: ("read-only", "the file is read-only", "change its permissions, or set {setting}"),
    sqlite3.SQLITE_BUSY: ("locked", "another program has locked it", "end that program, or set {setting}"),
    sqlite3.SQLITE_LOCKED: ("locked", "another program has locked it", "end that program, or set {setting}"),
    sqlite3.SQLITE_CANTOPEN: (
        "open",
        "the file cannot be opened",
        "check its folder and the permissions, or set {setting}",
    ),
    sqlite3.SQLITE_PERM: ("permission", "no permission", "change its permissions, or set {setting}"),
    sqlite3.SQLITE_IOERR: ("disk", "its disk reports errors", "check the disk and its free space, or set {setting}"),
    sqlite3.SQLITE_CORRUPT: ("damaged", "the file is damaged", "{repair}, or set {setting}"),
    sqlite3.SQLITE_NOTADB: ("damaged", "the file is damaged", "{repair}, or set {setting}"),
    sqlite3.SQLITE_NOMEM: ("memory", "this process has no memory left", "free memory"),
}
#: Reasons of system errors that need other words than the system's.
_FILE_ERRNO = {
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EROFS: "its disk is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
}


def explain_file(error: BaseException, *, setting: str, repair: str = "delete the file") -> StoreFailure:
    """Explain an error of a SQLite file. `setting` names its path; `repair` is the remedy of a damaged file."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, sqlite3.Error) and isinstance(code, int):
        kind, reason, remedy = _SQLITE.get(code & 0xFF, ("sqlite", "", "check the file, or set {setting}"))
        reason = reason or f"SQLite reports {sqlite_name(error)}"
        return StoreFailure(kind, reason, remedy.format(setting=setting, repair=repair), kind in {"open", "damaged"})
    if isinstance(error, OSError):
        number = error.errno or 0
        reason = _FILE_ERRNO.get(number) or (os.strerror(number).lower() if number else type(error).__name__)
        remedy = f"set {setting} to a place that can be written"
        full = number in {errno.ENOSPC, errno.EDQUOT}
        return StoreFailure("full" if full else f"system {number}", reason, remedy, not full)
    kind = type(error).__name__
    return StoreFailure(kind, f"it contains invalid values ({kind})", f"{repair}, or set {setting}")


def sqlite_name(error: sqlite3.Error) -> str:
    """Return SQLite's name of an error, such as SQLITE_TOOBIG."""
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)
