"""Fair queue: bounds, order, refusals, deadlines and the end."""

import asyncio
import contextlib
import random
import time

import pytest

from async_tests import in_loop
from clocks import Clock
from embedway.errors import DeadlineError, OverloadedError
from embedway.server.fair_queue import FairQueue


class Calls:
    """Starts calls as tasks, and ends them one by one."""

    def __init__(self, queue):
        self.queue = queue
        self.started = []
        self._ends = {}
        self.tasks = {}

    async def call(self, name, key="a", **options):
        """Start a call, and let it reach its slot or its place."""
        task = self.tasks[name] = asyncio.create_task(self._run(name, key, options))
        await settled()
        if task.done():
            task.exception()  # asyncio would log it otherwise
        return task

    async def _run(self, name, key, options):
        async with self.queue.turn(key, **{"cost": 1.0, **options}):
            self.started.append(name)
            end = self._ends[name] = asyncio.Event()
            await end.wait()

    async def end(self, name):
        self._ends.pop(name).set()
        await self.tasks[name]
        await settled()

    async def cancel(self, name):
        self.tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settled()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def make(max_running=1, max_waiting=100, **options):
    clock = Clock()
    queue = FairQueue(max_running=max_running, max_waiting=max_waiting, clock=clock, **options)
    return Calls(queue), queue, clock


def numbers(queue):
    state = queue.state()
    return state.running, state.waiting


@in_loop
async def test_calls_run_up_to_the_bound_and_the_others_wait():
    calls, queue, clock = make(max_running=2)
    for name in "abcd":
        await calls.call(name)
    assert calls.started == ["a", "b"]
    assert numbers(queue) == (2, 2)
    clock.now += 3
    assert queue.state().oldest_wait_s == 3
    await calls.end("a")
    assert calls.started == ["a", "b", "c"]
    await calls.end("b")
    await calls.end("c")
    await calls.end("d")
    assert numbers(queue) == (0, 0)
    assert queue.state().oldest_wait_s == queue.state().waiting_cost == 0


@in_loop
async def test_keys_take_turns_and_a_query_goes_before_the_documents_of_its_key():
    calls, _, _ = make()
    await calls.call("bulk 0", "bulk", cost=50)
    for number in range(1, 5):
        await calls.call(f"bulk {number}", "bulk", cost=50)
    await calls.call("other", "other", cost=1)
    await calls.call("own query", "bulk", cost=1, query=True)
    await calls.end("bulk 0")
    await calls.end("other")
    await calls.end("own query")
    assert calls.started == ["bulk 0", "other", "own query", "bulk 1"]


@in_loop
async def test_a_bulk_of_one_key_does_not_take_the_slots_kept_for_others():
    calls, queue, _ = make(max_running=16)
    for number in range(40):
        await calls.call(f"bulk {number}", "bulk")
    assert numbers(queue) == (14, 26)
    await calls.call("one", "other")
    await calls.call("two", "another")
    assert calls.started[14:] == ["one", "two"]
    await calls.call("three", "third")
    assert numbers(queue) == (16, 27)
    await calls.end("one")
    assert calls.started[-1] == "three"


@in_loop
async def test_a_key_gets_no_more_than_its_share_while_others_wait():
    calls, queue, _ = make(max_running=8, reserved=0.0, share=0.5)
    for number in range(20):
        await calls.call(f"bulk {number}", "bulk")
    for number in range(6):
        await calls.call(f"other {number}", "other")
    # The bulk holds 8 of 8; the slots that it frees go to the other key until it holds 4.
    for number in range(4):
        await calls.end(f"bulk {number}")
    assert calls.started[8:] == [f"other {number}" for number in range(4)]
    await calls.end("bulk 4")
    assert calls.started[-1] in {"bulk 8", "other 4"}
    # Alone, it may hold all slots again.
    for number in range(6):
        if f"other {number}" in calls.started:
            await calls.end(f"other {number}")
    assert numbers(queue)[0] == 8


@in_loop
async def test_a_cancelled_call_leaves_at_once():
    calls, queue, _ = make()
    for name in "abc":
        await calls.call(name)
    calls.tasks["b"].cancel()
    await settled()
    assert numbers(queue) == (1, 1)
    await calls.cancel("a")  # the running one frees its slot
    assert calls.started == ["a", "c"]
    await calls.end("c")
    assert numbers(queue) == (0, 0)


