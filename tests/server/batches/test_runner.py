"""The runner: computation, retries, cancellation, expiry, several runners, and stores that fail."""

import asyncio
import contextlib
import json
import logging
from dataclasses import replace

import pytest

from async_tests import in_loop
from batch_gateway import (
    QUICK,
    FakeCompute,
    answer_to,
    caller_named,
    expected_results,
    find_caller,
    request_line,
    results_of,
)
from batch_stores import a_batch, content_of, open_stores, put_file
from embedway.errors import EmbedwayError, StateError
from embedway.server.batches import progress
from embedway.server.batches import runner as runner_module
from embedway.server.batches.computing import Answer
from embedway.server.batches.runner import BatchRunner
from embedway.server.batches.values import BatchLimits


@contextlib.asynccontextmanager
async def running(store, compute, *, find=find_caller, limits=None, settings=QUICK):
    runner = BatchRunner(store, compute, find, limits=limits, settings=settings)
    runner.start()
    try:
        yield runner
    finally:
        await runner.aclose()


@contextlib.asynccontextmanager
async def stores_of(place, clock=None, count=1):
    stores = open_stores(*place, clock, count)
    try:
        yield stores if count > 1 else stores[0]
    finally:
        for store in stores:
            await store.aclose()


async def add(store, count=20, *, tenant="a", data=None, **changes):
    file = await put_file(store, data or b"".join(map(request_line, range(count))), tenant=tenant, keep_s=1e6)
    batch = a_batch(file, await store.now(), key_name=tenant, **changes)
    assert await store.add_batch(batch, 1000) == "added"
    return batch


async def until(store, batch, is_reached=lambda batch: batch.has_ended):
    found = await store.get_batch(batch.tenant, batch.id)
    while not is_reached(found):
        await asyncio.sleep(0.01)
        found = await store.get_batch(batch.tenant, batch.id)
    return found


async def until_end(store, batch, runner, clock):
    """Let each pause pass at once. Leases are longer, so none is lost."""
    while not batch.has_ended:
        batch = await store.get_batch(batch.tenant, batch.id)
        clock.now = max(clock.now, batch.paused_until)
        runner.wake()
        await asyncio.sleep(0.01)
    return batch


async def look_again(store, runner):
    """Let a runner look for work a few times, and begin what it finds."""
    looks, open_batches = asyncio.Semaphore(0), store.open_batches

    async def counted():
        looks.release()
        return await open_batches()

    store.open_batches = counted
    for _ in range(5):
        runner.wake()
        await looks.acquire()
    store.open_batches = open_batches


async def results(store, batch):
    return [results_of(await content_of(store, one)) for one in (batch.output_file_id, batch.error_file_id)]


def bodies(found):
    return {name: line["response"]["body"] for name, line in found.items()}


def problem(status, code="x", wait_s=None):
    return Answer(status, json.dumps({"error": {"code": code}}).encode(), wait_s)


@in_loop
async def test_lines_are_computed_at_once_within_the_bound(place):
    is_full = asyncio.Event()

    async def wait_for_others(body):
        if compute.running == QUICK.lines_at_once:
            is_full.set()
        await is_full.wait()

    compute = FakeCompute(wait_for_others)
    async with stores_of(place) as store, running(store, compute):
        batch = await until(store, await add(store, 60))
        output, errors = await results(store, batch)
    assert bodies(output) == expected_results(60)
    assert errors == {}
    assert compute.most_running == QUICK.lines_at_once
    assert len(compute.inputs) == 60


