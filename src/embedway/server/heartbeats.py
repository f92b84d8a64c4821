"""Heartbeats of a process, which it writes to a pipe of its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time between two heartbeats, in seconds, and before a process serves.
_BEAT_S, _STARTING_S = 1.0, 0.1
#: Heartbeats: the process is starting, it serves, or a batch in it makes no progress.
STARTING, SERVING, HANGING = b"s", b"r", b"h"


async def send_heartbeats(descriptor: int, state: Callable[[], bytes]) -> None:
    """Write heartbeats until the task is cancelled. `state` returns the next one."""
    os.set_blocking(descriptor, False)
    while True:
        now = state()
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, now)
        await asyncio.sleep(_STARTING_S if now == STARTING else _BEAT_S)
