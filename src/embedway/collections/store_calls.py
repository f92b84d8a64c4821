"""Blocking calls of a store in one worker thread, so that no two of them run at once, also after a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from embedway.collections.stores.base import Rows, Store
    from embedway.worker import Worker


@asynccontextmanager
async def locked(store: Store, worker: Worker) -> AsyncIterator[None]:
    """Hold the lock of a store until the calls of its worker have ended. Raises CollectionLockedError."""
    locks = ExitStack()
    try:
        await worker.call(locks.enter_context, store.lock())
        yield
    finally:
        # The worker releases the lock after its earlier calls, also if this wait is cancelled.
        await worker.call(locks.close)


async def uncancelled(future: asyncio.Future[None]) -> None:
    """Wait for a commit, and ignore cancellations, because the destination may already exist."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
    future.result()


async def batches_of(worker: Worker, iterate: Callable[[], Iterator[Rows]]) -> AsyncGenerator[Rows]:
    """Iterate over rows in a worker, one batch at a time. Use it with `aclosing`: the iterator is closed there too."""
    rows = iterate()
    try:
        while (batch := await worker.call(next, rows, None)) is not None:
            yield batch
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            await worker.call(close)
