"""Semaphore of a route. Slots are granted by urgency, then in order of arrival; an overloaded service gets fewer."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from typing import TYPE_CHECKING

from embedway.urgency import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from embedway.urgency import Urgency


#: Answers for each allowed slot after which one more slot is allowed.
_ANSWERS_PER_SLOT = 10


class PrioritySemaphore:
    """Semaphore of `limit` slots, plus with `express` one slot for queries and priorities above 5 only.

    At most `allowed` slots are used: `narrow` lowers this number at once, and `widen` raises it slowly.

    Waiters are ordered by the due time of their `Urgency`, so that none is overtaken for longer than its slack. Used
    from one event loop. Actual waits are inside `on_wait`.
    """

    def __init__(
        self,
        limit: int,
        *,
        express: bool = True,
        clock: Callable[[], float] = time.monotonic,
        on_wait: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self.limit = limit
        self._allowed = float(limit)
        self._express = express
        self._clock = clock
        self._on_wait = on_wait
        self._taken = 0
        self._express_taken = False
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def is_busy(self) -> bool:
        """Whether the next caller has to wait, unless it can use the express slot."""
        return self._taken >= self.allowed or bool(self._waiting)

    @property
    def allowed(self) -> int:
        """Maximum slots in use, from 1 to the limit."""
        return int(self._allowed)

    def narrow(self) -> None:
        """Allow one slot less than are taken now, because the service refused a request for too many at a time."""
        self._allowed = float(max(1, min(self.allowed, self._taken) - 1))

    def widen(self) -> None:
        """Count an answer. After `_ANSWERS_PER_SLOT` answers for each slot, one more slot is allowed."""
        if self._allowed < self.limit:
            self._allowed = min(float(self.limit), self._allowed + 1 / (_ANSWERS_PER_SLOT * self.allowed))

    @contextlib.asynccontextmanager
    async def hold(self, urgency: Urgency = DOCUMENTS) -> AsyncIterator[None]:
        """Wait for a slot and hold it."""
        release = await self.take(urgency)
        try:
            yield
        finally:
            release()

    async def take(self, urgency: Urgency = DOCUMENTS) -> Callable[[], None]:
        """Wait for a slot, and return the function that releases it."""
        is_full = self._taken >= self.allowed
        may_exceed = self._express and self.allowed == self.limit  # an overloaded service gets none beyond
        if is_full and may_exceed and not self._express_taken and (urgency.query or urgency.never_waits):
            self._express_taken = True
            return self._release_express
        if is_full or self._waiting:
            with self._on_wait():
                await self._wait(urgency)
        else:
            self._taken += 1
        return self._release

    async def _wait(self, urgency: Urgency) -> None:
        """Wait until a slot is granted."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = float("-inf") if urgency.never_waits else urgency.due(self._clock())
        heapq.heappush(self._waiting, (due, next(self._numbers), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # The slot was granted in the same event loop iteration in which the caller was cancelled.
                self._release()
            raise

    def _release_express(self) -> None:
        self._express_taken = False

    def _release(self) -> None:
        """Release a slot and grant it to the next waiter."""
        self._taken -= 1
        while self._waiting and self._taken < self.allowed:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                self._taken += 1
                future.set_result(None)
