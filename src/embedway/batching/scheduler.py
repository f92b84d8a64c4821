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

    from embedway.urgency import Urgency

J = TypeVar("J")
R = TypeVar("R")

#: What was not enough for a full piece of work is looked at again when it has grown by so much, so that the work of
#: looking grows as that which waits.
_GROWN = 1.25
#: The weight of a full piece of work, less what sums lose by rounding.
_FULL = 1 - 1e-9


class BatchBackend(ABC, Generic[J, R]):
    """What does the work of a route. `eager` pieces of work begin without waiting; `slots` are under way at most."""

    eager: int
    slots: int
    #: How long work gathers where `eager` pieces are under way, and a slot is free.
    max_wait_s: float
    #: So many of the jobs that wait are looked at for one piece of work.
    most: int = 1000

    @abstractmethod
    def choose(self, waiting: Sequence[J], free: int) -> tuple[list[int], bool]:
        """Which of the jobs go together, the first and others by position, and whether there is no room for more.

        They are in the order in which they are due, all of them queries or none. `free` pieces of work can begin now
        and share them.
        """

    def weight(self, job: J) -> float:
        """How much of a full piece of work a job is, at most: jobs that weigh less than 1 in all never fill one."""
        del job
        return 1.0

    @abstractmethod
    async def alone(self, job: J) -> R:
        """Do one job."""

    @abstractmethod
    async def together(self, jobs: Sequence[J]) -> list[R | Exception]:
        """Do several as one: what came of each."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[J, R]):
    job: J
    weight: float
    due: float
    since: float
    future: asyncio.Future[R]


class _Queue(Generic[J, R]):
    """What waits, in the order in which it is due, and how much it is in all."""

    def __init__(self, *, query: bool) -> None:
        self.query = query
        self.waiting: list[_Waiting[J, R]] = []
        self._weight = 0.0
        #: Less than this fills no piece of work.
        self._enough = _FULL
        #: Seconds until its first has gathered for long enough; infinity where that begins nothing.
        self.rest_s = float("inf")

    def add(self, one: _Waiting[J, R]) -> None:
        """Let it wait behind all that is due before it."""
        place = bisect.bisect_right(self.waiting, one.due, key=lambda other: other.due)
        self.waiting.insert(place, one)
        self._weight += one.weight
        if not place:
            self._enough = _FULL

    def drop(self, one: _Waiting[J, R]) -> bool:
        """Let it wait no longer; whether it did."""
        place = bisect.bisect_left(self.waiting, one.due, key=lambda other: other.due)
        while place < len(self.waiting) and self.waiting[place].due == one.due:
            if self.waiting[place] is one:
                self._remove([place])
                return True
            place += 1
        return False

    def take(self, places: Sequence[int]) -> list[_Waiting[J, R]]:
        """Those in some places, without those that nobody waits for any more."""
        taken = [self.waiting[place] for place in places]
        self._remove(places)
        return [one for one in taken if not one.future.done()]

    def _remove(self, places: Sequence[int]) -> None:
        for place in sorted(places, reverse=True):
            self._weight -= self.waiting[place].weight
            del self.waiting[place]
        self._enough = _FULL
        if not self.waiting:
            self._weight = 0.0

    @property
    def may_fill(self) -> bool:
        """Whether it is worth looking if a piece of work can be filled."""
        return self._weight >= self._enough

    def was_not_enough(self) -> None:
        """Do not look again before it has grown."""
        self._enough = self._weight * _GROWN


class BatchScheduler(Generic[J, R]):
    """The work of all callers for one route. Used from one event loop."""

    def __init__(
        self,
        crew: BatchBackend[J, R],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        """`later` calls a function after so many seconds; the event loop's by default."""
        self._crew = crew
        self._clock = clock
        self._later = later
        self._queries: _Queue[J, R] = _Queue(query=True)
        self._others: _Queue[J, R] = _Queue(query=False)
        #: Whether what came in this turn of the event loop is looked at in the next.
        self._soon = False
        #: Whether work of several callers ended since the route was idle.
        self._together = False
        #: Pieces of work under way in the slots, and beside them.
        self._running = self._beside = 0
        self._running_queries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: J, urgency: Urgency, *, behind_s: float = 0.0) -> R:
        """Do a job, alone or with those of others; `behind_s` is how much later it is due than its urgency says.

        A caller that is cancelled takes its job out of the queue; what is under way for nobody is cancelled.
        """
        crew, query = self._crew, urgency.query
        if urgency.never_waits:
            return await crew.alone(job)
        if not (self._running or self._beside or self._together or self.waiting):
            self._begin(query=query)
            try:
                return await crew.alone(job)
            finally:
                self._end(1, query=query)
        now = self._clock()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        one = _Waiting(job, crew.weight(job), urgency.due(now) + behind_s, now, future)
        queue = self._queries if query else self._others
        queue.add(one)
        # Those whose work ended together come again together: a turn of the event loop shows who else is there.
        self._look_soon()
        try:
            return await future
        except asyncio.CancelledError:
            if queue.drop(one):
                self._look_soon()
            raise

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._queries.waiting) + len(self._others.waiting)

    def _begin(self, *, query: bool, beside: bool = False) -> None:
        self._running += not beside
        self._beside += beside
        self._running_queries += query

    def _end(self, callers: int, *, query: bool, beside: bool = False) -> None:
        self._running -= not beside
        self._beside -= beside
        self._running_queries -= query
        self._together = callers > 1 or (self._together and self._running + self._beside > 0)
        if not self._soon:
            self._look()

    def _look_soon(self) -> None:
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Begin what can begin now, queries first."""
        self._soon = False
        queries, others = self._queries, self._others
        while self._begun(queries, others) or self._begun(others, queries):
            pass
        rest = min(queries.rest_s, others.rest_s)
        if rest == float("inf"):
            return
        at = self._clock() + rest
        if self._timer is not None:
            # One that comes too early looks and sets another.
            if self._timer_at <= at:
                return
            self._timer.cancel()
        later = self._later if self._later is not None else asyncio.get_running_loop().call_later
        self._timer, self._timer_at = later(rest, self._time_is_up), at

    def _time_is_up(self) -> None:
        self._timer = None
        self._look()

    def _begun(self, queue: _Queue[J, R], other: _Queue[J, R]) -> bool:
        """Begin a piece of work of a queue, if one can begin."""
        crew = self._crew
        queue.rest_s = float("inf")
        if not queue.waiting:
            return False
        head = queue.waiting[0]
        slot = self._has_slot(head, other, query=queue.query)
        beside = queue.query and not self._running_queries
        if not (slot or beside):
            return False
        rest_s = crew.max_wait_s - (self._clock() - head.since)
        at_once = slot and (self._running < crew.eager or rest_s <= 0)
        if not (at_once or beside or queue.may_fill):
            queue.rest_s = rest_s
            return False
        chosen, full = crew.choose([one.job for one in queue.waiting[: crew.most]], max(1, crew.eager - self._running))
        if not (at_once or beside or full):
            queue.was_not_enough()
            queue.rest_s = rest_s
            return False
        picked = queue.take(chosen)
        if picked:
            self._start(picked, query=queue.query, beside=not (slot and (at_once or full)))
        return True

    def _has_slot(self, head: _Waiting[J, R], other: _Queue[J, R], *, query: bool) -> bool:
        """Whether a slot is free, and not to be left to what is due before.

        Queries leave every slot to documents that are due before them, for they have a way beside the slots; documents
        leave the last one to such queries.
        """
        free = self._crew.slots - self._running
        behind = bool(other.waiting) and other.waiting[0].due < head.due
        return free > 0 and not (behind and (query or free == 1))

    def _start(self, picked: list[_Waiting[J, R]], *, query: bool, beside: bool) -> None:
        self._begin(query=query, beside=beside)
        task = asyncio.create_task(self._carry(picked, query=query, beside=beside))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        wanted = len(picked)

        def left(future: asyncio.Future[R]) -> None:
            nonlocal wanted
            wanted -= future.cancelled()
            if not wanted:
                task.cancel()

        for one in picked:
            one.future.add_done_callback(left)

    async def _carry(self, picked: list[_Waiting[J, R]], *, query: bool, beside: bool) -> None:
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
            self._end(len(picked), query=query, beside=beside)
