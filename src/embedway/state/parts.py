"""The contract of a part of a backup, and the rules for the values of a ledger, wherever it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedway.ledger.base import Restored

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from embedway.ledger.base import Limit

#: How long one waits for others that write.
WAIT_S = 30.0
#: The end of the year 9999: later times have no date.
LATEST = 253_402_300_799.0
_MOST_PERCENT = 1_000_000


class Transaction(Protocol):
    """The replacement of a part. Nobody else changes the part before `commit`, or `commit` notices the change.

    Without a commit, the part stays as it is.
    """

    def is_empty(self) -> bool:
        """Whether nothing would be lost."""

    def snapshot(self, to: Path) -> bool:
        """Write the content that would be replaced into a new file; False where there is nothing."""

    def stage(self, source: Path, mark: Restored) -> None:
        """Prepare to replace the content with that of a checked file. `mark` tells a ledger which backup it is from."""

    def commit(self) -> None:
        """Show everyone the content that was staged."""


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

    def snapshot(self, to: Path) -> bool:
        """Write a consistent snapshot into a new file; False where there is nothing. Raises EmbedwayError."""

    def check(self, source: Path) -> None:
        """Raise BadPartError unless a file is what `snapshot` writes. Its bytes are foreign."""

    def begin(self) -> contextlib.AbstractContextManager[Transaction]:
        """Begin to replace the part. The end of the context undoes what is not committed. Raises EmbedwayError."""


class BadPartError(Exception):
    """A part of an archive is not what it should be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part that is a file."""

    path: Path

    @property
    def place(self) -> str:
        return str(self.path)


def earliest(mark: Restored, written: str | None) -> Restored:
    """The mark of a restored ledger; `written` is the mark of the books in the backup, which nobody had confirmed."""
    if written is None:
        return mark
    return Restored(min(mark.books_of, Restored.read(written).books_of), mark.restored_at)


def check_limit(limit: Limit) -> None:
    """Raise BadPartError for levels of warnings that are no percentages; the rest is checked where a limit is made."""
    if not all(type(level) is int and 0 <= level <= _MOST_PERCENT for level in limit.warn_at):
        raise BadPartError("holds limits that cannot be right")
