"""A gateway under minutes of mixed load: memory, descriptors, threads and files of each of its processes.

    python benchmarks/soak.py [--seconds 600] [--rate 40] [--workers 2]

The load consists of queries, batches, repeated texts, invalid bodies, wrong keys and cancelled requests, by the APIs of
OpenAI, Cohere, Voyage, Jina, Text Embeddings Inference and Ollama, with three keys, to a local model and to a service
on loopback, with cache and ledger in SQLite. Each minute a batch of 50 lines is uploaded and started. Slopes are those
of a line through the samples after the first fifth of the time.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import os
import random
import tempfile
import threading
import urllib.request
from pathlib import Path

import numpy as np

import load
from contestants import MODEL
from gateways import HOST, create_key, embedway, loopback, machine_line, route_settings, running

ROUTE = "text-embedding-3-small"
SAMPLE_S, KEYS, BATCH_S, BATCH_LINES = 5, 3, 60, 50
INVALID = (b"{", b'{"input": 5}', b'{"input": []}', b"[" * 1000, b"", b'{"model": "unknown", "input": "a"}')
#: Vectors that a worker keeps in memory; so small that they are complete after a minute.
MEMORY_MIB = 16
#: Address and body of the embeddings of each API.
DIALECTS = (
    ("/v1/embeddings", lambda model, texts: {"model": model, "input": texts, "encoding_format": "base64"}),
    ("/v1/embeddings", lambda model, texts: {"model": model, "input": texts}),
    ("/v2/embed", lambda model, texts: {"model": model, "texts": texts, "input_type": "search_query"}),
    ("/voyage/v1/embeddings", lambda model, texts: {"model": model, "input": texts, "input_type": "document"}),
    ("/jina/v1/embeddings", lambda model, texts: {"model": model, "input": texts}),
    ("/embed", lambda model, texts: {"model": model, "inputs": texts}),
    ("/api/embed", lambda model, texts: {"model": model, "input": texts}),
)


def memory_mib(pid):
    """Return the resident memory of a process and its part that is no file."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith(("Rss", "VmRSS", "Threads")))
    return int(found["VmRSS"].split()[0]) / 1024, int(found["RssAnon"].split()[0]) / 1024, int(found["Threads"])


