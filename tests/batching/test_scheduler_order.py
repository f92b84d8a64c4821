"""Order in which jobs begin, with a simulated backend and clock: no job starves or is overtaken for long."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.batching.backends import LocalBackend, UpstreamBackend, WorkItem
from embedway.batching.scheduler import BatchBackend, BatchScheduler
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from embedway.types import Batch, Space, TokenizedTexts
from embedway.urgency import Urgency
from inside import batches_running, queries_running

QUERY, DOCUMENT = Urgency(query=True), Urgency()
FOREVER = float("inf")


class Job:
    """A caller's job and its state."""

    def __init__(self, number, urgency, kind=0, behind_s=0.0):
        self.number, self.urgency, self.kind, self.behind_s = number, urgency, kind, behind_s
        self.came_s = self.due_s = 0.0
        self.began_s = None
        self.arrived = self.cancelled = False
        self.task = None

    @property
    def waits(self):
        return self.arrived and self.began_s is None and not self.cancelled

    async def run(self, scheduler):
        self.arrived = True
        return await scheduler.run(self, self.urgency, behind_s=self.behind_s)


class Timer:
    """Timer in a list of running timers."""

    def __init__(self, timers, timer):
        self._timers, self._timer = timers, timer

    def cancel(self):
        if self._timer in self._timers:
            self._timers.remove(self._timer)


class Watched(BatchScheduler):
    """Reports each batch to the backend before it starts."""

    def _start_batch(self, picked, *, query, express):
        try:
            self._backend.begins([one.job for one in picked], express=express)
        except AssertionError as error:  # the event loop would log it
            self._backend.failures.append(error)
        super()._start_batch(picked, query=query, express=express)


