"""Files of SQLite that many processes share."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: How many seconds one waits for another that writes.
BUSY_S = 30.0
_AGAIN_S = 0.01


def connect(path: Path, *pragmas: str, schema: str, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Open a file in WAL mode, made with its folder where it is missing; every statement commits by itself.

    The connection may be used from one thread at a time, whichever. Raises OSError and sqlite3.Error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        _to_wal(connection, busy_s)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _to_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Change the journal. While another does the same, SQLite says at once that the file is locked, and never waits."""
    until = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
