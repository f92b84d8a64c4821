"""The inference process under its supervisor: killed, stopped, hanging, drained, and left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import inference_program
from async_tests import in_loop
from embedway import AsyncEmbedder, Config
from embedway.errors import UnavailableError
from embedway.server.inference.client import InferenceClient
from inference_service import until
from inside import embedder_with

#: Patience for a process on a busy machine, and time without a heartbeat, in seconds.
PATIENCE_S, HANG_S = 100, 4


class Program:
    """A supervisor with an inference process."""

    def __init__(self, path, settings):
        self.path = path
        command = [sys.executable, inference_program.__file__, json.dumps([settings, str(path), HANG_S])]
        self.supervisor = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.supervisor.stdout.readline() == b"ready\n"

    @property
    def pid(self):
        """Return the current inference process; None while there is none."""
        number = self.supervisor.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        return int(children[0]) if children else None

    def stop(self):
        self.supervisor.terminate()
        self.supervisor.wait(PATIENCE_S)


@pytest.fixture
def settings(config, tmp_path):
    return {
        "weights.directory": str(config.weights.directory),
        "tune.directory": str(tmp_path / "tune"),
        "cache.backend": "none",
    }


@pytest.fixture
def run(settings):
    """Start a program, and stop it after the test."""
    started = []
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:

        def start(**more):
            started.append(Program(Path(folder) / "s", {**settings, **more}))
            return started[0]

        yield start
        for program in started:
            program.supervisor.kill()
            program.supervisor.wait()
            program.supervisor.stdout.close()


def worker(program, settings):
    config = Config.load(environ={}, overrides=settings)
    return embedder_with(lambda: InferenceClient(program.path), config)


def is_running(pid):
    try:
        # A zombie that nobody has reaped has ended.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_it_has_jobs(program):
    client = InferenceClient(program.path)
    async with asyncio.timeout(PATIENCE_S):
        while not (await client.ping())["jobs"]:  # noqa: ASYNC110  of another process
            await asyncio.sleep(0.001)
    await client.aclose()


async def keep_embedding(embedder, answers, ended):
    """Embed texts one after another until `ended`; add each text with its vector or error to `answers`."""
    while not ended.is_set():
        text = f"text {id(answers) % 1000} {len(answers)} of some words"
        async with asyncio.timeout(PATIENCE_S):  # nobody hangs
            answers.append((text, (await embedder.embed(text)).vectors[0]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@in_loop
async def test_a_process_that_is_killed_or_stopped_under_load_is_replaced(run, settings, number):
    program = await asyncio.to_thread(run)
    async with worker(program, settings) as one, worker(program, settings) as other:
        await asyncio.gather(one.embed("first"), other.embed("first"))
        ended, answers = asyncio.Event(), [[] for _ in range(8)]
        callers = [
            asyncio.create_task(keep_embedding(embedder, found, ended))
            for embedder, found in zip((one, other) * 4, answers, strict=True)
        ]
        await until(lambda: all(len(found) > 3 for found in answers))
        before = program.pid
        os.kill(before, number)
        await until(lambda: program.pid not in {before, None}, PATIENCE_S)
        counts = [len(found) for found in answers]
        await until(
            lambda: all(len(found) > count + 3 for found, count in zip(answers, counts, strict=True)), PATIENCE_S
        )
        ended.set()
        # No call failed: those of the dead process were computed by the next one.
        await asyncio.gather(*callers)
        assert not is_running(before)
        found = [pair for some in answers for pair in some]
        async with AsyncEmbedder(config=one.config) as here:
            truth = (await here.embed([text for text, _ in found])).vectors
    assert (truth * np.array([vector for _, vector in found])).sum(axis=1).min() > 0.99999


@in_loop
async def test_a_process_that_dies_again_and_again_fails_its_calls_in_time(run, settings):
    program = await asyncio.to_thread(run)
    async with worker(program, settings) as embedder:
        await embedder.embed("first")
        call = asyncio.create_task(embedder.embed([f"{number} " + "word " * 250 for number in range(3000)]))
        for _ in range(2):
            await until_it_has_jobs(program)
            before = program.pid
            os.kill(before, signal.SIGKILL)
            await until(lambda before=before: program.pid not in {before, None}, PATIENCE_S)
        with pytest.raises(UnavailableError, match="being restarted"):
            await asyncio.wait_for(call, PATIENCE_S)
        assert len((await embedder.embed("last")).vectors) == 1


@in_loop
async def test_a_process_without_progress_is_replaced(run, settings):
    # Every batch takes longer than this.
    program = await asyncio.to_thread(run, **{"server.hang_s": 0.001})
    async with worker(program, settings) as embedder:
        before = program.pid
        call = asyncio.create_task(embedder.embed([f"{number} " + "word " * 250 for number in range(4000)]))
        await until(lambda: program.pid not in {before, None}, PATIENCE_S)
        call.cancel()
        await asyncio.wait([call])


@in_loop
async def test_stopping_answers_accepted_jobs(run, settings):
    program = await asyncio.to_thread(run)
    async with worker(program, settings) as embedder:
        await embedder.embed("first")
        call = asyncio.create_task(embedder.embed([f"{number} " + "word " * 200 for number in range(64)]))
        await until_it_has_jobs(program)
        await asyncio.to_thread(program.stop)
        assert np.isfinite((await call).vectors).all()


def test_no_process_stays_when_the_supervisor_is_killed(run):
    program = run()
    pid = program.pid
    program.supervisor.kill()
    limit_s = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < limit_s
        time.sleep(0.01)
