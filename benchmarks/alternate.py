"""Compare two checkouts in alternating rounds: hits, single queries, bulk, a service, and a ledger.

    python benchmarks/alternate.py BEFORE AFTER [--starts 20] [--rounds 30] [--cases hits-sqlite,...]

Each checkout has a process that runs many rounds, so that noise of the machine affects both. A round measures both; the
order alternates. Two processes of the same code differ by some percent, so both are restarted `--starts` times. Prints,
for each case, medians, the mean ratio of speeds (after to before) and its 95 % interval (Student's t over the starts:
for each, the median logarithm of its rounds' ratios).
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import upstream

CASES = ("hits-memory", "hits-sqlite", "lone-memory", "lone-sqlite", "lone-computed", "bulk", "upstream", "ledger")
TEXTS = 500
#: Calls timed together, and single queries whose median counts: the first ones find cold CPU caches.
CALLS, QUERIES = 10, 20
#: Texts of different lengths that the default model computes at once; short texts sent to a loopback service.
BULK, SENT = 96, 4096
#: Student's t for a two-sided 95 % interval; above 120 degrees of freedom it is the normal distribution's.
_T = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    5: 2.571,
    7: 2.365,
    10: 2.228,
    15: 2.131,
    20: 2.086,
    30: 2.042,
    40: 2.021,
    60: 2.0,
    120: 1.98,
}


def computed(one, kind, counter):
    """Return the seconds per computed text: locally, by a service in bulk, or by a service and booked in a ledger."""
    if kind == "ledger":
        times = []
        for number in range(QUERIES):
            began = time.perf_counter()
            one.embed(f"a text that is paid for, number {counter} {number}", model=upstream.MODEL)
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    if kind == "bulk":
        given = [f"{counter} {number} " + "how to rotate a log file " * (number % 24) for number in range(BULK)]
    else:
        given = [f"a short text about caches and budgets, number {counter} {number}" for number in range(SENT)]
    began = time.perf_counter()
    one.embed(given, model="auto" if kind == "bulk" else upstream.MODEL)
    return (time.perf_counter() - began) / len(given)


def work(folder):
    """Answer requests to measure, one per line, with the seconds for one unit."""
    from embedway import Config, Embedder

    made = {}
    texts = [f"passage {number} about rotating log files and reading tables" for number in range(TEXTS)]

    def embedder(backend, ledger="none"):
        if (backend, ledger) not in made:
            overrides = {
                "weights.offline": True,
                "weights.directory": os.environ["ALTERNATE_WEIGHTS"],
                "cache.backend": backend,
                "cache.path": f"{folder}/cache.sqlite",
                "cache.tiered": False,
                "ledger.backend": ledger,
                "ledger.path": f"{folder}/ledger.sqlite",
                "routes.loopback": {
                    "model": upstream.MODEL,
                    "provider": "openai",
                    "base_url": os.environ["ALTERNATE_URL"],
                    "api_key": "sk-none",
                },
            }
            made[backend, ledger] = Embedder(config=Config.load(environ={}, overrides=overrides))
            if backend != "none":
                made[backend, ledger].embed(texts)
        return made[backend, ledger]

    counter = 0
    for line in sys.stdin:
        case = line.strip()
        kind, _, backend = case.partition("-")
        one = embedder("none" if backend in {"", "computed"} else backend, "sqlite" if kind == "ledger" else "none")
        counter += 1
        if kind in {"bulk", "upstream", "ledger"}:
            seconds = computed(one, kind, counter)
        elif kind == "hits":
            began = time.perf_counter()
            for _ in range(CALLS):
                found = one.embed(texts)
            seconds = (time.perf_counter() - began) / CALLS / TEXTS
            assert found.receipt.cache_hits == TEXTS
        else:
            times = []
            for _ in range(QUERIES):
                counter += 1
                text = f"how do I rotate log number {counter}" if backend == "computed" else texts[counter % TEXTS]
                began = time.perf_counter()
                one.embed(text, input_type="query" if backend == "computed" else "document")
                times.append(time.perf_counter() - began)
            seconds = statistics.median(times)
        print(json.dumps(seconds), flush=True)


class Checkout:
    """Process with the code of one checkout."""

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


def interval(logs):
    """Return the geometric mean of ratios and its 95 % interval, from their logarithms."""
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    t = next((value for freedom, value in sorted(_T.items(), reverse=True) if freedom <= len(logs) - 1), 12.706)
    return math.exp(mean), math.exp(mean - t * error), math.exp(mean + t * error)


def started(checkouts, cases, rounds):
    """Return the seconds (before, after) of each round of each case, measured by two new processes."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        before, after = (Checkout(path, folder) for path, folder in zip(checkouts, (one, other), strict=True))
        pairs = {case: [] for case in cases}
        for case in cases:
            for _ in range(3):  # loads models and fills caches
                before.measure(case), after.measure(case)
            for number in range(rounds):
                order = (before, after) if number % 2 else (after, before)
                times = {checkout: checkout.measure(case) for checkout in order}
                pairs[case].append((times[before], times[after]))
        before.close()
        after.close()
    return pairs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", nargs="*")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--work")
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    from embedway import Config

    os.environ["ALTERNATE_WEIGHTS"] = str(Config.load().weights.directory)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    multiprocessing.Process(target=upstream.serve, args=(sender,), daemon=True).start()
    os.environ["ALTERNATE_URL"] = f"http://127.0.0.1:{receiver.recv()}/v1"
    cases = given.cases.split(",")
    starts = [started(given.checkouts, cases, given.rounds) for _ in range(given.starts)]
    print(f"{'case':15} {'before us':>10} {'after us':>10} {'speed':>7}  95 % interval")
    for case in cases:
        logs = [statistics.median(math.log(old / new) for old, new in start[case]) for start in starts]
        speed, low, high = interval(logs)
        columns = zip(*(pair for start in starts for pair in start[case]), strict=True)
        medians = [statistics.median(column) * 1e6 for column in columns]
        print(f"{case:15} {medians[0]:10.1f} {medians[1]:10.1f} {speed:7.3f}  {low:.3f} to {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