class Simulation(BatchBackend):
    """Backend whose batches end on command; it checks every rule when a batch begins."""

    def __init__(self, eager=1, concurrency=2, max_wait_s=FOREVER, room=4):
        self.eager, self.concurrency, self.max_wait_s, self.room = eager, concurrency, max_wait_s, room
        self.now_s = 0.0
        self.jobs = []
        self.running = []
        self.failures = []
        self._timers = []
        self.scheduler = Watched(self, clock=lambda: self.now_s, later=self._later)

    # ---- backend

    def select_jobs(self, waiting, free):
        same = [place for place, job in enumerate(waiting) if job.kind == waiting[0].kind]
        share = min(self.room, -(-len(waiting) // free))
        return same[:share], len(same) >= self.room

    def weight(self, job):
        del job
        return 1 / self.room

    async def run(self, job):
        return (await self.run_merged([job]))[0]

    async def run_merged(self, jobs):
        for job in jobs:
            job.began_s = self.now_s
        batch = (jobs, asyncio.Event())
        self.running.append(batch)
        try:
            await batch[1].wait()
        finally:
            self.running.remove(batch)
        return [("done", job.number) for job in jobs]

    def begins(self, jobs, *, express):
        """Check the rules for a batch that begins, and mark its jobs as begun."""
        query, due_s = jobs[0].urgency.query, min(job.due_s for job in jobs)
        assert all(job.began_s is None and job.urgency.query == query for job in jobs)
        assert not any(job.urgency.never_waits for job in jobs)
        for job in jobs:
            job.began_s = self.now_s
        before = [job for job in self.jobs if job.waits and not job.urgency.never_waits and job.due_s < due_s]
        # Of two queries or two documents, the one that is due first begins first.
        assert all(job.urgency.query != query for job in before)
        if express:
            assert query
        elif query:
            # A query takes no place from documents that were due before it.
            assert not before
        elif before:
            # Queries that were due earlier wait for a running query, and one place stays free for them.
            assert queries_running(self.scheduler)
            assert batches_running(self.scheduler) + 1 < self.concurrency

    @staticmethod
    def _is_query(batch):
        return batch[0][0].urgency.query and not batch[0][0].urgency.never_waits

    @property
    def within_concurrency(self):
        """Running batches, except those that never wait."""
        return [batch for batch in self.running if not batch[0][0].urgency.never_waits]

    def check_rest(self):
        """Check that every waiting job has a reason to wait. Nothing moves at this point."""
        if self.failures:
            raise self.failures[0]
        waiting = [job for job in self.jobs if job.waits]
        assert self.scheduler.waiting == len(waiting)
        assert len(self.within_concurrency) <= self.concurrency + 1
        assert not any(job.urgency.never_waits for job in waiting)
        if waiting:
            assert len(self.within_concurrency) >= self.eager
        if any(job.urgency.query for job in waiting):
            assert any(self._is_query(batch) for batch in self.running)
        if len(self.within_concurrency) < self.concurrency:
            first = min(waiting, key=lambda job: job.due_s, default=None)
            assert first is None or self.now_s - first.came_s < self.max_wait_s

    # ---- events

    def _later(self, seconds, call):
        timer = [self.now_s + seconds, call]
        self._timers.append(timer)

        return Timer(self._timers, timer)

    async def settle(self):
        for _ in range(8):
            await asyncio.sleep(0)

    def come(self, urgency, kind=0, behind_s=0.0):
        job = Job(len(self.jobs), urgency, kind, behind_s)
        job.came_s, job.due_s = self.now_s, urgency.due(self.now_s) + behind_s
        self.jobs.append(job)
        job.task = asyncio.create_task(job.run(self.scheduler))
        return job

    def cancel(self, job):
        job.cancelled = True
        job.task.cancel()

    async def finish(self, number=0):
        if self.running:
            self.running[number % len(self.running)][1].set()
            await self.settle()

    async def pass_time(self, seconds):
        self.now_s += seconds
        for timer in [timer for timer in self._timers if timer[0] <= self.now_s]:
            self._timers.remove(timer)
            timer[1]()
        await self.settle()

    async def end(self):
        while self.running:
            await self.finish()
        await self.pass_time(1000)
        assert self.scheduler.waiting == 0
        while self.running:
            await self.finish()
        for job in self.jobs:
            if not job.cancelled:
                assert await job.task == ("done", job.number)


def simulated(steps, **options):
    async def main():
        backend = Simulation(**options)
        await steps(backend)
        await backend.end()

    asyncio.run(asyncio.wait_for(main(), 60))


URGENCIES = st.builds(Urgency, st.integers(0, 9), st.booleans())
COMES = st.tuples(st.just("come"), URGENCIES, st.integers(0, 1), st.sampled_from([0.0, 0.0, 0.3, 2.0]))
EVENTS = st.one_of(
    # Jobs of one list arrive in the same turn of the event loop.
    st.tuples(st.just("come"), st.lists(COMES, min_size=1, max_size=6)),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
    st.tuples(st.just("time"), st.sampled_from([0.001, 0.01, 0.2, 1.0])),
)
BACKENDS = st.fixed_dictionaries(
    {
        "eager": st.integers(1, 3),
        "concurrency": st.integers(0, 3),
        "max_wait_s": st.sampled_from([0.0, 0.01, FOREVER]),
        "room": st.integers(1, 5),
    }
)


@given(BACKENDS, st.lists(EVENTS, max_size=40))
@settings(deadline=None, max_examples=300)
def test_every_job_begins_for_any_order_of_events(options, events):
    async def steps(backend):
        for kind, what in events:
            if kind == "come":
                for _, urgency, group, behind_s in what:
                    backend.come(urgency, group, behind_s)
                await backend.settle()
            elif kind == "finish":
                await backend.finish(what)
            elif kind == "time":
                await backend.pass_time(what)
            elif going := [job for job in backend.jobs if not job.task.done()]:
                job = going[what % len(going)]
                begun = job.began_s is not None
                backend.cancel(job)
                await backend.settle()
                assert begun or job.began_s is None
            backend.check_rest()

    # Without and with room for batches beyond the eager ones.
    simulated(steps, **options | {"concurrency": options["eager"] + options["concurrency"]})


@given(BACKENDS, st.lists(URGENCIES, min_size=1, max_size=8))
@settings(deadline=None, max_examples=100)
def test_nothing_starves_however_much_of_the_most_urgent_comes(options, others):
    async def steps(backend):
        for _ in range(backend.concurrency):
            backend.come(DOCUMENT)
        await backend.settle()
        waiting = [backend.come(urgency, kind=1) for urgency in others if not urgency.never_waits]
        await backend.settle()
        # After the longest slack, only jobs that arrived earlier still go first.
        limit_s = 1.0 + 0.05 * 2 * (len(waiting) + backend.concurrency + 4)
        while any(job.waits for job in waiting):
            # Queries of the highest waiting priority, as many as fit in a batch.
            for _ in range(backend.room):
                backend.come(Urgency(5, query=True))
            await backend.settle()
            await backend.finish()
            await backend.pass_time(0.05)
            backend.check_rest()
            assert backend.now_s < limit_s

    simulated(steps, **options | {"concurrency": options["eager"] + options["concurrency"]})


@pytest.mark.parametrize("query_first", [True, False])
@pytest.mark.parametrize("eager", [1, 2])
def test_a_query_and_a_document_that_come_together_both_begin(eager, query_first):
    async def steps(backend):
        # Batches of several callers end, so the scheduler waits for the next callers.
        for _ in range(eager + 2):
            backend.come(DOCUMENT)
        await backend.settle()
        while backend.running:
            await backend.finish()
        both = [backend.come(urgency) for urgency in ((QUERY, DOCUMENT) if query_first else (DOCUMENT, QUERY))]
        await backend.settle()
        query, document = both if query_first else reversed(both)
        assert query.began_s is not None
        assert (document.began_s is not None) == (eager == 2)

    simulated(steps, eager=eager, concurrency=eager + 1)


def test_with_a_concurrency_of_one_documents_begin_between_queries_that_never_end():
    async def steps(backend):
        backend.come(QUERY)
        await backend.settle()
        document = backend.come(DOCUMENT)
        for _ in range(40):
            backend.come(QUERY)
            await backend.settle()
            await backend.finish()
            await backend.pass_time(0.05)
        assert document.began_s == pytest.approx(0.5, abs=0.15)

    simulated(steps, eager=1, concurrency=1, room=1)


def test_what_comes_in_every_turn_does_not_hold_up_what_came_before():
    async def steps(backend):
        for _ in range(2):
            backend.come(DOCUMENT)
            await backend.settle()
        waiting = backend.come(DOCUMENT)
        await backend.settle()
        others = []

        async def one_after_the_other(left):
            # The next job arrives before this one is inspected.
            if left and waiting.waits:
                others.append(asyncio.create_task(one_after_the_other(left - 1)))
            await Job(1000 + left, DOCUMENT).run(backend.scheduler)

        others.append(asyncio.create_task(one_after_the_other(50)))
        await backend.settle()
        await backend.finish()
        assert waiting.began_s is not None
        for _ in others:
            await backend.finish()
            await backend.finish()
        await asyncio.gather(*others)

    simulated(steps, eager=2, concurrency=2)


# ---- cost of inspecting waiting jobs


class Counted:
    """Backend that counts the jobs it is shown."""

    def __init__(self, backend):
        self.backend, self.shown = backend, 0
        select_jobs = backend.select_jobs

        def counted(waiting, free):
            self.shown += len(waiting)
            return select_jobs(waiting, free)

        backend.select_jobs = counted


class GroupSize:
    """Model whose batches end when the gate opens."""

    model, name, streams, token_budget = "held", "local:held", 2, 16_384

    def __init__(self):
        self.gate = asyncio.Event()

    async def run(self, tokenized, batch):
        del tokenized
        await self.gate.wait()
        return np.zeros((len(batch.rows), 4), np.float32)


def item(length):
    return WorkItem(
        TokenizedTexts((np.zeros(length, np.int32),), np.array([length], np.int32)), Batch(np.arange(1), length)
    )


def shown_to_a_local_backend(callers, busy):
    async def main():
        route = GroupSize()
        counted = Counted(LocalBackend(route, max_batch_size=1000))
        scheduler = BatchScheduler(counted.backend)
        tasks = [asyncio.create_task(scheduler.run(item(4096), DOCUMENT)) for _ in range(busy)]
        for number in range(callers):
            # In separate turns.
            for _ in range(3):
                await asyncio.sleep(0)
            tasks.append(asyncio.create_task(scheduler.run(item(10 + number % 40), DOCUMENT)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert scheduler.waiting > callers * 0.9
        before = counted.shown
        route.gate.set()
        await asyncio.gather(*tasks)
        return before

    return asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("busy", [2, 3])
def test_inspecting_the_queue_of_a_model_grows_with_the_queue(busy):
    few, many = (shown_to_a_local_backend(callers, busy) for callers in (500, 2000))
    assert few <= 6 * 500
    assert many <= 6 * 2000


def test_inspecting_the_queue_of_a_service_grows_with_the_queue(monkeypatch):
    monkeypatch.setattr("embedway.batching.backends._SHARED_TEXTS", 4096)

    def shown(callers):
        async def main():
            gate = asyncio.Event()
            service = Fake(width=4, declared=Declared(max_inputs=4096))
            embed = service.embed

            async def slow(texts, **options):
                await gate.wait()
                return await embed(texts, **options)

            service.embed = slow
            backend = UpstreamBackend(
                UpstreamClient(RetryPolicy()),
                [ServiceRoute("routes.r", service)],
                concurrency=8,
                max_wait_s=60,
            )
            counted, scheduler = Counted(backend), BatchScheduler(backend)
            space = Space(model="fake", weights="f" * 64, dimensions=4, pooling="mean", normalized=True)
            tasks = []
            for number in range(callers):
                request = UpstreamRequest((f"text {number}",), np.array([3], np.int32), "document", space, full_width=4)
                tasks.append(asyncio.create_task(scheduler.run(request, DOCUMENT)))
                for _ in range(3):
                    await asyncio.sleep(0)
            assert scheduler.waiting == callers - 1
            gate.set()
            before = counted.shown
            await asyncio.gather(*tasks)
            return before

        return asyncio.run(asyncio.wait_for(main(), 60))

    assert shown(2000) <= 6 * 2000