@in_loop
async def test_errors_of_lines_go_to_the_error_file(place):
    async def refuse(body):
        number = int(body["input"].split()[1])
        return [None, problem(400), problem(502, "upstream_quota_exceeded"), problem(429, "insufficient_quota")][
            number % 4
        ]

    compute = FakeCompute(refuse)
    async with stores_of(place) as store, running(store, compute):
        batch = await until(store, await add(store, 20))
        output, errors = await results(store, batch)
        assert await store.get_file("a", batch.error_file_id)
    assert batch.status == "completed"
    assert (batch.total, batch.completed, batch.failed) == (20, 5, 15)
    assert set(output) == {f"id-{n}" for n in range(0, 20, 4)}
    assert {name: line["response"]["status_code"] for name, line in errors.items()} == {
        f"id-{n}": [0, 400, 502, 429][n % 4] for n in range(20) if n % 4
    }
    assert errors["id-1"]["response"]["body"] == {"error": {"code": "x"}}
    assert errors["id-1"]["error"] is None
    assert len(compute.inputs) == 20


@in_loop
async def test_temporary_failures_are_tried_again_after_their_wait(place, clock):
    seen = {}

    async def fail_once(body):
        number = int(body["input"].split()[1])
        times = seen.setdefault(number, [])
        times.append(clock.now)
        return problem([429, 503, 504][number % 3], wait_s=100.0) if len(times) == 1 and number < 3 else None

    compute = FakeCompute(fail_once)
    async with stores_of(place, clock) as store, running(store, compute) as runner:
        batch = await until(store, await add(store, 4), lambda batch: batch.paused_until)
        assert batch.completed <= 1
        assert batch.paused_until == clock.now + 100
        clock.now += 99
        await look_again(store, runner)
        assert len(compute.inputs) == 4, "nothing is sent before the wait has passed"
        clock.now += 2
        batch = await until(store, batch)
        output, _ = await results(store, batch)
    assert bodies(output) == expected_results(4)
    assert len(compute.inputs) == 7, "finished lines are not computed again"


@in_loop
async def test_the_pause_without_a_known_wait_grows(clock):
    batch = replace(a_batch(await fake_file(), clock.now), status="in_progress", total=1)
    pauses = []
    for _ in range(9):
        batch = progress.extend(batch, clock.now, "t", 30, offset=batch.cursor, size=1, lines=1) or progress.resume(
            batch, clock.now, "t", 30
        )
        batch = progress.commit(batch, clock.now, "t", progress.PartResult(is_paused=True), (None, None)).batch
        pauses.append(batch.paused_until - clock.now)
        clock.now = batch.paused_until
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@in_loop
async def test_the_pause_does_not_grow_while_lines_are_finished(clock):
    batch = replace(a_batch(await fake_file(), clock.now), status="in_progress", total=1)
    result = progress.PartResult(frozenset({0}), 1, 0, is_paused=True, wait_s=7.0)
    for _ in range(9):
        batch = progress.extend(batch, clock.now, "t", 30, offset=batch.cursor, size=1, lines=2) or progress.resume(
            batch, clock.now, "t", 30
        )
        batch = progress.commit(batch, clock.now, "t", result, (None, None)).batch
        assert batch.paused_until == clock.now + 7
        clock.now = batch.paused_until


async def fake_file():
    from embedway.server.batches.values import StoredFile

    return StoredFile("file-x", "a", 0.0, "f", "batch", 1, 9e9)


@in_loop
async def test_internal_errors_are_tried_three_times(place, clock, caplog):
    async def fail(body):
        if body["input"] == "text 1":
            raise RuntimeError("text 1 is secret")
        return problem(502) if body["input"] == "text 2" else None

    compute = FakeCompute(fail)
    async with stores_of(place, clock) as store, running(store, compute) as runner:
        batch = await add(store, 3)
        batch = await until_end(store, batch, runner, clock)
        output, errors = await results(store, batch)
    assert set(output) == {"id-0"}
    assert {name: line["response"]["status_code"] for name, line in errors.items()} == {"id-1": 500, "id-2": 502}
    assert sorted(compute.inputs) == ["text 0"] + ["text 1"] * 3 + ["text 2"] * 3
    assert "secret" not in caplog.text + str(errors)


