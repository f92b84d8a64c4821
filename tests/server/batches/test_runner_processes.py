"""Processes that are killed at random moments: uploads are whole or absent, and no finished line is computed again."""

import asyncio
import collections
import random
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import batch_gateway
from batch_gateway import QUICK, expected_results, request_line, results_of
from batch_stores import a_batch, content_of, open_stores, put_file
from embedway.server.batches.base import Listing

RUNNER = Path(batch_gateway.__file__).with_name("killed_runner.py")
UPLOADER = Path(batch_gateway.__file__).with_name("killed_gateway.py")
LINES = 160


def start_runner(place, notes, ahead_s):
    kind, folder, url = place
    return subprocess.Popen([sys.executable, RUNNER, kind, folder, url, notes, str(ahead_s)])


def computed(notes):
    return notes.read_text().splitlines() if notes.exists() else []


def wait_for(is_reached, process):
    while not is_reached():
        assert process.poll() is None
        time.sleep(0.002)


def with_store(place, work, ahead_s=0.0):
    """Run `work(store)` in an event loop of its own."""

    async def body():
        (store,) = open_stores(*place, lambda: time.time() + ahead_s)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(body())


async def add_batch(store):
    file = await put_file(store, b"".join(map(request_line, range(LINES))), tenant="a", keep_s=1e6)
    batch = a_batch(file, await store.now(), key_name="a")
    assert await store.add_batch(batch, 10) == "added"
    return batch


async def results(store, batch):
    found = await store.get_batch("a", batch.id)
    return found, results_of(await content_of(store, batch.output_file_id))


def has_ended(place, batch):
    time.sleep(0.05)
    return with_store(place, lambda store: store.get_batch("a", batch.id)).has_ended


def check_results(place, batch, notes, kills):
    """Check that all is there, and that only lines in flight at a kill were computed again."""
    found, output = with_store(place, lambda store: results(store, batch))
    assert (found.status, found.total, found.completed, found.failed) == ("completed", LINES, LINES, 0)
    assert found.tokens == 3 * LINES
    assert {name: line["response"]["body"] for name, line in output.items()} == expected_results(LINES)
    counts = collections.Counter(computed(notes))
    assert set(counts) == {f"text {n}" for n in range(LINES)}
    assert sum(counts.values()) - LINES <= kills * QUICK.lines_at_once
    assert max(counts.values()) <= 1 + kills


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_runner_loses_only_what_was_in_flight(place, tmp_path, seed):
    chance = random.Random(seed)
    notes = tmp_path / "notes"
    batch = with_store(place, add_batch)
    kills = 0
    for goal in sorted(chance.sample(range(LINES - 10), 2)):
        # The clock of each process is ahead of the killed one's, so that its leases have passed.
        process = start_runner(place, notes, 100 * kills)
        try:
            wait_for(lambda goal=goal: len(computed(notes)) > goal, process)
            time.sleep(chance.random() * 0.02)
        finally:
            process.kill()
            process.wait()
        kills += 1
    process = start_runner(place, notes, 100 * kills)
    try:
        wait_for(lambda: has_ended(place, batch), process)
    finally:
        process.kill()
        process.wait()
    check_results(place, batch, notes, kills)


def test_the_other_runner_takes_over(place, tmp_path):
    notes = tmp_path / "notes"
    batch = with_store(place, add_batch)
    first = start_runner(place, notes, 0)
    try:
        wait_for(lambda: len(computed(notes)) > 30, first)
        # The clocks of replicas agree; here the second one's is ahead, so that the test does not wait for the lease.
        # The first one's leases end within its own time, so the second one starts after it was killed.
        first.kill()
        second = start_runner(place, notes, 100)
        third = start_runner(place, notes, 100)
        try:
            wait_for(lambda: has_ended(place, batch), second)
        finally:
            for process in (second, third):
                process.kill()
                process.wait()
    finally:
        first.kill()
        first.wait()
    check_results(place, batch, notes, 1)


@pytest.mark.parametrize("seed", range(3))
def test_an_upload_is_whole_or_absent_after_a_kill(place, tmp_path, seed):
    chance = random.Random(seed)
    kind, folder, url = place
    process = subprocess.Popen([sys.executable, UPLOADER, kind, folder, url], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        data = random.Random(seed).randbytes(1_500_000)
        stop_at = chance.randrange(2, 5)

        def parts(number):
            """Send a form, and kill the server within the last one."""
            yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
            kill_at = chance.randrange(0, len(data), 50_000) if number == stop_at else None
            for at in range(0, len(data), 50_000):
                if at == kill_at:
                    process.kill()
                yield data[at : at + 50_000]
            yield b"\r\n--b--\r\n"

        headers = {"content-type": "multipart/form-data; boundary=b", "authorization": "Bearer a"}

        def send(number):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/files", content=parts(number), headers=headers)
            return answer.json()["id"]

        answered = [send(number) for number in range(stop_at)]
        with pytest.raises(httpx.TransportError):
            send(stop_at)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

    async def check(store):
        files = (await store.list_files(Listing("a", 100))).items
        assert {file.id for file in files} >= set(answered)
        for file in files:
            assert await content_of(store, file.id) == data

    with_store(place, check)

    async def sweep(store):
        await store.sweep(100)
        return await store.used_bytes("a")

    assert with_store(place, sweep, 6 * 3600 + 100) == len(data) * len(answered)
