"""A gateway under ten times the load that it can carry. soak.py measures minutes of mixed load.

    python benchmarks/overload.py [--model route|local] [--seconds 60]

The load is an open loop at ten times the rate of answers that a closed loop reaches. Prints what was answered, whether
each refusal (429 or 503) says when to come back, the memory of all processes, and after how many seconds the median is
back at 1.5 times that of half the load. `route` is a service on loopback that computes 100 texts per second; `local`
are passages of the Python documentation on this machine.
"""

import argparse
import asyncio
import collections
import itertools
import json
import os
import tempfile
import threading
from pathlib import Path

import load
from contestants import MODEL, read_texts
from gateways import embedway, loopback, machine_line, route_settings, running
from serving import SETTINGS

FACTOR, RECOVERY_S = 10, 15
#: Texts per second of the slow service.
SLOW = 100
REFUSED = (429, 503)


class Sampler:
    """Samples memory and descriptors of a server in a thread."""

    def __init__(self, server, every_s):
        self.server, self.every_s = server, every_s
        self.rows, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        number = 0
        while not self.ended.wait(0 if number == 0 else self.every_s):
            self.rows.append((number * self.every_s, self.server.resident_mb(), self.server.descriptors()))
            number += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def contents(options, target):
    """Yield requests of one text each."""
    if options.model == "route":
        return load.requests(target)
    return load.requests(target, itertools.cycle(read_texts(options.texts)))


async def send(options, target, rate, seconds):
    """Send an open loop and return its answers."""
    return await load.open_loop(target, contents(options, target), rate, seconds, limit=2_000, drain_s=120)


async def overload_and_after(options, target, capacity):
    """Send the overload, and half of what the gateway can do from its end on. Returns the answers of both."""
    over = asyncio.create_task(send(options, target, FACTOR * capacity, options.seconds))
    await asyncio.sleep(options.seconds)
    after = await send(options, target, capacity / 2, RECOVERY_S)
    return await over, after


def good(answers):
    return [answer.seconds for answer in answers if answer.status == 200]


def recovery(after, usual):
    """Return the first second after the load from which on the medians are at most 1.5 times the usual one."""
    late = -1
    for second, some in itertools.groupby(sorted(after), lambda answer: int(answer.due)):
        if load.percentile([answer.seconds if answer.status == 200 else 1e9 for answer in some], 0.5) > 1.5 * usual:
            late = second
    return late + 1


def overload(options, server):
    target = server.target()
    answers, seconds = load.run(load.closed_loop(target, contents(options, target), 64, 5))
    capacity = len(good(answers)) / seconds
    usual = load.percentile(good(load.run(send(options, target, capacity / 2, 10))), 0.5)
    before = server.resident_mb()
    with Sampler(server, 1) as sampler:
        answers, after = load.run(overload_and_after(options, target, capacity), precise=False)
    drained = max(answer.due + answer.seconds for answer in answers) - options.seconds
    counts = collections.Counter(answer.status for answer in answers)
    refused = [answer for answer in answers if answer.status in REFUSED]
    accepted = good(answers)
    print(f"can do {capacity:,.0f} requests/s; {FACTOR * capacity:,.0f} requests/s for {options.seconds} s")
    print("answers:", ", ".join(f"{status or 'none'}: {count:,}" for status, count in sorted(counts.items())))
    print(f"accepted: {counts[200] / options.seconds:,.0f}/s, p50 {load.percentile(accepted, 0.5):.3f} s", end=", ")
    print(f"p99 {load.percentile(accepted, 0.99):.3f} s; the last one {drained:.1f} s after the load")
    told = sum(answer.retry_after for answer in refused)
    print(f"refused: {told:,} of {len(refused):,} with Retry-After", end=", ")
    print(f"p50 {load.percentile([answer.seconds for answer in refused], 0.5) * 1e3:.1f} ms")
    print(f"memory: {before:.0f} MB before, at most {max(row[1] for row in sampler.rows):.0f} MB")
    print(f"median at half the load: {usual * 1e3:.1f} ms; back after {recovery(after, usual)} s")
    return {"capacity": capacity, "counts": counts, "told": told, "memory": sampler.rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("route", "local"), default="route")
    parser.add_argument("--seconds", type=int, default=60, help="of the overload")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--texts", help="lines of JSON with `text`; without it, the documentation of Python")
    parser.add_argument("--json")
    options = parser.parse_args()
    service = loopback(rate=SLOW, delay=0.02)
    with tempfile.TemporaryDirectory() as place, running([service]):
        if options.model == "local":
            data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
            environment = {"XDG_DATA_HOME": data}
            made = embedway("gateway", place, SETTINGS, workers=options.workers, model=MODEL, environment=environment)
        else:
            settings = route_settings(service.port, ledger="sqlite", cache="none")
            made = embedway("gateway", place, settings, workers=options.workers)
        with running([made]):
            print(machine_line() + f"; {options.model} model")
            found = overload(options, made)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
