"""Rules for the values of a ledger in a backup, wherever it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.ledger.base import Restored
from embedway.state.parts import BadPartError

if TYPE_CHECKING:
    from embedway.ledger.base import Limit

#: The end of the year 9999: later times have no date.
LATEST = 253_402_300_799.0
_MOST_PERCENT = 1_000_000


def earliest(mark: Restored, written: str | None) -> Restored:
    """The mark of a restored ledger; `written` is the mark of the books in the backup, which nobody had confirmed."""
    if written is None:
        return mark
    return Restored(min(mark.books_of, Restored.read(written).books_of), mark.restored_at)


def check_limit(limit: Limit) -> None:
    """Raise BadPartError for levels of warnings that are no percentages; the rest is checked where a limit is made."""
    if not all(type(level) is int and 0 <= level <= _MOST_PERCENT for level in limit.warn_at):
        raise BadPartError("holds limits that cannot be right")
