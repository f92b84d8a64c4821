"""Write the ledger of version 2 in this folder. Run it with the code of that version, never with later code.

::

    git worktree add ../v2 COMMIT
    PYTHONPATH=../v2/src python tests/project/formats/make_v2.py tests/project/formats

COMMIT is the parent of the commit that added this script.
"""

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

from embedway.ledger.base import Limit, Purpose, Settlement
from embedway.ledger.sqlite import SqliteLedger

#: 2026-11-23 12:00:00 UTC.
NOON = 1795435200.0


async def fill(path):
    """Book one call, and set a limit."""
    ledger = SqliteLedger(path, clock=lambda: NOON, ticks=lambda: NOON)
    await ledger.set_limit(Limit("alle €", 10_000, warn_at=(1,)))
    entry = await ledger.reserve(Purpose("m", "docs", "team"), 300, (), lease_s=60, texts=1)
    await ledger.send(entry, 300, ())
    await ledger.settle(entry, Settlement(300, 300, 3, "reported"), ())
    await ledger.close(entry, route="r")
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]).resolve() / "ledger-v2.sqlite"))
