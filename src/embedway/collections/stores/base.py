"""Contract of a store: a place that holds one collection, which is created, changed, read and searched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedway.collections.columns import columns_since
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.search import unit_query
from embedway.errors import SinkError, SpaceMismatchError
from embedway.remedies import keep_as, option
from embedway.space import Comparison, Space, comparable, explained
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.search import Hit
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.values import ColumnType, VectorType
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Maximum rows of one batch of `Store.read`.
READ_ROWS = 512
_PYTHON_TYPES: dict[ColumnType, type] = {"text": str, "int": int}


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a store: `fields` are all columns except the vector, `vectors` is float32 (n, d)."""

    fields: list[dict[str, Any]] = field(repr=False)
    vectors: Vectors


def check_fields(fields: Mapping[str, Any], row: int, *, destination: str, version: int = 1) -> None:
    """Raise `SinkError` if a row, counted from 0, lacks a column, or has a value of another type.

    `version` is that of the collection's format.
    """
    for name, column in columns_since(version).items():
        value = fields.get(name)
        is_valid = column.nullable if value is None else isinstance(value, _PYTHON_TYPES[column.type])
        if name not in fields or not is_valid or isinstance(value, bool):
            found = "missing" if value is None else f"of type {type(value).__name__}"
            raise SinkError(f"row {row + 1:,}: {name!r} is {found}; embed the texts again", destination=destination)
        if isinstance(value, str) and has_surrogate(value):
            raise SinkError(f"row {row + 1:,}: {name!r} is not valid Unicode", destination=destination)


