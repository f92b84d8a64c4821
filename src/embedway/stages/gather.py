"""Batching across callers: work begins at once while a route is idle, and gathers while it is busy.

What waits is ordered by when it is due: queries and higher priorities sooner, and nothing is overtaken for longer than
its slack, so that nothing starves.
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
    from collections.abc import Callable, Iterable, Sequence

J = TypeVar("J")
R = TypeVar("R")

#: Work of a priority above this never waits for other callers' work.
_MAY_WAIT = 5
#: How long after it came work is due: documents this long after queries, and each step of priority so much sooner.
_DOCUMENT_SLACK_S, _STEP_S = 0.5, 0.1


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
    #: Whether one query may be under way beyond the slots.
    express: bool
    #: How long work gathers where `eager` pieces are under way, and a slot is free.
    max_wait_s: float

    @abstractmethod
    def choose(self, waiting: Iterable[J]) -> tuple[list[int], bool]:
        """Which of the jobs go together, the first and others by position, and whether there is no room for more."""

    @abstractmethod
    async def alone(self, job: J) -> R:
        """Do one job."""

    @abstractmethod
    async def together(self, jobs: Sequence[J]) -> list[R | Exception]:
        """Do several as one: what came of each."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[J, R]):
    job: J
    query: bool
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
        self._queue: list[_Waiting[J, R]] = []
        self._running = 0
        self._queries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: J, urgency: Urgency, *, behind_s: float = 0.0) -> R:
        """Do a job, alone or with those of others; `behind_s` is how much later it is due than its urgency says.

        A caller that is cancelled takes its job out of the queue; what is under way for nobody is cancelled.
        """
        if urgency.never_waits:
            return await self._crew.alone(job)
        if not self._queue and self._running < self._crew.eager:
            self._begin(query=urgency.query)
            try:
                return await self._crew.alone(job)
            finally:
                self._end(query=urgency.query)
        now = self._clock()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, urgency.query, urgency.due(now) + behind_s, now, future)
        bisect.insort(self._queue, waiting, key=lambda one: one.due)
        self._pump()
        return await future

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(not one.future.done() for one in self._queue)

    def _begin(self, *, query: bool) -> None:
        self._running += 1
        self._queries += query

    def _end(self, *, query: bool) -> None:
        self._running -= 1
        self._queries -= query
        self._pump()

    def _pump(self) -> None:
        """Begin what can begin now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            head = self._queue[0]
            if head.future.done():
                del self._queue[0]
                continue
            crew = self._crew
            if self._running >= crew.slots and not (crew.express and head.query and not self._queries):
                return
            chosen, full = crew.choose(one.job for one in self._queue)
            express = crew.express and head.query and not self._queries
            if self._running >= crew.eager and not full and not express:
                rest = crew.max_wait_s - (self._clock() - head.since)
                if rest > 0:
                    self._wake_after(rest)
                    return
            picked = [self._queue[position] for position in chosen]
            for position in reversed(chosen):
                del self._queue[position]
            self._start([one for one in picked if not one.future.done()], query=head.query)

    def _wake_after(self, seconds: float) -> None:
        if seconds != float("inf"):
            later = self._later if self._later is not None else asyncio.get_running_loop().call_later
            self._timer = later(seconds, self._pump)

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
            self._end(query=query)
