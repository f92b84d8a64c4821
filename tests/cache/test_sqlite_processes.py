"""Processes that find the same damaged file at once."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys

from embedway.cache.sqlite import SqliteCache
from faulty_caches import GROUP

WRITING = """
import asyncio, pathlib, sys
import embedway.cache.sqlite_connection
from embedway.cache.base import Group
from embedway.cache.sqlite import SqliteCache

async def main():
    embedway.cache.sqlite_connection.BUSY_S = 100.0
    cache, number = SqliteCache(pathlib.Path(sys.argv[1]), 2**26), int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    stored = 0
    for turn in range(4):
        await cache.get_many(Group("m", "m@1/4"), [bytes([number, turn]) * 16])
        stored = await cache.put_many(Group("m", "m@1/4"), [(bytes([number, turn]) * 16, b"entry" * 10)])
    print(stored, flush=True)
    await cache.aclose()

asyncio.run(main())
"""


def test_processes_set_a_damaged_file_aside_once(tmp_path):
    path = tmp_path / "v.sqlite"

    async def fill():
        cache = SqliteCache(path, 2**26)
        await cache.put_many(GROUP, [(os.urandom(32), b"x" * 500) for _ in range(300)])
        await cache.aclose()

    asyncio.run(fill())
    data = bytearray(path.read_bytes())
    data[4096:40_000] = os.urandom(40_000 - 4096)
    path.write_bytes(data)
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITING, path, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for number in range(3)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.communicate()[0].strip() for process in processes] == ["1"] * 3
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
