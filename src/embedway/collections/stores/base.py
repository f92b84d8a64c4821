"""The contract of a store: a destination that is written once and whole, then read and searched."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway.collections.search import unit_query
from embedway.collections.stores.temporary import refuse_existing
from embedway.errors import SinkError, SpaceMismatchError
from embedway.space import Comparison, Space, comparable, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.search import Hit
    from embedway.types import Vectors

#: Names of our own columns; no kept column may stand in their place.
RESERVED_COLUMNS = frozenset(
    {"id", "document_id", "source", "start_line", "title", "text", "vector", "space", "_distance"}
)
#: Rows of one batch of `Store.read`, at most.
READ_ROWS = 512


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, as it is embedded and written.

    `text` is `document.text[start_char:end_char]`; `start_line` counts from 1 in the source.
    """

    id: str
    document_id: str
    text: str = field(repr=False)
    start_char: int
    end_char: int
    start_line: int
    title: str | None
    source: str
    metadata: Mapping[str, str | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a store: `fields` are the columns of each but the vector, `vectors` is float32 (n, d)."""

    fields: list[dict[str, Any]] = field(repr=False)
    vectors: Vectors


class Store(ABC):
    """A destination. One object either writes it or reads it.

    Writing: `prepare`, `begin`, `write` any number of times, then `commit` or `abort`. The destination shows nothing
    until `commit`, and then everything. `abort` may come at any time, also twice, and leaves nothing behind.
    Reading: `open`, then any of the other methods.

    Methods block: call them from a thread where there is an event loop, one at a time. All raise `SinkError`.
    """

    #: The space of every vector, known after `begin` or `open`.
    space: Space
    #: Rows, known after `open`.
    count: int

    def __init__(self, destination: str) -> None:
        self.destination = destination

    @property
    @abstractmethod
    def rejects_path(self) -> Path:
        """The file beside the destination that lists the rows which could not be used."""

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """Other files that are written beside the destination."""
        return ()

    @abstractmethod
    def prepare(self, *, overwrite: bool) -> None:
        """Refuse a destination that exists (where `overwrite` is false) or cannot be written, before any work.

        Raises `MissingExtraError` where the store's library is not installed.
        """

    @abstractmethod
    def begin(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Begin to write: every vector is of `space`, `keep` names the metadata that each row carries."""

    @abstractmethod
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows: `vectors` is float32 (n, d), row i of chunk i."""

    @abstractmethod
    def commit(self) -> None:
        """Let the destination appear, whole."""

    @abstractmethod
    def abort(self) -> None:
        """Give up and remove everything that was written."""

    @abstractmethod
    def open(self) -> None:
        """Read the space and the number of rows.

        Raises `MissingExtraError` as `prepare` does.
        """

    @abstractmethod
    def read(self) -> Iterator[Rows]:
        """All rows in the order in which they were written, `READ_ROWS` at a time at most."""

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """The `top_n` rows nearest to a query, float32 (d,), best first; equal scores in row order."""
        query = unit_query(query_vector, top_n, dimensions=self.space.dimensions, destination=self.destination)
        return self._search(query, top_n)

    def check_space(self, asked: Space) -> Comparison:
        """Raise `SpaceMismatchError` unless every fact of the asked space is the store's, or not in its record.

        The comparison's `unknown` names the facts that the record lacks.
        """
        comparison = comparable(asked, self.space)
        if comparison:
            return comparison
        asked_id = explained(asked, comparison, self.space)
        raise SpaceMismatchError(collection=self.destination, collection_space=self.space.id, asked_space=asked_id)

    def write_facts(self, verified: Space) -> bool:
        """Add verified facts of the space to the record; False where the disk refuses that."""
        self.space = self.space.with_facts(verified)
        try:
            self._write_facts(self.space)
        except (OSError, SinkError):
            return False
        return True

    @abstractmethod
    def _search(self, query: Vectors, top_n: int) -> list[Hit]:
        """See `search`; the query has length 1."""

    @abstractmethod
    def _write_facts(self, space: Space) -> None:
        """Record a space whose facts are complete now. Raises `SinkError` and OSError."""


class FileStore(Store):
    """A destination that is one file: it is written to a temporary file that is renamed on commit."""

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._path = Path(destination)
        self._overwrite = False
        self._temporary: Path | None = None

    @property
    def rejects_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.rejects.jsonl")

    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"the folder {folder} does not exist; make it first", destination=str(self._path))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"the folder {folder} may not be written to", destination=str(self._path))
        if self._path.is_dir():
            raise SinkError("is a folder; name a file", destination=str(self._path))
        refuse_existing(self._path, overwrite=overwrite, destination=str(self._path))

    def _check_exists(self) -> None:
        if not self._path.is_file():
            raise SinkError("there is no such file", destination=self.destination)
