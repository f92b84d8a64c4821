"""Batching across callers: work begins at once while a route is idle, and gathers while it is busy.

What waits is ordered by when it is due: queries and higher priorities sooner, and nothing is overtaken for longer than
its slack, so that nothing starves. Queries wait for queries alone: one more than the slots is begun for them.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from embedway.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

J = TypeVar("J")
R = TypeVar("R")

#: Work of a priority above this never waits for other callers' work.
_MAY_WAIT = 5
#: How long after it came work is due: documents this long after queries, and each step of priority so much sooner.
_DOCUMENT_SLACK_S, _STEP_S = 0.5, 0.1

#: So many of those that wait are looked at for one piece of work.
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Urgency:
    """How soon work is wanted: its priority, 0 to 9, and whether somebody waits for the answer to a query."""

    priority: int = 0
    query: bool = False

    @property
    def never_waits(self) -> bool:
        """Whether it is not to wait for other callers' work."""
        return self.priority > _MAY_WAIT

    def due(self, now: float) -> float:
        """When it is to have begun, if it comes now."""
        return now + (0.0 if self.query else _DOCUMENT_SLACK_S) + (_MAY_WAIT - self.priority) * _STEP_S


class Crew(ABC, Generic[J, R]):
    """What does the work of a route. `eager` pieces of work begin without waiting; `slots` are under way at most."""

    eager: int
    slots: int
    #: How long work gathers where `eager` pieces are under way, and a slot is free.
    max_wait_s: float

    @abstractmethod
    def choose(self, waiting: Sequence[J], free: int) -> tuple[list[int], bool]:
        """Which of the jobs go together, the first and others by position, and whether there is no room for more.

        They are in the order in which they are due, all of them queries or none. `free` pieces of work can begin now
        and share them.
        """

    @abstractmethod
    async def alone(self, job: J) -> R:
        """Do one job."""

    @abstractmethod
    async def together(self, jobs: Sequence[J]) -> list[R | Exception]:
        """Do several as one: what came of each."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[J, R]):
    job: J
    due: float
    since: float
    future: asyncio.Future[R]


class Gather(Generic[J, R]):
    """The work of all callers for one route. Used from one event loop."""

    def __init__(
        self,
        crew: Crew[J, R],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        """`later` calls a function after so many seconds; the event loop's by default."""
        self._crew = crew
        self._clock = clock
        self._later = later
        self._queries: list[_Waiting[J, R]] = []
        self._others: list[_Waiting[J, R]] = []
        #: Callers that came in this turn of the event loop.
        self._arriving = 0
        #: Whether work of several callers ended since the route was idle.
        self._together = False
        self._running = 0
        self._running_queries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: J, urgency: Urgency, *, behind_s: float = 0.0) -> R:
        """Do a job, alone or with those of others; `behind_s` is how much later it is due than its urgency says.

        A caller that is cancelled takes its job out of the queue; what is under way for nobody is cancelled.
        """
        if urgency.never_waits:
            return await self._crew.alone(job)
        if self._running or self._together:
            # Those whose work ended together come again together: a turn of the event loop shows who else is there.
            self._arriving += 1
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self._arriving -= 1
                self._pump()
                raise
            self._arriving -= 1
        crew, query = self._crew, urgency.query
        queue = self._queries if query else self._others
        idle = self._running < crew.eager or (query and not self._running_queries)
        if idle and not queue and not self._arriving:
            self._begin(query=query)
            try:
                return await crew.alone(job)
            finally:
                self._together = self._together and self._running > 1
                self._end(query=query)
        now = self._clock()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        bisect.insort(queue, _Waiting(job, urgency.due(now) + behind_s, now, future), key=lambda one: one.due)
        self._pump()
        return await future

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(not one.future.done() for queue in (self._queries, self._others) for one in queue)

    def _begin(self, *, query: bool) -> None:
        self._running += 1
        self._running_queries += query

    def _end(self, *, query: bool) -> None:
        self._running -= 1
        self._running_queries -= query
        self._pump()

    def _pump(self) -> None:
        """Begin what can begin now; the last of those who come together does it for all."""
        if self._arriving:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest = float("inf")
        for query, queue in ((True, self._queries), (False, self._others)):
            while head := _head(queue):
                express = query and not self._running_queries
                if not express and (self._running >= self._crew.slots or self._is_behind(head, query=query)):
                    break
                free = max(1, self._crew.eager - self._running)
                chosen, full = self._crew.choose([one.job for one in queue[:_LOOKED_AT]], free)
                gathers = self._crew.max_wait_s - (self._clock() - head.since)
                if self._running >= self._crew.eager and not full and not express and gathers > 0:
                    rest = min(rest, gathers)
                    break
                picked = [queue[position] for position in chosen]
                for position in reversed(chosen):
                    del queue[position]
                self._start([one for one in picked if not one.future.done()], query=query)
        if rest != float("inf"):
            later = self._later if self._later is not None else asyncio.get_running_loop().call_later
            self._timer = later(rest, self._pump)

    def _is_behind(self, head: _Waiting[J, R], *, query: bool) -> bool:
        """Whether a query is to leave a slot to other work that was due before it."""
        other = _head(self._others) if query else None
        return other is not None and other.due < head.due

    def _start(self, picked: list[_Waiting[J, R]], *, query: bool) -> None:
        self._begin(query=query)
        task = asyncio.create_task(self._carry(picked, query=query))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def left(future: asyncio.Future[R]) -> None:
            if future.cancelled() and all(one.future.cancelled() for one in picked):
                task.cancel()

        for one in picked:
            one.future.add_done_callback(left)

    async def _carry(self, picked: list[_Waiting[J, R]], *, query: bool) -> None:
        results: Sequence[R | Exception] = ()
        try:
            if len(picked) == 1:
                results = [await self._crew.alone(picked[0].job)]
            else:
                results = await self._crew.together([one.job for one in picked])
        except asyncio.CancelledError:
            results = [ClosedError("this embedder was closed; make a new one")] * len(picked)
            raise
        except Exception as error:  # noqa: BLE001  handed to the callers, whatever it is
            results = [error] * len(picked)
        finally:
            for one, result in zip(picked, results, strict=True):
                if one.future.done():
                    continue
                if isinstance(result, Exception):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)
            self._together = len(picked) > 1 or (self._together and self._running > 1)
            self._end(query=query)


def _head(queue: list[_Waiting[J, R]]) -> _Waiting[J, R] | None:
    """The first that somebody still waits for."""
    while queue and queue[0].future.done():
        del queue[0]
    return queue[0] if queue else None