class Sampler:
    """Samples every process of a server, and the files of its run directory, in a thread."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        #: Rows by process: second, MiB resident, MiB that is no file, threads, descriptors.
        self.rows = collections.defaultdict(list)
        self.files = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        for number in itertools.count():
            for pid in self.server.pids():
                with contextlib.suppress(OSError):
                    row = (*memory_mib(pid), len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208  only their number
                    self.rows[pid].append((number * SAMPLE_S, *row))
            self.files.append(sum(1 for _ in self.folder.rglob("*")))
            if self.ended.wait(SAMPLE_S):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def mixed(port, keys, seed):
    """Yield requests of a mixed load."""
    generator = random.Random(seed)  # noqa: S311  a choice of requests
    supply = load.texts()
    repeated = [next(supply) for _ in range(200)]
    while True:
        kind, key = generator.random(), generator.choice(keys)
        path, write = generator.choice(DIALECTS)
        model = MODEL if generator.random() < 0.4 else ROUTE
        if kind < 0.55:
            texts = [next(supply)]
        elif kind < 0.8:
            texts = [generator.choice(repeated)]
        else:
            texts = [next(supply) for _ in range(generator.randint(2, 64 if model == ROUTE else 12))]
        content = json.dumps(write(model, texts)).encode()
        if kind > 0.97:
            content = generator.choice(INVALID)
        elif kind > 0.95:
            key = "ew-wrong"
        yield load.request(load.Target(port, (("authorization", f"Bearer {key}"),), path=path), content)


async def cancelled(port, keys, seconds):
    """Send requests twice a second, and close each connection before the answer."""
    end = asyncio.get_running_loop().time() + seconds
    supply = mixed(port, keys, 2)
    while asyncio.get_running_loop().time() < end:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(next(supply))
            await writer.drain()
            await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311  a moment
            writer.close()
        await asyncio.sleep(0.5)


def call(port, key, path, content, kind="application/json"):
    headers = {"authorization": f"Bearer {key}", "content-type": kind}
    asked = urllib.request.Request(f"http://{HOST}:{port}{path}", content, headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310  loopback
        return json.loads(answer.read())


def start_batch(port, key):
    """Upload a file and start its batch. Returns the ID of the batch."""
    head = {"method": "POST", "url": "/v1/embeddings"}
    lines = (
        json.dumps({**head, "custom_id": str(row), "body": {"model": ROUTE, "input": text}})
        for row, text in enumerate(itertools.islice(load.texts(), BATCH_LINES))
    )
    part = "--x\r\ncontent-disposition: form-data; name="
    content = f'{part}"purpose"\r\n\r\nbatch\r\n{part}"file"; filename="a.jsonl"\r\n\r\n' + "\n".join(lines)
    form = f"{content}\r\n--x--\r\n".encode()
    file = call(port, key, "/v1/files", form, "multipart/form-data; boundary=x")
    asked = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return call(port, key, "/v1/batches", json.dumps(asked).encode())["id"]


async def batches(port, key, seconds):
    """Start a batch each minute. Returns the statuses of all at the end."""
    started = []
    for _ in range(max(1, seconds // BATCH_S)):
        started.append(await asyncio.to_thread(start_batch, port, key))
        await asyncio.sleep(min(BATCH_S, seconds))
    found = [await asyncio.to_thread(call, port, key, f"/v1/batches/{one}", None) for one in started]
    return collections.Counter(one["status"] for one in found)


async def soak(options, port, keys):
    """Return the answers of the load and the statuses of the batches."""
    target = load.Target(port)
    sent = load.open_loop(target, mixed(port, keys, 1), options.rate, options.seconds, limit=200)
    answers, _, ended = await asyncio.gather(
        sent, cancelled(port, keys, options.seconds), batches(port, keys[0], options.seconds)
    )
    return answers, ended


def names(pids):
    """Return the processes by their order of start: supervisor, inference process and workers."""
    listed = sorted(pids)
    return dict(zip(listed, ("supervisor", "inference", *(f"worker {n}" for n in range(len(listed) - 2))), strict=True))


def report(options, sampler):
    """Print the slopes, and the counts of the first and the last sample after the beginning."""
    for pid, name in names(sampler.rows).items():
        rows = np.array(sampler.rows[pid])
        rows = rows[rows[:, 0] >= options.seconds / 5]
        resident, anonymous = (np.polyfit(rows[:, 0], rows[:, column], 1)[0] * 3600 for column in (1, 2))
        half = np.polyfit(rows[len(rows) // 2 :, 0], rows[len(rows) // 2 :, 1], 1)[0] * 3600
        print(f"{name}: {rows[0, 1]:.1f} to {rows[-1, 1]:.1f} MiB, {resident:+.1f} MiB/h resident", end=" ")
        print(f"({anonymous:+.1f} without files; second half {half:+.1f});", end=" ")
        print(f"threads {rows[0, 3]:.0f} to {rows[-1, 3]:.0f}, descriptors", end=" ")
        print(f"{rows[0, 4]:.0f} to {rows[-1, 4]:.0f}, at most {rows[:, 4].max():.0f}")
    print(f"files of the run directory: {sampler.files[len(sampler.files) // 5]} to {sampler.files[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rate", type=float, default=40, help="requests per second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    service = loopback(delay=0.02)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    with tempfile.TemporaryDirectory() as place, running([service]):
        folder = Path(place) / "run"
        folder.mkdir()
        environment = {"XDG_DATA_HOME": data, "EMBEDWAY_SERVER__RUN_DIRECTORY": str(folder)}
        settings = route_settings(service.port, ledger="sqlite", cache="sqlite", more='[server]\nauth = "keys"\n')
        settings = settings.replace(f'default_model = "{ROUTE}"', f'default_model = "{MODEL}"')
        settings = settings.replace("[cache]", f"[cache]\nmemory_mib = {MEMORY_MIB}")
        made = embedway("gateway", place, settings, workers=options.workers, environment=environment)
        keys = [create_key(made, f"key-{number}") for number in range(KEYS)]
        with running([made]):
            print(machine_line())
            with Sampler(made, folder) as sampler:
                answers, ended = load.run(soak(options, made.port, keys), precise=False)
            log = made.log_tail()
        print(f"{options.seconds} s of mixed load at {options.rate:g} requests/s, {options.workers} workers")
        counts = collections.Counter(answer.status for answer in answers)
        print("answers:", ", ".join(f"{status or 'none'}: {count:,}" for status, count in sorted(counts.items())))
        good = [answer.seconds for answer in answers if answer.status == 200]
        print(f"p50 {load.percentile(good, 0.5) * 1e3:.1f} ms, p99 {load.percentile(good, 0.99) * 1e3:.1f} ms")
        print(f"batches: {dict(ended)}")
        report(options, sampler)
        print(f"left in the run directory: {len(list(folder.iterdir()))}; log:\n{log}")
    if options.json:
        Path(options.json).write_text(json.dumps({"files": sampler.files, "rows": sampler.rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
