"""Sync that is killed: `killed_sync.py FOLDER DEST COUNT_FILE [SECONDS_PER_BATCH [DIE_AT]]`.

Appends the number of computed texts to COUNT_FILE after each batch. With DIE_AT, it kills itself at that event, counted
from 1: events are just before and just after each call of the store that changes something.
"""

import asyncio
import functools
import itertools
import os
import signal
import sys
from pathlib import Path

from embedway.collections import chunk_reader
from embedway.collections.options import SyncOptions
from embedway.collections.stores import store_for
from embedway.collections.sync import sync_collection
from fake_embedder import FakeEmbedder

folder, destination, counts, *more = sys.argv[1:]
pause = float(more[0]) if more else 0.002
die_at = int(more[1]) if len(more) > 1 else 0
events = itertools.count(1)


def note(count):
    with Path(counts).open("a") as file:
        file.write(f"{count}\n")


async def on_embed(texts):
    note(len(texts))
    await asyncio.sleep(pause)


def event():
    if next(events) == die_at:
        os.kill(os.getpid(), signal.SIGKILL)


def with_events(method):
    @functools.wraps(method)
    def run(*args, **options):
        event()
        result = method(*args, **options)
        event()
        return result

    return run


kind = type(store_for(destination))
for name in ("begin", "begin_update", "write", "remove", "commit"):
    setattr(kind, name, with_events(getattr(kind, name)))
chunk_reader.FIRST_BATCH_CHUNKS = chunk_reader.MAX_BATCH_CHUNKS = 8
print("ready", flush=True)  # noqa: T201 - the signal for the test
# The server notices a moment after it that the process that held the lock was killed.
options = SyncOptions(wait=True)
asyncio.run(sync_collection(FakeEmbedder(on_embed=on_embed), destination, [folder], options))
print("done", flush=True)  # noqa: T201
