"""Job that another process kills: `killed_job.py SOURCE DEST MOMENT [overwrite]`.

At the given moment it prints `ready` and waits to be killed. Moments: `opened`, `embed:N` (in the N-th call of the
embedder), `commit` (all is written, nothing renamed), `after` (renamed).
"""

import asyncio
import sys
import time

from embedway.collections import chunk_reader
from embedway.collections.run import RunOptions, run_job
from embedway.collections.stores import store_for
from fake_embedder import FakeEmbedder

source, destination, moment, *flags = sys.argv[1:]


def wait_to_be_killed():
    print("ready", flush=True)  # noqa: T201 - the signal for the test
    time.sleep(600)


async def on_embed(texts):
    if moment == f"embed:{len(embedder.calls)}":
        print("ready", flush=True)  # noqa: T201 - the signal for the test
        await asyncio.sleep(600)


def patched(store_class):
    began, committed = store_class.begin, store_class.commit

    def begin_then_wait(self, *args):
        began(self, *args)
        if moment == "opened":
            wait_to_be_killed()

    def commit_around(self):
        if moment == "commit":
            self._flush() if hasattr(self, "_flush") else None
            wait_to_be_killed()
        committed(self)
        if moment == "after":
            wait_to_be_killed()

    store_class.begin, store_class.commit = begin_then_wait, commit_around


patched(type(store_for(destination)))
chunk_reader.FIRST_BATCH_CHUNKS = chunk_reader.MAX_BATCH_CHUNKS = 20
embedder = FakeEmbedder(on_embed=on_embed)
options = RunOptions(on_error="skip", overwrite="overwrite" in flags)
asyncio.run(run_job(embedder, [source], destination, options))
