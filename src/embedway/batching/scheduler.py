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
    concurrency: int
    #: How long work gathers where `eager` pieces are under way, and a slot is free.
    max_wait_s: float
    #: So many of the jobs that wait are looked at for one piece of work.
    max_jobs: int = 1000

    @abstractmethod
    def select_jobs(self, waiting: Sequence[J], free: int) -> tuple[list[int], bool]:
        """Which of the jobs go together, the first and others by position, and whether there is no room for more.

        They are in the order in which they are due, all of them queries or none. `free` pieces of work can begin now
        and share them.
        """

    def weight(self, job: J) -> float:
        """How much of a full piece of work a job is, at most: jobs that weigh less than 1 in all never fill one."""
        del job
        return 1.0

    @abstractmethod
    async def run(self, job: J) -> R:
        """Do one job."""

    @abstractmethod
    async def run_merged(self, jobs: Sequence[J]) -> list[R | Exception]:
        """Do several as one: what came of each."""


@dataclass(eq=False, slots=True)
class _QueuedJob(Generic[J, R]):
    job: J
    weight: float
    due: float
    since: float
    future: asyncio.Future[R]


class _Queue(Generic[J, R]):
    """What waits, in the order in which it is due, and how much it is in all."""

    def __init__(self, *, query: bool) -> None:
        self.query = query
        self.waiting: list[_QueuedJob[J, R]] = []
        self._weight = 0.0
        #: Less than this fills no piece of work.
        self._worth_filling = _FULL
        #: Seconds until its first has gathered for long enough; infinity where that begins nothing.
        self.rest_s = float("inf")

    def add(self, one: _QueuedJob[J, R]) -> None:
        """Let it wait behind all that is due before it."""
        place = bisect.bisect_right(self.waiting, one.due, key=lambda other: other.due)
        self.waiting.insert(place, one)
        self._weight += one.weight
        if not place:
            self._worth_filling = _FULL

    def drop(self, one: _QueuedJob[J, R]) -> bool:
        """Let it wait no longer; whether it did."""
        place = bisect.bisect_left(self.waiting, one.due, key=lambda other: other.due)
        while place < len(self.waiting) and self.waiting[place].due == one.due:
            if self.waiting[place] is one:
                self._remove([place])
                return True
            place += 1
        return False

    def take(self, places: Sequence[int]) -> list[_QueuedJob[J, R]]:
        """Those in some places, without those that nobody waits for any more."""
        taken = [self.waiting[place] for place in places]
        self._remove(places)
        return [one for one in taken if not one.future.done()]

    def _remove(self, places: Sequence[int]) -> None:
        for place in sorted(places, reverse=True):
            self._weight -= self.waiting[place].weight
            del self.waiting[place]
        self._worth_filling = _FULL
        if not self.waiting:
            self._weight = 0.0

    @property
    def may_fill(self) -> bool:
        """Whether it is worth looking if a piece of work can be filled."""
        return self._weight >= self._worth_filling

    def note_unfilled(self) -> None:
        """Do not look again before it has grown."""
        self._worth_filling = self._weight * _GROWN


