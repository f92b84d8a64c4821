"""Watch for a client that disconnects while its request is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Receive

#: A request that takes longer is watched, in seconds: most requests end earlier.
_WATCH_AFTER_S = 0.02


class ClientWatch:
    """Cancels a task if the client disconnects. Create it when the body of the request is complete."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any] | None = None) -> None:
        """Begin to watch. `task` is by default the current one."""
        self.has_left = False
        self._receive = receive
        self._task = task or asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if self._task is not None:
            self._task.cancel()

    def uncancel(self) -> None:
        """Take the cancellation back, so that the task goes on."""
        if self._task is not None:
            self._task.uncancel()

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
