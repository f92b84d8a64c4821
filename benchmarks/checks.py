"""Time of the checks of vectors, compared with the fastest routes.

    python benchmarks/checks.py [--texts 1000] [--rounds 30]

Routes: a loopback server in a separate process that answers prepared vectors of 1,536 numbers in base64, and the fake
provider, which makes its vectors from a hash of each text. Checks: of single rows (`validate`), for equal vectors of
different texts, and the similarity in the receipt. Also those of a single query. The minimum is the time in a calm
moment of the machine. `scripts.py` measures the check of scripts.
"""

import argparse
import asyncio
import base64
import json
import logging
import multiprocessing
import statistics
import time

import numpy as np

WIDTH, MODEL = 1536, "text-embedding-3-small"


def made(count):
    rows = np.random.default_rng(1).standard_normal((count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def texts_of(count, start=0):
    return [f"a short text about topic{number} and thing{number}" for number in range(start, start + count)]


def serve(port_sender, count):
    from aiohttp import web

    data = [
        {"object": "embedding", "index": row, "embedding": base64.b64encode(vector.tobytes()).decode()}
        for row, vector in enumerate(made(count))
    ]
    usage = {"prompt_tokens": 10 * count, "total_tokens": 10 * count}
    body = json.dumps({"object": "list", "data": data, "model": MODEL, "usage": usage}).encode()

    async def embeddings(request):
        await request.read()
        return web.Response(body=body, content_type="application/json")

    async def main():
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/embeddings", embeddings)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port_sender.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def in_ms(work, rounds):
    """Return the median and the minimum of some rounds."""
    found = []
    for number in range(rounds):
        started = time.perf_counter()
        work(number)
        found.append(time.perf_counter() - started)
    return statistics.median(found) * 1e3, min(found) * 1e3


def checks(count, rounds):
    from embedway.quality.checks import DiversityCheck, RouteChecks
    from embedway.quality.reading import TextReader
    from embedway.quality.similarity import check_similarity
    from embedway.telemetry.hooks import Hooks
    from embedway.types import Space
    from embedway.vectors import validate

    space = Space("m", "w", WIDTH, "service", True, "", "", "", "")
    vectors, batches = made(count), [texts_of(count, start * count) for start in range(rounds)]
    check = DiversityCheck(TextReader(8191), RouteChecks(), "r", "m", Hooks())

    def find(number):
        # Other vectors each time, as for other texts.
        moved = fresh[number]
        check.find_fault(moved, batches[number].__getitem__)

    fresh = [np.roll(vectors, number + 1, axis=1) for number in range(rounds)]
    return {
        "single rows": in_ms(lambda _: validate(vectors, count=count, space=space, route="r"), rounds),
        "different texts": in_ms(find, rounds),
        "similarity": in_ms(lambda number: check_similarity(batches[number], vectors), rounds),
    }


async def route_ms(overrides, model, count, rounds):
    from embedway import AsyncEmbedder, Config

    config = Config.load(environ={}, overrides={"cache.backend": "none", "quality.check_diversity": False, **overrides})
    async with AsyncEmbedder(config=config) as embedder:
        await embedder.embed(texts_of(count), model=model)
        found = []
        for _ in range(rounds):
            started = time.perf_counter()
            await embedder.embed(texts_of(count), model=model)
            found.append(time.perf_counter() - started)
    return statistics.median(found) * 1e3, min(found) * 1e3


async def routes(url, count, rounds):
    loopback = {"routes.loopback": {"model": MODEL, "provider": "openai", "base_url": url, "api_key": "sk-none"}}
    fake = {
        "models.fake": {"name": "fake", "dimensions": WIDTH, "max_tokens": 512},
        "routes.fake": {"model": "fake", "provider": "fake", "options": {"width": str(WIDTH), "max_inputs": "2048"}},
    }
    return {
        "loopback server, base64": await route_ms(loopback, MODEL, count, rounds),
        "fake provider": await route_ms(fake, "fake", count, rounds),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    logging.disable()
    receiver, sender = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(sender, options.texts), daemon=True)
    server.start()
    found = asyncio.run(routes(f"http://127.0.0.1:{receiver.recv()}/v1", options.texts, options.rounds))
    server.terminate()
    times = checks(options.texts, options.rounds)
    fastest = [min(column) for column in zip(*found.values(), strict=True)]
    print(f"{options.texts:,} texts of {WIDTH:,} numbers, {options.rounds} rounds; share of the fastest route")
    print(f"  {'':26} {'median ms':>10} {'share':>8} {'minimum ms':>12} {'share':>8}")
    for name, (median, least) in with_total(times).items():
        shares = median / fastest[0], least / fastest[1]
        print(f"  {name:26} {median:10.3f} {shares[0]:8.2%} {least:12.3f} {shares[1]:8.2%}")
    for name, (median, least) in found.items():
        print(f"  {name:26} {median:10.1f} {'':8} {least:12.1f}")
    print(f"  {'a single query':26} {'median us':>10} {'':8} {'minimum us':>12}")
    for name, (median, least) in with_total(checks(1, max(options.rounds, 2000))).items():
        print(f"  {name:26} {median * 1e3:10.1f} {'':8} {least * 1e3:12.1f}")


def with_total(times):
    return {**times, "all checks": tuple(map(sum, zip(*times.values(), strict=True)))}


if __name__ == "__main__":
    main()
