"""False alarms of the checks of vectors, and the texts after which each fault of a service is found.

    python benchmarks/detection.py [--batches 10000] [--pool 4000] [--good-only | --faults-only]

The folder `EMBEDWAY_BENCHMARK_DATA` may have python-docs-chunks.jsonl.gz and cran.all.1400.

Good batches: real texts, code, other scripts, variants in case, tiny texts, digits, symbols and texts from one template
get real vectors of the default model once. They are then put into batches of random sizes, and checked as answers of
this machine (with token ids) and of a service without a tokenizer. Every 100th batch is also embedded end to end.

Faults: the server of `tests/support/faulty_model.py`, through the complete path of a service.
"""

import argparse
import asyncio
import gzip
import json
import logging
import os
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
DATA = Path(os.environ.get("EMBEDWAY_BENCHMARK_DATA", "data"))
#: Thai, Chinese, Korean, Cyrillic, Arabic, Japanese and Devanagari: first character, and number of characters.
SCRIPTS = ((0xE01, 40), (0x4E00, 200), (0xAC00, 100), (0x410, 60), (0x627, 30), (0x3041, 80), (0x905, 40))


def seeded(seed):
    return random.Random(seed)  # noqa: S311  reproducible


def real_texts():
    """Return chunks of Python's documentation and abstracts, if the data is here; otherwise this repository's files."""
    found = []
    if (DATA / "python-docs-chunks.jsonl.gz").exists():
        with gzip.open(DATA / "python-docs-chunks.jsonl.gz", "rt") as lines:
            found += [json.loads(line)["text"] for line in lines]
        found += [part.split("\n.W\n", 1)[-1] for part in (DATA / "cran.all.1400").read_text().split("\n.I ")]
    for file in sorted(Path(__file__).parents[1].glob("src/**/*.py")):
        found += file.read_text().split("\n\n")
    return [text for text in found if text.strip()]


def pool(count):
    chance = seeded(1)
    real = real_texts()
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
    for start, size in ((0xE01, 40), (0x4E00, 200), (0xAC00, 100), (0x410, 60), (0x627, 30), (0x3041, 80), (0x905, 40)):
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
    from embedway.quality.checks import AnswerHistory, DiversityCheck
    from embedway.quality.reading import TextComparer, TokenComparer
    from embedway.quality.similarity import check_similarity
    from embedway.telemetry.hooks import Hooks

    chance = seeded(2)
    kinds = {
        "this machine": (TokenComparer(ignored), ids),
        "a service, estimated tokens": (TextComparer(256), texts),
    }
    alarms, warned, checked = {}, [], 0
    for name, (reads, readings) in kinds.items():
        routes = AnswerHistory()
        for number in range(batches):
            if number % 500 == 0:
                routes = AnswerHistory()
            size = chance.choice((1, 1, 2, 3, 8, 32, 64, 256))
            start = chance.randrange(len(texts) - size)
            neighbours = list(range(start, start + size))
            rows = neighbours if chance.random() < 0.3 else chance.sample(range(len(texts)), size)
            check = DiversityCheck(reads, routes, "local", "m", Hooks())
            fault = check.find_fault(vectors[rows], lambda row, rows=rows, readings=readings: readings[rows[row]])
            checked += size
            if fault is not None:
                alarms.setdefault((name, fault.check), []).append([texts[rows[row]][:60] for row in fault.rows[:4]])
            some = [texts[row] for row in rows]
            if check_similarity(some, vectors[rows]).warnings:
                warned.append([text[:12] for text in some[:3]])
    return alarms, warned, checked


async def good(options):
    from embedway import AsyncEmbedder, BadVectorsError, Config

    given = pool(options.pool)
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
    print(f"  {sum(map(len, alarms.values())) + refused} refused, {len(warned)} with a warning, such as {warned[:3]}")
    for kind, found in alarms.items():
        print("  ", *kind, len(found), found[:3])


async def find(fault, size, most):
    """Return the check that finds a fault, and the texts until then, in answers of `size` texts."""
    from embedway import AsyncEmbedder, BadVectorsError, Config
    from faulty_model import FaultyModel, settings_of

    chance = seeded(4)
    texts = chance.sample(real_texts(), most)
    server = FaultyModel()
    async with server.running() as url:
        config = Config.load(environ={}, overrides=settings_of(url, **{"cache.backend": "none"}))
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed("the first text is right")
            server.fault, server.served = fault, 0
            for start in range(0, most, size):
                before = len(server.requests)
                try:
                    await embedder.embed(texts[start : start + size])
                except BadVectorsError as error:
                    return error.check, start + size, len(server.requests) - before
    return None, most, 0


async def faults():
    from faulty_model import FAULTS

    print("fault                           answers of   check          after texts   requests of the refused call")
    for name, fault in FAULTS.items():
        for size in (1, 32):
            check, texts, requests = await find(fault, size, 1500)
            shown = f"{check:14} {texts:11,}   {requests}" if check else f"none of these checks ({texts:,} texts)"
            print(f"{name:31} {size:10}   {shown}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--faults-only", action="store_true")
    parser.add_argument("--good-only", action="store_true")
    options = parser.parse_args()
    logging.disable()
    if not options.faults_only:
        asyncio.run(good(options))
    if not options.good_only:
        asyncio.run(faults())


if __name__ == "__main__":
    main()
