"""Sync with a paid model on loopback, without a cache: `paid_sync.py URL STATE_FOLDER FOLDER DEST`.

Prints the number of vectors in the journal whenever some are added, then `done` with the numbers of texts that were
computed and resumed.
"""

import asyncio
import os
import sys
from pathlib import Path

url, state, folder, destination = sys.argv[1:]
os.environ["XDG_STATE_HOME"] = state

from embedway import AsyncEmbedder  # noqa: E402
from embedway.collections.journal import Journal  # noqa: E402
from embedway.collections.options import SyncOptions  # noqa: E402
from embedway.collections.sync import sync_collection  # noqa: E402
from held_service import config_of  # noqa: E402

add = Journal.add


def add_and_print(journal, texts, vectors):
    add(journal, texts, vectors)
    print(journal.count, flush=True)  # noqa: T201 - the signal for the test


async def sync():
    config = config_of(url, Path(state), **{"cache.backend": "none", "upstream.max_attempts": 1})
    async with AsyncEmbedder(config=config) as embedder:
        return await sync_collection(embedder, destination, [folder], SyncOptions())


Journal.add = add_and_print
summary = asyncio.run(sync())
print("done", summary.computed, summary.resumed, flush=True)  # noqa: T201
