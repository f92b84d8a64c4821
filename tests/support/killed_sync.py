"""Sync that another process kills: `killed_sync.py FOLDER DEST COUNT_FILE [WAIT]`.

Appends the number of computed texts to COUNT_FILE after each batch.
"""

import asyncio
import sys
from pathlib import Path

from embedway.collections import chunk_reader
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from fake_embedder import FakeEmbedder

folder, destination, counts, *pause = sys.argv[1:]


def note(count):
    with Path(counts).open("a") as file:
        file.write(f"{count}\n")


async def on_embed(texts):
    note(len(texts))
    await asyncio.sleep(float(pause[0]) if pause else 0.002)


chunk_reader.FIRST_BATCH_CHUNKS = chunk_reader.MAX_BATCH_CHUNKS = 8
print("ready", flush=True)  # noqa: T201 - the signal for the test
asyncio.run(sync_collection(FakeEmbedder(on_embed=on_embed), destination, [folder], SyncOptions()))
print("done", flush=True)  # noqa: T201
