"""The SQLite files of the ledger and of the pins: their tables, their versions, and the steps between those.

==========  =======  ==============================================================================
file        version  what changed
==========  =======  ==============================================================================
ledger      1        no application id
ledger      2        the table `meta`, which tells that the books were restored from a backup
pins        1        no application id
pins        2        pins tell their own version; the tables are those of version 1
==========  =======  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway import formats
from embedway.errors import LedgerError
from embedway.sqlite import Format

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

#: The versions in Redis are those of the files.
LEDGER_VERSION = 2
PINS_VERSION = 2

_META = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_LEDGER = (
    """
    CREATE TABLE IF NOT EXISTS entries (
        id TEXT PRIMARY KEY, opened REAL NOT NULL, closed REAL, state TEXT NOT NULL, model TEXT NOT NULL,
        route TEXT NOT NULL DEFAULT '', collection TEXT NOT NULL, api_key TEXT NOT NULL, texts INTEGER NOT NULL,
        hits INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
        sent INTEGER NOT NULL DEFAULT 0, spent INTEGER NOT NULL DEFAULT 0, estimated INTEGER NOT NULL DEFAULT 0,
        unsure INTEGER NOT NULL DEFAULT 0, saved INTEGER NOT NULL DEFAULT 0, unpriced INTEGER NOT NULL DEFAULT 0,
        lease_until REAL
    )
    """,
    "CREATE INDEX IF NOT EXISTS entries_open ON entries (lease_until) WHERE state = 'open'",
    "CREATE INDEX IF NOT EXISTS entries_opened ON entries (opened)",
    """
    CREATE TABLE IF NOT EXISTS accounts (
        scope TEXT NOT NULL, period TEXT NOT NULL, spent INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0,
        saved INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (scope, period)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS limits (
        name TEXT PRIMARY KEY, nanousd INTEGER NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL,
        hard INTEGER NOT NULL, warn_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS warnings (
        name TEXT NOT NULL, period TEXT NOT NULL, nanousd INTEGER NOT NULL, level INTEGER NOT NULL,
        PRIMARY KEY (name, period, nanousd)
    )
    """,
    _META,
)
_PINS = ("CREATE TABLE IF NOT EXISTS pins (collection TEXT PRIMARY KEY, pin TEXT NOT NULL)",)


def _add_meta(connection: sqlite3.Connection, path: Path) -> None:
    del path
    connection.execute(_META)


def _let_pins_tell_their_version(connection: sqlite3.Connection, path: Path) -> None:
    """Nothing is rewritten: a pin that tells no version is of version 1."""
    del connection, path


LEDGER = Format(formats.LEDGER, LEDGER_VERSION, _LEDGER, LedgerError, {1: _add_meta})
PINS = Format(formats.PINS, PINS_VERSION, _PINS, LedgerError, {1: _let_pins_tell_their_version})
