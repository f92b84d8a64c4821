"""Milliseconds of one query in process, warm: embedway beside fastembed, alternating in one run.

python benchmarks/latency.py [--rounds 300]
"""

import argparse
import statistics

from contestants import QUERY, Contestant, cpu_line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    contestants = [Contestant(name, None) for name in ("embedway:auto", "embedway:f32", "fastembed:1")]
    times = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        for _ in range(20):
            contestant.ask("query")
    for _ in range(options.rounds):
        for contestant in contestants:
            times[contestant.name].append(contestant.ask("query") * 1e3)
    print(cpu_line())
    print(f"one query of {len(QUERY.split())} words, {options.rounds} rounds")
    for name, values in times.items():
        ordered = sorted(values)
        print(
            f"{name:16} median {statistics.median(ordered):6.2f} ms   p99 {ordered[int(len(ordered) * 0.99)]:6.2f} ms"
        )
    for contestant in contestants:
        contestant.end()


if __name__ == "__main__":
    main()
