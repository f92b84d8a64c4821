"""A route's places for requests under way: who waits for one goes by urgency, then in the order of arrival."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from typing import TYPE_CHECKING

from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DOCUMENTS = Urgency()


class PrioritySemaphore:
    """So many places, and with `express` one more, which queries and priorities above 5 alone may take.

    What waits is due as `Urgency` says, so that nothing is overtaken for longer than its slack. Used from one loop.
    """

    def __init__(self, limit: int, *, express: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._express = express
        self._clock = clock
        self._taken = 0
        self._express_taken = False
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def place(self, urgency: Urgency = DOCUMENTS) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        if self._express and not self._express_taken and self._taken >= self.limit and _is_urgent(urgency):
            self._express_taken = True
            try:
                yield
            finally:
                self._express_taken = False
            return
        await self._take(urgency)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, urgency: Urgency) -> None:
        if self._taken < self.limit and not self._waiting:
            self._taken += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = float("-inf") if urgency.never_waits else urgency.due(self._clock())
        heapq.heappush(self._waiting, (due, next(self._numbers), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # The place was given in the same turn in which the caller went away.
                self._give_back()
            raise

    def _give_back(self) -> None:
        self._taken -= 1
        while self._waiting and self._taken < self.limit:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                self._taken += 1
                future.set_result(None)


def _is_urgent(urgency: Urgency) -> bool:
    return urgency.query or urgency.never_waits
