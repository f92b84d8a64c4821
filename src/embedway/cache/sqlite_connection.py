"""Thread that reads or writes the cache's SQLite file, and fails open."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from embedway import formats
from embedway.cache.pause import Pause
from embedway.cache.sqlite_format import FORMAT
from embedway.files import locked_folder, place_of
from embedway.sqlite_thread import SqliteThread
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from embedway.cache.errors import Action, CacheErrors

P = ParamSpec("P")
R = TypeVar("R")

#: Timeout for another process's lock, in seconds.
BUSY_S = 2.0
#: Time for which calls are skipped after a failure, in seconds.
_REST_S = 5.0
#: SQLite's error codes for a damaged file.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class CacheConnection:
    """One thread with one connection. SQLite failures are counted and never raised.

    For a file that is not ours, or has a newer version, every call raises ConfigError or CacheError: later calls cannot
    succeed, and the caller must choose another file.

    The connections to a file share `asides`, so that only one of them renames a damaged file.
    """

    def __init__(
        self,
        path: Path,
        extra: tuple[str, ...],
        troubles: CacheErrors,
        asides: threading.Lock,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._troubles = troubles
        self._asides = asides
        #: Action of the current call; only the thread changes it.
        self._action: Action = "inspect"
        self._clock = clock
        self._pause = Pause(_REST_S, clock)
        #: Number of failures; only the thread changes it.
        self._failed = 0
        # A power failure may lose the last entries, which can be recomputed, but never damages the file.
        pragmas = ("synchronous = NORMAL", "mmap_size = 1073741824")
        self._thread = SqliteThread(
            "embedway-cache", path, FORMAT, self._note, pragmas=pragmas, extra=extra, busy_s=BUSY_S
        )

    @property
    def rests(self) -> bool:
        """Whether calls are skipped now."""
        return self._pause.is_running()

    def call(
        self,
        action: Action,
        function: Callable[Concatenate[sqlite3.Connection, P], R],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> asyncio.Future[R | None]:
        """Call a function with the connection, on the thread; None if SQLite fails, which is counted.

        Raises ConfigError or CacheError for a file that cannot be our cache.
        """

        def attempt() -> R | None:
            if self.rests:
                self._troubles.count(action)
                return None
            self._action = action
            self._thread.reopen_if_replaced()
            failed = self._failed
            result = self._thread.use(function, *arguments, **options)
            if self._failed == failed:
                self._troubles.note_success(action)
            return result

        return self._thread.submit(attempt)

    async def aclose(self) -> None:
        """Close the file after the calls made so far."""
        await self._thread.aclose()

    def _note(self, error: Exception) -> None:
        self._failed += 1
        failure = explain_file(error, setting="cache.path")
        # The lowest byte is the kind of error.
        if isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED:
            if self._set_aside():
                failure = replace(failure, remedy="none is needed: the file was renamed, and a new one is created")
        else:
            self._pause.start()
        self._troubles.count(self._action, failure)

    def _set_aside(self) -> bool:
        """Rename a damaged file. Return whether another thread or process, or this one, has renamed it."""
        self._thread.disconnect()
        with contextlib.suppress(OSError), self._asides, locked_folder(self._path.parent, BUSY_S):
            if place_of(self._path) != self._thread.place:
                return True  # another thread or process has renamed it
            if not formats.is_ours(self._path, FORMAT.kind):
                return False  # its owner is unknown: the next call reports that
            aside = _free_name(self._path.with_name(f"{self._path.name}.damaged-{int(self._clock())}"))
            self._path.replace(aside)
            self._troubles.set_aside += 1
            for ending in formats.BESIDE:
                with contextlib.suppress(OSError):
                    left = formats.beside(self._path, ending)
                    if formats.is_sqlites(left, ending):
                        left.unlink()
            return True
        return False


def _free_name(path: Path) -> Path:
    """Return a file name, based on `path`, that does not exist yet."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
