"""Contract of a store: a destination that is written once, completely, then read and searched."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from embedway.collections.search import unit_query
from embedway.collections.stores.temporary import refuse_existing
from embedway.errors import SinkError, SpaceMismatchError
from embedway.space import Comparison, Space, comparable, explained
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.search import Hit
    from embedway.types import Vectors

#: Names of built-in columns; a kept column must not use them.
RESERVED_COLUMNS = frozenset(
    {"id", "document_id", "source", "start_line", "title", "text", "vector", "space", "_distance"}
)
#: Maximum rows of one batch of `Store.read`.
READ_ROWS = 512
#: Errors that libraries raise for damaged or unusual files; their own classes derive from these.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    MemoryError,
)
#: Types of the columns of a row that a search returns.
_COLUMN_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "document_id": (str,),
    "source": (str,),
    "start_line": (int,),
    "title": (str, type(None)),
    "text": (str,),
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document that is embedded and written.

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
    """Consecutive rows of a store: `fields` are all columns except the vector, `vectors` is float32 (n, d)."""

    fields: list[dict[str, Any]] = field(repr=False)
    vectors: Vectors


def check_fields(fields: Mapping[str, Any], row: int, *, destination: str) -> None:
    """Raise `SinkError` if a row, counted from 0, lacks a column, or has a value of another type."""
    for name, types in _COLUMN_TYPES.items():
        value = fields.get(name)
        if name not in fields or not isinstance(value, types) or isinstance(value, bool):
            found = "missing" if value is None else f"of type {type(value).__name__}"
            raise SinkError(f"row {row + 1:,}: {name!r} is {found}; embed the texts again", destination=destination)
        if isinstance(value, str) and has_surrogate(value):
            raise SinkError(f"row {row + 1:,}: {name!r} is not valid Unicode", destination=destination)


class Store(ABC):
    """Destination of vectors. One object either writes it or reads it.

    Writing: `prepare`, `begin`, `write` any number of times, then `commit` or `abort`. The destination appears on
    `commit`, with all rows. `abort` may be called at any time, is idempotent, and leaves nothing behind.
    Reading: `open`, then any of the other methods.

    Methods block and are not thread-safe; with an event loop, call them from a thread. All raise `SinkError`.
    """

    #: Space of every vector, set by `begin` or `open`.
    space: Space
    #: Number of rows, set by `open`.
    count: int

    def __init__(self, destination: str) -> None:
        self.destination = destination

    @property
    @abstractmethod
    def rejects_path(self) -> Path:
        """File beside the destination that lists unusable rows."""

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """Other files written beside the destination."""
        return ()

    @abstractmethod
    def prepare(self, *, overwrite: bool) -> None:
        """Reject a destination that exists (unless `overwrite` is true) or is not writable, before any work.

        Raises `MissingExtraError` if the store's library is not installed.
        """

    @abstractmethod
    def begin(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Start writing: every vector is in `space`; `keep` contains the metadata columns of each row."""

    @abstractmethod
    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows: `vectors` is float32 (n, d), with row i for chunk i."""

    @abstractmethod
    def commit(self) -> None:
        """Make the complete destination appear."""

    @abstractmethod
    def abort(self) -> None:
        """Stop writing and remove everything that was written."""

    @abstractmethod
    def open(self) -> None:
        """Read the space and the number of rows.

        Raises `MissingExtraError` as `prepare` does.
        """

    @abstractmethod
    def read(self) -> Iterator[Rows]:
        """Iterate over all rows in the order of writing, at most `READ_ROWS` at a time."""

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """Return the `top_n` rows nearest to a query, float32 (d,), best first; equal scores in row order."""
        query = unit_query(query_vector, top_n, dimensions=self.space.dimensions, destination=self.destination)
        return self._search(query, top_n)

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
        self.space = self.space.with_facts(verified)
        try:
            self._write_facts(self.space)
        except (OSError, SinkError):
            return False
        return True

    @abstractmethod
    def _search(self, query: Vectors, top_n: int) -> list[Hit]:
        """Return the nearest rows as `search` does, for a query of length 1."""

    @abstractmethod
    def _write_facts(self, space: Space) -> None:
        """Record a space with complete facts. Raises `SinkError` and OSError."""


class FileStore(Store):
    """Store in one file, which is written as a temporary file and renamed on commit."""

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._path = Path(destination)
        self._overwrite = False
        self._temporary: Path | None = None

    @property
    @override
    def rejects_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.rejects.jsonl")

    @override
    def prepare(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"the folder {folder} does not exist; create it first", destination=str(self._path))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"the folder {folder} is not writable", destination=str(self._path))
        if self._path.is_dir():
            raise SinkError("is a folder; name a file", destination=str(self._path))
        refuse_existing(self._path, overwrite=overwrite, destination=str(self._path))

    def _check_exists(self) -> None:
        if not self._path.is_file():
            raise SinkError("there is no such file", destination=self.destination)
