"""Asynchronous Python interface of collections: open, search, change and verify one."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, overload

from embedway._embedder import AsyncEmbedder
from embedway.arguments import as_max_nanousd, as_texts, check_flag, is_a
from embedway.collections.forgetting import forget_documents, plan_forgetting
from embedway.collections.opening import check_opening, open_or_new
from embedway.collections.query import Searcher, SearchOptions, checked_condition
from embedway.collections.query_model import model_name
from embedway.collections.report import as_progress
from embedway.collections.verification import DEFAULT_SAMPLE, plan_verification, verify_collection
from embedway.errors import ClosedError, UsageError
from embedway.forks import never_free

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from types import TracebackType
    from typing import Unpack

    from embedway.collections.export import ExportSummary
    from embedway.collections.forgetting import ForgetReport
    from embedway.collections.options import SyncOptions
    from embedway.collections.query import SearchSettings
    from embedway.collections.recomputing import VerifyPlan
    from embedway.collections.record import Record
    from embedway.collections.report import RunProgress, RunStatus
    from embedway.collections.search_results import SearchAnswer
    from embedway.collections.stores.base import Store
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.sync import SyncSummary
    from embedway.collections.sync_plan import SyncPlan
    from embedway.collections.sync_settings import SyncSettings
    from embedway.collections.values import Fusion, SearchMode, VectorType
    from embedway.collections.verification_report import VerifyReport
    from embedway.collections.where import Condition
    from embedway.config import Config
    from embedway.money import Amount
    from embedway.space import Space

#: Receiver of the status of a job: an object with `update`, or a function.
Progress: TypeAlias = "RunProgress | Callable[[RunStatus], object] | None"


class AsyncCollection:
    """A collection that is open: the asynchronous interface.

    Open it in an `async with embedway.collections.open_async(...)` block, or with `await`, and call `aclose`. Searches
    see the rows of the last `sync`, `forget` or `refresh` of this object, and can run while another one changes the
    collection.
    """

    def __init__(
        self,
        destination: str,
        store: Store,
        embedder: AsyncEmbedder,
        *,
        model: str | None = None,
        owned: bool = False,
    ) -> None:
        self._destination = destination
        self._embedder = embedder
        self._model = model
        self._owned = owned
        self._closed = False
        self._use(store)

    def _use(self, store: Store) -> None:
        self._process = os.getpid()
        self._searcher = Searcher(self._embedder, store, model=self._model)

    @classmethod
    async def open(
        cls,
        destination: str | os.PathLike[str],
        *,
        embedder: AsyncEmbedder | None = None,
        config: Config | None = None,
        model: str | None = None,
        create: bool = False,
    ) -> AsyncCollection:
        """Open the collection at a destination, such as `docs.parquet`, as `embedway sync --to` names it.

        `embedder` computes the vectors, and stays open; by default there is one of its own, with `config`. `model`
        refuses a collection of another model, and makes a new one. With `create`, a missing collection is created by
        its first `sync`. Raises SinkError and UsageError.
        """
        destination, model, create = check_opening(destination, embedder, config, model, create, AsyncEmbedder)
        used = AsyncEmbedder(config=config) if embedder is None else embedder
        store = await asyncio.to_thread(open_or_new, destination, create=create)
        return cls(destination, store, used, model=model, owned=embedder is None)

    def __repr__(self) -> str:
        return f"<embedway.collections.AsyncCollection {self.destination!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def destination(self) -> str:
        """Where the collection is, without a password."""
        from embedway.collections.stores import shown  # noqa: PLC0415  only when it is shown

        return shown(self._destination)

    @property
    def exists(self) -> bool:
        """Whether the collection has been created."""
        return hasattr(self._searcher.store, "record")

    @property
    def record(self) -> Record:
        """How the rows were made. Raises UsageError before the first `sync` of a new collection."""
        self._check_exists()
        return self._searcher.store.record

    @property
    def space(self) -> Space:
        """Space of the vectors. Raises UsageError before the first `sync` of a new collection."""
        return self.record.space

    @property
    def count(self) -> int:
        """Number of rows; 0 before the first `sync` of a new collection."""
        return self._searcher.store.count if self.exists else 0

    async def documents(self) -> list[StoredDocument]:
        """Return the documents with their fingerprints and numbers of rows, in any order. Raises SinkError."""
        searcher = await self._opened()
        return await asyncio.to_thread(searcher.read, lambda store: list(store.documents()))

    @overload
    async def search(  # type: ignore[overload-overlap]  # a text is an iterable
        self, query: str, **options: Unpack[SearchSettings]
    ) -> SearchAnswer: ...

    @overload
    async def search(self, query: Iterable[str], **options: Unpack[SearchSettings]) -> list[SearchAnswer]: ...

    async def search(
        self,
        query: str | Iterable[str],
        *,
        top: int = 5,
        mode: SearchMode = "hybrid",
        where: str | Condition | None = None,
        group: bool = False,
        neighbours: int = 0,
        rerank: str | None = None,
        candidates: int = 50,
        highlight: bool | None = None,
        fusion: Fusion = "scores",
        merge: bool = True,
    ) -> SearchAnswer | list[SearchAnswer]:
        """Return the best rows for a query, or a list of answers for several queries, which are embedded together.

        `mode` is `vector` (cosine similarity), `keyword` (BM25) or `hybrid` (both, fused by `scores` or `ranks`).
        `where` is a condition on columns, such as `"lang = 'de'"`. `group` returns one row of each document,
        `neighbours` the chunks beside each row. `rerank` names a reranker for the best `candidates` rows. `highlight`
        chooses the best sentence of a row by vectors, if the model runs on this machine, and not by words alone; by
        default for a single query.
        Raises UsageError, SinkError, SpaceMismatchError and as `AsyncEmbedder.embed` does.
        """
        searcher = await self._opened()
        condition = checked_condition(where, searcher.store)
        options = SearchOptions(
            top=top,
            mode=mode,
            where=condition,
            group=group,
            neighbours=neighbours,
            rerank=rerank,
            candidates=candidates,
            highlight=highlight,
            fusion=fusion,
            merge=merge,
        )
        answers = await searcher.search(as_texts(query, "query"), options)
        return answers[0] if is_a(query, str) else answers

    async def sync(
        self, *sources: str | os.PathLike[str], progress: Progress = None, **options: Unpack[SyncSettings]
    ) -> SyncSummary:
        """Add, update and remove rows so that the collection equals the sources; without sources, those it has.

        A source is a path, or a text `NAME=PATH`. `progress` is called with a `RunStatus` after each batch. Options are
        those of `embedway sync`; those that are not given are as in the collection's record. Raises as that does.
        """
        from embedway.collections.inventory import source_texts  # noqa: PLC0415  heavy
        from embedway.collections.sync import sync_collection  # noqa: PLC0415  heavy

        paths, receiver = source_texts(sources), as_progress(progress)
        chosen = await self._sync_options(options)
        try:
            return await sync_collection(self._embedder, self._destination, paths, chosen, progress=receiver)
        finally:
            await self.refresh()

    async def dry_run(self, *sources: str | os.PathLike[str], **options: Unpack[SyncSettings]) -> SyncPlan:
        """Return what `sync` would change, and what it would cost; nothing is computed, spent or written."""
        from embedway.collections.sync_plan import plan_sync  # noqa: PLC0415  heavy

        chosen = await self._sync_options(options)
        return await plan_sync(self._embedder, self._destination, sources, chosen)

    async def _sync_options(self, options: SyncSettings) -> SyncOptions:
        from embedway.collections.sync_settings import sync_options  # noqa: PLC0415  heavy

        await self._here()
        model = await self._model_name() if self.exists else self._model
        if model is not None:
            options.setdefault("model", model)
        return sync_options(options)

    async def verify(
        self,
        *,
        sample: int = DEFAULT_SAMPLE,
        repair: bool = False,
        max_cost: Amount | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> VerifyReport:
        """Embed a sample of the rows again, and return which are wrong, missing, duplicated or orphaned.

        The report's `bound` is the largest share of wrong rows that the sample does not exclude with 95 % confidence.
        `repair` replaces wrong vectors, removes incomplete and damaged documents, and verifies the result. `max_cost`
        is in dollars. `progress` is called with the numbers of rows that are compared, and to compare. Raises as
        `search` does, and BudgetExceededError.
        """
        most = as_max_nanousd(max_cost)
        repair = check_flag(repair, "repair")
        await self._opened()
        store = await asyncio.to_thread(open_or_new, self._destination, create=False)
        try:
            return await verify_collection(
                self._embedder,
                store,
                model=self._model,
                sample=sample,
                repair=repair,
                most_nanousd=most,
                progress=progress,
            )
        finally:
            await asyncio.to_thread(store.close)
            if repair:
                await self.refresh()

    async def plan_verify(self, *, sample: int = DEFAULT_SAMPLE) -> VerifyPlan:
        """Estimate what `verify` computes and costs: the sample, and all rows, which a repair may need.

        Raises as `search` does.
        """
        await self._opened()
        store = await asyncio.to_thread(open_or_new, self._destination, create=False)
        try:
            return await plan_verification(self._embedder, store, model=self._model, sample=sample)
        finally:
            await asyncio.to_thread(store.close)

    async def forget(self, *documents: str, source: str | None = None, dry_run: bool = False) -> ForgetReport:
        """Remove the rows and texts of documents from the collection, its keyword index and the cache.

        `documents` are names, as `document_id` or `source/document_id`. The report says what may still contain their
        texts. With `dry_run`, nothing is removed. Raises UsageError for an unknown name, SinkError, and CacheError.
        """
        if check_flag(dry_run, "dry_run"):
            searcher = await self._opened()
            return await asyncio.to_thread(
                searcher.read, lambda store: plan_forgetting(store, documents, source=source)
            )
        model = await self._model_name()
        store = await asyncio.to_thread(open_or_new, self._destination, create=False)
        try:
            return await forget_documents(self._embedder, store, documents, model=model, source=source)
        finally:
            await asyncio.to_thread(store.close)
            await self.refresh()

    async def export(
        self, destination: str | os.PathLike[str], *, overwrite: bool = False, vector_type: VectorType | None = None
    ) -> ExportSummary:
        """Write all rows into a new collection, which may be in another kind of store. Nothing is embedded.

        `vector_type` is that of this collection by default, or float32 if the new store has no such type. Memory is
        that of one batch of rows. Raises UsageError and SinkError; what was written is removed then.
        """
        from embedway.collections.export import export_stored  # noqa: PLC0415  only for exports

        await self._opened()
        return await export_stored(self._destination, destination, overwrite=overwrite, vector_type=vector_type)

    async def refresh(self) -> None:
        """Read the collection again, with what other processes have changed."""
        searcher = await self._here()
        store = await asyncio.to_thread(open_or_new, self._destination, create=True)
        await asyncio.to_thread(searcher.replace, store)

    async def aclose(self) -> None:
        """Close the collection, and its own embedder. Later calls raise ClosedError."""
        try:
            await asyncio.to_thread(self.close_store)
        finally:
            if self._owned:
                await self._embedder.aclose()

    def close_store(self) -> None:
        """Close the store only. Blocks."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._searcher.close()
            else:
                never_free(self._searcher)

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy."""
        raise UsageError("a collection cannot be pickled or copied; open it in each process")

    async def _model_name(self) -> str:
        """Return the name of the model that made the collection."""
        searcher = await self._opened()
        return self._model or model_name(searcher.store.space, self._embedder.config)

    async def _opened(self) -> Searcher:
        searcher = await self._here()
        self._check_exists()
        return searcher

    async def _here(self) -> Searcher:
        """Return the searcher; in a forked process, of a store that was opened there."""
        if self._closed:
            raise ClosedError("the collection is closed; open it again")
        if self._process != os.getpid():
            # Its connections and threads are the parent's: freeing it could end them there.
            never_free(self._searcher)
            self._use(await asyncio.to_thread(open_or_new, self._destination, create=True))
        return self._searcher

    def _check_exists(self) -> None:
        if not self.exists:
            raise UsageError(f"{self.destination} has not been created yet; call sync first")


class Opening:
    """A collection that is being opened: `await` it, or use it in an `async with` block, which closes it."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, AsyncCollection]]) -> None:
        self._opening = opening
        self._collection: AsyncCollection | None = None

    def __await__(self) -> Generator[Any, None, AsyncCollection]:
        return self._opening().__await__()

    async def __aenter__(self) -> AsyncCollection:
        self._collection = await self._opening()
        return self._collection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._collection is not None:
            await self._collection.aclose()

    def __enter__(self) -> NoReturn:
        raise UsageError("use `async with`; in code without an event loop, use embedway.collections.open")

    def __exit__(self, *_: object) -> None:
        """Do nothing: the block was never entered."""


def open_async(
    destination: str | os.PathLike[str],
    *,
    embedder: AsyncEmbedder | None = None,
    config: Config | None = None,
    model: str | None = None,
    create: bool = False,
) -> Opening:
    """Open the collection at a destination, with the arguments of `AsyncCollection.open`.

    The result is awaited, or used in an `async with` block.
    """
    return Opening(
        lambda: AsyncCollection.open(destination, embedder=embedder, config=config, model=model, create=create)
    )
