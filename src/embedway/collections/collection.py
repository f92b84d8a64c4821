"""Python interface of collections: open, search, change and verify one, with or without an event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

from embedway._embedder import AsyncEmbedder
from embedway._public import blocking_form_of
from embedway._sync import Embedder
from embedway.collections.query import Searcher, SearchOptions, parse_condition
from embedway.collections.query_model import model_name
from embedway.errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from embedway.collections.candidates import SearchMode
    from embedway.collections.query import SearchAnswer
    from embedway.collections.record import Record
    from embedway.collections.stores.base import Store, StoredDocument
    from embedway.collections.where import Condition
    from embedway.config import Config
    from embedway.space import Space


class AsyncCollection:
    """A collection that is open: the asynchronous interface.

    Create it with `await AsyncCollection.open(...)` or `embedway.collections.open_async(...)`, and use it in an `async
    with` block, or call `aclose`. Calls are answered one after another.
    """

    def __init__(self, store: Store, embedder: AsyncEmbedder, *, model: str | None = None, owned: bool = False) -> None:
        self._store = store
        self._embedder = embedder
        self._model = model
        self._owned = owned
        self._process = os.getpid()
        self._closed = False
        self._searcher = Searcher(embedder, store, model=model)
        self._changing = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        destination: str,
        *,
        embedder: AsyncEmbedder | None = None,
        config: Config | None = None,
        model: str | None = None,
        create: bool = False,
    ) -> AsyncCollection:
        """Open the collection at a destination, such as `docs.parquet`, as `embedway run --to` names it.

        `embedder` computes the vectors, and stays open; by default there is one of its own, with `config`. `model`
        refuses a collection of another model, and makes a new one. With `create`, a missing collection is created by
        its first `sync`. Raises SinkError and UsageError.
        """
        if embedder is not None and not isinstance(embedder, AsyncEmbedder):
            raise UsageError(f"embedder is of type {type(embedder).__name__}; it must be an AsyncEmbedder")
        if embedder is not None and config is not None:
            raise UsageError("embedder and config are both given; the embedder has its own config")
        store = await asyncio.to_thread(open_or_new, destination, create=create)
        return cls(store, embedder or AsyncEmbedder(config=config), model=model, owned=embedder is None)

    def __repr__(self) -> str:
        return f"<embedway.collections.AsyncCollection {self._store.destination!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def destination(self) -> str:
        """Where the collection is."""
        return self._store.destination

    @property
    def exists(self) -> bool:
        """Whether the collection has been created."""
        return hasattr(self._store, "record")

    @property
    def record(self) -> Record:
        """How the rows were made. Raises SinkError before the first `sync` of a new collection."""
        self._check_exists()
        return self._store.record

    @property
    def space(self) -> Space:
        """Space of the vectors."""
        return self.record.space

    @property
    def count(self) -> int:
        """Number of rows; 0 before the first `sync` of a new collection."""
        return self._store.count if self.exists else 0

    async def documents(self) -> list[StoredDocument]:
        """Return the documents of the collection, in any order."""
        self._check_exists()
        self._here()
        return await asyncio.to_thread(lambda: list(self._store.documents()))

    @overload
    async def search(  # type: ignore[overload-overlap]
        self,
        query: str,
        *,
        top: int = ...,
        mode: SearchMode = ...,
        where: str | Condition | None = ...,
        group: bool = ...,
        neighbours: int = ...,
        rerank: str | None = ...,
        candidates: int = ...,
    ) -> SearchAnswer: ...

    @overload
    async def search(
        self,
        query: Sequence[str],
        *,
        top: int = ...,
        mode: SearchMode = ...,
        where: str | Condition | None = ...,
        group: bool = ...,
        neighbours: int = ...,
        rerank: str | None = ...,
        candidates: int = ...,
    ) -> list[SearchAnswer]: ...

    async def search(
        self,
        query: str | Sequence[str],
        *,
        top: int = 5,
        mode: SearchMode = "vector",
        where: str | Condition | None = None,
        group: bool = False,
        neighbours: int = 0,
        rerank: str | None = None,
        candidates: int = 50,
    ) -> SearchAnswer | list[SearchAnswer]:
        """Return the best rows for a query, or a list of answers for a list of queries.

        `mode` is `vector` (cosine similarity), `keyword` (BM25) or `hybrid` (both, fused by ranks). `where` is a
        condition on columns, such as `"lang = 'de'"`. `group` returns one row of each document, `neighbours` the chunks
        beside each row. `rerank` names a reranker for the best `candidates` rows. Raises UsageError, SinkError,
        SpaceMismatchError and as `AsyncEmbedder.embed` does.
        """
        self._check_exists()
        options = SearchOptions(top, mode, parse_condition(where), group, neighbours, rerank, candidates)
        searcher = self._here()
        if isinstance(query, str):
            return (await searcher.search([query], options))[0]
        return await searcher.search(list(query), options)

    async def sync(self, *sources: str, progress: Any = None, **options: Any) -> Any:
        """Add, update and remove rows so that the collection equals the sources. Returns the job's report.

        `options` are those of `SyncOptions`; `progress` receives the progress. Raises as `embedway sync` does.
        """
        from embedway.collections.sync import SyncOptions, sync_collection  # noqa: PLC0415  heavy

        self._here()
        if self._model is not None:
            options.setdefault("model", self._model)
        async with self._changing:
            report = await sync_collection(
                self._embedder, self._store, list(sources), SyncOptions(**options), progress=progress
            )
            await self._reopen()
        return report

    async def verify(self, **options: Any) -> Any:
        """Embed a sample of the rows again, and return which are wrong, missing or orphaned, and the bound proven."""
        from embedway.collections.verification import verify_collection  # noqa: PLC0415  heavy

        self._check_exists()
        self._here()
        options.setdefault("model", self._model or model_name(self._store, self._embedder.config))
        return await verify_collection(self._embedder, self._store, **options)

    async def forget(self, *documents: Any, **options: Any) -> Any:
        """Remove the rows and texts of documents from the collection, its index and the caches."""
        from embedway.collections.forgetting import forget_documents  # noqa: PLC0415  heavy

        self._check_exists()
        self._here()
        options.setdefault("model", self._model or model_name(self._store, self._embedder.config))
        async with self._changing:
            report = await forget_documents(self._embedder, self._store, list(documents), **options)
            await self._reopen()
        return report

    async def export(self, destination: str, **options: Any) -> Any:
        """Copy the collection to another destination, without embedding anything."""
        from embedway.collections.export import export_collection  # noqa: PLC0415  heavy

        self._check_exists()
        self._here()
        return await asyncio.to_thread(export_collection, self._store, destination, **options)

    async def refresh(self) -> None:
        """Read the collection again, with what other processes have changed."""
        async with self._changing:
            await self._reopen()

    async def aclose(self) -> None:
        """Close the collection, and its own embedder. Later calls raise ClosedError."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._store.close)
        if self._owned:
            await self._embedder.aclose()

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy."""
        raise UsageError("a collection cannot be pickled or copied; open it in each process")

    async def _reopen(self) -> None:
        store = await asyncio.to_thread(open_or_new, self._store.destination, create=True)
        await asyncio.to_thread(self._store.close)
        self._use(store)

    def _use(self, store: Store) -> None:
        self._store, self._process = store, os.getpid()
        self._searcher = Searcher(self._embedder, store, model=self._model)

    def _here(self) -> Searcher:
        """Return the searcher; in a forked process, of a store that was opened there."""
        if self._closed:
            raise ClosedError("the collection is closed; open it again")
        if self._process != os.getpid():
            self._use(open_or_new(self._store.destination, create=True))
        return self._searcher

    def _check_exists(self) -> None:
        if not self.exists:
            raise UsageError(f"{self._store.destination} has not been created yet; call sync first")


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
    def search(  # type: ignore[overload-overlap]
        self,
        query: str,
        *,
        top: int = ...,
        mode: SearchMode = ...,
        where: str | Condition | None = ...,
        group: bool = ...,
        neighbours: int = ...,
        rerank: str | None = ...,
        candidates: int = ...,
    ) -> SearchAnswer: ...

    @overload
    def search(
        self,
        query: Sequence[str],
        *,
        top: int = ...,
        mode: SearchMode = ...,
        where: str | Condition | None = ...,
        group: bool = ...,
        neighbours: int = ...,
        rerank: str | None = ...,
        candidates: int = ...,
    ) -> list[SearchAnswer]: ...

    def search(
        self,
        query: str | Sequence[str],
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
        return self._wait(
            self._collection.search(
                query,
                top=top,
                mode=mode,
                where=where,
                group=group,
                neighbours=neighbours,
                rerank=rerank,
                candidates=candidates,
            )
        )

    def sync(self, *sources: str, progress: Any = None, **options: Any) -> Any:
        """Make the collection equal to the sources."""
        return self._wait(self._collection.sync(*sources, progress=progress, **options))

    def verify(self, **options: Any) -> Any:
        """Verify a sample."""
        return self._wait(self._collection.verify(**options))

    def forget(self, *documents: Any, **options: Any) -> Any:
        """Remove documents."""
        return self._wait(self._collection.forget(*documents, **options))

    def export(self, destination: str, **options: Any) -> Any:
        """Copy the collection."""
        return self._wait(self._collection.export(destination, **options))

    def refresh(self) -> None:
        """Read the collection again."""
        self._wait(self._collection.refresh())

    def close(self) -> None:
        """Close the collection, and its own embedder. Later calls raise ClosedError."""
        try:
            self._wait(self._collection.aclose())
        except ClosedError:
            pass  # its embedder is closed
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
    """Open the collection at a destination, for code without an event loop. The arguments are `AsyncCollection.open`'s.

    `embedder` is a blocking `Embedder`; it stays open.
    """
    if embedder is not None and not isinstance(embedder, Embedder):
        raise UsageError(f"embedder is of type {type(embedder).__name__}; it must be an Embedder")
    if embedder is not None and config is not None:
        raise UsageError("embedder and config are both given; the embedder has its own config")
    store = open_or_new(destination, create=create)
    used = embedder or Embedder(config=config)
    inner = used._embedder  # noqa: SLF001  its asynchronous form
    return Collection(AsyncCollection(store, inner, model=model), used, owned=embedder is None)


def open_or_new(destination: str, *, create: bool) -> Store:
    """Return an open store, or with `create` the store of a collection that does not exist yet."""
    from embedway.collections.stores import store_for  # noqa: PLC0415  only when a store is opened

    store = store_for(destination)
    if create and not store.exists():
        return store
    store.open()
    return store
