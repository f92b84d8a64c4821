"""SQLite files as parts of a backup, and the gateway's files and batches, whose content is opaque here."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway import files, formats
from embedway.errors import EmbedwayError, StateError, newer_version
from embedway.state.parts import WAIT_S, BadPartError, FilePart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.ledger.base import Restored
    from embedway.state.parts import Transaction


@dataclass(frozen=True, slots=True)
class DatabasePart(FilePart):
    """Part that is a SQLite file."""

    @property
    @abstractmethod
    def kind(self) -> formats.Kind:
        """Kind of the file."""

    @abstractmethod
    def connect(self) -> sqlite3.Connection:
        """Open the file, which exists and has this kind."""

    @property
    def name(self) -> str:
        return f"{self.kind.name}.sqlite"

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and SQLite's companion files, also those beside the target of a link."""
        real = Path(os.path.realpath(self.path))
        return self.path, *(formats.beside(real, ending) for ending in formats.BESIDE)

    def snapshot(self, to: Path) -> bool:
        if not formats.check(self.path, self.kind):
            return False
        with database_errors(self.path), contextlib.closing(self.connect()) as source:
            copy_to_file(source, to)
        return True


@dataclass(frozen=True, slots=True)
class BatchesPart(DatabasePart):
    """Files and batches of the gateway: a SQLite file whose content only the gateway reads, and checks as it reads."""

    @property
    @override
    def kind(self) -> formats.Kind:
        return formats.BATCHES

    @override
    def connect(self) -> sqlite3.Connection:
        return formats.open_checked(self.path, self.kind, timeout_s=WAIT_S)

    def check(self, source: Path) -> None:
        check_database(source, self.kind)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Begin to replace the part. The file is not locked before it is overwritten."""
        yield _BatchesTransaction(self)


@dataclass(slots=True)
class _BatchesTransaction:
    part: BatchesPart
    source: Path | None = None

    def is_empty(self) -> bool:
        return not formats.check(self.part.path, self.part.kind)

    def snapshot(self, to: Path) -> bool:
        return self.part.snapshot(to)

    def stage(self, source: Path, mark: Restored) -> None:
        del mark
        self.source = source

    def commit(self) -> None:
        if self.source is None:
            return
        files.make_private_folder(self.part.path.parent)
        files.create_private_file(self.part.path)
        with (
            database_errors(self.part.path),
            contextlib.closing(writing(self.source)) as source,
            contextlib.closing(self.part.connect()) as target,
        ):
            copy_database(source, target)


def copy_to_file(source: sqlite3.Connection, to: Path) -> None:
    """Write the content that a connection sees into a new private file without companion files."""
    files.create_private_file(to)
    with contextlib.closing(sqlite3.connect(to)) as target:
        copy_database(source, target)
        target.execute("PRAGMA journal_mode = DELETE")


def copy_database(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Replace a complete database in one step; wait for other writers. Raises sqlite3.Error."""
    until = time.monotonic() + WAIT_S

    def check_time(status: int, remaining: int, total: int) -> None:
        del status, remaining, total
        if time.monotonic() > until:
            raise sqlite3.OperationalError("another process keeps it locked")

    source.backup(target, progress=check_time, sleep=0.05)


def check_database(path: Path, kind: formats.Kind, known: int | None = None) -> None:
    """Raise BadPartError unless an untrusted file is an intact SQLite file of a kind, without code in it.

    `known` is the newest version that can be restored, None for any.
    """
    try:
        if not formats.check(path, kind):
            raise BadPartError("is empty")
    except EmbedwayError:
        raise BadPartError(f"is not a file of embedway's {kind.name}") from None
    try:
        with contextlib.closing(reading(path)) as connection:
            # Views and triggers are code that would run here.
            if formats.tables_of(connection) is None:
                raise BadPartError("contains more than tables and indexes")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if known is not None and version > known:
                raise BadPartError(newer_version(version, known))
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise BadPartError("is a damaged database")
    except sqlite3.Error:
        raise BadPartError("is a damaged database") from None


def reading(path: Path) -> sqlite3.Connection:
    """Connect read-only to a file that no other process uses."""
    connection = sqlite3.connect(formats.uri(path, "mode=ro&immutable=1"), uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def writing(path: Path) -> sqlite3.Connection:
    """Connect to a file that other processes use; every statement commits on its own."""
    return sqlite3.connect(formats.uri(path, "mode=rw"), uri=True, timeout=WAIT_S, isolation_level=None)


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Convert SQLite and disk errors to StateError with the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"cannot be copied: {error}", file=path) from error
