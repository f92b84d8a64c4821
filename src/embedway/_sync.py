"""The blocking API: runs the asynchronous API on an event loop in a thread."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread
import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from embedway._embedder import AsyncEmbedder
from embedway._public import blocking_form_of, public
from embedway._sync_admin import CacheAdmin, ModelAdmin, PinAdmin, QualityAdmin
from embedway.arguments import as_texts, check_names
from embedway.errors import ClosedError, UsageError
from embedway.forks import at_fork

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from types import TracebackType
    from typing import Unpack

    from embedway._options import EmbedOptions
    from embedway.config import Config
    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection
    from embedway.telemetry.hooks import Hook
    from embedway.types import EmbedResult, InputType, Overflow, Plan, RerankResult, Texts
    from embedway.weights.store import ProgressSink

T = TypeVar("T")

#: Maximum wait at interpreter exit for an embedder to store its vectors, in seconds.
_LAST_S = 30.0


class _Running:
    """An embedder's event loop and its thread, both created at the first call.

    They outlive an unclosed `Embedder` until its vectors are stored. In a forked process, the first call creates new
    ones.
    """

    def __init__(self, embedder: AsyncEmbedder) -> None:
        self._embedder = embedder
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._closing: concurrent.futures.Future[None] | None = None
        # Reentrant: the garbage collector may call `leave` in a thread that holds it.
        self._lock = threading.RLock()
        _all.add(self)

    def leave(self, *, drain: bool = False) -> None:
        """Start to close the embedder. Does not wait, because the garbage collector calls it in any thread."""
        with self._lock:
            loop, was_closed, self._is_closed = self._loop, self._is_closed, True
            if loop is None:
                return
            if was_closed:
                if not drain:  # another thread may drain: end the calls that it waits for
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        loop.call_soon_threadsafe(lambda: loop.create_task(self._embedder.aclose()))
                return
            self._closing = asyncio.run_coroutine_threadsafe(self._embedder.aclose(drain=drain), loop)
            self._closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))

    def end(self, timeout_s: float | None = None, *, drain: bool = False) -> None:
        """Close the embedder, and wait for at most `timeout_s` seconds."""
        self.leave(drain=drain)
        if self._closing is None or self._thread is None or threading.current_thread() is self._thread:
            return  # never used; or called from a hook, which must not wait for itself
        try:
            self._closing.result(timeout_s)
        finally:
            _open.discard(self)
        self._thread.join(timeout_s)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result. Raises ClosedError after `leave`."""
        try:
            future = self._submit(work)
        except BaseException:
            work.close()  # a coroutine that never runs would cause a warning
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("the embedder was closed before this call ended") from None
        except BaseException:
            future.cancel()  # an interrupt of the waiting thread must not leave the work running
            raise

    def forget(self) -> None:
        """Forget the thread of the parent process, which does not exist in a forked one."""
        self._loop = self._thread = self._closing = None
        self._lock = threading.RLock()

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if threading.current_thread() is self._thread:
            raise UsageError(
                "the embedder was called from its own thread, such as from a hook, and would wait for itself: "
                "call it from another thread, or use AsyncEmbedder"
            )
        with self._lock:
            if self._is_closed:
                raise ClosedError("the embedder is closed; create a new one")
            if self._loop is None:
                if _exiting.is_set():
                    raise ClosedError("the process is exiting, so no embedder can start")
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=[self._loop], name="embedway-loop", daemon=True)
                self._thread.start()
                _open.add(self)
            # In a copy of the caller's context variables: its current span is the parent of the call's.
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                try:
                    loop.run_forever()
                    break
                except (KeyboardInterrupt, SystemExit):
                    continue  # a task raised it, and its caller receives it; the other calls continue
            loop.run_until_complete(_cancel_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            _open.discard(self)


async def _cancel_tasks() -> None:
    """Cancel all other tasks, so that no caller waits forever for a task that a failed `aclose` left."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class _User:
    """Reference that an embedder and its groups share: the loop is closed when none of them is left.

    The finalizer is not the embedder's, because `Embedder().models` outlives it, and because a group that refers to its
    embedder would be a cycle, which delays the finalizer.
    """

    def __init__(self, running: _Running) -> None:
        self._running = running
        weakref.finalize(self, running.leave).atexit = False

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        return self._running.wait(work)


#: Loops of embedders that may still have vectors to store.
_open: set[_Running] = set()
_all: weakref.WeakSet[_Running] = weakref.WeakSet()
#: Set when the process begins to exit. A new loop could not end before the process does.
_exiting = threading.Event()


def _end_all() -> None:
    """Store the vectors of unclosed embedders before the process exits. Pending calls raise ClosedError."""
    _exiting.set()
    left = list(_open)
    for one in left:
        one.leave()
    end = time.monotonic() + _LAST_S
    for one in left:
        with contextlib.suppress(Exception):  # too late to report it
            one.end(max(0.0, end - time.monotonic()))


# Python calls these before it waits for other threads, last registered first. Closing needs executors, which refuse
# calls after their own exit function: this module imports them, so that it registers later.
getattr(threading, "_register_atexit", atexit.register)(_end_all)


def _after_fork() -> None:
    # Also those that are not open yet: another thread may have been inside its first call.
    for one in list(_all):
        one.forget()
    _open.clear()
    _exiting.clear()


at_fork(after_in_child=_after_fork)


@public
@blocking_form_of(AsyncEmbedder)
class Embedder:
    """Blocking embedder: computes vectors of texts, and scores of documents.

    It is `AsyncEmbedder` for code without an event loop, or with one that it may block. Use it in a `with` block, or
    call `close`. Thread-safe. It runs its own event loop in a thread, so it also works while another loop is running,
    as in Jupyter. If it is not closed, computed vectors are stored when the process exits.

    The arguments are those of `AsyncEmbedder`.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Config | None = None,
        progress: ProgressSink | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._embedder = AsyncEmbedder(model, config=config, progress=progress, hooks=hooks)
        self.model = self._embedder.model
        self.config = self._embedder.config
        self._running = _Running(self._embedder)
        user = _User(self._running)
        self._wait = user.wait
        self.cache = CacheAdmin(self._embedder.cache, user.wait)
        self.pins = PinAdmin(self._embedder.pins, user.wait)
        self.models = ModelAdmin(self._embedder.models, user.wait)
        self.quality = QualityAdmin(self._embedder.quality, user.wait)

    def __repr__(self) -> str:
        return f"<embedway.Embedder model={self.model!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def embed_query(self, text: Texts, **options: Unpack[EmbedOptions]) -> EmbedResult:
        """Embed a query, or several, to search with: `embed` with `input_type="query"`."""
        return self.embed(text, input_type="query", **options)

    def embed_documents(self, texts: Texts, **options: Unpack[EmbedOptions]) -> EmbedResult:
        """Embed documents to search in: `embed` with `input_type="document"`."""
        return self.embed(texts, input_type="document", **options)

    def embed(
        self,
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        priority: int = 0,
        deadline_s: float | None = None,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        api_key_name: str = "",
        backup: Sequence[str] | None = None,
        normalize: bool | None = None,
    ) -> EmbedResult:
        """Embed texts; row i of the result is the vector of text i."""
        return self._wait(
            self._embedder.embed(
                as_texts(texts, "texts"),  # read here: an iterator may belong to the caller's thread
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
                backup=check_names(backup, "backup"),
                normalize=normalize,
            )
        )

    def rerank(
        self,
        query: str,
        documents: Texts,
        *,
        model: str | None = None,
        top_n: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        max_cost: Amount | None = None,
        collection: str = "",
        api_key_name: str = "",
    ) -> RerankResult:
        """Score how well each document answers the query, and order the documents, best first."""
        return self._wait(
            self._embedder.rerank(
                query,
                as_texts(documents, "documents"),
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
        texts: Texts,
        *,
        input_type: InputType = "document",
        model: str | None = None,
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
        partial: bool = False,
        criteria: ModelSelectionCriteria | str | None = None,
        collection: str = "",
        max_cost: Amount | None = None,
        backup: Sequence[str] | None = None,
        normalize: bool | None = None,
    ) -> Plan:
        """Return what `embed` would do with these texts: model, tokens, batches and cost."""
        return self._wait(
            self._embedder.plan(
                as_texts(texts, "texts"),
                input_type=input_type,
                model=model,
                dimensions=dimensions,
                on_overflow=on_overflow,
                partial=partial,
                criteria=criteria,
                collection=collection,
                max_cost=max_cost,
                backup=check_names(backup, "backup"),
                normalize=normalize,
            )
        )

    def plans(
        self,
        texts: Texts,
        *,
        models: Sequence[str] | None = None,
        input_type: InputType = "document",
        dimensions: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> list[Plan]:
        """Return a plan for each of `models`, by default for every model that can run here now."""
        return self._wait(
            self._embedder.plans(
                as_texts(texts, "texts"),
                models=check_names(models, "models"),
                input_type=input_type,
                dimensions=dimensions,
                on_overflow=on_overflow,
            )
        )

    def select(
        self,
        texts: Texts,
        criteria: ModelSelectionCriteria | str | None = None,
        *,
        models: Sequence[str] | None = None,
        anywhere: bool = False,
    ) -> Selection:
        """Select the best model for these texts by criteria, with the score of each model."""
        listed = as_texts(texts, "texts")
        return self._wait(self._embedder.select(listed, criteria, models=models, anywhere=anywhere))

    def close(self, *, drain: bool = False) -> None:
        """Release all models, connections and threads. Later calls raise ClosedError.

        Calls of other threads that have not ended raise ClosedError, and their requests to services are dropped; these
        may be billed, and are booked so. With `drain`, calls are waited for. Computed vectors are stored in both cases.
        """
        self._running.end(drain=drain)

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy."""
        self._embedder.__reduce__()
