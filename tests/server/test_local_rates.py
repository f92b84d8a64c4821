"""Limits in a file: several processes, killed ones, and files of other boots and forms."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from async_tests import in_loop
from embedway.errors import LedgerError
from embedway.server import local_rates
from embedway.server.local_rates import LocalRates
from embedway.server.rates import MinuteLimits

LIMITS = MinuteLimits(1000, None)
#: Takes requests until it is refused, with a clock that stands still, and prints their number.
TAKER = """
import asyncio, sys
from pathlib import Path
from embedway.server.local_rates import LocalRates
from embedway.server.rates import MinuteLimits

async def main():
    rates = LocalRates(Path(sys.argv[1]), clock=lambda: 1000.0)
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    while not await rates.take("web", 1, 0, MinuteLimits(1000, None)):
        taken += 1
    print(taken, flush=True)

asyncio.run(main())
"""
#: Locks the file and waits.
HOLDER = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX, 1)
print("locked", flush=True)
time.sleep(600)
"""


def started(code, path):
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_together_take_exactly_the_limit(tmp_path):
    processes = [started(TAKER, tmp_path / "rates") for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = [int(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sum(taken) == 1000


@in_loop
async def test_the_lock_of_a_killed_process_is_free_and_a_held_one_stops_no_event_loop(tmp_path):
    rates = LocalRates(tmp_path / "rates")
    with started(HOLDER, tmp_path / "rates") as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            take = asyncio.create_task(rates.take("web", 1, 0, LIMITS))
            for _ in range(3):
                await asyncio.sleep(0)  # the loop goes on
            assert not take.done()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.communicate()
    assert await take == 0
    await rates.aclose()


@in_loop
async def test_a_lock_that_is_never_freed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(local_rates, "_LONGEST_LOCK_S", 0.01)
    rates = LocalRates(tmp_path / "rates")
    with started(HOLDER, tmp_path / "rates") as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(LedgerError, match="another process has locked them for seconds"):
                await rates.take("web", 1, 0, LIMITS)
        finally:
            holder.kill()
            holder.communicate()
    await rates.aclose()


@in_loop
async def test_the_file_is_private_and_its_numbers_last_until_the_next_boot(tmp_path, monkeypatch):
    path, limits = tmp_path / "rates", MinuteLimits(1, None)

    async def take():
        rates = LocalRates(path, clock=lambda: 1000.0)
        wait_s = await rates.take("web", 1, 0, limits)
        await rates.aclose()
        return wait_s

    assert await take() == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await take() == 60
    boot = tmp_path / "boot"
    boot.write_text("another boot")
    monkeypatch.setattr(local_rates, "_BOOT", boot)
    assert await take() == 0
    assert await take() == 60
    path.write_bytes(b"EWRATES0" + bytes(1000))  # another format
    assert await take() == 0
    boot.unlink()
    assert await take() == 0


@pytest.mark.parametrize("kind", ["folder", "link", "missing folder", "pipe"])
def test_a_path_that_cannot_be_a_file_is_an_error(tmp_path, kind):
    path = tmp_path / "rates"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "no" / "rates"
    with pytest.raises(LedgerError, match=r"the limits of API keys in .*rates cannot be used"):
        LocalRates(path)


@in_loop
async def test_a_full_table_keeps_most_keys_and_frees_slots_of_full_buckets(tmp_path, monkeypatch):
    monkeypatch.setattr(local_rates, "_SLOTS", 64)
    now = [1000.0]
    rates = LocalRates(tmp_path / "rates", clock=lambda: now[0])
    limits = MinuteLimits(1, None)
    for number in range(64):
        assert await rates.take(f"key {number}", 1, 0, limits) == 0
    assert [await rates.take(f"key {number}", 1, 0, limits) for number in range(64)] == [60] * 64
    assert await rates.take("one more", 1, 0, limits) == 0
    forgotten = [number for number in range(64) if not await rates.take(f"key {number}", 1, 0, limits)]
    assert len(forgotten) <= 64
    assert await rates.take(f"key {forgotten[-1]}", 1, 0, limits) == 60
    now[0] += 60
    for number in range(64, 128):
        assert await rates.take(f"key {number}", 1, 0, limits) == 0
    assert [await rates.take(f"key {number}", 1, 0, limits) for number in range(64, 128)] == [60] * 64
    await rates.aclose()


@in_loop
async def test_a_take_takes_microseconds(tmp_path):
    rates, limits = LocalRates(tmp_path / "rates"), MinuteLimits(10**9, 10**9)
    best = []
    for _ in range(5):
        started_at = time.thread_time()
        for _ in range(2000):
            await rates.take("web", 1, 10, limits)
        best.append((time.thread_time() - started_at) / 2000)
    assert min(best) < 100e-6  # about 6 µs
    await rates.aclose()
