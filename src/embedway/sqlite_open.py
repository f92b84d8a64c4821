"""Connections to SQLite files, registered while they are open.

While this process has a connection to a file, no other code of it may open and close the file: closing any descriptor
of a file releases all POSIX locks that the process has on it, also those of SQLite (section 2.2 of
https://www.sqlite.org/howtocorrupt.html). Another process would then delete a write-ahead log that is in use.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.files import place_of
from embedway.forks import at_fork

if TYPE_CHECKING:
    from pathlib import Path

#: Held while a file is detected, opened or closed.
OPENING = threading.RLock()
#: Open connections, with the device and inode of their file, and the name of its kind.
_OPENED: weakref.WeakKeyDictionary[sqlite3.Connection, tuple[tuple[int, int] | None, str]] = weakref.WeakKeyDictionary()


class _Connection(sqlite3.Connection):
    """Connection that is registered until it is closed."""

    @override
    def close(self) -> None:
        with OPENING:
            super().close()
            _OPENED.pop(self, None)


def connect(path: Path, uri: str, kind: str, timeout_s: float) -> sqlite3.Connection:
    """Open an existing file of a kind in autocommit mode. Any thread may use the connection. Raises sqlite3.Error."""
    with OPENING:
        connection = sqlite3.connect(
            uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        _OPENED[connection] = place_of(path), kind
        return connection


def is_open(place: tuple[int, int] | None) -> bool:
    """Return whether this process has a connection to the file with a device and inode. Call it inside `OPENING`."""
    return any(one == place for one, _ in _OPENED.values())


def opened_kind(path: Path) -> str | None:
    """Return the kind of a file to which this process has a connection; None for any other file."""
    place = place_of(path)
    with OPENING:
        return next((kind for one, kind in _OPENED.values() if one == place), None) if place is not None else None


# No file is being opened or closed during a fork. The child has none of the connections that are left.
at_fork(before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=OPENING.release)
at_fork(after_in_child=_OPENED.clear)
