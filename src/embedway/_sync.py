"""The blocking face: an event loop in a thread of its own, and no logic."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from embedway._embedder import AsyncEmbedder
from embedway.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult
    from embedway.config import Config
    from embedway.ledger.pins import Pin
    from embedway.local.tune import TuneReport
    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection
    from embedway.telemetry.hooks import Hook
    from embedway.types import EmbedResult, InputType, ModelDescription, Overflow, Plan, RerankResult, Vectors
    from embedway.weights.store import ProgressSink

T = TypeVar("T")

#: How long the end of the process waits for what was computed to be stored.
_LAST_S = 30.0


class _Running:
    """An embedder's event loop and its thread. They outlive an `Embedder` that nobody closed, until all is stored."""

    def __init__(self, embedder: AsyncEmbedder) -> None:
        self._embedder = embedder
        self._process = os.getpid()
        self._closing: Future[None] | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="embedway-loop", daemon=True)
        self._thread.start()
        _open.add(self)

    def leave(self) -> None:
        """Store what was computed and give all back; does not wait, because it is called wherever garbage is found."""
        if self._closing is None and self._process == os.getpid():
            self._closing = asyncio.run_coroutine_threadsafe(self._embedder.aclose(), self.loop)
            self._closing.add_done_callback(lambda _: self.loop.call_soon_threadsafe(self.loop.stop))

    def end(self, timeout_s: float | None = None) -> None:
        """The same, and wait for it."""
        self.leave()
        try:
            if self._closing is not None:
                self._closing.result(timeout_s)
        finally:
            _open.discard(self)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()
        _open.discard(self)


#: Those of which not all may be stored yet.
_open: set[_Running] = set()


def _end_all() -> None:
    """Store what was computed by embedders that nobody closed, before the process ends."""
    for one in list(_open):
        with contextlib.suppress(Exception):  # it is too late to hear of it
            one.end(_LAST_S)


# Before threads can no longer be begun: `atexit` comes after that, and storing may need one.
getattr(threading, "_register_atexit", atexit.register)(_end_all)


class Embedder:
    """`AsyncEmbedder` for code without an event loop. Use it in a `with` block, or call `close`.

    Safe to share between threads. Where it is not closed, what was computed is stored when the process ends.
    """

    def __init__(
        self, config: Config | None = None, *, progress: ProgressSink | None = None, hooks: Sequence[Hook] = ()
    ) -> None:
        self._embedder = AsyncEmbedder(config, progress=progress, hooks=hooks)
        self._running = _Running(self._embedder)
        self._loop = self._running.loop
        weakref.finalize(self, self._running.leave).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        priority: int = 0,
        deadline_s: float | None = None,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        api_key_name: str = "",
    ) -> EmbedResult:
        """See `AsyncEmbedder.embed`."""
        return self._wait(
            self._embedder.embed(
                texts,
                input_type=input_type,
                model=model,
                dimensions=dimensions,
                on_overflow=on_overflow,
                partial=partial,
                priority=priority,
                deadline_s=deadline_s,
                criteria=criteria,
                collection=collection,
                max_cost=max_cost,
                api_key_name=api_key_name,
            )
        )

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        max_cost: Amount | None = None,
        collection: str = "",
        api_key_name: str = "",
    ) -> RerankResult:
        """See `AsyncEmbedder.rerank`."""
        return self._wait(
            self._embedder.rerank(
                query,
                documents,
                model=model,
                top_n=top_n,
                on_overflow=on_overflow,
                partial=partial,
                max_cost=max_cost,
                collection=collection,
                api_key_name=api_key_name,
            )
        )

    def plan(
        self,
        texts: str | Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
    ) -> Plan:
        """See `AsyncEmbedder.plan`."""
        return self._wait(
            self._embedder.plan(
                texts,
                input_type=input_type,
                model=model,
                dimensions=dimensions,
                on_overflow=on_overflow,
                partial=partial,
                criteria=criteria,
                collection=collection,
                max_cost=max_cost,
            )
        )

    def plans(
        self,
        texts: str | Sequence[str],
        *,
        models: Sequence[str] | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> list[Plan]:
        """See `AsyncEmbedder.plans`."""
        return self._wait(
            self._embedder.plans(
                texts, models=models, input_type=input_type, dimensions=dimensions, on_overflow=on_overflow
            )
        )

    def candidates(self, dimensions: int | None = None) -> list[str]:
        """See `AsyncEmbedder.candidates`."""
        return self._wait(self._embedder.candidates(dimensions))

    def select(
        self,
        texts: str | Sequence[str],
        criteria: ModelSelectionCriteria | str | None = None,
        *,
        anywhere: bool = False,
    ) -> Selection:
        """See `AsyncEmbedder.select`."""
        return self._wait(self._embedder.select(texts, criteria, anywhere=anywhere))

    def pins(self) -> list[Pin]:
        """See `AsyncEmbedder.pins`."""
        return self._wait(self._embedder.pins())

    def unpin(self, collection: str) -> bool:
        """See `AsyncEmbedder.unpin`."""
        return self._wait(self._embedder.unpin(collection))

    def prove_pin(self, collection: str, texts: Sequence[str], vectors: Vectors | Sequence[Vectors]) -> float:
        """See `AsyncEmbedder.prove_pin`."""
        return self._wait(self._embedder.prove_pin(collection, texts, vectors))

    def cache_stats(self) -> CacheStats:
        """See `AsyncEmbedder.cache_stats`."""
        return self._wait(self._embedder.cache_stats())

    def clear_cache(
        self,
        *,
        model: str | None = None,
        space_id: str | None = None,
        namespace: str | None = None,
        older_than_s: float | None = None,
    ) -> ClearResult:
        """See `AsyncEmbedder.clear_cache`."""
        return self._wait(
            self._embedder.clear_cache(model=model, space_id=space_id, namespace=namespace, older_than_s=older_than_s)
        )

    def check_cache(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType = "document",
        model: str = "auto",
        on_overflow: Overflow | None = None,
        sample: int = 100,
    ) -> CacheCheck:
        """See `AsyncEmbedder.check_cache`."""
        return self._wait(
            self._embedder.check_cache(
                texts, input_type=input_type, model=model, on_overflow=on_overflow, sample=sample
            )
        )

    def describe(self, model: str = "auto", dimensions: int | None = None) -> ModelDescription:
        """See `AsyncEmbedder.describe`."""
        return self._wait(self._embedder.describe(model, dimensions))

    def warm(self, model: str = "auto") -> None:
        """See `AsyncEmbedder.warm`."""
        self._wait(self._embedder.warm(model))

    def tune(self, model: str = "auto", *, progress: Callable[[str], None] | None = None) -> TuneReport:
        """See `AsyncEmbedder.tune`."""
        return self._wait(self._embedder.tune(model, progress=progress))

    def close(self) -> None:
        """Give all models and the thread back."""
        if not self._loop.is_closed():
            self._running.end()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise ClosedError("this embedder was closed; make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt of the waiting thread must not leave the work running
            raise
