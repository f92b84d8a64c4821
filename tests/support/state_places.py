"""Ledger with records, pins and trust, with content."""

import asyncio
import json

from embedway.ledger.base import Limit, Purpose, Settlement
from embedway.ledger.pins import new_pin
from embedway.ledger.records import RECORD_KINDS, Record
from embedway.ledger.redis import RedisLedger
from embedway.ledger.redis_pins import RedisPins
from embedway.ledger.redis_records import RedisRecords
from embedway.ledger.sqlite import SqliteLedger
from embedway.ledger.sqlite_formats import LEDGER, PINS
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.ledger.sqlite_records import SqliteRecords
from embedway.server.keys import new_key, store_new_key
from embedway.state.redis import RedisPart
from embedway.state.sqlite import SqlitePart
from embedway.state.trust import TrustPart
from embedway.types import Space

#: 2026-11-23 12:00:00 UTC.
NOON = 1795435200.0
SPACE = Space("small", "service:small", 8, "service", normalized=True)
PURPOSE = Purpose("m", "docs", "team")


class Place:
    """Ledger with records, pins and trust, with functions to read them."""

    def __init__(self, folder, url=None, *, cluster=False):
        self.folder, self.url, self.cluster = folder, url, cluster

    @property
    def parts(self):
        trust = TrustPart(self.folder / "trust.json")
        if self.url is not None:
            return [trust, *(RedisPart(what, self.url, self.cluster) for what in ("pins", "ledger"))]
        return [trust, SqlitePart(self.folder / "pins.sqlite", PINS), SqlitePart(self.folder / "ledger.sqlite", LEDGER)]

    def ledger(self):
        if self.url is not None:
            return RedisLedger(self.url, cluster=self.cluster, clock=lambda: NOON, ticks=lambda: NOON)
        return SqliteLedger(self.folder / "ledger.sqlite", clock=lambda: NOON, ticks=lambda: NOON)

    def pins(self):
        if self.url is not None:
            return RedisPins(self.url, cluster=self.cluster, clock=lambda: NOON)
        return SqlitePins(self.folder / "pins.sqlite", clock=lambda: NOON)

    def records(self):
        if self.url is not None:
            return RedisRecords(self.url, cluster=self.cluster, clock=lambda: NOON)
        return SqliteRecords(self.folder / "ledger.sqlite", clock=lambda: NOON)

    def look(self):
        """Return the complete state."""
        trust = self.folder / "trust.json"

        async def work():
            ledger, pins, records = self.ledger(), self.pins(), self.records()
            try:
                return {
                    "entries": await ledger.entries(),
                    "standings": await ledger.standings(),
                    "totals": await ledger.totals(),
                    "pins": await pins.all(),
                    "records": [record for kind in RECORD_KINDS for record in await records.all(kind)],
                    "trust": trust.read_bytes() if trust.exists() else None,
                }
            finally:
                await ledger.aclose()
                await pins.aclose()
                await records.aclose()

        return asyncio.run(work())

    def spend(self, nanousd, texts=1):
        """Book one call, from its reservation to its end."""

        async def work():
            ledger = self.ledger()
            await spend(ledger, nanousd, texts)
            await ledger.aclose()

        asyncio.run(work())

    def fill(self):
        """Write an entry of every kind, with unusual names."""

        async def work():
            ledger, pins, records = self.ledger(), self.pins(), self.records()
            await ledger.set_limit(Limit("alle €", 10_000, warn_at=(1,)))
            await ledger.set_limit(Limit("day", 9_007_199_254_740_000, "model:m", "day", hard=False))
            await spend(ledger, 300)
            entry = await ledger.reserve(PURPOSE, 70, (), lease_s=1e6, texts=1)
            await ledger.send(entry, 20, ())
            await ledger.book_saved(PURPOSE, 11, texts=2, tokens=3)
            await pins.confirm(new_pin("docs | ü", "small", SPACE, "a"))
            await pins.claim(new_pin("claimed", "small", SPACE, "b"), 1e6)
            await records.put(Record("baseline", "docs | ü", json.dumps({"text": "ü"}, ensure_ascii=False)))
            await store_new_key(records, new_key("web", tenant="acme")[0])
            await ledger.aclose()
            await pins.aclose()
            await records.aclose()

        asyncio.run(work())
        self.trust({"/a/embedway.toml": "ab" * 32})

    def trust(self, trusted):
        document = {"format": "embedway trust", "version": 1, "files": trusted}
        (self.folder / "trust.json").write_text(json.dumps(document))


async def spend(ledger, nanousd, texts=1):
    entry = await ledger.reserve(PURPOSE, nanousd, (), lease_s=60, texts=texts)
    assert isinstance(entry, str), entry
    await ledger.send(entry, nanousd, ())
    await ledger.settle(entry, Settlement(nanousd, nanousd, 3, "reported"), ())
    await ledger.close(entry, route="r")
