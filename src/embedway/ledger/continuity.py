"""Detection of a ledger, or of pins, that was removed or replaced while this process uses it.

A ledger has an ID and counts its changes. A process remembers both. If the ID differs or the count is lower, the ledger
is another one or an older copy, and spending is missing from it. A process that starts later cannot detect that.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from embedway.errors import LedgerError
from embedway.files import place_of
from embedway.forks import at_fork
from embedway.formats import beside
from embedway.ledger.shared_states import SharedState, SharedStates
from embedway.sqlite_open import OPENING, is_open, logs_left

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection

#: Names of the records of a ledger's identity and of its number of changes, in the table `meta`.
IDENTITY_RECORD, CHANGES = "books", "changes"
#: Kinds of replacement.
OLDER, OTHER = "was replaced by an older copy", "was removed, emptied or replaced by another one"
#: Maximum IDs of replaced ledgers in the identity of a restored one.
_MOST_BEFORE = 20

_log = logging.getLogger("embedway.budget")


class ReplacedFileError(OSError):
    """A file that this process uses was removed or replaced."""


def replaced(what: str, how: str) -> LedgerError:
    """Return the error for a ledger `what` that was replaced, in the way `how`."""
    return LedgerError(
        f"{what} {how} while this process used it, so spending may be missing from it, and nothing is sent: put the "
        "original back; or lower the budgets by the missing spending (`embedway budget show`, `embedway budget set "
        "NAME USD`), and restart this process"
    )


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Identity of a ledger's content."""

    id: str
    #: IDs of the ledgers that a restored one replaced, the most recent first.
    before: tuple[str, ...] = ()
    #: Wall clock minus monotonic clock, in seconds; None if unknown.
    offset_s: float | None = None
    #: Longest lease that was requested, in seconds.
    lease_s: float = 0.0
    #: End of the leases that restarted at the last jump of the clock. A lease that still ends then was not renewed.
    restarted_until: float = 0.0

    @classmethod
    def new(cls, former: LedgerIdentity | None = None, *, lease_s: float = 0.0) -> LedgerIdentity:
        """Return the identity of a new ledger, or of one that is restored over the ledger `former`."""
        before = () if former is None else (former.id, *former.before)
        return cls(uuid.uuid4().hex, before=before[:_MOST_BEFORE], lease_s=lease_s)

    def written(self) -> str:
        """Return the identity as JSON, to store it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, written: object) -> LedgerIdentity:
        """Parse a stored identity. Raises LedgerError if it is invalid."""
        try:
            facts = json.loads(str(written))
            found = cls(**{**facts, "before": tuple(facts["before"])})
            texts = [found.id, *found.before]
            numbers = [found.offset_s or 0.0, found.lease_s, found.restarted_until]
            if all(isinstance(text, str) for text in texts) and sum(numbers) < 1e12:
                return found
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            pass
        raise LedgerError("the ledger's own ID cannot be read; restore a backup with `embedway state restore`")


@dataclass(slots=True)
class Seen(SharedState):
    """Last state of a ledger, or of pins, that this process has read. All objects for the same place share it."""

    #: Device and inode of the file.
    place: tuple[int, int] | None = None
    id: str = ""
    changes: int = 0
    #: The files beside an open database, each with its device and inode, and how often they were left by then.
    beside: list[tuple[Path, tuple[int, int] | None]] = field(default_factory=list)
    left: int = 0

    def check(self, identity: LedgerIdentity, changes: int, what: str) -> None:
        """Raise LedgerError if the ledger is another one or an older copy. A restored one is accepted."""
        if self.id and identity.id == self.id and changes < self.changes:
            raise replaced(what, OLDER)
        if self.id and self.id not in {identity.id, *identity.before}:
            raise replaced(what, OTHER)

    def accept(self, ledger_id: str, changes: int, what: str) -> None:
        """Remember a state that passed the check and is committed."""
        if self.id == ledger_id:
            self.changes = max(self.changes, changes)  # answers may arrive in another order
            return
        if self.id:
            _log.warning("%s was restored from a backup while this process used it", what)
        self.id, self.changes = ledger_id, changes


SEEN_BY_PLACE = SharedStates(Seen)
# A forked process opens ledgers anew, as a process that starts later does. The logs of files may be others by then.
at_fork(after_in_child=SEEN_BY_PLACE.clear)


class FileWatch:
    """Detects that a SQLite file, its log or its index was removed or replaced while this process has it open.

    SQLite removes the files beside a database only when its last connection is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = str(path.absolute())
        self.seen = SEEN_BY_PLACE.join(self._place)

    def check(self) -> None:
        """Raise ReplacedFileError if a file is not the one that was opened."""
        if self.seen.place is not None:
            place = place_of(self._path)
            if place != self.seen.place:
                raise ReplacedFileError("was removed" if place is None else "was replaced by another file")
        with OPENING:  # closing the last connection removes the files beside the database
            left = logs_left(self.seen.place)
            if not is_open(self.seen.place) or left != self.seen.left:
                self.seen.beside, self.seen.left = [], left
            elif any(place_of(path) != place for path, place in self.seen.beside):
                raise ReplacedFileError("lost its write-ahead log: another program removed files beside it")

    def note(self) -> None:
        """Remember the files of an open connection after its first use."""
        if self.seen.place is None:
            self.seen.place = place_of(self._path)
        if not self.seen.beside:
            real = self._path.resolve()
            paths = (beside(real, ending) for ending in ("-wal", "-shm"))
            self.seen.beside = [(path, place_of(path)) for path in paths]

    def begin(self, connection: Connection) -> None:
        """Do nothing: only the file is checked, not its content."""

    def commit(self) -> None:
        """Remember the file after a transaction."""
        self.note()

    def forget(self) -> None:
        """Stop sharing the state."""
        self.seen = SEEN_BY_PLACE.leave(self._place, self.seen)
