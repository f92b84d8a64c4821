import asyncio
import logging

import pytest

from async_tests import in_loop
from embedway import LedgerError
from embedway.quality.schedule import Schedule
from memory_records import MemoryRecords


class Clock:
    """A clock that is moved by sleeping."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if len(self.slept) > 10:
            await asyncio.Event().wait()
        self.now += seconds
        await asyncio.sleep(0)


async def run_for_ten_periods(schedule, clock):
    task = asyncio.create_task(schedule.run())
    while len(clock.slept) <= 10:
        assert not task.done()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


def schedule_of(records, clock, check, *, names=("space",), chance=lambda: 0.5):
    async def stored():
        return list(names)

    return Schedule(100, records, stored, check, sleep=clock.sleep, chance=chance)


@in_loop
async def test_it_checks_once_in_each_period():
    clock, checked = Clock(), []

    async def check(name):
        checked.append((name, clock.now))

    await run_for_ten_periods(schedule_of(MemoryRecords(clock), clock, check), clock)
    assert [time - 1000 for _, time in checked] == pytest.approx([55 + 110 * n for n in range(10)])


@pytest.mark.parametrize("chance", [0.0, 1.0])
@in_loop
async def test_waits_are_jittered_and_no_period_is_left_out(chance):
    clock, checked = Clock(), []

    async def check(name):
        checked.append(name)

    await run_for_ten_periods(schedule_of(MemoryRecords(clock), clock, check, chance=lambda: chance), clock)
    assert clock.slept[1:] == pytest.approx([100 + 20 * chance] * 10)
    assert len(checked) == 10


@in_loop
async def test_of_many_processes_one_checks_in_each_period():
    clock, checked = Clock(), []
    records = MemoryRecords(clock)

    async def check(name):
        checked.append(name)

    many = [schedule_of(records, clock, check) for _ in range(8)]
    for period in range(1, 6):
        for one in many:
            await one.run_once()
        assert len(checked) == period
        clock.now += 100


@in_loop
async def test_a_failure_is_logged_once_and_never_ends_the_schedule(caplog):
    clock, tries = Clock(), []

    async def check(name):
        tries.append(name)
        raise RuntimeError("secret text")

    with caplog.at_level(logging.WARNING, "embedway.quality"):
        await run_for_ten_periods(schedule_of(MemoryRecords(clock), clock, check), clock)
    assert len(tries) == 10
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


@in_loop
async def test_a_store_that_fails_is_tried_again(caplog):
    clock, checked = Clock(), []

    class Failing(MemoryRecords):
        async def lease(self, kind, name, lease_s):
            if len(clock.slept) < 5:
                raise LedgerError("the store is down")
            return await super().lease(kind, name, lease_s)

    async def check(name):
        checked.append(name)

    await run_for_ten_periods(schedule_of(Failing(clock), clock, check), clock)
    assert len(checked) == 6
    assert caplog.text.count("the store is down") == 1


@in_loop
async def test_a_name_that_costs_money_is_checked_less_often():
    clock, checked = Clock(), []

    async def names():
        return ["free", "paid"]

    async def check(name):
        checked.append(name)

    schedule = Schedule(1, MemoryRecords(clock), names, check, shortest_s=lambda name: 60.0 if name == "paid" else 0.0)
    for _ in range(120):
        await schedule.run_once()
        clock.now += 1
    assert checked.count("free") == 120
    assert checked.count("paid") == 3
