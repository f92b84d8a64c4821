"""Blocking Python interface of collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self, overload

from embedway._public import blocking_form_of
from embedway._sync import Embedder
from embedway.arguments import as_texts
from embedway.collections.collection import AsyncCollection, open_or_new
from embedway.collections.verification import DEFAULT_SAMPLE
from embedway.errors import ClosedError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Unpack

    from embedway.collections.candidates import SearchMode
    from embedway.collections.export import ExportSummary
    from embedway.collections.forgetting import ForgetReport
    from embedway.collections.query import SearchAnswer, SearchSettings
    from embedway.collections.record import Record
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import StoredDocument
    from embedway.collections.sync import SyncSummary
    from embedway.collections.sync_settings import SyncSettings
    from embedway.collections.values import VectorType
    from embedway.collections.verification import VerifyReport
    from embedway.collections.where import Condition
    from embedway.config import Config
    from embedway.space import Space


@blocking_form_of(AsyncCollection)
class Collection:
    """A collection that is open: the blocking interface.

    Create it with `embedway.collections.open(...)`, and use it in a `with` block, or call `close`. Thread-safe. The
    arguments are those of `AsyncCollection`.
    """

    def __init__(self, collection: AsyncCollection, embedder: Embedder, *, owned: bool = False) -> None:
        self._collection = collection
        self._embedder = embedder
        self._owned = owned
        self._wait = embedder._wait  # noqa: SLF001  the loop on which its embedder runs

    def __repr__(self) -> str:
        return f"<embedway.collections.Collection {self.destination!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def destination(self) -> str:
        """Where the collection is."""
        return self._collection.destination

    @property
    def exists(self) -> bool:
        """Whether the collection has been created."""
        return self._collection.exists

    @property
    def record(self) -> Record:
        """How the rows were made."""
        return self._collection.record

    @property
    def space(self) -> Space:
        """Space of the vectors."""
        return self._collection.space

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._collection.count

    def documents(self) -> list[StoredDocument]:
        """Return the documents."""
        return self._wait(self._collection.documents())

    @overload
    def search(  # type: ignore[overload-overlap]  # a text is an iterable
        self, query: str, **options: Unpack[SearchSettings]
    ) -> SearchAnswer: ...

    @overload
    def search(self, query: Iterable[str], **options: Unpack[SearchSettings]) -> list[SearchAnswer]: ...

    def search(
        self,
        query: str | Iterable[str],
        *,
        top: int = 5,
        mode: SearchMode = "vector",
        where: str | Condition | None = None,
        group: bool = False,
        neighbours: int = 0,
        rerank: str | None = None,
        candidates: int = 50,
    ) -> SearchAnswer | list[SearchAnswer]:
        """Return the best rows for a query, or for each of several."""
        # Read here: an iterator may belong to the caller's thread.
        texts = query if isinstance(query, str) else as_texts(query, "query")
        return self._wait(
            self._collection.search(
                texts,
                top=top,
                mode=mode,
                where=where,
                group=group,
                neighbours=neighbours,
                rerank=rerank,
                candidates=candidates,
            )
        )

    def sync(
        self, *sources: str | os.PathLike[str], progress: RunProgress | None = None, **options: Unpack[SyncSettings]
    ) -> SyncSummary:
        """Make the collection equal to the sources. `progress.update` is called in the embedder's thread."""
        return self._wait(self._collection.sync(*sources, progress=progress, **options))

    def verify(self, *, sample: int = DEFAULT_SAMPLE, repair: bool = False) -> VerifyReport:
        """Verify a sample."""
        return self._wait(self._collection.verify(sample=sample, repair=repair))

    def forget(self, *documents: str, source: str | None = None) -> ForgetReport:
        """Remove documents."""
        return self._wait(self._collection.forget(*documents, source=source))

    def export(
        self, destination: str, *, overwrite: bool = False, vector_type: VectorType | None = None
    ) -> ExportSummary:
        """Write all rows into a new collection. Nothing is embedded."""
        return self._wait(self._collection.export(destination, overwrite=overwrite, vector_type=vector_type))

    def refresh(self) -> None:
        """Read the collection again."""
        self._wait(self._collection.refresh())

    def close(self) -> None:
        """Close the collection, and its own embedder. Later calls raise ClosedError."""
        try:
            self._wait(self._collection.aclose())
        except ClosedError:
            self._collection.close_store()  # its embedder is closed, and with it the loop
        finally:
            if self._owned:
                self._embedder.close()

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy."""
        self._collection.__reduce__()


def open_collection(
    destination: str,
    *,
    embedder: Embedder | None = None,
    config: Config | None = None,
    model: str | None = None,
    create: bool = False,
) -> Collection:
    """Open the collection at a destination, with the arguments of `AsyncCollection.open`.

    `embedder` is a blocking `Embedder`; it stays open.
    """
    if embedder is not None and not isinstance(embedder, Embedder):
        raise UsageError(f"embedder is of type {type(embedder).__name__}; it must be an Embedder")
    if embedder is not None and config is not None:
        raise UsageError("embedder and config are both given; the embedder has its own config")
    store = open_or_new(destination, create=create)
    used = embedder or Embedder(config=config)
    inner = used._embedder  # noqa: SLF001  its asynchronous form
    return Collection(AsyncCollection(destination, store, inner, model=model), used, owned=embedder is None)
