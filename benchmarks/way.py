"""Trace of one text through the package: functions, files, changes of file, and packages that are entered again.

    python benchmarks/way.py [--source CHECKOUT/src] [--case hosted-miss] [--calls]

Traces one call of a warm embedder each: a miss of a hosted model (a server on the loopback), a miss of the local
default model, and a hit, with the cache in memory and a ledger in a file. `sys.setprofile` reports each call of the
package's Python functions, on each thread. A coroutine that resumes after a wait does not count as a call.
"""

import argparse
import asyncio
import base64
import collections
import itertools
import opcode
import sys
import tempfile
import threading
from pathlib import Path

MODEL, WIDTH = "text-embedding-3-small", 1536
TEXT = "Where does a vector belong? Text number {}."
CASES = ("hosted-miss", "local-miss", "hit")


def serve(ready):
    """Answer requests for embeddings on the loopback until the process ends."""
    import numpy as np
    from aiohttp import web

    random = np.random.default_rng(1)

    async def embeddings(request):
        count = len((await request.json())["input"])
        # Checks refuse one vector for several texts.
        vectors = random.standard_normal((count, WIDTH)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
        rows = [{"object": "embedding", "index": n, "embedding": text} for n, text in enumerate(texts)]
        usage = {"prompt_tokens": 10 * count, "total_tokens": 10 * count}
        return web.json_response({"object": "list", "data": rows, "model": MODEL, "usage": usage})

    async def main():
        app = web.Application()
        app.router.add_post("/v1/embeddings", embeddings)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.append(runner.addresses[0][1])
        ready_event.set()
        await asyncio.Event().wait()

    asyncio.run(main())


ready_event = threading.Event()


class Tracer:
    """Records each function call of a package while `on`: its file and name, in order."""

    def __init__(self, package):
        self.package = f"{package}/"
        self.calls = []
        self.on = False

    def __call__(self, frame, event, _):
        if event != "call" or not self.on:
            return
        code = frame.f_code
        if not code.co_filename.startswith(self.package):
            return
        # A resumed generator or coroutine starts at another instruction than its first.
        place = frame.f_lasti
        if place >= 0 and opcode.opname[code.co_code[place]] == "RESUME" and code.co_code[place + 1] & 3:
            return
        if code.co_name in {"<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>"}:
            return
        self.calls.append((code.co_filename.removeprefix(self.package), code.co_qualname))


async def traced(tracer, case, settings):
    from embedway import AsyncEmbedder, Config

    async with AsyncEmbedder(config=Config.load(environ={}, overrides=settings)) as embedder:
        model = {} if case == "local-miss" else {"model": MODEL}
        for number in range(3):
            await embedder.embed(TEXT.format(number), **model)
        await asyncio.sleep(0.2)  # waits until vectors are stored
        tracer.on = True
        await embedder.embed(TEXT.format(0 if case == "hit" else 100), **model)
        await asyncio.sleep(0.2)
        tracer.on = False


def room(file):
    return file.split("/")[0].removesuffix(".py")


def report(case, calls, engine):
    files = [file for file, _ in calls]
    rooms = [name for name, _ in itertools.groupby(map(room, files))]
    changes = sum(before != after for before, after in itertools.pairwise(files))
    entries = sum(name in engine for name, _ in itertools.groupby(files))
    print(
        f"{case}: {len(calls)} calls of {len(set(calls))} functions in {len(set(files))} files; "
        f"{changes} changes of file; {entries} entries of the engine"
    )
    again = collections.Counter(rooms)
    print("  packages entered: " + ", ".join(f"{name} {count}" for name, count in again.most_common()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="the `src` of another checkout")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--calls", action="store_true", help="print every function, in order")
    options = parser.parse_args()
    if options.source is not None:
        sys.path.insert(0, str(options.source.resolve()))
    import embedway

    package = Path(embedway.__file__).parent
    tracer = Tracer(package)
    ready = []
    threading.Thread(target=serve, args=(ready,), daemon=True).start()
    ready_event.wait()
    sys.setprofile(tracer)
    threading.setprofile(tracer)
    for case in options.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "cache.backend": "memory",
                "ledger.path": f"{folder}/ledger.sqlite",
                "routes.loopback": {
                    "model": MODEL,
                    "provider": "openai",
                    "base_url": f"http://127.0.0.1:{ready[0]}/v1",
                    "api_key": "sk-none",
                },
            }
            tracer.calls = []
            asyncio.run(traced(tracer, case, settings))
        if options.calls:
            for (file, _), group in itertools.groupby(tracer.calls, key=lambda call: (call[0], 0)):
                print(f"  {file}: " + " ".join(name for _, name in group))
        report(case, tracer.calls, {"engine.py", "_embedder.py"})


if __name__ == "__main__":
    main()
