"""Blocking Python interface of collections."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar, overload

from embedway._public import blocking_form_of
from embedway._sync import Embedder
from embedway.arguments import as_texts
from embedway.collections.collection import AsyncCollection
from embedway.collections.opening import check_opening, open_or_new
from embedway.errors import ClosedError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Unpack

    from embedway.collections.query import SearchSettings
    from embedway.collections.record import Record
    from embedway.collections.search_results import SearchAnswer
    from embedway.collections.values import Fusion, SearchMode
    from embedway.collections.where import Condition
    from embedway.config import Config
    from embedway.space import Space

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Collection, P], T]:
    """Return the blocking form of a method, with its arguments and documentation."""

    @functools.wraps(method)
    def call(self: Collection, /, *args: P.args, **options: P.kwargs) -> T:
        return self._wait(method(self._collection, *args, **options))

    return call


@blocking_form_of(AsyncCollection)
class Collection:
    """A collection that is open: the blocking interface.

    Open it in a `with embedway.collections.open(...)` block, or call `close`. Thread-safe. It works while an event loop
    is running, as in Jupyter, and blocks this loop meanwhile; in a server, use `open_async`. The arguments are those of
    `AsyncCollection`.
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

    documents = _blocking(AsyncCollection.documents)
    sync = _blocking(AsyncCollection.sync)
    dry_run = _blocking(AsyncCollection.dry_run)
    verify = _blocking(AsyncCollection.verify)
    plan_verify = _blocking(AsyncCollection.plan_verify)
    forget = _blocking(AsyncCollection.forget)
    export = _blocking(AsyncCollection.export)
    refresh = _blocking(AsyncCollection.refresh)

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
                highlight=highlight,
                fusion=fusion,
                merge=merge,
            )
        )

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
    destination: str | os.PathLike[str],
    *,
    embedder: Embedder | None = None,
    config: Config | None = None,
    model: str | None = None,
    create: bool = False,
) -> Collection:
    """Open the collection at a destination, with the arguments of `AsyncCollection.open`.

    `embedder` is a blocking `Embedder`; it stays open.
    """
    destination, model, create = check_opening(destination, embedder, config, model, create, Embedder)
    used = Embedder(config=config) if embedder is None else embedder
    try:
        store = open_or_new(destination, create=create)
    except BaseException:
        if embedder is None:
            used.close()
        raise
    inner = used._embedder  # noqa: SLF001  its asynchronous form
    return Collection(AsyncCollection(destination, store, inner, model=model), used, owned=embedder is None)
