"""Rows that a change of a collection replaces and removes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.columns import id_of
from embedway.collections.documents import DocumentKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from embedway.collections.chunks import Chunk

#: Ids are kept as hashes of this size, so that memory for a million rows is 16 MB.
_HASH_BYTES = 16
# numpy drops zero bytes at the ends of both sides of a comparison, and all hashes have one length.
_HASH = np.dtype(f"S{_HASH_BYTES}")


class RowChanges:
    """Order of the rows written by a change, and of its removals.

    A row is outdated if its id is written again later, or if its document is removed later. All old rows are earlier
    than any change.
    """

    def __init__(self) -> None:
        #: Number of rows that were written so far.
        self.rows = 0
        self._parts: list[Any] = []
        #: Number of rows that had been written when a document was removed the last time.
        self._removed: dict[DocumentKey, int] = {}
        self._removed_own = False
        #: Hashes of the ids in the order of rows, the same sorted, and the row of each sorted one; set when needed.
        self._sorted: tuple[Any, Any, Any] | None = None

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Note rows that are written."""
        self._parts.append(_hashes(map(id_of, chunks)))
        self._sorted = None
        self.rows += len(chunks)

    def remove(self, documents: Collection[DocumentKey]) -> None:
        """Note documents that are removed."""
        self._removed_own = self._removed_own or (self.rows > 0 and bool(documents))
        self._removed.update(dict.fromkeys((DocumentKey(*key) for key in documents), self.rows))

    @property
    def replaces_own(self) -> bool:
        """Whether rows of this change itself may be outdated."""
        _, found, _ = self._hashes()
        return self._removed_own or bool((found[1:] == found[:-1]).any())

    def keeps(
        self,
        ids: Sequence[str],
        sources: Sequence[str],
        documents: Sequence[str],
        *,
        first: int,  # noqa: ARG002  as `keeps_own`
    ) -> list[bool]:
        """Return which of some old rows stay."""
        _, found, _ = self._hashes()
        asked = _hashes(ids)
        places = np.searchsorted(found, asked)
        stays = np.ones(len(asked), bool)
        inside = places < len(found)
        stays[inside] = found[places[inside]] != asked[inside]
        if not self._removed:
            return list(stays.tolist())
        return [
            stay and (source, document) not in self._removed
            for stay, source, document in zip(stays.tolist(), sources, documents, strict=True)
        ]

    def keeps_own(
        self, ids: Sequence[str], sources: Sequence[str], documents: Sequence[str], *, first: int
    ) -> list[bool]:
        """Return which of some consecutive rows of this change stay; the first has this number, from 0."""
        hashes, found, rows = self._hashes()
        last = rows[np.searchsorted(found, hashes[first : first + len(ids)], side="right") - 1]
        return [
            last_row == number and self._removed.get(DocumentKey(source, document), 0) <= number
            for number, (last_row, source, document) in enumerate(
                zip(last.tolist(), sources, documents, strict=True), first
            )
        ]

    def _hashes(self) -> tuple[Any, Any, Any]:
        if self._sorted is None:
            hashes = np.concatenate([np.empty(0, _HASH), *self._parts])
            rows = np.argsort(hashes, kind="stable")
            self._parts = [hashes]
            self._sorted = hashes, hashes[rows], rows
        return self._sorted


def _hashes(ids: Iterable[str]) -> Any:
    digests = [hashlib.blake2b(one.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).digest() for one in ids]
    return np.frombuffer(b"".join(digests), _HASH)
