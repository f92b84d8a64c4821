"""Keyword search of a collection: an index that follows the collection's revision."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from embedway.collections import keyword_index as index
from embedway.collections.documents import DocumentKey
from embedway.collections.keyword_tokens import identifiers, query_tokens
from embedway.errors import SinkError
from embedway.remedies import option
from embedway.store_failures import explain_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from embedway.collections.stores.base import Store

T = TypeVar("T")

#: Documents to read on their own when an index is updated; for more, all rows are read.
MAX_READ_DOCUMENTS = 500
_KEY_COLUMNS = ("id", "fingerprint", "source", "document_id")
_TEXT_COLUMNS = (*_KEY_COLUMNS, "title", "headings", "text")
_ENDINGS = ("", "-journal", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class KeywordHits:
    """Ids and BM25 scores of rows, best first, and the weights of the query's tokens that occur.

    `named` are the rows that contain an identifier of the query, best first.
    """

    rows: list[tuple[str, float]]
    weights: Mapping[str, float] = field(default_factory=dict)
    named: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeywordUpdate:
    """Rows that an update of the index added and removed; `rebuilt` if it had to be created again."""

    added: int = 0
    removed: int = 0
    rebuilt: bool = False


def index_path(store: Store, directory: Path) -> Path:
    """Return the file of a collection's index: its name is a hash of the collection's identity."""
    return directory / f"{hashlib.blake2b(os.fsencode(store.identity), digest_size=16).hexdigest()}.sqlite"


def forget_keywords(store: Store, directory: Path) -> bool:
    """Delete the index of a collection, with all its tokens; return whether there was one. Raises OSError.

    The next keyword search builds it again, from the rows that exist then.
    """
    path = index_path(store, directory)
    existed = path.exists()
    for ending in _ENDINGS:
        Path(f"{path}{ending}").unlink(missing_ok=True)
    return existed


class Keywords:
    """Keyword search in an open store. Blocks; not thread-safe, as the store. No file stays open between calls."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self.path = index_path(store, directory)

    def update(self) -> KeywordUpdate:
        """Bring the index to the revision of the open store. Raises SinkError."""
        return self._with_index(self._update)

    def search(self, query: str, top: int) -> KeywordHits:
        """Return the best rows for a query, after an update. Raises SinkError."""
        return self._with_index(
            lambda connection: self._read_current(connection, lambda it: self._search(it, query, top))
        )

    def weights(self, query: str) -> Mapping[str, float]:
        """Return the weights of the query's tokens that occur in the collection, after an update."""
        return self._with_index(
            lambda connection: self._read_current(connection, lambda it: _weights(it, query_tokens(query)))
        )

    def _read_current(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read the index; build it if it was deleted after the update, as damaged or by another process."""
        if index.revision(connection) is None:
            self._update(connection)
        return index.read(connection, work)

    def _with_index(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work on the open index; a damaged file is deleted, and built again."""
        if not index.has_fts5():
            raise SinkError(
                f"keyword search needs SQLite with FTS5, which this Python lacks: use {option('mode', 'vector')}, or a "
                "Python whose SQLite has it (python.org, Debian, conda)",
                destination=self._store.destination,
            )
        try:
            for last in (False, True):
                try:
                    with index.opened(self.path) as connection:
                        return work(connection)
                except index.DamagedIndexError as error:
                    if last:
                        raise SinkError(
                            f"the keyword index cannot be used: {error}", destination=str(self.path)
                        ) from None
                    forget_keywords(self._store, self._directory)
        except (sqlite3.Error, OSError) as error:
            failure = explain_file(error, setting="search.directory")
            raise SinkError(
                f"the keyword index cannot be used: {failure}; {option('mode', 'vector')} needs none",
                destination=str(self.path),
            ) from None
        raise AssertionError("unreachable")

    def _update(self, connection: sqlite3.Connection) -> KeywordUpdate:
        wanted = self._revision()
        if index.revision(connection) == wanted:
            return KeywordUpdate()
        with index.transaction(connection):
            current = index.revision(connection)
            if current == wanted:
                return KeywordUpdate()  # another process has just updated it
            if current is None or _revision_of(current) == _revision_of(wanted):
                # Another program has changed the rows, so their fingerprints may be those of other texts.
                removed = index.count(connection)
                index.clear(connection)
                done = KeywordUpdate(index.add(connection, self._rows(None)), removed, rebuilt=True)
            else:
                done = self._apply_difference(connection)
            index.set_revision(connection, wanted)
        return done

    def _apply_difference(self, connection: sqlite3.Connection) -> KeywordUpdate:
        """Add and remove the rows that differ from those of the index."""
        keys = (
            (row["id"], row.get("fingerprint") or "", row["source"], row["document_id"])
            for batch in self._store.read(columns=_KEY_COLUMNS, vectors=False)
            for row in batch.fields
        )
        gone, documents = index.changes(connection, keys)
        removed = index.remove(connection, gone)
        if not documents:
            return KeywordUpdate(0, removed)
        few = len(documents) <= MAX_READ_DOCUMENTS
        rows = self._rows([DocumentKey(*key) for key in documents] if few else None)
        new = (row for row in rows if not index.is_current(connection, row._asdict()))
        return KeywordUpdate(index.add(connection, new), removed)

    def _rows(self, documents: Any) -> Iterator[index.IndexRow]:
        for batch in self._store.read(columns=_TEXT_COLUMNS, vectors=False, documents=documents):
            yield from map(_index_row, batch.fields)

    def _revision(self) -> str:
        """Return the revision of the store, which a sync changes, and the stamp of its content, as `revision stamp`."""
        return f"{self._store.record.revision} {self._store.content_stamp}"

    def _search(self, connection: sqlite3.Connection, query: str, top: int) -> KeywordHits:
        weights = _weights(connection, query_tokens(query))
        least = index.inverse_frequency(int(index.MAX_SHARE * index.count(connection)), index.count(connection))
        telling = [token for token, weight in weights.items() if weight >= least]
        names = [token for token in identifiers(query) if weights.get(token, 0.0) >= least]
        named = index.find(connection, names, top)
        return KeywordHits(index.find(connection, telling or list(weights), top), weights, named)


def _revision_of(stamp: str) -> str:
    return stamp.partition(" ")[0]


def _weights(connection: sqlite3.Connection, tokens: list[str]) -> dict[str, float]:
    total = index.count(connection)
    found = index.frequencies(connection, tokens)
    return {token: index.inverse_frequency(rows, total) for token, rows in found.items() if rows}


def _index_row(row: Mapping[str, Any]) -> index.IndexRow:
    headings, title = row.get("headings") or "", row.get("title") or ""
    names = row["document_id"] if title in headings else f"{title} {row['document_id']}"
    return index.IndexRow(row["id"], row.get("fingerprint") or "", (headings, row["text"], names))
