"""A thread that reads the cache's SQLite file, or writes it, and fails open."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from embedway import formats
from embedway.cache.sqlite_format import FORMAT
from embedway.sqlite_thread import SqliteThread, inode_of

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from embedway.cache.base import CacheErrors

P = ParamSpec("P")
R = TypeVar("R")

#: How long a call waits for another process's lock.
BUSY_S = 2.0
#: How long no call is tried after a failure.
_REST_S = 5.0
#: SQLite's codes for a damaged file.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class CacheConnection:
    """One thread and one connection. Failures of SQLite are counted and never raised.

    A file that is not ours, or of a newer version, is raised as ConfigError or CacheError, by every call: no later one
    can do better, and the caller has to name another file.

    `asides` is shared by the connections to a file: only one of them sets it aside.
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
        self._troubles = troubles
        self._asides = asides
        self._is_reading = reading
        self._clock = clock
        self._rests_until = 0.0
        # A power cut may lose the last entries, and never damages the file; they can be computed again.
        pragmas = ("synchronous = NORMAL", "mmap_size = 1073741824")
        self._thread = SqliteThread(
            "embedway-cache", path, FORMAT, self._note, pragmas=pragmas, extra=extra, busy_s=BUSY_S
        )

    @property
    def rests(self) -> bool:
        """Whether calls are not tried now."""
        return self._clock() < self._rests_until

    def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *arguments: P.args, **options: P.kwargs
    ) -> asyncio.Future[R | None]:
        """Call a function with the connection, on the thread; None where SQLite fails, which is counted.

        Raises ConfigError and CacheError for a file that cannot be our cache.
        """

        def attempt() -> R | None:
            if self.rests:
                self._count()
                return None
            self._thread.reopen_if_replaced()
            return self._thread.use(function, *arguments, **options)

        return self._thread.submit(attempt)

    async def aclose(self) -> None:
        """Close the file after the calls that were made."""
        await self._thread.aclose()

    def _count(self) -> None:
        self._troubles.failed_reads += self._is_reading
        self._troubles.failed_writes += not self._is_reading

    def _note(self, error: Exception) -> None:
        self._count()
        self._troubles.last = f"{type(error).__name__}: {error}"
        # The lowest byte is the kind of error.
        if isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED:
            self._set_aside()
        else:
            self._rests_until = self._clock() + _REST_S

    def _set_aside(self) -> None:
        self._thread.disconnect()
        with self._asides:
            if inode_of(self._path) != self._thread.inode:
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


def _free_name(path: Path) -> Path:
    """A name beside `path` that no file has."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
