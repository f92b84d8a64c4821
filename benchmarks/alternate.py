"""Two checkouts against one another: cache hits, and a lone query, in alternating rounds.

    python benchmarks/alternate.py BEFORE AFTER [--rounds 60] [--cases hits-sqlite,...]

Each checkout has one process that lives for the whole run, so that both meet the same moments of a noisy machine. A
round measures both, in turn first one and then the other. Prints, for each case, medians, the mean ratio of speeds
(after to before) and its 95 % interval (Student's t over the logarithms of the ratios of rounds).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = ("hits-memory", "hits-sqlite", "lone-memory", "lone-sqlite", "lone-computed")
TEXTS = 500
#: Student's t for a two-sided interval of 95 %; beyond 120 degrees of freedom it is the normal's.
_T = {10: 2.228, 20: 2.086, 30: 2.042, 40: 2.021, 60: 2.0, 120: 1.98}


def work(folder):
    """Answer requests to measure, one a line, with seconds for one unit."""
    from embedway import Config, Embedder

    made = {}

    def embedder(backend):
        if backend not in made:
            overrides = {
                "weights.offline": True,
                "weights.directory": os.environ["ALTERNATE_WEIGHTS"],
                "cache.backend": backend,
                "cache.path": f"{folder}/cache.sqlite",
                "cache.tiered": False,
                "ledger.backend": "none",
            }
            made[backend] = Embedder(Config.load(environ={}, overrides=overrides))
        return made[backend]

    texts = [f"passage {number} about rotating log files and reading tables" for number in range(TEXTS)]
    counter = 0
    for line in sys.stdin:
        case = line.strip()
        kind, _, backend = case.partition("-")
        one = embedder("none" if backend == "computed" else backend)
        if kind == "hits":
            began = time.perf_counter()
            found = one.embed(texts)
            seconds = (time.perf_counter() - began) / TEXTS
            assert found.receipt.cache_hits in {0, TEXTS}
        else:
            times = []
            for _ in range(20):
                counter += 1
                text = f"how do I rotate log number {counter}" if backend == "computed" else texts[counter % TEXTS]
                began = time.perf_counter()
                one.embed(text, input_type="query" if backend == "computed" else "document")
                times.append(time.perf_counter() - began)
            seconds = statistics.median(times)
        print(json.dumps(seconds), flush=True)


class Checkout:
    """A process with the code of one checkout."""

    def __init__(self, path, folder):
        environment = {**os.environ, "PYTHONPATH": str(Path(path) / "src")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def measure(self, case):
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def interval(ratios):
    """The geometric mean of ratios and its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    t = next((value for freedom, value in sorted(_T.items(), reverse=True) if freedom <= len(logs) - 1), 2.3)
    return math.exp(mean), math.exp(mean - t * error), math.exp(mean + t * error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", nargs="*")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--work")
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    from embedway import Config

    os.environ["ALTERNATE_WEIGHTS"] = str(Config.load().weights.directory)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        before, after = (Checkout(path, folder) for path, folder in zip(given.checkouts, (one, other), strict=True))
        print(f"{'case':15} {'before us':>10} {'after us':>10} {'speed':>7}  95 % interval")
        for case in given.cases.split(","):
            for _ in range(3):  # models are loaded, caches filled
                before.measure(case), after.measure(case)
            pairs = []
            for number in range(given.rounds):
                order = (before, after) if number % 2 else (after, before)
                times = {checkout: checkout.measure(case) for checkout in order}
                pairs.append((times[before], times[after]))
            speed, low, high = interval([old / new for old, new in pairs])
            medians = [statistics.median(column) * 1e6 for column in zip(*pairs, strict=True)]
            print(f"{case:15} {medians[0]:10.1f} {medians[1]:10.1f} {speed:7.3f}  {low:.3f} to {high:.3f}", flush=True)
        before.close()
        after.close()


if __name__ == "__main__":
    main()
