"""One inference process for all workers, or a model in each worker: latency, throughput, and memory.

    python benchmarks/inference_process.py [--workers 2] [--rounds 5] [--seconds 3]

Workers are processes with an embedder on uvloop, without HTTP and without a cache. Both setups run at the same time and
are measured in turn: milliseconds of one text on one worker, while the others are idle; then texts per second of 16
callers, divided among the workers. Each with the CPU time of all processes of the setup, which depends less on other
programs. All texts are unique and have 15 to 20 tokens. Memory is the proportional set size (shared pages are divided
among their processes) of all processes of a setup, after the measurement.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from embedway import AsyncEmbedder, Config
from embedway._engine import Engines
from embedway.server.inference.client import InferenceClient
from embedway.server.inference.run import run_inference
from embedway.server.listening import listen_at

CALLERS, QUERIES = 16, 150
OVERRIDES = {"cache.backend": "none"}
WORDS = (
    *("river", "stone", "market", "window", "letter", "garden", "engine"),
    *("paper", "silver", "morning", "bridge", "signal", "harbor", "forest"),
)


def text_of(random_words, number):
    return f"{' '.join(random_words.choices(WORDS, k=random_words.randint(10, 14)))} {number}"


async def measure(embedder, command):
    """Run a command of the parent; return milliseconds of single queries, or texts and texts per second."""
    kind, amount, callers = command
    words = random.Random(time.time_ns())  # noqa: S311  unique texts
    numbers = iter(range(10**9))
    if kind == "latency":
        times = []
        for _ in range(amount):
            text, began = text_of(words, next(numbers)), time.perf_counter()
            await embedder.embed(text, input_type="query")
            times.append((time.perf_counter() - began) * 1e3)
        return times
    until = time.perf_counter() + amount

    async def call():
        done = 0
        while time.perf_counter() < until:
            await embedder.embed(text_of(words, next(numbers)), input_type="query")
            done += 1
        return done

    began = time.perf_counter()
    texts = sum(await asyncio.gather(*(call() for _ in range(callers))))
    return texts, texts / (time.perf_counter() - began)


async def work(path):
    """Run commands from standard input until it is closed."""
    inference = (lambda: InferenceClient(Path(path))) if path else None
    config = Config.load(environ={}, overrides=OVERRIDES)
    made = AsyncEmbedder(config=config)
    made._engines = made.models._engines = Engines(config, (), None, inference)  # noqa: SLF001  no public option
    async with made as embedder:
        await embedder.models.warm()
        await embedder.embed("a first text")
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await measure(embedder, json.loads(line))), flush=True)


class Setup:
    """Workers of one setup; `path` is the socket of an inference process, or empty."""

    def __init__(self, name, workers, path="", further=()):
        self.name, self.further = name, further
        command = [sys.executable, __file__, "--work", path]
        self.workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)
        ]
        for worker in self.workers:
            read(worker)
        self.times, self.speeds = [], []
        #: CPU milliseconds of a text in each round: one at a time, and with all callers.
        self.alone, self.together = [], []

    @property
    def pids(self):
        return [*(worker.pid for worker in self.workers), *self.further]

    def measure(self, seconds):
        began = sum(map(cpu_ms, self.pids))
        write(self.workers[0], "latency", QUERIES, 1)
        self.times += read(self.workers[0])
        middle = sum(map(cpu_ms, self.pids))
        for worker in self.workers:
            write(worker, "throughput", seconds, CALLERS // len(self.workers))
        found = [read(worker) for worker in self.workers]
        texts, speeds = zip(*found, strict=True)
        self.speeds.append(sum(speeds))
        self.alone.append((middle - began) / QUERIES)
        self.together.append((sum(map(cpu_ms, self.pids)) - middle) / sum(texts))

    def report(self):
        times = sorted(self.times)
        p10, p99 = times[len(times) // 10], times[len(times) * 99 // 100]
        alone, together = statistics.median(self.alone), statistics.median(self.together)
        memory = [memory_mib(pid) for pid in self.pids]
        print(
            f"{self.name:22} one text p50 {statistics.median(times):5.2f} ms  p10 {p10:5.2f}  p99 {p99:6.2f}  "
            f"CPU {alone:5.2f} ms   {CALLERS} callers {statistics.median(self.speeds):6.0f} texts/s  "
            f"CPU {together:5.2f} ms/text   memory {sum(memory):4.0f} MiB ({', '.join(f'{one:.0f}' for one in memory)})"
        )


def write(worker, *command):
    worker.stdin.write(json.dumps(command) + "\n")
    worker.stdin.flush()


def read(worker):
    return json.loads(worker.stdout.readline())


def cpu_ms(pid):
    """Return the CPU time of a process, of its user and system parts, in milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--work", default=None)
    options = parser.parse_args()
    if options.work is not None:
        import uvloop

        uvloop.run(work(options.work))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        process = start_inference(path)
        setups = [
            Setup("a model per worker", options.workers),
            Setup("one inference process", options.workers, str(path), [process]),
        ]
        print(f"{options.workers} workers, {os.cpu_count()} CPUs, {options.rounds} rounds of {QUERIES} queries")
        for number in range(options.rounds):
            for setup in setups if number % 2 else setups[::-1]:
                setup.measure(options.seconds)
        for setup in setups:
            setup.report()
        for setup in setups:
            for worker in setup.workers:
                worker.stdin.close()
                worker.wait()
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def start_inference(path):
    """Fork an inference process, and return its id."""
    listener, (_, heartbeat), (lifeline, _) = listen_at(path), os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        run_inference(Config.load(environ={}, overrides=OVERRIDES), listener, heartbeat, lifeline)
    listener.close()
    return process


if __name__ == "__main__":
    main()