@in_loop
async def test_answers_that_are_no_json_are_internal_errors(place):
    async def garbage(body):
        return Answer(200, b"no\njson")

    async with stores_of(place) as store, running(store, FakeCompute(garbage)):
        batch = await until(store, await add(store, 1))
        _, errors = await results(store, batch)
    assert errors["id-0"]["response"]["status_code"] == 500


@in_loop
async def test_a_revoked_key_fails_the_rest(place):
    found = {"a": caller_named("a")}

    async def find(name):
        return found.get(name)

    async def revoke(body):
        found.clear()

    settings = replace(QUICK, lines_at_once=4)
    async with stores_of(place) as store, running(store, FakeCompute(revoke), find=find, settings=settings):
        batch = await until(store, await add(store, 12))
        output, errors = await results(store, batch)
    assert set(output) == {f"id-{n}" for n in range(4)}
    assert set(errors) == {f"id-{n}" for n in range(4, 12)}
    assert {line["response"]["status_code"] for line in errors.values()} == {401}
    assert errors["id-5"]["response"]["body"]["error"]["code"] == "invalid_api_key"


@in_loop
async def test_a_key_of_another_tenant_by_now_is_revoked(place):
    async def find(name):
        return caller_named("b")

    async with stores_of(place) as store, running(store, FakeCompute(), find=find):
        batch = await until(store, await add(store, 2))
    assert (batch.completed, batch.failed) == (0, 2)


@in_loop
async def test_keys_that_cannot_be_looked_up_are_waited_for(place, clock):
    failures = [EmbedwayError("the keys cannot be read")] * 2

    async def find(name):
        if failures:
            raise failures.pop()
        return caller_named(name)

    async with stores_of(place, clock) as store, running(store, FakeCompute(), find=find) as runner:
        batch = await add(store, 2)
        batch = await until_end(store, batch, runner, clock)
    assert batch.completed == 2


@in_loop
async def test_a_cancelled_batch_stops_and_keeps_finished_lines(place):
    release, started = asyncio.Event(), asyncio.Event()

    async def wait(body):
        if int(body["input"].split()[1]) >= 4:
            started.set()
            await release.wait()

    compute = FakeCompute(wait)
    settings = replace(QUICK, part_lines=2, lines_at_once=4)
    async with stores_of(place) as store, running(store, compute, settings=settings) as runner:
        batch = await add(store, 3000)
        await started.wait()
        await until(store, batch, lambda batch: batch.completed == 4)
        cancelled = await store.change(
            "a", batch.id, progress.changing(lambda one, now: progress.stop(one, now, "cancelled"))
        )
        assert cancelled.status == "cancelling"
        runner.wake()
        before = asyncio.get_running_loop().time()
        batch = await until(store, batch)
        took_s = asyncio.get_running_loop().time() - before
        computed = len(compute.inputs)
        output, errors = await results(store, batch)
    assert batch.status == "cancelled"
    assert compute.running == 0
    assert computed <= 8
    assert took_s < 5
    assert bodies(output) == expected_results(4)
    assert set(errors) == {f"id-{n}" for n in range(4, 3000)}
    assert errors["id-9"]["error"]["code"] == "batch_cancelled"
    assert errors["id-9"]["response"] is None
    assert (batch.total, batch.completed, batch.failed) == (3000, 4, 2996)


@in_loop
async def test_a_batch_cancelled_before_its_check_has_no_results(place):
    async with stores_of(place) as store:
        batch = await add(store, 3)
        await store.change("a", batch.id, progress.changing(lambda one, now: progress.stop(one, now, "cancelled")))
        async with running(store, FakeCompute()):
            batch = await until(store, batch)
        assert batch.status == "cancelled"
        assert (batch.total, batch.completed, batch.failed) == (0, 0, 0)
        assert await store.get_file("a", batch.error_file_id) is None


