"""Connections to PostgreSQL: destinations, passwords, and errors in plain words."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.redaction import POSTGRES_URL, shown
from embedway.errors import EmbedwayError, MissingExtraError, SinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM = "postgresql://USER@HOST:5432/DATABASE#TABLE"
#: Maximum bytes of an identifier; PostgreSQL truncates longer ones silently.
MAX_NAME_BYTES = 63
_CONNECT_TIMEOUT_S = 10
#: Advice by the prefix of an SQLSTATE; the first match counts.
_ADVICE = {
    "28P01": "the password is missing or wrong; set PGPASSWORD, or write it into ~/.pgpass",
    "28": "the server refuses this user; check the user, pg_hba.conf and TLS (sslmode)",
    "3D000": "there is no such database; create it first",
    "3F000": "there is no such schema; create it first: CREATE SCHEMA",
    "22P05": "a text has a character that the database's encoding cannot store; use a database with UTF8",
    "42883": "a column of the table has another type than the collection needs; embed the sources again into a new one",
    "42703": "a column of the table was removed; embed the sources again into a new one",
    "22": "a column of the table has another type than the collection needs; embed the sources again into a new one",
    "42501": "the user lacks the right; GRANT it, or choose another user",
    "42P01": "the table was removed by another program",
    "42704": "a type is missing; the extension vector is not installed in this database",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections; try again later",
    "25006": "the server is read-only; name the primary server",
    "57014": "the statement was cancelled or reached statement_timeout; raise that limit for this user",
    "25P03": "the server ended an idle transaction; raise idle_in_transaction_session_timeout for this user",
    "57P": "the server shut down or ended the connection; run the same command again",
    "40": "another transaction was in the way; run the same command again",
    "08": "the connection was lost; run the same command again",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A table of a database. `shown` is the destination without secrets; `schema` is empty for the default one."""

    url: str = field(repr=False)
    schema: str
    table: str
    shown: str

    @classmethod
    def of(cls, destination: str) -> Place:
        """Return the place of a destination. Raises `UsageError`, without the password."""
        found = POSTGRES_URL.fullmatch(destination)
        if found is None or not destination.isprintable():
            raise UsageError(
                f"{shown(destination)} is not a URL of the form {FORM}. Write / @ # ? % of a password as %2F %40 %23 "
                "%3F %25, or set PGPASSWORD; parameters stand before #"
            )
        schema, _, table = found["table"].rpartition(".")
        if not table:
            raise UsageError(f"{shown(destination)!r} does not name a table; the form is {FORM}")
        for name in (schema, table):
            if len(name.encode()) > MAX_NAME_BYTES:
                raise UsageError(f"{shown(destination)}: a name in PostgreSQL has at most {MAX_NAME_BYTES} bytes")
        return cls(destination.rpartition("#")[0], schema, table, shown(destination))


def require_psycopg() -> Any:
    """Return the module psycopg. Raises MissingExtraError."""
    try:
        import psycopg  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise MissingExtraError("a table in PostgreSQL", extra="postgres", package="psycopg") from None
    return psycopg


def connect(place: Place) -> Any:
    """Return a connection that commits each statement outside of `BEGIN`. Raises `SinkError`."""
    psycopg = require_psycopg()
    options: dict[str, Any] = {"application_name": "embedway", "autocommit": True}
    try:
        given = psycopg.conninfo.conninfo_to_dict(place.url)
        if "connect_timeout" not in given:
            options["connect_timeout"] = _CONNECT_TIMEOUT_S
        connection = psycopg.connect(place.url, **options)
        # Results do not depend on settings of the user or the database.
        connection.execute("SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'; SET statement_timeout TO 0")
        connection.execute("SET idle_in_transaction_session_timeout TO 0; SET client_encoding TO 'UTF8'")
    except psycopg.Error as error:
        reason = _connect_reason(error)
    else:
        return connection
    # Not raised above: an error of psycopg may repeat the password, and would be the context of this one.
    raise SinkError(f"cannot connect: {reason}", destination=place.shown)


@contextmanager
def postgres_errors(destination: str, action: str) -> Iterator[None]:
    """Convert errors of PostgreSQL to `SinkError`; their messages may quote rows, so they are only chained."""
    psycopg = require_psycopg()
    try:
        yield
    except EmbedwayError:
        raise
    except psycopg.Error as error:
        raise SinkError(f"{action} failed: {_reason(error)}", destination=destination) from error
    except (ValueError, TypeError, LookupError, OverflowError, OSError) as error:
        raise SinkError(f"{action} failed: {type(error).__name__}", destination=destination) from error


def _reason(error: Any) -> str:
    state = error.sqlstate or ""
    advice = next((text for prefix, text in _ADVICE.items() if state.startswith(prefix)), "")
    if not advice and not state and type(error).__name__ == "OperationalError":
        advice = "the connection was lost; run the same command again"
    name = f"{type(error).__name__}{f' ({state})' if state else ''}"
    return f"{advice} ({name})" if advice else name


def _connect_reason(error: Any) -> str:
    """Return why a connection failed. Messages of libpq name hosts, users and databases, but no row and no password."""
    text = " ".join(str(error).split())
    if "password authentication failed" in text or "no password supplied" in text:
        return _ADVICE["28P01"]
    if type(error).__name__ == "ProgrammingError":
        return f"the destination is not a URL of the form {FORM}"
    if "does not exist" in text and "database" in text:
        return _ADVICE["3D000"]
    if "timeout" in text or type(error).__name__ == "ConnectionTimeout":
        return "the server does not answer; check host, port and firewall"
    if "refused" in text or "No such file" in text:
        return "no server listens there; check host and port, and that the server runs"
    return text[:300]