@in_loop
async def test_a_call_that_is_cancelled_as_it_gets_its_slot_passes_it_on():
    calls, queue, _ = make()
    for name in "abc":
        await calls.call(name)
    calls._ends["a"].set()  # noqa: SLF001
    calls.tasks["b"].cancel()
    await settled()
    assert calls.started == ["a", "c"]
    await calls.end("c")
    assert numbers(queue) == (0, 0)


@in_loop
async def test_an_error_of_a_call_frees_its_slot():
    _, queue, _ = make()
    with pytest.raises(ValueError, match="own"):
        async with queue.turn("a", cost=1):
            raise ValueError("own")
    assert numbers(queue) == (0, 0)


@in_loop
async def test_a_key_may_use_as_many_places_as_it_leaves_free():
    calls, queue, _ = make(max_running=1, max_waiting=10, reserved=0.0)
    for number in range(12):
        await calls.call(f"bulk {number}", "bulk")
    assert numbers(queue) == (1, 5)
    refused = calls.tasks["bulk 11"].exception()
    assert isinstance(refused, OverloadedError)
    assert str(refused) == "this server is busy: 5 calls wait, 5 of them with this key; try again in 1 s"
    for key in "bcdef":
        await calls.call(key, key)
    # Some places are left for the next key as long as possible.
    assert numbers(queue) == (1, 10)
    with pytest.raises(OverloadedError):
        async with queue.turn("g", cost=1):
            pass


@in_loop
async def test_the_waiting_cost_is_bounded_but_one_large_call_may_wait():
    calls, queue, _ = make(max_running=1, max_waiting_cost=100, reserved=0.0)
    await calls.call("running", "a")
    await calls.call("large", "a", cost=1000)
    assert numbers(queue) == (1, 1)
    await calls.call("more", "a", cost=1)
    await calls.call("other", "b", cost=1)
    assert isinstance(calls.tasks["more"].exception(), OverloadedError)
    assert isinstance(calls.tasks["other"].exception(), OverloadedError)
    await calls.end("running")
    assert calls.started == ["running", "large"]
    for number in range(9):
        await calls.call(f"a{number}", "a", cost=10)
    assert queue.state().waiting_cost == 50


@in_loop
async def test_nothing_waits_where_nothing_may():
    calls, _, _ = make(max_running=1, max_waiting=0)
    await calls.call("a")
    await calls.call("b")
    assert isinstance(calls.tasks["b"].exception(), OverloadedError)
    await calls.end("a")


@in_loop
async def test_the_time_to_come_back_is_the_cost_before_divided_by_the_drain():
    calls, queue, clock = make(max_running=1, max_waiting=40)
    for number in range(21):
        await calls.call(number, cost=100)
    for number in range(10):
        clock.now += 2
        await calls.end(number)
    for number in range(21, 31):
        await calls.call(number, cost=100)
    assert queue.state().drain_per_s == pytest.approx(50, rel=0.15)
    task = await calls.call("refused", cost=100)
    assert task.exception().retry_after_s == pytest.approx(20 * 100 / 50, rel=0.15)
    assert "try again in" in str(task.exception())


@in_loop
async def test_calls_wait_only_if_their_turn_comes_soon():
    calls, queue, clock = make(max_running=1, max_waiting=100, max_wait_s=20, reserved=0.0)
    for number in range(15):
        await calls.call(number, "bulk", cost=100)
    for number in range(10):
        clock.now += 2
        await calls.end(number)
    assert queue.state().drain_per_s == pytest.approx(50, rel=0.15)
    for number in range(15, 30):
        await calls.call(number, "bulk", cost=100)
    refused = calls.tasks[29].exception()
    assert isinstance(refused, OverloadedError)
    assert "wait for at most 20 s" in str(refused)
    assert refused.retry_after_s > 20
    state = queue.state()
    assert 18 < state.waiting_cost / state.drain_per_s <= 22
    # The first call of another key may wait however large it is, and queries before the bulk.
    await calls.call("other", "other", cost=100_000)
    await calls.call("query", "bulk", cost=1, query=True)
    assert not calls.tasks["other"].done()
    assert not calls.tasks["query"].done()
    clock.now += 2
    await calls.end(10)
    await calls.call("later", "bulk", cost=100)
    assert isinstance(calls.tasks["later"].exception(), OverloadedError)  # the other key halves its share


