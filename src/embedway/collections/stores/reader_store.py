"""Stores that read by a reader object: LanceDB tables, and files."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from embedway.collections.stores.arrow import sink_errors
from embedway.collections.stores.base import Store
from embedway.collections.stores.locks import exclusive
from embedway.collections.stores.refusals import no_such
from embedway.collections.stores.temporary import refuse_existing
from embedway.errors import SinkError
from embedway.files import is_special

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from embedway.collections.documents import DocumentKey
    from embedway.collections.search import Hit
    from embedway.collections.stores.base import Rows
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.where import Condition
    from embedway.types import Vectors


class Reader(Protocol):
    """Reader of a collection as it was committed the last time. Errors may be those of its library."""

    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents."""

    def read(
        self,
        columns: Sequence[str] | None,
        documents: Collection[DocumentKey] | None,
        *,
        vectors: bool,
        strict: bool = True,
    ) -> Iterator[Rows]:
        """Iterate over rows."""

    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows without vectors by id."""

    def search(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        """Return the nearest rows."""


class ReaderStore(Store):
    """Store whose reading methods are those of its reader, with its errors converted to `SinkError`."""

    @property
    @abstractmethod
    def _opened(self) -> Reader:
        """The reader of the collection as it was committed the last time."""

    def _errors(self, action: str) -> AbstractContextManager[None]:
        """Return a context that converts errors of the disk and of the library to `SinkError`."""
        return sink_errors(self.destination, action)

    @override
    def documents(self) -> Iterator[StoredDocument]:
        with self._errors("reading"):
            yield from self._opened.documents()

    @override
    def read(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: bool = True,
        documents: Collection[DocumentKey] | None = None,
        strict: bool = True,
    ) -> Iterator[Rows]:
        with self._errors("reading"):
            yield from self._opened.read(columns, documents, vectors=vectors, strict=strict)

    @override
    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._errors("reading"):
            return self._opened.fetch(ids)

    @override
    def _search(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        with self._errors("searching"):
            return self._opened.search(query, top_n, where)


class FileStore(ReaderStore):
    """Store in one file, which is written as a temporary file and renamed on commit."""

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._path = Path(destination)
        self._overwrite = False
        self._temporary: Path | None = None

    @property
    @override
    def identity(self) -> str:
        return os.path.realpath(self._path)

    @property
    @override
    def local_path(self) -> Path:
        return self._path

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

    @override
    def lock(self) -> AbstractContextManager[None]:
        return exclusive(self._path, destination=self.destination)

    @override
    def exists(self) -> bool:
        return self._path.exists() or self._path.is_symlink()

    def _check_exists(self) -> None:
        if is_special(self._path):
            raise SinkError("is a device, a pipe or a socket; choose a file", destination=self.destination)
        if not self._path.is_file():
            from embedway.collections.stores.registry import similar_to  # noqa: PLC0415  only for this message

            raise no_such("file", self.destination, similar=similar_to(self.destination))
