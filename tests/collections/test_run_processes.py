"""A killed job shows nothing or everything, and the next job removes its leftovers."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedway.collections.run import RunOptions, run_job
from embedway.collections.stores import open_store

SCRIPT = Path(__file__).parents[1] / "support" / "killed_job.py"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"the event loop {n}"}) for n in range(100)]
    path.write_text("\n".join(["not json", *rows]))
    return str(path)


@pytest.fixture
def kill_at(source):
    """Start the job, wait for the moment and send the signal; return the exit status."""

    def run(destination, moment, number, *flags):
        with subprocess.Popen(
            [sys.executable, SCRIPT, source, destination, moment, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            return process.wait(timeout=60)

    return run


def destination_for(form, folder):
    return f"lancedb:{folder}#rows" if form == "lancedb" else str(folder / f"rows.{form}")


def shown(folder):
    """Return the visible files of the folder, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("form", ["parquet", "jsonl", "lancedb"])
@pytest.mark.parametrize("moment", ["opened", "embed:1", "embed:4", "commit"])
def test_sigkill_before_the_end_shows_no_output(kill_at, source, tmp_path, fake_embedder, form, moment):
    import asyncio

    folder = tmp_path / "out"
    folder.mkdir()
    destination = destination_for(form, folder)
    assert kill_at(destination, moment, signal.SIGKILL) == -signal.SIGKILL
    # The rejects appear just before the data, so data never appears without its rejects.
    assert shown(folder) in ([], ["rows.rejects.jsonl"], [f"rows.{form}.rejects.jsonl"])
    job = run_job(fake_embedder(), [source], destination, RunOptions(on_error="skip"))
    assert asyncio.run(job).chunks == 100
    assert open_store(destination).count == 100
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "lancedb"])
def test_sigkill_while_overwriting_keeps_the_old_output(kill_at, tmp_path, fake_embedder, form):
    import asyncio

    folder = tmp_path / "out"
    folder.mkdir()
    destination = destination_for(form, folder)
    old = tmp_path / "old.txt"
    old.write_text("old")
    asyncio.run(run_job(fake_embedder(), [str(old)], destination, RunOptions()))
    kill_at(destination, "commit", signal.SIGKILL, "overwrite")
    assert open_store(destination).count == 1
    kill_at(destination, "after", signal.SIGKILL, "overwrite")
    assert open_store(destination).count == 100


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_sigterm_and_interrupt_leave_nothing_at_all(kill_at, tmp_path, number, status):
    folder = tmp_path / "out"
    folder.mkdir()
    assert kill_at(str(folder / "rows.parquet"), "embed:3", number) == status
    assert list(folder.iterdir()) == []


def test_an_interrupt_while_standard_input_stays_open_ends_the_job_cleanly(tmp_path):
    script = (
        "import asyncio, sys\nsys.path.insert(0, sys.argv[2])\nfrom fake_embedder import FakeEmbedder\n"
        "from embedway.collections import file_reader\nfrom embedway.collections.run import RunOptions, run_job\n"
        "opened = file_reader._open_standard_input\n"
        "def announced(*args, **more):\n"
        "    print('ready', flush=True)\n"
        "    return opened(*args, **more)\n"
        "file_reader._open_standard_input = announced\n"
        "job = run_job(FakeEmbedder(), ['-'], sys.argv[1], RunOptions(), standard_input=sys.stdin.buffer)\n"
        "asyncio.run(job)\n"
    )
    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "rows.parquet"), str(SCRIPT.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT
        assert b"Fatal" not in process.stderr.read()
    assert list(folder.iterdir()) == []
