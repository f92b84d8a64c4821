"""Milliseconds of one query in process, warm: embedway and fastembed, alternating in one run.

    python benchmarks/latency.py [--rounds 300]

Two modes: `steady`, each contestant runs twenty queries in a row; `apart`, each runs one query per turn, so that its
threads sleep in between, and the other contestants' weights pass through the CPU caches.
"""

import argparse
import random
import statistics

from contestants import QUERY, Contestant, cpu_line

NAMES = ("embedway:auto", "embedway-async:auto", "embedway:f32", "fastembed:1")


def measure(contestants, rounds, at_a_turn):
    times = {contestant.name: [] for contestant in contestants}
    order = random.Random(1)  # noqa: S311 - the same order in every run
    for _ in range(rounds // at_a_turn):
        # In a fixed order, one would always run while its predecessor's threads still spin.
        for contestant in order.sample(contestants, len(contestants)):
            times[contestant.name] += [contestant.ask("query") * 1e3 for _ in range(at_a_turn)]
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=600)
    options = parser.parse_args()
    contestants = [Contestant(name, None) for name in NAMES]
    for contestant in contestants:
        for _ in range(20):
            contestant.ask("query")
    print(cpu_line())
    print(f"one query, {len(QUERY.split())} words, 12 tokens with the two special ones, {options.rounds} rounds")
    for mode, at_a_turn in (("steady", 20), ("apart", 1)):
        for name, values in measure(contestants, options.rounds, at_a_turn).items():
            ordered = sorted(values)
            tail = ordered[int(len(ordered) * 0.99)]
            print(f"{mode:7} {name:20} median {statistics.median(ordered):6.2f} ms   p99 {tail:6.2f} ms")
    for contestant in contestants:
        contestant.end()


if __name__ == "__main__":
    main()
