"""Messages of a process to its supervisor, over a pipe: heartbeats, and the error with which it cannot start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
from typing import TYPE_CHECKING

from embedway.errors import ConfigError, EmbedwayError, MissingExtraError, RuntimeUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time between two heartbeats, in seconds: of a process that serves, and of one that starts.
_BEAT_S, _STARTING_S = 1.0, 0.1
#: Heartbeats: the process starts, it serves, or a batch in it makes no progress.
STARTING, SERVING, HANGING = b"s", b"r", b"h"
#: Begins the last message of a process that cannot start. Its error follows, pickled.
FAILED = b"!"


async def send_heartbeats(descriptor: int, state: Callable[[], bytes]) -> None:
    """Write heartbeats until the task is cancelled. `state` returns the next one."""
    os.set_blocking(descriptor, False)
    while True:
        now = state()
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, now)
        await asyncio.sleep(_STARTING_S if now == STARTING else _BEAT_S)


def send_failure(descriptor: int, error: BaseException) -> bool:
    """Write an error that another start would not heal. Return False for any other error."""
    if not isinstance(error, (ConfigError, MissingExtraError, RuntimeUnavailableError, UsageError)):
        return False
    os.write(descriptor, FAILED + pickle.dumps(error))
    return True


def read_failure(message: bytes) -> EmbedwayError | None:
    """Return the error in the messages of a process; None if there is no complete one."""
    _, found, pickled = message.partition(FAILED)
    if not found:
        return None
    try:
        error = pickle.loads(pickled)  # noqa: S301  from a process that this one has forked
    except (pickle.UnpicklingError, EOFError):
        return None
    return error if isinstance(error, EmbedwayError) else None
