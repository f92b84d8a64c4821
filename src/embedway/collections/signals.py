"""SIGTERM as a cancellation, so that a job cleans up before it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def sigterm_cancels() -> Iterator[list[int]]:
    """Let SIGTERM cancel the current task, so that it can clean up; the list is not empty after that.

    Only where nobody else handles the signal, and where a handler can be set at all (the main thread).
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
