"""Measure the specification's four targets: latency of few texts, embeddings per second, cache hits, and cost.

    python benchmarks/targets.py [--rounds 15] [--before CHECKOUT] [--texts FILE.jsonl.gz]

Latency is measured beside fastembed and, with `--before`, another checkout of embedway, in alternating rounds. Each
contestant is a process of its own; embedway's calls `models.warm()` first. All texts of a call are new.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from contestants import Contestant, cpu_line, read_texts

#: Calls of the first table: a name, and the command that contestants.py answers.
CALLS = (
    *((f"{count} x 186 tokens", f"some {count} 186") for count in (1, 4, 9)),
    *((f"{count} x 12 tokens", f"short {count}") for count in (1, 4, 9)),
)
STARTS = 5
BULK, SHORT, PASSAGES = 64, 4000, 400
#: Queries of a log, and how many of them differ; the frequency of a query falls with its rank (Zipf's law).
QUERIES, DIFFERENT = 5000, 500
PAID = ("text-embedding-3-small", "text-embedding-3-large")


def start(options):
    """Return the contestants by name; the first is embedway."""
    names = {"embedway": ("embedway:auto", None), "fastembed": ("fastembed:1", None)}
    if options.before:
        names["before"] = ("embedway:auto", options.before)
    return {name: Contestant(kind, options.texts, source) for name, (kind, source) in names.items()}


def print_latency(options):
    contestants = start(options)
    times = {(name, call): [] for name in contestants for call, _ in CALLS}
    order = random.Random(1)  # noqa: S311 - the same order in every run
    for turn in range(options.rounds + 1):
        for call, command in CALLS:
            for name in order.sample(list(contestants), len(contestants)):
                milliseconds = contestants[name].ask(command) * 1e3
                if turn:  # the first round warms up
                    times[name, call].append(milliseconds)
    resident = {name: contestant.ask("resident") for name, contestant in contestants.items()}
    for contestant in contestants.values():
        contestant.end()
    print(
        f"milliseconds, median and fastest of {options.rounds} rounds; target: less than 100 for fewer than ten texts"
    )
    for call, _ in CALLS:
        medians = {name: statistics.median(times[name, call]) for name in contestants}
        shown = [f"{name} {medians[name]:7.1f} ({min(times[name, call]):6.1f})" for name in contestants]
        ratios = [f"{medians[name] / medians['embedway']:.2f}x {name}" for name in contestants if name != "embedway"]
        print(f"  {call:15} {'   '.join(shown)}   {', '.join(ratios)}")
    print("  resident MB     " + "   ".join(f"{name} {megabytes:7.0f}" for name, megabytes in resident.items()))


def print_query_after_bulk(options):
    """The first single query of a process that was warmed and has computed one bulk request."""
    first, second = {}, {}
    for _ in range(STARTS):
        for name, contestant in start(options).items():
            contestant.ask(f"bulk {BULK}")
            first.setdefault(name, []).append(contestant.ask("query") * 1e3)
            second.setdefault(name, []).append(contestant.ask("query") * 1e3)
            contestant.end()
    shown = [
        f"{name} {statistics.median(first[name]):.1f}, then {statistics.median(second[name]):.1f}" for name in first
    ]
    print(f"  first query after bulk, medians of {STARTS} starts: {'   '.join(shown)}")


def print_rate(texts):
    from embedway import Config, Embedder

    short = [" ".join(text.split()[: 4 + row % 9]) + f" {row}" for row, text in enumerate(texts * 4)][:SHORT]
    with Embedder(config=Config.load(overrides={"cache.backend": "none"})) as embedder:
        embedder.models.warm()
        print("embeddings per second, median and fastest of 3; target: more than 1,000 in batches")
        for name, given in ((f"{SHORT} texts of 4 to 12 words", short), (f"{PASSAGES} passages", texts[:PASSAGES])):
            rates = []
            for _ in range(3):
                started = time.perf_counter()
                receipt = embedder.embed(given).receipt
                rates.append(len(given) / (time.perf_counter() - started))
            each = receipt.tokens / len(given)
            print(f"  {name:28} of {each:5.1f} tokens: {statistics.median(rates):7.0f} ({max(rates):.0f})")


def print_hits(texts):
    from embedway import Config, Embedder

    different = [" ".join(text.split()[:7]) + f" {row}" for row, text in enumerate(texts[:DIFFERENT])]
    weights = [1 / (rank + 1) for rank in range(DIFFERENT)]
    asked = random.Random(2).choices(different, weights, k=QUERIES)  # noqa: S311 - the same log in every run
    with tempfile.TemporaryDirectory() as folder:
        hits, seen, again = 0, set(), 0
        stored = Config.load(overrides={"cache.backend": "sqlite", "cache.path": str(Path(folder) / "cache.db")})
        with Embedder(config=stored) as embedder:
            for query in asked:
                hits += embedder.embed([query], input_type="query").receipt.cache_hits
                again += query in seen
                seen.add(query)
    print("cache hits; target: more than 80 % for repeated queries")
    print(f"  {QUERIES} queries, {len(seen)} different: {hits / QUERIES:.1%} hits; of repeated ones {hits / again:.1%}")


def print_cost(texts):
    from embedway import Config, Embedder

    print(f"dollars per million embeddings of {len(texts)} passages, at the catalog's prices; target: less than 50")
    overrides = {"cache.backend": "none", "budgets": {}}
    with Embedder(config=Config.load(overrides=overrides)) as embedder:
        for model in (None, *PAID):
            plan = embedder.plan(texts, model=model)
            dollars = plan.cost_nanousd / 1e9 / len(texts) * 1e6
            name = model or f"{plan.model}, this machine"
            print(f"  {name:50} {plan.tokens / len(texts):6.1f} tokens each: ${dollars:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--before", help="another checkout of embedway")
    parser.add_argument("--texts")
    options = parser.parse_args()
    texts = read_texts(options.texts)
    print(cpu_line())
    print_latency(options)
    print_query_after_bulk(options)
    print_rate(texts)
    print_hits(texts)
    print_cost(texts)


if __name__ == "__main__":
    main()
