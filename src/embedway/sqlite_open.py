"""Connections to SQLite files, registered while they are open.

While this process has a connection to a file, no other code of it may open and close the file: closing any descriptor
of a file releases all POSIX locks that the process has on it, also those of SQLite (section 2.2 of
https://www.sqlite.org/howtocorrupt.html). Another process would then delete a write-ahead log that is in use.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from embedway.files import place_of
from embedway.forks import at_fork

if TYPE_CHECKING:
    from pathlib import Path

#: Held while a file is detected, opened or closed.
OPENING = threading.RLock()


class _Opened(NamedTuple):
    """File of an open connection: its device and inode, and the name of its kind."""

    place: tuple[int, int] | None
    kind: str
    #: Whether the connection has read, so that no other one removes the log with its end.
    holds_log: bool = False


_OPENED: weakref.WeakKeyDictionary[sqlite3.Connection, _Opened] = weakref.WeakKeyDictionary()
#: How often the last connection that holds the log of a file was closed, by device and inode.
_LOGS_LEFT: Counter[tuple[int, int] | None] = Counter()


class _Connection(sqlite3.Connection):
    """Connection that is registered until it is closed."""

    @override
    def close(self) -> None:
        with OPENING:
            super().close()
            closed = _OPENED.pop(self, None)
            if closed is not None and not any(one == closed._replace(holds_log=True) for one in _OPENED.values()):
                _LOGS_LEFT[closed.place] += 1


def connect(path: Path, uri: str, kind: str, timeout_s: float) -> sqlite3.Connection:
    """Open an existing file of a kind in autocommit mode. Any thread may use the connection. Raises sqlite3.Error."""
    with OPENING:
        connection = sqlite3.connect(
            uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        _OPENED[connection] = _Opened(place_of(path), kind)
        return connection


def note_log(connection: sqlite3.Connection) -> None:
    """Note that a connection has read its file in WAL mode."""
    with OPENING:
        _OPENED[connection] = _OPENED[connection]._replace(holds_log=True)


def logs_left(place: tuple[int, int] | None) -> int:
    """Return how often this process has left the log of a file to others: it may be another one since.

    A connection that opens meanwhile holds it only after its first read.
    """
    return _LOGS_LEFT[place]


def is_open(place: tuple[int, int] | None) -> bool:
    """Return whether this process has a connection to the file with a device and inode. Call it inside `OPENING`."""
    return any(one.place == place for one in _OPENED.values())


def opened_kind(path: Path) -> str | None:
    """Return the kind of a file to which this process has a connection; None for any other file."""
    place = place_of(path)
    with OPENING:
        return next((one.kind for one in _OPENED.values() if one.place == place), None) if place is not None else None


# No file is being opened or closed during a fork. The child has none of the connections that are left.
at_fork(before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=OPENING.release)
at_fork(after_in_child=_OPENED.clear)
