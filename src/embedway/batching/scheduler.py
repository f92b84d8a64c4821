"""Batch scheduler: runs the jobs of all callers at once while a backend is idle, and merges them while it is busy.

Jobs wait in the order in which they are due: queries and higher priorities sooner. None is overtaken for longer than
its slack, so none starves. Queries wait only for queries: one batch of queries runs beyond the concurrency.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from embedway.errors import ClosedError
from embedway.urgency import MAY_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from embedway.urgency import Urgency

J = TypeVar("J")
R = TypeVar("R")

#: Growth factor after which a queue that did not fill a batch is checked again, so that the time spent on checks is
#: proportional to the growth of the queue.
_GROWN = 1.25
#: Weight of a full batch, less the rounding error of sums.
_FULL = 1 - 1e-9


class BatchBackend(ABC, Generic[J, R]):
    """Runs batches of jobs: `eager` batches start without waiting, and at most `concurrency` run at a time."""

    eager: int
    concurrency: int
    #: Maximum wait of jobs for others if `eager` batches run and one more may start, in seconds.
    max_wait_s: float
    #: Maximum waiting jobs that are inspected for one batch.
    max_jobs: int = 1000

    @abstractmethod
    def select_jobs(self, waiting: Sequence[J], free: int) -> tuple[list[int], bool]:
        """Select jobs for one batch, the first and others by position, and return whether there is no room for more.

        Jobs are in the order in which they are due, and either all or none are queries. `free` batches can start now
        and share them.
        """

    def weight(self, job: J) -> float:
        """Return the maximum share of a full batch that a job fills. Jobs of total weight below 1 never fill one."""
        del job
        return 1.0

    @abstractmethod
    async def run(self, job: J) -> R:
        """Run one job."""

    @abstractmethod
    async def run_merged(self, jobs: Sequence[J]) -> list[R | Exception]:
        """Run several jobs as one batch, and return the result of each."""


@dataclass(eq=False, slots=True)
class _QueuedJob(Generic[J, R]):
    job: J
    weight: float
    due: float
    since: float
    future: asyncio.Future[R]
    #: Set when its batch starts; None if no hook is used.
    begun: asyncio.Event | None


class _Queue(Generic[J, R]):
    """Waiting jobs in the order in which they are due, and their total weight."""

    def __init__(self, *, query: bool) -> None:
        self.query = query
        self.waiting: list[_QueuedJob[J, R]] = []
        self._weight = 0.0
        #: Jobs with a lower total weight cannot fill a batch.
        self._worth_filling = _FULL
        #: Seconds until its first job has waited long enough; infinity if no batch starts then.
        self.rest_s = float("inf")

    def add(self, one: _QueuedJob[J, R]) -> None:
        """Insert a job after all jobs that are due before it."""
        place = bisect.bisect_right(self.waiting, one.due, key=lambda other: other.due)
        self.waiting.insert(place, one)
        self._weight += one.weight
        if not place:
            self._worth_filling = _FULL

    def drop(self, one: _QueuedJob[J, R]) -> bool:
        """Remove a job, and return whether it was waiting."""
        place = bisect.bisect_left(self.waiting, one.due, key=lambda other: other.due)
        while place < len(self.waiting) and self.waiting[place].due == one.due:
            if self.waiting[place] is one:
                self._remove([place])
                return True
            place += 1
        return False

    def take(self, places: Sequence[int]) -> list[_QueuedJob[J, R]]:
        """Remove the jobs at the given positions, and return those that a caller still waits for."""
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
        """Whether the queue may contain a full batch."""
        return self._weight >= self._worth_filling

    def note_unfilled(self) -> None:
        """Skip further checks until the queue has grown."""
        self._worth_filling = self._weight * _GROWN


class BatchScheduler(Generic[J, R]):
    """Scheduler of the jobs of all callers on one backend. Used from one event loop."""

    def __init__(
        self,
        backend: BatchBackend[J, R],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
        on_wait: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        """Create the scheduler. `later` calls a function after some seconds; default: the event loop's `call_later`.

        The time that a job waits in a queue is inside `on_wait`.
        """
        self._backend = backend
        self._clock = clock
        self._later = later
        self._on_wait = on_wait
        self._queries: _Queue[J, R] = _Queue(query=True)
        self._others: _Queue[J, R] = _Queue(query=False)
        #: Whether a check of the queues is scheduled for the next iteration of the event loop.
        self._scheduled_soon = False
        #: Whether a batch of several callers has ended since the backend was idle.
        self._merged_recently = False
        #: Running batches within the concurrency, and those of queries beyond it.
        self._running = self._running_express = 0
        self._running_queries = 0
        #: Timer for the next check of the queues, and its time.
        self._timer: tuple[asyncio.TimerHandle, float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, job: J, urgency: Urgency, *, behind_s: float = 0.0) -> R:
        """Run a job, alone or merged with others; `behind_s` delays its due time, in seconds.

        Cancelling a caller removes its job from the queue. A batch that no caller waits for is cancelled.
        """
        backend, query = self._backend, urgency.query
        if urgency.priority > MAY_WAIT:
            return await backend.run(job)
        queue, other = (self._queries, self._others) if query else (self._others, self._queries)
        is_idle = not (self._running or self._running_express or queue.waiting or other.waiting)
        if is_idle and not self._merged_recently:
            self._begin(query=query)
            try:
                return await backend.run(job)
            finally:
                self._end([job], query=query)
        now = self._clock()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        begun = None if self._on_wait is None else asyncio.Event()
        one = _QueuedJob(job, backend.weight(job), urgency.due(now) + behind_s, now, future, begun)
        queue.add(one)
        # Callers whose batch ended return together: one iteration of the event loop shows all of them.
        self._schedule_soon()
        try:
            if self._on_wait is not None and begun is not None:
                with self._on_wait():
                    await begun.wait()
            return await future
        except asyncio.CancelledError:
            future.cancel()
            if queue.drop(one):
                self._schedule_soon()
            raise

    @property
    def waiting(self) -> int:
        """Number of jobs that have not started."""
        return len(self._queries.waiting) + len(self._others.waiting)

    def _begin(self, *, query: bool, express: bool = False) -> None:
        """Count a batch that starts."""
        self._running += not express
        self._running_express += express
        self._running_queries += query

    def _end(self, jobs: Sequence[J], *, query: bool, express: bool = False) -> None:
        """Count a batch that ended, and start the next."""
        self._running -= not express
        self._running_express -= express
        self._running_queries -= query
        self._merged_recently = len(jobs) > 1 or (self._merged_recently and self._running + self._running_express > 0)
        if not self._scheduled_soon and (self._queries.waiting or self._others.waiting):
            self._schedule()

    def _schedule_soon(self) -> None:
        if not self._scheduled_soon:
            self._scheduled_soon = True
            asyncio.get_running_loop().call_soon(self._schedule)

    def _schedule(self) -> None:
        """Start all batches that can start now, queries first, and set a timer for the next."""
        self._scheduled_soon = False
        queries, others = self._queries, self._others
        while self._try_start(queries, others) or self._try_start(others, queries):
            pass
        rest = min(queries.rest_s, others.rest_s)
        if rest == float("inf"):
            return
        at = self._clock() + rest
        if self._timer is not None:
            # A timer that fires too early sets another.
            timer, timer_at = self._timer
            if timer_at <= at:
                return
            timer.cancel()
        later = self._later if self._later is not None else asyncio.get_running_loop().call_later
        self._timer = later(rest, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule()

    def _try_start(self, queue: _Queue[J, R], other: _Queue[J, R]) -> bool:
        """Start a batch of a queue, if one can start. Return whether the queue was changed."""
        backend = self._backend
        queue.rest_s = float("inf")
        if not queue.waiting:
            return False
        head = queue.waiting[0]
        has_place = self._has_place(head, other, query=queue.query)
        express = queue.query and not self._running_queries
        if not (has_place or express):
            return False
        rest_s = backend.max_wait_s - (self._clock() - head.since)
        at_once = has_place and (self._running < backend.eager or rest_s <= 0)
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
            self._start_batch(picked, query=queue.query, express=not (has_place and (at_once or full)))
        return True

    def _has_place(self, head: _QueuedJob[J, R], other: _Queue[J, R], *, query: bool) -> bool:
        """Return whether one more batch may start within the concurrency, without overtaking the other queue.

        Queries leave every slot to documents that are due before them, because one batch of queries runs beyond the
        concurrency. Documents leave the last slot to queries that are due before them.
        """
        free = self._backend.concurrency - self._running
        behind = bool(other.waiting) and other.waiting[0].due < head.due
        return free > 0 and not (behind and (query or free == 1))

    def _start_batch(self, picked: list[_QueuedJob[J, R]], *, query: bool, express: bool) -> None:
        self._begin(query=query, express=express)
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
            if one.begun is not None:
                one.begun.set()

    async def _run_batch(self, picked: list[_QueuedJob[J, R]], *, query: bool, express: bool) -> None:
        jobs = [one.job for one in picked]
        results: Sequence[R | Exception] = ()
        try:
            if len(jobs) == 1:
                results = [await self._backend.run(jobs[0])]
            else:
                results = await self._backend.run_merged(jobs)
        except asyncio.CancelledError:
            results = [ClosedError("the embedder is closed; create a new one")] * len(jobs)
            raise
        except Exception as error:  # noqa: BLE001  passed to the callers, whatever it is
            results = [error] * len(jobs)
        finally:
            for one, result in zip(picked, results, strict=True):
                if one.future.done():
                    continue
                if isinstance(result, Exception):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)
            self._end(jobs, query=query, express=express)