class Store(ABC):
    """A collection at a place: rows with vectors, and one record.

    Creating: `prepare`, `begin`, `write` any number of times, then `commit` or `abort`.
    Reading: `open`, then any of the reading methods, then `close`.
    Changing: `open`, `begin_update`, `remove` and `write` any number of times, then `commit` or `abort`. Rows that are
    neither removed nor replaced stay. A row that is written replaces the row with its id.

    A `transactional` store shows a change at `commit`, completely; `abort` or a killed process leaves it as it was.
    In any other store, each `write` and `remove` is durable when it returns, `abort` keeps what was written by an
    update, and repeating a call is harmless. A created collection that is aborted leaves nothing behind in either.

    Methods block and are not thread-safe; with an event loop, call them from a thread. All raise `SinkError`, and
    `MissingExtraError` without the store's library.
    """

    transactional: ClassVar[bool] = True
    #: Number formats of vectors that the store can keep.
    vector_types: ClassVar[frozenset[VectorType]] = frozenset({"float32"})
    #: How the rows were made, set by `begin`, `begin_update` or `open`.
    record: Record
    #: Number of rows, set by `open`.
    count: int

    def __init__(self, destination: str) -> None:
        self.destination = destination

    @property
    def space(self) -> Space:
        """Space of every vector."""
        return self.record.space

    @property
    def identity(self) -> str:
        """Name of the collection that is equal for all spellings of its destination, absolute and without secrets.

        Journals and keyword indexes are found by it.
        """
        return self.destination

    @property
    def content_stamp(self) -> str:
        """Text that differs after another program has changed the rows of the open collection, as far as is known.

        Here it is the number of rows; stores that know more add it.
        """
        return str(self.count)

    @property
    def local_path(self) -> Path | None:
        """File or folder on this machine that has the rows; None for a collection on a server."""
        return None

    @property
    @abstractmethod
    def rejects_path(self) -> Path:
        """File that lists unusable rows: beside a local destination, in the working directory for a server's."""

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """Other local files written beside the destination."""
        return ()

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Return a context in which no other process changes the collection.

        Raises CollectionLockedError if another process or thread holds the lock. The lock of a killed process
        is free at once.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is something at the destination."""

    @abstractmethod
    def prepare(self, *, overwrite: bool) -> None:
        """Reject a destination that exists (unless `overwrite` is true) or is not writable, before any work."""

    @abstractmethod
    def begin(self, record: Record) -> None:
        """Start a new collection."""

    @abstractmethod
    def begin_update(self, record: Record) -> None:
        """Start a change of the open collection, whose record becomes this one. Kept columns may be added."""

    @abstractmethod
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add or replace rows: `vectors` is float32 (n, d), with row i for chunk i."""

    @abstractmethod
    def remove(self, documents: Collection[DocumentKey]) -> None:
        """Remove all rows of documents; unknown documents are ignored. Rows that are written afterwards stay."""

    @abstractmethod
    def commit(self) -> None:
        """Make the complete change appear, with a new `revision` in its record."""

    @abstractmethod
    def abort(self) -> None:
        """End the change without `commit`. May be called at any time, and again."""

    @abstractmethod
    def open(self) -> None:
        """Read the record and the number of rows."""

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. May be called again."""

    @abstractmethod
    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents, in any order, as `DocumentTally` counts them.

        Reads neither texts nor vectors where the store allows it.
        """

    @abstractmethod
    def read(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: bool = True,
        documents: Collection[DocumentKey] | None = None,
        strict: bool = True,
    ) -> Iterator[Rows]:
        """Iterate over rows, at most `READ_ROWS` at a time, all chunks of a document in order.

        `columns` are those of `fields`, by default all; one that a collection of an older version lacks is None.
        `documents` are the only ones to read, in any order; unknown documents are ignored. Without `vectors`, the
        vectors of the rows have the shape (n, 0). Without `strict`, a vector that is missing or not finite
        is read as NaN, and a missing text as an empty one, so that such rows can be found.
        """

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows without vectors by id; unknown ids are left out."""

    def purge(self) -> Sequence[str]:
        """Remove the texts of removed rows from older versions. Call this after `commit`.

        Return sentences for the user, one for each place where copies of the texts may remain.
        """
        return ()

    def search(self, query_vector: Vectors, top_n: int, *, where: Condition | None = None) -> list[Hit]:
        """Return the `top_n` rows nearest to a query, float32 (d,), best first; equal scores in row order.

        Only rows that meet `where` are searched; raises `UsageError` for a condition on an unknown column.
        """
        query = unit_query(query_vector, top_n, dimensions=self.space.dimensions, destination=self.destination)
        if where is not None:
            from embedway.collections.where import condition_columns  # noqa: PLC0415  only for conditions
            from embedway.collections.where_types import check_where  # noqa: PLC0415

            where = check_where(where, condition_columns(self.record))
        return self.search_unit(query, top_n, where)

    def check_space(self, asked: Space) -> Comparison:
        """Raise `SpaceMismatchError` if a fact of the requested space differs from the one in the store's record.

        The comparison's `unknown` contains the facts that the record lacks.
        """
        comparison = comparable(asked, self.space)
        if comparison:
            return comparison
        asked_id = explained(asked, comparison, self.space)
        raise SpaceMismatchError(collection=self.destination, collection_space=self.space.id, asked_space=asked_id)

    def write_facts(self, verified: Space) -> bool:
        """Add verified facts of the space to the record; return False if they cannot be written."""
        record = self.record.with_space(self.space.with_facts(verified))
        try:
            self.write_record(record)
        except (OSError, SinkError):
            return False
        return True

    def check_update(self, record: Record) -> Record:
        """Return the record of an update, with the kept columns that the collection already has; for `begin_update`.

        Raises `SinkError` for a collection of an older format, and for another type of vectors or of a kept column.
        """
        old = self.record
        if old.format_version < FORMAT_VERSION:
            raise SinkError(
                f"has version {old.format_version} of collections, which can be read and not changed; "
                f"embed its documents again with {option('overwrite', True)}",
                destination=self.destination,
            )
        self.check_space(record.space)
        if record.vector_type != old.vector_type:
            raise SinkError(
                f"has vectors of type {old.vector_type}, not {record.vector_type}; "
                f"keep the type, or replace the collection with {option('overwrite', True)}",
                destination=self.destination,
            )
        for name, kind in record.keep.items():
            if old.keep.get(name, kind) != kind:
                raise SinkError(
                    f"the kept column {name!r} has the type {old.keep[name]}, not {kind}; "
                    f"declare it: {keep_as(name, old.keep[name])}",
                    destination=self.destination,
                )
        return replace(record, keep=old.keep | record.keep)

    def check_rows(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Raise `SinkError` if the vectors for `write` do not fit the chunks or the space, or are not finite."""
        expected = (len(chunks), self.space.dimensions)
        if vectors.shape != expected:
            raise SinkError(f"the vectors have the shape {vectors.shape}, not {expected}", destination=self.destination)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise SinkError(
                f"the vector of {chunks[int(bad[0])].id!r} has a number that is infinite or not a number",
                destination=self.destination,
            )

    @abstractmethod
    def write_record(self, record: Record) -> None:
        """Replace the record of the open collection, and nothing else. Raises `SinkError` and OSError."""

    @abstractmethod
    def search_unit(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        """Return the nearest rows as `search` does, which calls this; `query` has length 1.

        `where` has passed `check_where`: its columns exist, and each value has the type of its column. A store whose
        own filter cannot express it uses `scanning.scan_search`.
        """
