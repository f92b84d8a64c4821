"""False alarms of the checks of vectors, and the texts after which each fault of a service is found.

    python benchmarks/detection.py [--batches 10000] [--pool 4000] [--data FOLDER] [--good-only | --faults-only]

The folder may have python-docs-chunks.jsonl.gz and cran.all.1400.

Good batches: real texts, code, other scripts, variants in case, tiny texts, digits, symbols and texts from one template
get real vectors of the default model once. They are then put into batches of random sizes, and checked as answers of
this machine (with token ids) and of a service without a tokenizer. Every 100th batch is also embedded end to end.

Faults: the server of `tests/support/faulty_model.py`, through the complete path of a service. The checks of answers get
texts until one refuses them. For `quality check`, the server answers with real vectors of the default model while the
baseline is made, and then with the fault. Slow drift moves the vectors further before each check.
"""

import argparse
import asyncio
import gzip
import json
import logging
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
#: Thai, Chinese, Korean, Cyrillic, Arabic, Japanese and Devanagari: first character, and number of characters.
SCRIPTS = ((0xE01, 40), (0x4E00, 200), (0xAC00, 100), (0x410, 60), (0x627, 30), (0x3041, 80), (0x905, 40))
#: Texts for the checks of answers, dimensions of the default model, and growth of slow drift at each check.
MOST, WIDTH, STEP = 1500, 384, 0.0001


def seeded(seed):
    return random.Random(seed)  # noqa: S311  reproducible


def real_texts(data):
    """Return chunks of Python's documentation and abstracts, if the data is here; otherwise this repository's files."""
    found = []
    if (data / "python-docs-chunks.jsonl.gz").exists():
        with gzip.open(data / "python-docs-chunks.jsonl.gz", "rt") as lines:
            found += [json.loads(line)["text"] for line in lines]
        found += [part.split("\n.W\n", 1)[-1] for part in (data / "cran.all.1400").read_text().split("\n.I ")]
    for file in sorted(Path(__file__).parents[1].glob("src/**/*.py")):
        found += file.read_text().split("\n\n")
    return [text for text in found if text.strip()]


