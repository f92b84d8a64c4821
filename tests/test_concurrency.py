"""Concurrent tasks of one caller, and computations in a thread: errors, cancellation, and what they leave behind."""

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_tests import in_loop
from embedway.concurrency import compute_in_thread, run_together


async def fail(error):
    await asyncio.sleep(0)
    raise error


def test_a_failure_leaves_no_cancellation_on_the_task():
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await run_together([fail(ValueError("one")), asyncio.Event().wait()])
        assert [str(error) for error in caught.value.exceptions] == ["one"]
        assert asyncio.current_task().cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

    asyncio.run(main())


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_timeout_ends_all_tasks(is_deaf):
    ended = []

    async def one():
        try:
            await asyncio.Event().wait()
        finally:
            if is_deaf:
                await asyncio.sleep(0)
            ended.append(1)

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run_together([one(), one()])
        assert len(ended) == 2
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())


def test_errors_are_in_the_order_of_time():
    async def late():
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("late")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await run_together([late(), fail(ValueError())])
        assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
        await run_together([])

    asyncio.run(main())


class Computation:
    """Blocks its thread until it is released, and counts the computations that run."""

    running = most_running = 0

    def __init__(self, error=None):
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.error = error

    def __call__(self, *arguments, **more):
        kind = type(self)
        kind.running += 1
        kind.most_running = max(kind.most_running, kind.running)
        self.has_begun.set()
        assert self.may_end.wait(60)
        kind.running -= 1
        if self.error is not None:
            raise self.error
        return arguments, more


async def begun(computation):
    assert await asyncio.to_thread(computation.has_begun.wait, 60)


@in_loop
async def test_a_computation_leaves_the_event_loop_free_and_returns_its_result():
    asked = ContextVar("asked", default="")
    asked.set("by me")
    computation = Computation()
    task = asyncio.create_task(compute_in_thread(computation, 1, 2, width=3))
    await begun(computation)
    assert not task.done()
    computation.may_end.set()
    assert await task == ((1, 2), {"width": 3})
    assert await compute_in_thread(asked.get) == "by me"
    assert await compute_in_thread(threading.get_ident) != threading.get_ident()


@given(st.lists(st.sampled_from(["result", "error", "cancelled"]), min_size=1, max_size=6))
@settings(max_examples=25)  # each has an event loop with threads
def test_one_computation_runs_at_a_time_and_each_caller_gets_its_own_outcome(fates):
    class Counted(Computation):
        pass

    async def main():
        computations = [Counted(KeyError(number) if fate == "error" else None) for number, fate in enumerate(fates)]
        tasks = [asyncio.create_task(compute_in_thread(one, number)) for number, one in enumerate(computations)]
        for fate, computation, task in zip(fates, computations, tasks, strict=True):
            await begun(computation)
            if fate == "cancelled":
                task.cancel()
                await asyncio.wait([task])  # at once, although its thread goes on
            computation.may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(main())
    for number, (fate, outcome) in enumerate(zip(fates, outcomes, strict=True)):
        if fate == "result":
            assert outcome == ((number,), {})
        elif fate == "error":
            assert isinstance(outcome, KeyError)
            assert outcome.args == (number,)
        else:
            assert isinstance(outcome, asyncio.CancelledError)
    assert Counted.most_running == 1


@in_loop
async def test_a_computation_that_is_cancelled_before_its_turn_never_runs():
    first, second, third = Computation(), Computation(), Computation()
    tasks = [asyncio.create_task(compute_in_thread(one)) for one in (first, second, third)]
    await begun(first)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    first.may_end.set()
    third.may_end.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert not second.has_begun.is_set()


def test_an_event_loop_that_has_ended_is_not_kept():
    async def main():
        await asyncio.gather(*(compute_in_thread(int) for _ in range(3)))
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    gc.collect()
    assert loop() is None
