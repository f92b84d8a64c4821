"""Syncs that are killed go on where they were; of two at once, one is refused by name, or waits."""

import asyncio
import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedway.collections.options import SyncOptions
from embedway.collections.stores import store_for
from embedway.collections.sync import sync_collection
from embedway.errors import SinkError
from row_hashes import row_hashes

SCRIPT = Path(__file__).parents[1] / "support" / "killed_sync.py"
BATCH = 8
DOCUMENTS = 300


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.md").write_text(f"# Title {number}\n\nthe event loop of {number}\n")
    return folder


@pytest.fixture
def start(docs, tmp_path):
    def begin(destination, *more):
        arguments = [sys.executable, SCRIPT, docs, destination, tmp_path / "counts", *more]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return begin


def digest(destination):
    """Return a hash of all rows and vectors, in the order of ids."""
    rows = row_hashes(store_for(destination))
    return hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest(), len(rows)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_kill_9_at_random_moments_and_repeated_equals_an_undisturbed_run(start, docs, tmp_path, fake_embedder, ending):
    destination = str(tmp_path / f"out.{ending}")
    generator = random.Random(19)
    kills = 0
    while kills < 20:
        with start(destination, "0.02") as process:
            assert process.stdout.readline() == b"ready\n"
            try:
                process.wait(timeout=generator.uniform(0.02, 0.5))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            if process.wait(timeout=60) == 0:
                break
    with start(destination) as process:
        assert process.wait(timeout=120) == 0, process.stderr.read()
    computed = sum(map(int, (tmp_path / "counts").read_text().split()))
    undisturbed = str(tmp_path / f"new.{ending}")
    summary = asyncio.run(sync_collection(fake_embedder(), undisturbed, [str(docs)], SyncOptions()))
    assert digest(destination) == digest(undisturbed)
    # A killed process may lose the batch in flight, and one more that was not written to the journal yet.
    assert computed <= summary.chunks_written + 2 * BATCH * kills


def test_of_two_syncs_one_is_refused_by_name_and_one_waits(start, docs, tmp_path, fake_embedder):
    destination = str(tmp_path / "out.parquet")
    with start(destination, "0.1") as process:
        while not (tmp_path / "counts").exists():
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(SinkError, match=r"out\.parquet: another process"):
            asyncio.run(sync_collection(fake_embedder(), destination, [str(docs)], SyncOptions()))
        embedder = fake_embedder()
        summary = asyncio.run(sync_collection(embedder, destination, [str(docs)], SyncOptions(wait=True)))
        assert process.wait(timeout=60) == 0
    assert (summary.unchanged, embedder.calls) == (DOCUMENTS, [])
