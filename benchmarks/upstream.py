"""Texts per second through OpenAI's API to a service that answers at once: embedway and openai's client.

    python benchmarks/upstream.py [--texts 100000] [--rounds 3]

Both send the same batches of 2,048 short texts, eight requests concurrently, to a loopback server in a separate
process, which answers prepared vectors of 1,536 numbers in base64. The first three numbers are new for each text,
because one vector for several texts is refused. embedway also counts tokens, checks every vector, and returns one
float32 array; the client returns lists of floats, which are converted to an array here as a user would.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

MODEL, WIDTH, BATCH, UNDER_WAY = "text-embedding-3-small", 1536, 2048, 8
#: Texts of a request that the server can answer, and numbers of a vector that are new for each text.
SERVED, _NEW = 2048, 3


def serve(port_sender):
    import orjson
    from aiohttp import web

    random = np.random.default_rng(1)
    rows = [_row(number, vector) for number, vector in enumerate(random.standard_normal((SERVED, WIDTH)))]

    async def embeddings(request):
        count = len(orjson.loads(await request.read())["input"])
        # Three numbers are 16 characters of base64.
        new = base64.b64encode((random.standard_normal((count, _NEW)) * 1e-5).astype("<f4").tobytes())
        parts = [b'{"object":"list","model":"%s","data":[' % MODEL.encode()]
        for number, (begin, rest) in enumerate(rows[:count]):
            parts += (begin, new[number * 16 : number * 16 + 16], rest)
        parts += (b'],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (10 * count, 10 * count),)
        return web.Response(body=b"".join(parts), content_type="application/json")

    async def main():
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/embeddings", embeddings)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port_sender.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def _row(number, vector):
    """Return the JSON of a row until its vector's new numbers, and from there on."""
    vector[:_NEW] = 0
    text = base64.b64encode((vector / np.linalg.norm(vector)).astype("<f4").tobytes())
    comma = b"," if number else b""
    return comma + b'{"object":"embedding","index":%d,"embedding":"' % number, text[16:] + b'"}'


def texts(count):
    return [f"a short text about caches and budgets, number {number}" for number in range(count)]


async def embedway(url, given):
    from embedway import AsyncEmbedder, Config

    route = {"model": MODEL, "provider": "openai", "base_url": url, "api_key": "sk-none"}
    overrides = {"routes.loopback": route, "cache.backend": "none"}
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.embed(given[:BATCH], model=MODEL)
        return await timed(lambda: embedder.embed(given, model=MODEL), lambda result: result.vectors)


async def client(url, given):
    import openai

    batches = [given[start : start + BATCH] for start in range(0, len(given), BATCH)]
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-none") as made:
        places = asyncio.Semaphore(UNDER_WAY)

        async def one(batch):
            async with places:
                answer = await made.embeddings.create(model=MODEL, input=batch)
            rows = sorted(answer.data, key=lambda row: row.index)
            return np.array([row.embedding for row in rows], np.float32)

        async def every():
            return await asyncio.gather(*map(one, batches))

        await one(batches[0])
        return await timed(every, np.concatenate)


async def timed(work, array):
    used = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    vectors = array(await work())
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert np.isfinite(vectors).all()
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "cpu": cpu, "rows": len(vectors), "peak_mb": after.ru_maxrss / 1024}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=2)
    options = parser.parse_args()
    if options.run:
        name, url = options.run
        print(json.dumps(asyncio.run({"embedway": embedway, "openai": client}[name](url, texts(options.texts)))))
        return
    from contestants import cpu_line

    receiver, sender = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{receiver.recv()}/v1"
    found = {"embedway": [], "openai": []}
    for _ in range(options.rounds):
        for name, rows in found.items():
            command = [sys.executable, __file__, "--texts", str(options.texts), "--run", name, url]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout))
    server.terminate()
    print(cpu_line())
    print(f"{options.texts:,} texts in requests of {BATCH}, {UNDER_WAY} concurrent, medians of {options.rounds} rounds")
    rates = {}
    for name, rows in found.items():
        assert all(row["rows"] == options.texts for row in rows)
        rates[name] = options.texts / statistics.median(row["seconds"] for row in rows)
        cpu = statistics.median(row["cpu"] for row in rows) / options.texts
        peak = statistics.median(row["peak_mb"] for row in rows)
        print(f"{name:10} {rates[name]:9,.0f} texts/s   {cpu * 1e6:6.1f} us of CPU per text   peak {peak:,.0f} MB")
    print(f"embedway is {rates['embedway'] / rates['openai']:.1f}x the openai client")


if __name__ == "__main__":
    main()
