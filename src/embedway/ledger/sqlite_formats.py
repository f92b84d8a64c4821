"""SQLite files of the ledger and of the pins: tables, versions, and migrations.

==========  =======  ==============================================================================
file        version  change
==========  =======  ==============================================================================
ledger      1        no application ID
ledger      2        the table `meta`, which marks a ledger restored from a backup
ledger      3        the tables `records` and `leases`
pins        1        no application ID
pins        2        pins contain their own version; the tables are those of version 1
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

#: The same versions apply in Redis.
LEDGER_VERSION = 3
#: First version of the ledger with the table `records`.
RECORDS_SINCE = 3
PINS_VERSION = 2

_META = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
#: Documents are compressed with zlib.
_RECORDS = (
    "CREATE TABLE IF NOT EXISTS records (kind TEXT NOT NULL, name TEXT NOT NULL, document BLOB NOT NULL, "
    "changed REAL NOT NULL, PRIMARY KEY (kind, name))"
)
_LEASES = (
    "CREATE TABLE IF NOT EXISTS leases (kind TEXT NOT NULL, name TEXT NOT NULL, taken REAL NOT NULL, "
    "lease_s REAL NOT NULL, PRIMARY KEY (kind, name))"
)


def _add_meta(connection: sqlite3.Connection, path: Path) -> None:
    del path
    connection.execute(_META)


def _add_records(connection: sqlite3.Connection, path: Path) -> None:
    del path
    connection.execute(_RECORDS)
    connection.execute(_LEASES)


def _let_pins_tell_their_version(connection: sqlite3.Connection, path: Path) -> None:
    """Do nothing: a pin without a version has version 1."""
    del connection, path


LEDGER = Format(
    formats.LEDGER,
    LEDGER_VERSION,
    (*formats.LEDGER.schema, _META, _RECORDS, _LEASES),
    LedgerError,
    {1: _add_meta, 2: _add_records},
)
PINS = Format(formats.PINS, PINS_VERSION, formats.PINS.schema, LedgerError, {1: _let_pins_tell_their_version})
