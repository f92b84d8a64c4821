import asyncio
import itertools
from dataclasses import replace

import pytest

from async_tests import in_loop
from embedway import LedgerError
from embedway.ledger.records import Record
from embedway.quality.quarantine import REFRESH_S, Quarantines, RouteState
from memory_records import MemoryRecords

STATE = RouteState("m", "m@1/4", "r", True, True, 9.0, 5.0, 8.0, ("its rows are permuted",))


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


class Counting(MemoryRecords):
    """Records whose clock always moves on, and that note the calls that read."""

    def __init__(self):
        super().__init__(itertools.count(1).__next__)
        self.calls = []

    async def names(self, kind):
        self.calls.append("names")
        return await super().names(kind)

    async def get(self, kind, name):
        self.calls.append("get")
        return await super().get(kind, name)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


@in_loop
async def test_the_first_call_waits_for_the_states(clock):
    records = MemoryRecords()
    await records.put(STATE.to_record())
    found = Quarantines(records, clock=clock)
    await found.refresh()
    assert "its rows are permuted" in found.of_space("m@1/4")["r"]
    assert found.of_space("other") == {}


@in_loop
async def test_later_reads_are_rare_and_in_the_background(clock):
    records = Counting()
    found = Quarantines(records, clock=clock)
    for _ in range(100):
        await found.refresh()
    assert records.calls == ["names"]
    await records.put(STATE.to_record())
    clock.now += REFRESH_S
    await found.refresh()
    assert not found.of_space("m@1/4")
    await settled()
    assert found.of_space("m@1/4")
    assert records.calls == ["names", "names", "get"]


@in_loop
async def test_only_changed_states_are_read_again(clock):
    records = Counting()
    found = Quarantines(records, clock=clock)
    await records.put(STATE.to_record())
    await records.put(replace(STATE, route="s").to_record())
    await found.read()
    assert records.calls == ["names", "get", "get"]
    await found.read()
    await records.put(replace(STATE, quarantined=False).to_record())
    await records.remove("quarantine", replace(STATE, route="s").name)
    await found.read()
    assert records.calls[3:] == ["names", "names", "get"]
    assert not found.of_space("m@1/4")


@in_loop
async def test_the_last_of_two_reads_counts(clock):
    class Slow(MemoryRecords):
        answered = None

        async def names(self, kind):
            names = await super().names(kind)
            if self.answered is not None:
                answered, self.answered = self.answered, None
                await answered.wait()
            return names

    records = Slow()
    found = Quarantines(records, clock=clock)
    records.answered = answered = asyncio.Event()
    early = asyncio.create_task(found.read())
    await settled()
    await records.put(STATE.to_record())
    late = asyncio.create_task(found.read())
    await settled()
    answered.set()
    await asyncio.gather(early, late)
    assert found.of_space("m@1/4")


@in_loop
async def test_a_store_that_fails_stops_no_call_and_ends_no_quarantine(clock, caplog):
    class Failing(MemoryRecords):
        is_down = False

        async def names(self, kind):
            if self.is_down:
                raise LedgerError("the store is down")
            return await super().names(kind)

    records = Failing()
    records.is_down = True
    found = Quarantines(records, clock=clock)
    await found.refresh()
    assert not found.of_space("m@1/4")
    records.is_down = False
    await records.put(STATE.to_record())
    await found.read()
    records.is_down = True
    caplog.clear()
    await found.read()
    await found.read()
    assert found.of_space("m@1/4")
    assert caplog.text.count("the store is down") == 1


@in_loop
async def test_a_slow_store_delays_only_the_first_call(clock, monkeypatch):
    class Hanging(MemoryRecords):
        async def names(self, kind):
            await asyncio.Event().wait()

    monkeypatch.setattr("embedway.quality.quarantine.FIRST_WAIT_S", 0.0)
    found = Quarantines(Hanging(), clock=clock)
    await found.refresh()
    await found.refresh()
    await found.aclose()


@in_loop
async def test_a_state_that_no_version_wrote_is_ignored(clock):
    records = MemoryRecords()
    await records.put(Record("quarantine", "x", "[]"))
    await records.put(STATE.to_record())
    found = Quarantines(records, clock=clock)
    await found.refresh()
    assert set(found.of_space("m@1/4")) == {"r"}
    assert RouteState.from_record(STATE.to_record()) == STATE