def pool(count, data):
    chance = seeded(1)
    real = real_texts(data)
    texts = chance.sample(real, min(count // 2, len(real)))
    some = chance.sample(texts, count // 20)
    texts += [text.upper() for text in some] + [text.lower() for text in some] + [f"  {text}\n" for text in some]
    texts += [text[: chance.randint(1, 12)] for text in some]
    texts += [" ".join(text.split()[::-1]) for text in some]
    long = " ".join(real[:40])
    texts += [f"{long} {number}" for number in range(20)] + [f"{number} {long}" for number in range(20)]
    texts += [str(number) for number in range(150)] + [f"{number}.{number}" for number in range(50)]
    texts += [f"Invoice {number} of 2024: thank you for your order, we look forward." for number in range(150)]
    texts += (
        [f"{chance.random()}" for _ in range(50)] + list("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?") + ["a b", "b a"]
    )
    texts += [chr(0x1F600 + number) for number in range(60)] + [
        f"great {chr(0x1F600 + number)}" for number in range(60)
    ]
    for start, size in SCRIPTS:
        texts += ["".join(chr(start + chance.randrange(size)) for _ in range(chance.randint(1, 30))) for _ in range(40)]
    texts += [
        "Polish",
        "polish",
        "caf\u00e9",
        "cafe",
        "stra\u00dfe",
        "strasse",
        "co-op",
        "co op",
        "\u00ad",
        "x" * 150,
        "y" * 150,
    ]
    return list(dict.fromkeys(texts))


def check_batches(texts, vectors, ids, ignored, batches):
    """Return the alarms of random batches, checked as this machine's and as a service's."""
    from embedway.quality.checks import DiversityCheck, RouteChecks
    from embedway.quality.reading import TextReader, TokenReader
    from embedway.quality.similarity import check_similarity
    from embedway.telemetry.hooks import Hooks

    chance = seeded(2)
    kinds = {
        "this machine": (TokenReader(ignored), ids),
        "a service, estimated tokens": (TextReader(256), texts),
    }
    alarms, warned, checked = {}, [], 0
    for name, (reads, readings) in kinds.items():
        routes = RouteChecks()
        for number in range(batches):
            if number % 500 == 0:
                routes = RouteChecks()
            size = chance.choice((1, 1, 2, 3, 8, 32, 64, 256))
            start = chance.randrange(len(texts) - size)
            neighbours = list(range(start, start + size))
            rows = neighbours if chance.random() < 0.3 else chance.sample(range(len(texts)), size)
            check = DiversityCheck(reads, routes, "local", "m", Hooks())
            fault = check.find_fault(vectors[rows], lambda row, rows=rows, readings=readings: readings[rows[row]])
            checked += size
            if fault is not None:
                alarms.setdefault((name, fault.check), []).append([texts[rows[row]][:60] for row in fault.rows[:4]])
            if check_similarity([texts[row] for row in rows], vectors[rows]).warnings:
                unread = sum(not set(ids[row].tolist()) - ignored for row in rows)
                warned.append((unread / size, [texts[row][:12] for row in rows[:3]]))
    return alarms, warned, checked


async def good(options):
    from embedway import AsyncEmbedder, BadVectorsError, Config

    given = pool(options.pool, options.data)
    overrides = {"cache.backend": "none"}
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        result = await embedder.embed(given, partial=True)
        kept = [row for row in range(len(given)) if row not in result.errors]
        assert all(type(error).__name__ == "InputError" for error in result.errors.values()), result.errors
        texts, vectors = [given[row] for row in kept], result.vectors[kept]
        tokenizer = (await embedder.models.describe(load=True)).tokenizer
        ids = [np.array(tokenizer.encode(text).ids[:255], np.int32) for text in texts]
        ends, refused = seeded(3), 0
        for _ in range(options.batches // 100):
            some = ends.sample(texts, ends.choice((1, 2, 8, 32)))
            try:
                await embedder.embed(some)
            except BadVectorsError as error:
                refused += 1
                print("end to end:", error)
    from embedway.quality.reading import ignored_ids

    pairs = vectors @ vectors.T
    np.fill_diagonal(pairs, -1)
    equal = sum(bool((vectors[row] == vectors[pairs[row].argmax()]).all()) for row in range(len(texts)))
    print(f"{len(texts):,} texts; {equal} have a vector that another one has too, bit for bit")
    for bound in (1e-6, 1e-5, 1e-4):
        print(
            f"  {int((pairs.max(axis=1) > 1 - bound).sum())} texts have a neighbour with a cosine above 1 - {bound:g}"
        )
    alarms, warned, checked = check_batches(texts, vectors, ids, ignored_ids(tokenizer), options.batches // 2)
    print(f"{options.batches:,} good batches of {checked:,} texts, and {options.batches // 100} end to end:")
    print(f"  {sum(map(len, alarms.values())) + refused} refused, {len(warned)} with the warning high_similarity")
    unread = [texts for share, texts in warned if share > 0.9]
    print(f"  of these, the model reads only unknown tokens in nine of ten texts: {len(unread)}, such as {unread[:3]}")
    print("  others:", [texts for share, texts in warned if share <= 0.9][:5])
    for kind, found in alarms.items():
        print("  ", *kind, len(found), found[:3])


async def refused_after(fault, texts, size):
    """Return the check that finds a fault, and the texts until then, in answers of `size` texts."""
    from embedway import AsyncEmbedder, BadVectorsError, Config
    from faulty_model import FaultyModel, settings_of

    server = FaultyModel()
    async with server.running() as url:
        config = Config.load(environ={}, overrides=settings_of(url, **{"cache.backend": "none"}))
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed("the first text is right")
            server.fault, server.served = fault, 0
            for start in range(0, len(texts), size):
                try:
                    await embedder.embed(texts[start : start + size])
                except BadVectorsError as error:
                    return f"{error.check}, {start + size}"
    return "no"


class Checked:
    """The server with a baseline of its right vectors, and its checks."""

    def __init__(self, server, embedder):
        self.server, self.embedder = server, embedder

    async def verdict(self, fault, served=0):
        """Return the verdict of a check while the server has a fault, the parts that found it, and its texts."""
        self.server.fault, self.server.served = fault, served
        check = await self.embedder.quality.check()
        (route,) = check.routes
        parts = dict.fromkeys(_part(reason) for reason in route.reasons)
        return route.verdict, ", ".join(parts), check.texts


def _part(reason):
    if reason.startswith("routes."):
        return "a check of answers"
    parts = {
        "permuted": "rows",
        "a little": "mean",
        "differ": "canaries",
        "accuracy": "accuracy",
        "top results": "top results",
    }
    return next((part for word, part in parts.items() if word in reason), reason)


async def checked(work):
    """Make a baseline with right vectors, and run `work(checked)`."""
    from embedway import AsyncEmbedder, Config, Embedder
    from faulty_model import FaultyModel, settings_of

    overrides = {"cache.backend": "memory", "ledger.backend": "none"}
    with tempfile.TemporaryDirectory() as folder, Embedder(config=Config.load(environ={}, overrides=overrides)) as real:
        server = FaultyModel(right=lambda texts: real.embed(texts).vectors)
        async with server.running() as url:
            own = {"cache.backend": "none", "ledger.path": f"{folder}/ledger.sqlite"}
            config = Config.load(environ={}, overrides=settings_of(url, width=WIDTH, **own))
            async with AsyncEmbedder(config=config) as embedder:
                await embedder.quality.baseline()
                return await work(Checked(server, embedder))


async def faults(options):
    from faulty_model import FAULTS, drifted

    texts = seeded(4).sample(list(dict.fromkeys(real_texts(options.data))), MOST)

    async def rows(service):
        print(f"checks of answers: the check, and the texts until it refuses them; at most {MOST:,}")
        print("quality check: the verdict, the part that found the fault, and the texts of the check")
        print("| fault | answers of one text | answers of 32 texts | quality check |")
        print("| --- | --- | --- | --- |")
        print(f"| none | {await refused_after(None, texts, 1)} | {await refused_after(None, texts, 32)} | ", end="")
        print(f"{await shown(service, None)} |")
        for name, fault in FAULTS.items():
            one, many = [await refused_after(fault, texts, size) for size in (1, 32)]
            by_check = "below" if name == "slow drift" else await shown(service, fault)
            print(f"| {name} | {one} | {many} | {by_check} |", flush=True)
        for number in range(1, 1000):
            verdict, part, _ = await service.verdict(drifted(number * STEP))
            if verdict == "drifted":
                print(f"slow drift, {STEP:.2%} more at each check: found by check {number}, at {number * STEP:.2%}")
                print(f"  of the way to the vectors of another model, by: {part}")
                break

    async def shown(service, fault):
        verdict, part, count = await service.verdict(fault, served=500)
        return f"{verdict}: {part}, {count}" if part else f"{verdict}, {count}"

    await checked(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with texts")
    parser.add_argument("--faults-only", action="store_true")
    parser.add_argument("--good-only", action="store_true")
    options = parser.parse_args()
    logging.disable()
    if not options.faults_only:
        asyncio.run(good(options))
    if not options.good_only:
        asyncio.run(faults(options))


if __name__ == "__main__":
    main()
