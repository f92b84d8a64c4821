"""A thread that reads a SQLite file, or writes it, and what becomes of the file when that fails."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from embedway import formats, sqlite
from embedway.cache.sqlite_format import FORMAT
from embedway.worker import Worker

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from embedway.cache.base import CacheErrors

P = ParamSpec("P")
R = TypeVar("R")

#: How long one waits for another process's lock.
BUSY_S = 2.0
#: How long nothing is tried after something failed.
_REST_S = 5.0
#: What SQLite says of a file that cannot be right.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Lane:
    """One thread and one connection. What fails is counted, and no failure of SQLite is raised.

    A file that is not ours, or of a newer version, is raised as ConfigError or CacheError, by every call: no later one
    can do better, and the caller has to name another file.

    `asides` is shared by the lanes of a file: only one of them sets it aside.
    """

    def __init__(
        self,
        path: Path,
        extra: tuple[str, ...],
        troubles: CacheErrors,
        asides: threading.Lock,
        *,
        reading: bool,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._extra = extra
        self._troubles = troubles
        self._asides = asides
        self._is_reading = reading
        self._clock = clock
        self._rests_until = 0.0
        self._worker: Worker | None = None
        self.connection: sqlite3.Connection | None = None
        self._inode = 0

    @property
    def rests(self) -> bool:
        """Whether nothing is tried now."""
        return self._clock() < self._rests_until

    def call(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], R],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> asyncio.Future[R | None]:
        """Call with the connection, on the lane's thread; None where SQLite fails, which is counted.

        Raises ConfigError and CacheError for a file that cannot be our cache.
        """
        if self._worker is None:
            self._worker = Worker("embedway-cache")

        def guarded() -> R | None:
            if self.rests:
                self._count()
                return None
            try:
                return function(self._open(), *arguments, **options)
            except (sqlite3.Error, OSError) as error:
                self._note(error)
                return None

        return self._worker.call(guarded)

    async def aclose(self) -> None:
        """Close the file, when all is done."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.call(self._close)
            worker.close()

    def _open(self) -> sqlite3.Connection:
        inode = _inode(self._path)
        if self.connection is not None and inode != self._inode:
            self._close()  # it was removed or set aside: what were written there would be lost
        if self.connection is None:
            self._inode = inode
            # A power cut may lose the last entries, and never damages the file; they can be computed again.
            pragmas = ("synchronous = NORMAL", "mmap_size = 1073741824")
            self.connection = sqlite.connect(self._path, FORMAT, *pragmas, extra=self._extra, busy_s=BUSY_S)
            self._inode = _inode(self._path)
        return self.connection

    def _count(self) -> None:
        self._troubles.failed_reads += self._is_reading
        self._troubles.failed_writes += not self._is_reading

    def _note(self, error: Exception) -> None:
        self._count()
        self._troubles.last = f"{type(error).__name__}: {error}"
        with contextlib.suppress(sqlite3.Error):
            if self.connection is not None and self.connection.in_transaction:
                self.connection.rollback()
        # The lowest byte is the kind of error.
        if isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED:
            self._set_aside()
        else:
            self._rests_until = self._clock() + _REST_S

    def _set_aside(self) -> None:
        self._close()
        with self._asides:
            if _inode(self._path) != self._inode:
                return  # another thread or process has done so
            if not formats.is_ours(self._path, FORMAT.kind):
                return  # nobody can tell whose it is: the next call says so
            aside = _free_name(self._path.with_name(f"{self._path.name}.damaged-{int(self._clock())}"))
            with contextlib.suppress(OSError):
                self._path.replace(aside)
                self._troubles.set_aside += 1
            for ending in formats.BESIDE:
                with contextlib.suppress(OSError):
                    left = formats.beside(self._path, ending)
                    if formats.is_sqlites(left, ending):
                        left.unlink()

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _inode(path: Path) -> int:
    """0 where there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _free_name(path: Path) -> Path:
    """A name beside `path` that no file has."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
