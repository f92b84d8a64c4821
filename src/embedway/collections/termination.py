"""SIGTERM cancels a job, so that it can clean up."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

T = TypeVar("T")


async def terminable(work: Coroutine[Any, Any, T]) -> T:
    """Await a job. After SIGTERM, the job is cancelled and cleans up, and this raises `SystemExit(143)`."""
    with _sigterm_cancels() as terminated:
        try:
            result = await work
        except asyncio.CancelledError:
            if terminated:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        if terminated:
            raise SystemExit(128 + signal.SIGTERM)
        return result


@contextmanager
def _sigterm_cancels() -> Iterator[list[int]]:
    """Cancel the current task on SIGTERM, so that it can clean up; the list is not empty after that.

    Only if the signal has no other handler, and if a handler can be set (in the main thread, not on Windows).
    """
    received: list[int] = []
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    ours = (
        threading.current_thread() is threading.main_thread()
        and os.name != "nt"
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )

    def terminate() -> None:
        received.append(signal.SIGTERM)
        if task is not None:
            task.cancel()

    if ours:
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield received
    finally:
        if ours:
            loop.remove_signal_handler(signal.SIGTERM)
