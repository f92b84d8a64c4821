"""Rows that a change of a collection replaces and removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.collections.documents import DocumentKey
from embedway.collections.stores.columns import id_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.collections.stores.base import Chunk


class Changes:
    """Order of the rows written by a change, and of its removals.

    A row dies if its id is written again later, or if its document is removed later. All old rows are earlier than
    any change.
    """

    def __init__(self) -> None:
        #: Number of rows that were written so far.
        self.rows = 0
        self._last: dict[str, int] = {}
        #: Number of rows that had been written when a document was removed the last time.
        self._removed: dict[DocumentKey, int] = {}
        self._dead = False

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Note rows that are written."""
        rows = self.rows + len(chunks)
        different = len(self._last) + len(chunks)
        self._last.update(zip(map(id_of, chunks), range(self.rows, rows), strict=True))
        self._dead = self._dead or len(self._last) < different
        self.rows = rows

    def remove(self, documents: Collection[DocumentKey]) -> None:
        """Note documents that are removed."""
        self._dead = self._dead or (self.rows > 0 and bool(documents))
        self._removed.update(dict.fromkeys((DocumentKey(*key) for key in documents), self.rows))

    @property
    def replaces_own(self) -> bool:
        """Whether rows of this change itself may be dead."""
        return self._dead

    def keeps(
        self,
        ids: Sequence[str],
        sources: Sequence[str],
        documents: Sequence[str],
        *,
        first: int,  # noqa: ARG002  as `keeps_own`
    ) -> list[bool]:
        """Return which of some old rows stay."""
        if not self._removed:
            return [row_id not in self._last for row_id in ids]
        return [
            row_id not in self._last and (source, document) not in self._removed
            for row_id, source, document in zip(ids, sources, documents, strict=True)
        ]

    def keeps_own(
        self, ids: Sequence[str], sources: Sequence[str], documents: Sequence[str], *, first: int
    ) -> list[bool]:
        """Return which of some consecutive rows of this change stay; the first has this number, from 0."""
        rows = zip(ids, sources, documents, strict=True)
        return [
            self._last[row_id] == number and self._removed.get(DocumentKey(source, document), 0) <= number
            for number, (row_id, source, document) in enumerate(rows, first)
        ]
