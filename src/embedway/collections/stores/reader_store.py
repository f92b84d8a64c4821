"""Stores that read by a reader object."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from embedway.collections.stores.base import Store
from embedway.collections.stores.library_errors import sink_errors

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
    def search_unit(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        with self._errors("searching"):
            return self._opened.search(query, top_n, where)
