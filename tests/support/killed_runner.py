"""A process that runs batches until it is killed, and notes each computation in a file.

Arguments: the kind of the store, its folder, its URL, the file, and seconds that its clock is ahead.
"""

import asyncio
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from batch_gateway import QUICK, find_caller
from batch_gateway import answer_to as answer_of
from batch_stores import open_stores
from embedway.server.batches.computing import Answer
from embedway.server.batches.runner import BatchRunner


async def main(kind, folder, url, notes, ahead_s):
    (store,) = open_stores(kind, Path(folder), url, lambda: time.time() + float(ahead_s))
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def compute(caller, body):
        os.write(descriptor, f"{body['input']}\n".encode())
        await asyncio.sleep(0.004)
        return Answer(200, answer_of(body).encode(), None, 3)

    runner = BatchRunner(store, compute, find_caller, settings=replace(QUICK, lease_s=60.0))
    runner.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