@in_loop
async def test_a_call_whose_turn_would_come_too_late_is_refused_at_once():
    calls, queue, clock = make(max_running=1, max_waiting=100, reserved=0.0)
    for number in range(30):
        await calls.call(number, "bulk", cost=100)
    for number in range(10):
        clock.now += 2
        await calls.end(number)
    late = await calls.call("late", "bulk", cost=100, deadline_s=10)
    assert isinstance(late.exception(), OverloadedError)
    assert "after its deadline of 10 s" in str(late.exception())
    assert late.exception().retry_after_s > 10
    # The queue of another key is short, and so is the one of queries.
    await calls.call("other", "other", cost=1, deadline_s=10)
    await calls.call("query", "bulk", cost=1, query=True, deadline_s=10)
    assert numbers(queue) == (1, 21)


@in_loop
async def test_a_waiting_call_ends_at_its_deadline():
    calls, queue, _ = make()
    await calls.call("a")
    task = await calls.call("b", deadline_s=0.01)
    with pytest.raises(DeadlineError, match=r"did not come within its deadline of 0.01 s"):
        await task
    assert numbers(queue) == (1, 0)
    await calls.end("a")
    assert numbers(queue) == (0, 0)


@in_loop
async def test_a_closed_queue_ends_what_it_has_accepted():
    calls, queue, _ = make()
    for name in "abc":
        await calls.call(name)
    queue.close()
    await calls.call("late")
    refused = calls.tasks["late"].exception()
    assert isinstance(refused, OverloadedError)
    assert (refused.retry_after_s, "closing" in str(refused)) == (1.0, True)
    waiting = asyncio.create_task(queue.finished())
    for name in "abc":
        assert not waiting.done()
        await calls.end(name)
    await waiting
    assert calls.started == ["a", "b", "c"]
    await queue.finished()


@in_loop
async def test_keys_in_memory_are_bounded():
    calls, queue, _ = make(max_running=2)
    await calls.call("holds", "holder")
    for number in range(5000):
        async with queue.turn(f"key {number}", cost=1):
            pass
    assert len(queue._keys) < 200  # noqa: SLF001  the bound
    await calls.end("holds")


@in_loop
async def test_the_virtual_time_begins_anew_before_it_gets_inexact():
    calls, queue, _ = make()
    for _ in range(5):
        async with queue.turn("a", cost=1e9):
            pass
    assert queue._time < 3e9  # noqa: SLF001
    for name in "abc":
        await calls.call(name, name)
    for name in "abc":
        await calls.end(name)
    assert calls.started == ["a", "b", "c"]


@in_loop
async def test_an_uncontended_turn_takes_microseconds():
    _, queue, _ = make(max_running=8)
    best = []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(2000):
            async with queue.turn("a", cost=1.0):
                pass
        best.append((time.thread_time() - started) / 2000)
    assert min(best) < 50e-6  # about 3 µs


@pytest.mark.parametrize("seed", range(20))
@in_loop
async def test_no_wake_up_is_lost_when_calls_are_cancelled(seed):
    chosen = random.Random(seed)
    queue = FairQueue(max_running=chosen.randint(1, 9), max_waiting=10_000)
    running = most = ended = 0

    async def work():
        nonlocal running, most, ended
        key, cost = chosen.choice("abc"), chosen.uniform(1, 50)
        async with queue.turn(key, cost=cost, priority=chosen.randint(0, 9), query=chosen.random() < 0.3):
            running += 1
            most = max(most, running)
            try:
                for _ in range(chosen.randint(0, 4)):
                    await asyncio.sleep(0)
            finally:
                running -= 1
        ended += 1

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(work()))
        if chosen.random() < 0.5:
            chosen.choice(tasks).cancel()
        if chosen.random() < 0.2:
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await queue.finished()
    assert ended == results.count(None)
    assert most <= queue._max_running  # noqa: SLF001
    assert numbers(queue) == (0, 0)
    assert queue.state().waiting_cost == 0
