"""Vectors of answered requests outlast the end of a job: nothing that a service answered is sent again."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from embedway.collections.stores import open_store
from embedway.providers.fake import vector_of
from held_service import WIDTH, held_service

SCRIPT = Path(__file__).parents[1] / "support" / "paid_sync.py"
DOCUMENTS, ANSWERED = 256, 5
#: Inputs of a request of this service.
INPUTS = 32


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"the event loop of {number}")

    def begin(url, destination):
        arguments = [sys.executable, SCRIPT, url, tmp_path, folder, destination]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return begin


def finish(start, destination):
    """Sync again; return the texts that were sent, and the numbers of computed and resumed ones."""
    with held_service(free=DOCUMENTS) as service, start(service.url, destination) as process:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    _, computed, resumed = output.splitlines()[-1].split()
    store = open_store(destination)
    rows = [
        (fields["text"], vector)
        for some in store.read()
        for fields, vector in zip(some.fields, some.vectors, strict=True)
    ]
    store.close()
    assert len(rows) == DOCUMENTS
    assert all(abs(vector - vector_of(text, WIDTH)).max() < 1e-5 for text, vector in rows)
    return service.answered, int(computed), int(resumed)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_that_a_signal_ends_in_a_batch_sends_no_answered_text_again(start, tmp_path, number, ending):
    destination = str(tmp_path / f"out.{ending}")
    with held_service(free=ANSWERED) as service, start(service.url, destination) as process:
        while int(process.stdout.readline()) < ANSWERED * INPUTS:
            pass
        process.send_signal(number)
        process.communicate(timeout=60)
        answered = list(service.answered)
    assert len(answered) == ANSWERED * INPUTS
    again, computed, resumed = finish(start, destination)
    assert max(Counter(answered + again).values()) == 1
    assert (computed, resumed) == (DOCUMENTS - len(answered), len(answered))


@pytest.mark.parametrize("fault", [429, 402])
def test_a_request_that_fails_for_good_keeps_the_other_answers_of_its_batch_and_says_so(start, tmp_path, fault):
    destination = str(tmp_path / "out.parquet")
    with held_service(free=ANSWERED, fault=fault) as service, start(service.url, destination) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "160 of 256 texts are computed and kept" in errors
    again, computed, resumed = finish(start, destination)
    assert max(Counter(service.answered + again).values()) == 1
    assert (computed, resumed) == (DOCUMENTS - ANSWERED * INPUTS, ANSWERED * INPUTS)
