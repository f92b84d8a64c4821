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


def _add_meta(connection: sqlite3.Connection, path: Path) -> None:
    del path
    connection.execute(_META)


def _let_pins_tell_their_version(connection: sqlite3.Connection, path: Path) -> None:
    """Nothing is rewritten: a pin that tells no version is of version 1."""
    del connection, path


LEDGER = Format(formats.LEDGER, LEDGER_VERSION, (*formats.LEDGER.schema, _META), LedgerError, {1: _add_meta})
PINS = Format(formats.PINS, PINS_VERSION, formats.PINS.schema, LedgerError, {1: _let_pins_tell_their_version})
