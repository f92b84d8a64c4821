import asyncio
import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from async_tests import in_loop
from embedway import LedgerError
from embedway.ledger.budgets import Budgets
from embedway.ledger.records import Record, damaged
from embedway.pipeline.route_states import RouteStates
from embedway.quality.drift import RouteCheck
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
async def test_a_record_of_no_route_is_ignored(clock):
    records = MemoryRecords()
    await records.put(Record("quarantine", "x", "[]"))
    await records.put(STATE.to_record())
    found = Quarantines(records, clock=clock)
    await found.refresh()
    assert set(found.of_space("m@1/4")) == {"r"}
    assert RouteState.from_record(STATE.to_record()) == STATE


def changed(**fields):
    return json.dumps({**json.loads(STATE.to_record().document), **fields})


UNREADABLE = {
    "no JSON": "[",
    "deep": "[" * 200_000,
    "a list": "[]",
    "empty": "{}",
    "newer": changed(version=2),
    "no version": changed(version=None),
    "version true": changed(version=True),
    "reasons": changed(reasons=None),
    "reason": changed(reasons=[1]),
    "space": changed(space_id=[1]),
    "another space": changed(space_id="other"),
    "another route": changed(route="other"),
    "route": changed(route={}),
    "quarantined": changed(quarantined="no"),
    "drifted": changed(drifted=None),
    "time": changed(last_passed="x"),
    "NaN": changed(checked=float("nan")),
    "large": changed(drifted_since=10**400),
    "negative": changed(drifted_since=-1),
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE)
@in_loop
async def test_a_route_with_an_unreadable_record_counts_as_in_quarantine(clock, caplog, document):
    records = MemoryRecords()
    await records.put(Record("quarantine", STATE.name, document))
    await records.put(replace(STATE, route="other", quarantined=False).to_record())
    await records.put(replace(STATE, route="third").to_record())
    found = Quarantines(records, clock=clock)
    await found.refresh()
    await found.read()
    assert set(found.of_space("m@1/4")) == {"r", "third"}
    assert "embedway quality release" in found.of_space("m@1/4")["r"]
    assert caplog.text.count("r counts as in quarantine") == 1


@in_loop
async def test_a_record_that_the_store_cannot_read_counts_as_in_quarantine(clock):
    class Damaged(MemoryRecords):
        async def get(self, kind, name):
            if name == STATE.name:
                raise damaged(kind, name, "memory")
            return await super().get(kind, name)

    records = Damaged()
    await records.put(STATE.to_record())
    await records.put(replace(STATE, route="with|bar").to_record())
    found = Quarantines(records, clock=clock)
    await found.refresh()
    assert set(found.of_space("m@1/4")) == {"r", "with|bar"}


@in_loop
async def test_unknown_fields_are_ignored():
    record = Record("quarantine", STATE.name, changed(severity=2))
    assert RouteState.from_record(record) == STATE


def states_of(records):
    quarantines = Quarantines(records)
    return RouteStates(records, Budgets(None), quarantines, "quarantine"), quarantines


@pytest.mark.parametrize("document", ["[", changed(version=2)])
@in_loop
async def test_a_release_and_a_removal_repair_an_unreadable_record(document):
    for repair in ("release", "release route", "clear", "clear route"):
        records = MemoryRecords()
        await records.put(Record("quarantine", STATE.name, document))
        await records.put(replace(STATE, space_id="m@2/4").to_record())
        states, quarantines = states_of(records)
        await quarantines.read()
        assert quarantines.of_space(STATE.space_id)
        route = "r" if "route" in repair else None
        if "release" in repair:
            assert await states.release(STATE.space_id, route) == ["r"]
        else:
            await states.clear(STATE.space_id, route)
        assert not quarantines.of_space(STATE.space_id)
        assert [name for name, _ in await records.names("quarantine")] == ["m@2/4|r"]


@in_loop
async def test_a_check_replaces_an_unreadable_record():
    class Model:
        name = "m"
        space = SimpleNamespace(id=STATE.space_id)

    records = MemoryRecords()
    await records.put(Record("quarantine", STATE.name, "["))
    states, quarantines = states_of(records)
    assert (await states.record(Model, RouteCheck("r", "unchecked"), 1.0, 2.0, 3.0)).quarantined
    assert not (await states.record(Model, RouteCheck("r", "passed"), 1.0, 2.0, 3.0)).quarantined
    assert not quarantines.of_space(STATE.space_id)
    assert RouteState.from_record(await records.get("quarantine", STATE.name)).last_passed == 3.0
