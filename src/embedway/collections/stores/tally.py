"""Documents of a collection, counted from its rows: one rule for all stores of what a complete document is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from embedway.collections.chunks import id_start
from embedway.collections.documents import DocumentKey

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Columns of a row that `DocumentTally.add` takes, in its order.
TALLY_COLUMNS: Final = ("source", "document_id", "fingerprint", "total", "number", "id")


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a collection: `rows` of its `total` rows exist.

    `damaged` documents were changed by another program: a number occurs twice or is not below `total`, rows differ in
    their total, or an id is not that of its document and number.
    """

    key: DocumentKey
    fingerprint: str
    rows: int
    total: int
    damaged: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether each row exists once."""
        return not self.damaged and self.rows == self.total

    @property
    def is_partial(self) -> bool:
        """Whether rows are missing, and all others are as they must be."""
        return not self.damaged and self.rows < self.total


@dataclass(slots=True)
class _State:
    """Rows of a document so far."""

    id_start: str
    fingerprint: str
    total: int | None
    rows: int = 0
    damaged: bool = False
    #: All numbers below this one occurred; `later` are the others, so rows that come in order need no memory.
    next_number: int = 0
    later: set[int] | None = None
    without_number: bool = False

    def number(self, number: int | None, row_id: str | None) -> None:
        """Note the number of a row."""
        if number is None:
            self.without_number = True
            return
        if number == self.next_number:
            self.next_number += 1
            while self.later and self.next_number in self.later:
                self.later.remove(self.next_number)
                self.next_number += 1
        elif number < self.next_number or (self.later is not None and number in self.later):
            self.damaged = True
        elif self.later is None:
            self.later = {number}
        else:
            self.later.add(number)
        if row_id != f"{self.id_start}{number}":
            self.damaged = True

    def is_damaged(self, total: int) -> bool:
        """Return whether the rows cannot be those of one document."""
        if self.without_number:  # as all rows of collections before version 3
            return self.damaged or self.next_number > 0 or bool(self.later)
        return self.damaged or max(self.later or (), default=self.next_number - 1) >= total


class DocumentTally:
    """Documents of rows that are added one by one, in the order of their first rows.

    A document whose rows have different fingerprints was changed by another program, and has none. Its total is the
    largest one of its rows; without any, it is their number.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _State] = {}

    def add(  # noqa: PLR0917  the columns of `TALLY_COLUMNS`
        self,
        source: str,
        document_id: str,
        fingerprint: str | None,
        total: int | None,
        number: int | None,
        row_id: str | None,
    ) -> None:
        """Add a row. `total` and `number` are None in collections before version 3."""
        state = self._found.get((source, document_id))
        if state is None:
            state = _State(id_start(source, document_id), fingerprint or "", total)
            self._found[source, document_id] = state
        state.rows += 1
        if state.fingerprint != fingerprint:
            state.fingerprint = ""
        if total != state.total:
            state.damaged = True
            state.total = max(total or 0, state.total or 0)
        state.number(number, row_id)

    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents."""
        for key, state in self._found.items():
            total = state.total or state.rows
            yield StoredDocument(
                DocumentKey(*key), state.fingerprint, state.rows, total, damaged=state.is_damaged(total)
            )