@in_loop
async def test_an_expired_batch_keeps_finished_lines(place, clock):
    started = asyncio.Event()

    async def wait(body):
        if int(body["input"].split()[1]) >= 4:
            started.set()
            await asyncio.Event().wait()

    settings = replace(QUICK, lines_at_once=4)
    async with stores_of(place, clock) as store, running(store, FakeCompute(wait), settings=settings):
        batch = await add(store, 10)
        await started.wait()
        await until(store, batch, lambda batch: batch.completed == 4)
        clock.now = batch.expires_at + 1
        batch = await until(store, batch)
        output, errors = await results(store, batch)
    assert batch.status == "expired"
    assert batch.times["expired"] == int(clock.now)
    assert bodies(output) == expected_results(4)
    assert set(errors) == {f"id-{n}" for n in range(4, 10)}
    assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}


@in_loop
async def test_full_storage_fails_the_rest(place):
    limits = BatchLimits(tenant_bytes=3000)
    settings = replace(QUICK, lines_at_once=4)
    async with stores_of(place) as store, running(store, FakeCompute(), limits=limits, settings=settings):
        batch = await until(store, await add(store, 20))
        output, errors = await results(store, batch)
    assert batch.status == "completed"
    assert output
    assert {line["error"]["code"] for line in errors.values()} == {"storage_limit_exceeded"}
    assert len(output) + len(errors) == 20


@in_loop
async def test_runners_share_a_batch_and_compute_each_line_once(place):
    all_compute = asyncio.Event()

    async def wait_for_others(body):
        if all(compute.inputs for compute in computes):
            all_compute.set()
        await all_compute.wait()

    computes = [FakeCompute(wait_for_others) for _ in range(3)]
    async with stores_of(place, count=3) as stores, contextlib.AsyncExitStack() as stack:
        batch = await add(stores[0], 150)
        for store, compute in zip(stores, computes, strict=True):
            await stack.enter_async_context(running(store, compute))
        batch = await until(stores[0], batch)
        output, _ = await results(stores[1], batch)
    assert bodies(output) == expected_results(150)
    assert sorted(one for compute in computes for one in compute.inputs) == sorted(f"text {n}" for n in range(150))


@in_loop
async def test_a_small_batch_of_a_tenant_does_not_wait_for_a_large_one_of_another(place):
    finished, busy, both_are_there = [], asyncio.Event(), asyncio.Event()

    async def note(body):
        finished.append(body["input"])
        if len(finished) > 20:
            busy.set()
            await both_are_there.wait()

    async with stores_of(place) as store:
        await add(store, 2000, tenant="a")
        async with running(store, FakeCompute(note)):
            await busy.wait()
            added = await add(store, tenant="b", data=request_line(1, "small"))
            both_are_there.set()
            small = await until(store, added)
        assert small.status == "completed"
        assert len(finished) < 1000


@in_loop
async def test_a_closed_runner_stores_finished_lines_and_gives_the_rest_back(place):
    started = asyncio.Event()

    async def wait(body):
        if body["input"] != "text 0":
            started.set()
            await asyncio.Event().wait()

    first, second = FakeCompute(wait), FakeCompute()
    async with stores_of(place) as store:
        batch = await add(store, 4)
        async with running(store, first):
            await started.wait()
        batch = await store.get_batch("a", batch.id)
        assert batch.completed == 1
        assert [part.worker for part in batch.parts] == [""]
        async with running(store, second):
            batch = await until(store, batch)
        output, _ = await results(store, batch)
    assert bodies(output) == expected_results(4)
    assert "text 0" not in second.inputs


@in_loop
async def test_a_lost_lease_loses_the_late_result(place, clock):
    """A process that was suspended for longer than its lease must add nothing twice."""
    async with stores_of(place, clock) as store:
        batch = await add(store, 2)
        await store.change(
            "a", batch.id, progress.changing(lambda one, now: progress.begin_check(one, now, "gone", 30))
        )
        clock.now += 31
        hold = asyncio.Event()
        entered = asyncio.Event()

        async def wait(body):
            entered.set()
            await hold.wait()

        late = BatchRunner(store, FakeCompute(wait), find_caller, settings=replace(QUICK, watch_s=1000))
        late.start()
        await entered.wait()
        clock.now += 31
        async with running(store, FakeCompute()):
            batch = await until(store, batch)
        hold.set()
        await late.aclose()
        after = await store.get_batch("a", batch.id)
        output, errors = await results(store, batch)
    assert after == batch
    assert bodies(output) == expected_results(2)
    assert errors == {}


