"""The inference process under its supervisor: killed, stopped, hanging, drained, and left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from async_tests import in_loop
from embedway import AsyncEmbedder, Config
from embedway.errors import RuntimeUnavailableError, UnavailableError
from embedway.server.inference.client import InferenceClient
from embedway.server.inference.process import InferenceProcess, InferenceStart
from embedway.server.inference.settings import WatchLimits
from inference_service import until

#: Patience for a process on a busy machine, in seconds.
PATIENCE_S = 100
QUICK = WatchLimits(ping_every_s=0.1, ping_timeout_s=1.0, first_pause_s=0.05, start_s=PATIENCE_S)


@pytest.fixture
def overrides(config, tmp_path):
    return {
        "weights.directory": str(config.weights.directory),
        "tune.directory": str(tmp_path / "tune"),
        "cache.backend": "none",
    }


@pytest.fixture
def run(overrides):
    """Start inference processes, and stop them after the test."""
    started = []

    def start(limits=QUICK, *, wait=True, **more):
        process = InferenceProcess(
            InferenceStart(overrides={**overrides, **more}, drain_s=30), directory=Path("/tmp"), limits=limits
        )
        process.start()
        started.append(process)
        assert not wait or process.wait_until_ready(PATIENCE_S)
        return process

    yield start
    for process in started:
        process.stop(drain_s=0)


def worker(process, overrides):
    config = Config.load(environ={}, overrides=overrides)
    return AsyncEmbedder(config=config, _inference=lambda: InferenceClient(process.path))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has reaped has ended.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def keep_embedding(embedder, answers, ended):
    """Embed texts one after another until `ended`; add each text with its vector or error to `answers`."""
    number = 0
    while not ended.is_set():
        number += 1
        text = f"text {id(answers) % 1000} {number} of some words"
        try:
            async with asyncio.timeout(PATIENCE_S):  # nobody hangs
                answers.append((text, (await embedder.embed(text)).vectors[0]))
        except UnavailableError as error:
            assert error.retry_after_s is not None
            answers.append((text, error))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@in_loop
async def test_a_process_that_is_killed_or_stopped_under_load_is_replaced(run, overrides, number):
    process = await asyncio.to_thread(run)
    async with worker(process, overrides) as one, worker(process, overrides) as other:
        await asyncio.gather(one.embed("first"), other.embed("first"))
        ended, answers = asyncio.Event(), [[] for _ in range(8)]
        callers = [
            asyncio.create_task(keep_embedding(embedder, found, ended))
            for embedder, found in zip((one, other) * 4, answers, strict=True)
        ]
        await until(lambda: all(len(found) > 3 for found in answers))
        before = process.pid
        os.kill(before, number)
        counts = [len(found) for found in answers]
        await until(lambda: process.restarts and process.state == "ready", PATIENCE_S)
        await until(
            lambda: all(len(found) > count + 3 for found, count in zip(answers, counts, strict=True)), PATIENCE_S
        )
        ended.set()
        await asyncio.gather(*callers)
        assert not is_running(before)
        assert process.pid != before
        # Calls of the dead process were computed by the next one.
        found = [pair for some in answers for pair in some]
        assert not [answer for _, answer in found if isinstance(answer, UnavailableError)]
        async with AsyncEmbedder(config=one.config) as here:
            truth = (await here.embed([text for text, _ in found])).vectors
    assert (truth * np.array([vector for _, vector in found])).sum(axis=1).min() > 0.99999


@in_loop
async def test_a_process_that_dies_again_and_again_fails_its_calls_in_time(run, overrides):
    process = await asyncio.to_thread(run)
    async with worker(process, overrides) as embedder:
        await embedder.embed("first")
        call = asyncio.create_task(embedder.embed(["word " * 250 + str(number) for number in range(3000)]))
        for _ in range(2):
            client = InferenceClient(process.path)
            async with asyncio.timeout(PATIENCE_S):
                while not (await client.ping())["jobs"]:
                    await asyncio.sleep(0.002)
            await client.aclose()
            restarts = process.restarts
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda before=restarts: process.restarts > before and process.pid, PATIENCE_S)
        with pytest.raises(UnavailableError, match="being restarted"):
            await asyncio.wait_for(call, PATIENCE_S)
        assert len((await embedder.embed("last")).vectors) == 1


@in_loop
async def test_a_process_without_progress_is_replaced(run, overrides):
    # Every batch takes longer than this.
    process = await asyncio.to_thread(run, **{"server.hang_s": 0.001})
    async with worker(process, overrides) as embedder:
        texts = [f"{number} " + "word " * 250 for number in range(4000)]
        calls = asyncio.create_task(embedder.embed(texts))
        await until(lambda: process.restarts, PATIENCE_S)
        calls.cancel()
        await asyncio.wait([calls])


def test_the_socket_is_private_and_removed(run):
    process = run()
    folder = process.path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    pid = process.pid
    process.stop(drain_s=5)
    assert not folder.exists()
    assert not is_running(pid)
    assert (process.state, process.pid) == ("stopped", None)


@in_loop
async def test_stopping_answers_accepted_jobs(run, overrides):
    process = await asyncio.to_thread(run)
    async with worker(process, overrides) as embedder:
        await embedder.embed("first")
        call = asyncio.create_task(embedder.embed([f"{number} " + "word " * 200 for number in range(64)]))
        client = InferenceClient(process.path)
        async with asyncio.timeout(PATIENCE_S):
            while not (await client.ping())["jobs"]:
                await asyncio.sleep(0.001)
        await asyncio.to_thread(process.stop, drain_s=PATIENCE_S)
        assert np.isfinite((await call).vectors).all()
        await client.aclose()


def test_states_are_reported_in_order(overrides, tmp_path):
    states = []
    process = InferenceProcess(
        InferenceStart(overrides=overrides), directory=Path("/tmp"), limits=QUICK, on_change=states.append
    )
    process.start()
    assert process.wait_until_ready(PATIENCE_S)
    os.kill(process.pid, signal.SIGKILL)
    until_s = time.monotonic() + PATIENCE_S
    while states[-1:] != ["ready"] or "restarting" not in states:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    process.stop(drain_s=5)
    assert states == ["starting", "ready", "restarting", "ready", "stopped"]


def test_models_are_loaded_at_the_start(overrides):
    process = InferenceProcess(
        InferenceStart(overrides=overrides, warm=["auto", "no-such-model"]), directory=Path("/tmp"), limits=QUICK
    )
    process.start()

    async def wait():
        client = InferenceClient(process.path)
        async with asyncio.timeout(PATIENCE_S):
            while [one["state"] for one in (await client.state())["models"]] != ["loaded"]:
                await asyncio.sleep(0.02)
        await client.aclose()

    asyncio.run(wait())
    process.stop()


SUPERVISOR = """
import sys
from pathlib import Path
from embedway.server.inference.process import InferenceProcess, InferenceStart
process = InferenceProcess(InferenceStart(), directory=Path(sys.argv[1]))
process.start()
assert process.wait_until_ready(100)
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_no_process_stays_when_the_supervisor_is_killed():
    command = [sys.executable, "-c", SUPERVISOR, "/tmp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as supervisor:
        pid = int(supervisor.stdout.readline())
        assert is_running(pid)
        supervisor.kill()
    until_s = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_directory_with_a_long_path_is_refused(tmp_path):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    with pytest.raises(RuntimeUnavailableError, match=r"server\.run_directory"):
        InferenceProcess(InferenceStart(), directory=folder).start()
    assert not list(folder.iterdir())