class BatchScheduler(Generic[J, R]):
    """The work of all callers for one route. Used from one event loop."""

    def __init__(
        self,
        backend: BatchBackend[J, R],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        """`later` calls a function after so many seconds; the event loop's by default."""
        self._backend = backend
        self._clock = clock
        self._later = later
        self._queries: _Queue[J, R] = _Queue(query=True)
        self._others: _Queue[J, R] = _Queue(query=False)
        #: Whether what came in this turn of the event loop is looked at in the next.
        self._scheduled_soon = False
        #: Whether work of several callers ended since the route was idle.
        self._merged_recently = False
        #: Pieces of work under way in the slots, and beside them.
        self._running = self._running_express = 0
        self._running_queries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: J, urgency: Urgency, *, behind_s: float = 0.0) -> R:
        """Do a job, alone or with those of others; `behind_s` is how much later it is due than its urgency says.

        A caller that is cancelled takes its job out of the queue; what is under way for nobody is cancelled.
        """
        backend, query = self._backend, urgency.query
        if urgency.never_waits:
            return await backend.run(job)
        if not (self._running or self._running_express or self._merged_recently or self.waiting):
            self._note_start(query=query)
            try:
                return await backend.run(job)
            finally:
                self._note_end(1, query=query)
        now = self._clock()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        one = _QueuedJob(job, backend.weight(job), urgency.due(now) + behind_s, now, future)
        queue = self._queries if query else self._others
        queue.add(one)
        # Those whose work ended together come again together: a turn of the event loop shows who else is there.
        self._schedule_soon()
        try:
            return await future
        except asyncio.CancelledError:
            if queue.drop(one):
                self._schedule_soon()
            raise

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._queries.waiting) + len(self._others.waiting)

    def _note_start(self, *, query: bool, express: bool = False) -> None:
        self._running += not express
        self._running_express += express
        self._running_queries += query

    def _note_end(self, callers: int, *, query: bool, express: bool = False) -> None:
        self._running -= not express
        self._running_express -= express
        self._running_queries -= query
        self._merged_recently = callers > 1 or (self._merged_recently and self._running + self._running_express > 0)
        if not self._scheduled_soon:
            self._schedule()

    def _schedule_soon(self) -> None:
        if not self._scheduled_soon:
            self._scheduled_soon = True
            asyncio.get_running_loop().call_soon(self._schedule)

    def _schedule(self) -> None:
        """Begin what can begin now, queries first."""
        self._scheduled_soon = False
        queries, others = self._queries, self._others
        while self._try_start(queries, others) or self._try_start(others, queries):
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
        self._timer, self._timer_at = later(rest, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule()

    def _try_start(self, queue: _Queue[J, R], other: _Queue[J, R]) -> bool:
        """Begin a piece of work of a queue, if one can begin."""
        backend = self._backend
        queue.rest_s = float("inf")
        if not queue.waiting:
            return False
        head = queue.waiting[0]
        slot = self._has_slot(head, other, query=queue.query)
        express = queue.query and not self._running_queries
        if not (slot or express):
            return False
        rest_s = backend.max_wait_s - (self._clock() - head.since)
        at_once = slot and (self._running < backend.eager or rest_s <= 0)
        if not (at_once or express or queue.may_fill):
            queue.rest_s = rest_s
            return False
        chosen, full = backend.select_jobs(
            [one.job for one in queue.waiting[: backend.max_jobs]], max(1, backend.eager - self._running)
        )
        if not (at_once or express or full):
            queue.note_unfilled()
            queue.rest_s = rest_s
            return False
        picked = queue.take(chosen)
        if picked:
            self._start_batch(picked, query=queue.query, express=not (slot and (at_once or full)))
        return True

    def _has_slot(self, head: _QueuedJob[J, R], other: _Queue[J, R], *, query: bool) -> bool:
        """Whether a slot is free, and not to be left to what is due before.

        Queries leave every slot to documents that are due before them, for they have a way beside the slots; documents
        leave the last one to such queries.
        """
        free = self._backend.concurrency - self._running
        behind = bool(other.waiting) and other.waiting[0].due < head.due
        return free > 0 and not (behind and (query or free == 1))

    def _start_batch(self, picked: list[_QueuedJob[J, R]], *, query: bool, express: bool) -> None:
        self._note_start(query=query, express=express)
        task = asyncio.create_task(self._run_batch(picked, query=query, express=express))
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

    async def _run_batch(self, picked: list[_QueuedJob[J, R]], *, query: bool, express: bool) -> None:
        results: Sequence[R | Exception] = ()
        try:
            if len(picked) == 1:
                results = [await self._backend.run(picked[0].job)]
            else:
                results = await self._backend.run_merged([one.job for one in picked])
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
            self._note_end(len(picked), query=query, express=express)