@in_loop
async def test_leases_are_renewed_while_lines_are_computed(place, clock):
    hold, entered = asyncio.Event(), asyncio.Event()

    async def wait(body):
        entered.set()
        await hold.wait()

    compute, other = FakeCompute(wait), FakeCompute()
    async with stores_of(place, clock) as store, running(store, compute):
        batch = await add(store, 2)
        await entered.wait()
        async with running(store, other):
            for _ in range(6):
                clock.now += 20
                await until(store, batch, lambda batch: batch.parts[0].until >= clock.now + 29)
            hold.set()
            await until(store, batch)
    assert len(compute.inputs) == 2
    assert other.inputs == []


@in_loop
async def test_results_wait_for_a_store_that_fails(place, monkeypatch):
    monkeypatch.setattr(runner_module, "_STORE_AGAIN_S", 0.01)
    compute = FakeCompute()
    async with stores_of(place) as store:
        real, failures = store.put_chunks, [0]

        async def fail(*arguments):
            failures[0] += 1
            if failures[0] <= 3:
                raise StateError("is full", file="x")
            return await real(*arguments)

        batch = await add(store, 4)
        monkeypatch.setattr(store, "put_chunks", fail)
        async with running(store, compute):
            batch = await until(store, batch)
        output, _ = await results(store, batch)
    assert failures[0] >= 4
    assert bodies(output) == expected_results(4)
    assert len(compute.inputs) == 4


@in_loop
async def test_a_damaged_batch_does_not_stop_the_others(place, caplog):
    kind, folder, url = place
    async with stores_of(place) as store:
        broken, good = await add(store, 2), await add(store, 2)
        if kind == "redis":
            import redis

            with contextlib.closing(redis.Redis.from_url(url)) as client:
                client.hset(f"{{embedway:batches}}:item:{broken.id}", "document", b'{"id": 1, "secret": 2}')
        else:
            import sqlite3

            with contextlib.closing(sqlite3.connect(folder / "batches.sqlite")) as connection:
                connection.execute("UPDATE items SET document = ? WHERE id = ?", (b'{"secret": 2}', broken.id))
                connection.commit()
        with caplog.at_level(logging.WARNING):
            async with running(store, FakeCompute()):
                good = await until(store, good)
        assert good.completed == 2
        with pytest.raises(StateError):
            await store.get_batch("a", broken.id)
    assert "secret" not in caplog.text


@in_loop
async def test_expired_files_are_deleted_by_the_runner(place, clock):
    async with stores_of(place, clock) as store:
        await put_file(store, tenant="a", keep_s=10)
        clock.now += 11
        async with running(store, FakeCompute()):
            await until(store, await add(store, 1, tenant="b"))
        assert await store.used_bytes("a") == 0


@in_loop
async def test_large_answers_are_stored_in_chunks(place):
    async def large(body):
        return Answer(200, json.dumps({"data": "x" * 1_500_000, "input": body["input"]}).encode())

    async with stores_of(place) as store, running(store, FakeCompute(large)):
        batch = await until(store, await add(store, 5))
        output, _ = await results(store, batch)
        assert (await store.get_file("a", batch.output_file_id)).size == batch.output_size > 7_500_000
    assert {body["input"] for body in bodies(output).values()} == {f"text {n}" for n in range(5)}


def test_the_fake_answer_is_a_function_of_the_body():
    assert answer_to({"model": "m", "input": "a"}) != answer_to({"model": "m", "input": "b"})
