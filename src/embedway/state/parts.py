"""The contract of a part of a backup, and the parts that are plain files: trust, and the gateway's keys."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedway import files, formats
from embedway.config.trust import MOST_TRUST_BYTES, DamagedTrustError, parse_trust, trust_lock
from embedway.errors import ConfigError, EmbedwayError, StateError, newer_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.ledger.base import Restored

#: How long one waits for others that write.
WAIT_S = 30.0


class Held(Protocol):
    """A place that nobody else changes before `commit`, or whose change `commit` notices.

    Where it is not committed, it stays as it is.
    """

    def is_empty(self) -> bool:
        """Whether nothing would be lost."""

    def take(self, to: Path) -> bool:
        """Write what there is into a new file; False where there is nothing."""

    def put(self, source: Path, mark: Restored) -> None:
        """Prepare to have what a checked file holds in its place. `mark` tells a ledger which backup it is from."""

    def commit(self) -> None:
        """Let what was put be there for everyone."""


class Part(Protocol):
    """One part of a backup."""

    @property
    def name(self) -> str:
        """The file in the archive."""

    @property
    def place(self) -> str:
        """A path, or which server."""

    @property
    def path(self) -> Path | None:
        """Its file; None on a server."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it may consist of while it is in use."""

    def take(self, to: Path) -> bool:
        """Write a consistent snapshot into a new file; False where there is nothing. Raises EmbedwayError."""

    def check(self, source: Path) -> None:
        """Raise BadPartError unless a file is what `take` writes. Its bytes are foreign."""

    def held(self) -> contextlib.AbstractContextManager[Held]:
        """Keep others from changing the place, until the end. Raises EmbedwayError."""


class BadPartError(Exception):
    """A part of an archive is not what it should be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class TrustPart:
    """The settings files that are trusted: a JSON file."""

    path: Path
    name: str = "trust.json"

    @property
    def place(self) -> str:
        """See `Part.place`."""
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Part.files`."""
        return self.path, trust_lock(self.path)

    def take(self, to: Path) -> bool:
        """See `Part.take`."""
        data = self._read()
        if data is not None:
            files.write_private_whole(to, data)
        return data is not None

    def check(self, source: Path) -> None:
        """See `Part.check`."""
        if source.stat().st_size > MOST_TRUST_BYTES:
            raise BadPartError("is too large")
        try:
            parse_trust(source.read_bytes())
        except (DamagedTrustError, ConfigError) as error:
            raise BadPartError(str(error)) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[Held]:
        """See `Part.held`."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  few restore

        path = trust_lock(self.path)
        lock = FileLock(path, timeout=WAIT_S, mode=files.FILE_MODE)
        try:
            files.make_private_folder(self.path.parent)
            lock.acquire()
        except Timeout as error:
            raise StateError("another process is changing it; try again when it is done", file=self.path) from error
        except OSError as error:
            raise StateError(
                f"cannot be locked: {error.strerror or type(error).__name__}; its lock must be a file of its own",
                file=path,
            ) from error
        try:
            yield _HeldTrust(self)
        finally:
            lock.release()

    def _read(self) -> bytes | None:
        """The bytes of a regular file, links not followed; None where there is none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError("is no file", file=self.path)
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                return handle.read()
        finally:
            os.close(descriptor)


@dataclass(slots=True)
class _HeldTrust:
    part: TrustPart
    data: bytes | None = None

    def is_empty(self) -> bool:
        return not os.path.lexists(self.part.path)

    def take(self, to: Path) -> bool:
        return self.part.take(to)

    def put(self, source: Path, mark: Restored) -> None:
        del mark
        self.data = source.read_bytes()

    def commit(self) -> None:
        if self.data is not None:
            files.write_private_whole(self.part.path, self.data)


@dataclass(frozen=True, slots=True)
class KeysPart:
    """The gateway's keys: a SQLite file that only the gateway knows from inside."""

    path: Path
    name: str = "keys.sqlite"

    @property
    def place(self) -> str:
        """See `Part.place`."""
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Part.files`."""
        return database_files(self.path)

    def take(self, to: Path) -> bool:
        """See `Part.take`."""
        if not formats.check(self.path, formats.KEYS):
            return False
        with database_errors(self.path), contextlib.closing(_connect(self.path)) as source:
            snapshot(source, to)
        return True

    def check(self, source: Path) -> None:
        """See `Part.check`."""
        check_database(source, formats.KEYS)

    @contextlib.contextmanager
    def held(self) -> Iterator[Held]:
        """See `Part.held`. The file is not locked before it is copied over."""
        yield _HeldKeys(self)


@dataclass(slots=True)
class _HeldKeys:
    part: KeysPart
    source: Path | None = None

    def is_empty(self) -> bool:
        return not formats.check(self.part.path, formats.KEYS)

    def take(self, to: Path) -> bool:
        return self.part.take(to)

    def put(self, source: Path, mark: Restored) -> None:
        del mark
        self.source = source

    def commit(self) -> None:
        if self.source is None:
            return
        files.make_private_folder(self.part.path.parent)
        files.create_private_file(self.part.path)
        with (
            database_errors(self.part.path),
            contextlib.closing(_connect(self.source)) as source,
            contextlib.closing(_connect(self.part.path)) as target,
        ):
            copy_database(source, target)


def database_files(path: Path) -> tuple[Path, ...]:
    """A database and the files that SQLite keeps beside it, or beside the file that a link leads to."""
    real = Path(os.path.realpath(path))
    return path, *(formats.beside(real, ending) for ending in formats.BESIDE)


def snapshot(source: sqlite3.Connection, to: Path) -> None:
    """Write what a connection sees into a new private file that stands alone, without files beside it."""
    files.create_private_file(to)
    with contextlib.closing(sqlite3.connect(to)) as target:
        copy_database(source, target)
        target.execute("PRAGMA journal_mode = DELETE")


def copy_database(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Replace all of a database in one step, waiting for others that write. Raises sqlite3.Error."""
    until = time.monotonic() + WAIT_S

    def check_time(status: int, remaining: int, total: int) -> None:
        del status, remaining, total
        if time.monotonic() > until:
            raise sqlite3.OperationalError("another process keeps it locked")

    source.backup(target, progress=check_time, sleep=0.05)


def check_database(path: Path, kind: formats.Kind, known: int | None = None) -> None:
    """Raise BadPartError unless a foreign file is a whole SQLite file of a kind, without code of its own in it.

    `known` is the newest version that can be restored, None for any.
    """
    try:
        if not formats.check(path, kind):
            raise BadPartError("is empty")
    except EmbedwayError:
        raise BadPartError(f"is no file of embedway's {kind.name}") from None
    try:
        with contextlib.closing(reading(path)) as connection:
            # Views and triggers are code that would run here.
            if formats.tables_of(connection) is None:
                raise BadPartError("holds more than tables and indexes")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if known is not None and version > known:
                raise BadPartError(newer_version(version, known))
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise BadPartError("is a damaged database")
    except sqlite3.Error:
        raise BadPartError("is a damaged database") from None


def reading(path: Path) -> sqlite3.Connection:
    """A connection to a file that stands alone; it changes nothing."""
    connection = sqlite3.connect(formats.uri(path, "mode=ro&immutable=1"), uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(formats.uri(path, "mode=rw"), uri=True, timeout=WAIT_S, isolation_level=None)


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Tell failures of SQLite and the disk as StateError, with the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"cannot be copied: {error}", file=path) from error
