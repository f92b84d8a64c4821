"""Protocol of a part of a backup, and rules for a ledger's values in any backend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedway.ledger.base import Restored
from embedway.ledger.records import RECORD_KINDS, unpack

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from embedway.ledger.base import Limit

#: Maximum wait for other writers, in seconds.
WAIT_S = 30.0
#: End of the year 9999, in seconds since 1970: later times have no date.
LATEST = 253_402_300_799.0
_MOST_PERCENT = 1_000_000


class Transaction(Protocol):
    """Replacement of a part. Other processes change it only after `commit`, or `commit` detects the change.

    Without a commit, the part stays unchanged.
    """

    def is_empty(self) -> bool:
        """Return whether no content would be lost."""

    def snapshot(self, to: Path) -> bool:
        """Write the content to be replaced into a new file. Return False if there is none."""

    def stage(self, source: Path, mark: Restored) -> None:
        """Prepare to replace the content with that of a checked file. `mark` records a ledger's backup."""

    def commit(self) -> None:
        """Make the staged content visible to all processes."""


class Part(Protocol):
    """One part of a backup."""

    @property
    def name(self) -> str:
        """Name of the file in the archive."""

    @property
    def place(self) -> str:
        """Path, or name of the server's store."""

    @property
    def path(self) -> Path | None:
        """Path of the part; None on a server."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the part may consist of while it is in use."""

    def snapshot(self, to: Path) -> bool:
        """Write a consistent snapshot into a new file. Return False if there is no content. Raises EmbedwayError."""

    def check(self, source: Path) -> None:
        """Raise BadPartError unless a file is what `snapshot` writes. Its bytes are untrusted."""

    def begin(self) -> contextlib.AbstractContextManager[Transaction]:
        """Begin to replace the part. Without a commit, the end of the context rolls back. Raises EmbedwayError."""


class BadPartError(Exception):
    """A part of an archive is invalid; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """Part that is a file."""

    path: Path

    @property
    def place(self) -> str:
        return str(self.path)


def earliest(mark: Restored, written: str | None) -> Restored:
    """Return the mark of a restored ledger; `written` is the mark in the backup, which was never confirmed."""
    if written is None:
        return mark
    return Restored(min(mark.books_of, Restored.read(written).books_of), mark.restored_at)


def check_limit(limit: Limit) -> None:
    """Raise BadPartError if warning levels are not percentages; the rest is checked when a limit is created."""
    if not all(type(level) is int and 0 <= level <= _MOST_PERCENT for level in limit.warn_at):
        raise BadPartError("contains invalid limits")


def check_record(kind: str, name: str, packed: object, changed: float) -> None:
    """Raise BadPartError unless the values are those of a record; LedgerError if its document is damaged."""
    known = next((one for one in RECORD_KINDS if one == kind), None)
    if known is None or not name or not 0 <= changed <= LATEST:
        raise BadPartError("contains invalid records")
    json.loads(unpack(known, name, packed, changed, "the backup").document)
