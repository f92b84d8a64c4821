"""Bound on the entries in Redis with several processes that write at once."""

import asyncio
import contextlib
import os
import subprocess
import sys

import redis

from embedway.cache.base import Group
from embedway.cache.redis import RedisCache
from embedway.cache.redis_bound import KEY_BYTES
from valkey_server import start_valkey

MOST, BATCHES, ENTRIES, SIZE, PROCESSES = 2**21, 40, 100, 3000, 3
BATCH_BYTES = ENTRIES * (SIZE + KEY_BYTES + 500)  # at most
WRITING = f"""
import asyncio, os, sys
from embedway.cache.base import Group
from embedway.cache.redis import RedisCache

async def main():
    cache = RedisCache(sys.argv[1], int(sys.argv[2]), ttl_s=3600)
    print("ready", flush=True)
    sys.stdin.readline()
    stored = 0
    for _ in range({BATCHES}):
        stored += await cache.put_many(
            Group("m", "m@1/4"), [(os.urandom(16), os.urandom({SIZE})) for _ in range({ENTRIES})]
        )
    print(stored, cache.errors.evictions, cache.errors.failed_writes, flush=True)
    await cache.aclose()

asyncio.run(main())
"""


@contextlib.contextmanager
def server(folder, **config):
    started = start_valkey(folder, config={"save": "", **config})
    with contextlib.closing(redis.Redis(port=started.port)) as client:
        yield client, f"redis://127.0.0.1:{started.port}/0"
    started.stop()


def write_at_once(client, url, bound):
    """Write from several processes. Returns the numbers of each, the highest size of all entries, and failed writes."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", WRITING, url, str(bound)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(PROCESSES)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        highest = refused = 0
        while any(process.poll() is None for process in processes):
            highest = max(highest, client.dbsize())
            try:
                client.set("of another program", os.urandom(100))
            except redis.exceptions.OutOfMemoryError:
                refused += 1
        numbers = [tuple(map(int, process.stdout.read().split())) for process in processes]
    return numbers, highest, refused


def check_bound(client, url, bound, numbers, highest):
    entry = client.memory_usage(next(client.scan_iter(f"embedway:v1:{Group('m', 'm@1/4').id}:*")), samples=0)
    assert (highest - 5) * entry <= bound + PROCESSES * BATCH_BYTES
    assert all(failed == 0 for _, _, failed in numbers)
    names = list(client.scan_iter(f"embedway:v1:{Group('m', 'm@1/4').id}:*"))
    assert int(client.get("embedway:v1:bytes") or 0) >= len(names) * entry
    # Each entry is there, or is counted as an eviction.
    assert len(names) + sum(evicted for _, evicted, _ in numbers) >= PROCESSES * BATCHES * ENTRIES

    async def write_once():
        cache = RedisCache(url, bound)
        for _ in range(2):  # the count of the last writers may pass the bound
            await cache.put_many(Group("m", "m@1/4"), [(os.urandom(16), bytes(SIZE))])
        await cache.aclose()

    asyncio.run(write_once())
    assert int(client.get("embedway:v1:bytes")) <= bound


def test_the_bound_and_the_count_hold_with_several_writers(tmp_path):
    with server(tmp_path) as (client, url):
        numbers, highest, _ = write_at_once(client, url, MOST)
        check_bound(client, url, MOST, numbers, highest)


def test_a_small_server_refuses_nothing_of_others(tmp_path):
    """The bound is half of its memory, however large the setting."""
    with server(tmp_path, maxmemory="16mb", **{"maxmemory-policy": "noeviction"}) as (client, url):
        numbers, highest, refused = write_at_once(client, url, 2**32)
        assert refused == 0
        check_bound(client, url, 2**23, numbers, highest)
