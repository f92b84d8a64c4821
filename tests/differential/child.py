"""Run scenarios with the embedway on the path, and print everything observable of each as one line of JSON.

Everything runs in one thread and in virtual time: the event loop jumps to the next timer when nothing is ready, and
blocking calls run inline. A line depends only on the scenario and the code, not on the machine's speed.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.metadata
import json
import logging
import math
import os
import random
import selectors
import shutil
import sqlite3
import sys
import threading
import time
import types
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scenarios

#: Value of `time.time` at the start of virtual time, 2026-09-21.
EPOCH_S = 1_790_000_000.0
#: Time within which all calls must end after the last one began, in seconds.
LONGEST_S = 3600.0

_real_monotonic = time.monotonic


class Clock:
    """Virtual seconds. Code under test sees no other time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.began = 1000.0

    def since(self) -> float:
        """Return the seconds since the scenario began, rounded to remove floating-point noise."""
        return round(self.now - self.began, 6)


CLOCK = Clock()


class StuckError(Exception):
    """Every task waits, and no timer is set."""


class _Selector(selectors.BaseSelector):
    """Selector that waits for no file and advances the clock at once."""

    def __init__(self) -> None:
        self._keys: dict = {}

    def register(self, fileobj, events, data=None):
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj):
        return self._keys.pop(fileobj)

    def select(self, timeout=None):
        if timeout is None:
            raise StuckError
        # A little later than requested, like any clock: with rounding, a timer that fires early would be set again
        # forever.
        CLOCK.now += timeout + 1e-9 if timeout > 0 else 1e-12
        return []

    def get_map(self):
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time. Work for threads runs inline, and its result is set in a later turn."""

    def __init__(self) -> None:
        super().__init__(_Selector())
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return CLOCK.now

    def call_soon_threadsafe(self, callback, *args, context=None):
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor, func, *args):
        return inline(self, func, *args)


def inline(loop, function, *args, **kwargs):
    """Call a function now and return a future of the loop with its result."""
    future = loop.create_future()
    try:
        result = function(*args, **kwargs)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        loop.call_soon(_settle, future, None, error)
    else:
        loop.call_soon(_settle, future, result, None)
    return future


def _settle(future, result, error):
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()


class InlineWorker:
    """Replacement for `embedway.worker.Worker`: the same order of calls, without a thread."""

    def __init__(self, name):
        self._loop = asyncio.get_running_loop()

    def call(self, function, *args, **kwargs):
        return inline(self._loop, function, *args, **kwargs)

    def close(self):
        pass


def _no_thread(self):
    raise RuntimeError(f"the thread {self.name} was started: threads do not follow virtual time")


def _submit(self, function, /, *args, **kwargs):
    future: concurrent.futures.Future = concurrent.futures.Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001  as an executor does
        future.set_exception(error)
    return future


class Chance:
    """Replacement for the `random` module: values depend on virtual time, not on the order of draws."""

    salt = 0

    @classmethod
    def random(cls):
        return scenarios.chance("random", cls.salt, CLOCK.since())

    @classmethod
    def uuid4(cls):
        cls.drawn += 1
        return uuid.UUID(int=int(scenarios.chance("uuid", cls.salt, cls.drawn) * 2**122), version=4)

    drawn = 0


def _sleep(seconds):
    CLOCK.now += seconds


def take_over() -> None:
    """Replace real time and randomness by virtual ones, before embedway is imported: default arguments hold them."""
    time.monotonic = time.perf_counter = lambda: CLOCK.now
    time.time = lambda: EPOCH_S + CLOCK.now - CLOCK.began
    time.sleep = _sleep
    random.random = Chance.random
    uuid.uuid4 = Chance.uuid4
    threading.Thread.start = _no_thread
    concurrent.futures.ThreadPoolExecutor.submit = _submit
    logging.disable(logging.CRITICAL)
    fakes = types.ModuleType("embedway_scripted")
    fakes.provider, fakes.reranker = Scripted, ScriptedReranker
    sys.modules["embedway_scripted"] = fakes
    own = [
        importlib.metadata.EntryPoint("scripted", "embedway_scripted:provider", "embedway.providers"),
        importlib.metadata.EntryPoint("scripted", "embedway_scripted:reranker", "embedway.rerankers"),
    ]

    # Read once, because it takes some milliseconds.
    installed = [entry for distribution in importlib.metadata.distributions() for entry in distribution.entry_points]

    def entry_points(**params):
        return importlib.metadata.EntryPoints([*own, *installed]).select(**params)

    importlib.metadata.entry_points = entry_points


class Layout:
    """Private parts of embedway, found even if they moved to another module."""

    @staticmethod
    def find(name: str, *modules: str):
        for module in modules:
            try:
                return getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError):
                continue
        raise ImportError(f"{name} is in none of {', '.join(modules)}; add its new module to the list in child.py")

    def __init__(self) -> None:
        find = self.find
        self.answer = find("Answer", "embedway.providers.base", "embedway.providers")
        self.declared = find("Declared", "embedway.providers.base", "embedway.providers")
        self.scores = find("Scores", "embedway.rerank.base", "embedway.rerank")
        self.rates = find("RateState", "embedway.types")
        worker = find("Worker", "embedway.worker")
        for name in ("__init__", "call", "close"):
            setattr(worker, name, getattr(InlineWorker, name))
        memory = find("MemoryCache", "embedway.cache.memory")
        self._watch(memory)
        # The time for which vectors wait to share a write affects only speed.
        with contextlib.suppress(ImportError):
            find("_Chunk", "embedway.cache.write_behind").gather = self._nothing
        with contextlib.suppress(ImportError):
            importlib.import_module("embedway.stages.keeping")._FEW_ENTRIES = 10**9

    @staticmethod
    async def _nothing(_chunk) -> None: ...

    @staticmethod
    def _watch(memory) -> None:
        """Record what is put into a memory cache, which leaves no file."""
        put_many = memory.put_many

        async def watched(self, group, items, **more):
            for key, entry in items:
                LOG.puts[key.hex()] = digest(entry)
            return await put_many(self, group, items, **more)

        memory.put_many = watched


class Log:
    """Record of a scenario, besides its results."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.requests: list = []
        self.tries: dict = {}
        self.puts: dict = {}


LOG = Log()
LAYOUT: Layout | None = None


def digest(data) -> str:
    return hashlib.blake2b(data if isinstance(data, bytes) else str(data).encode(), digest_size=8).hexdigest()


def vector_of(text: str, facts: dict) -> np.ndarray:
    """Return the vector of a text at full width: the same for every route of a model."""
    size = facts["dimensions"]
    raw = hashlib.shake_128(f"{facts['name']}\0{text}".encode("utf-8", "surrogatepass")).digest(2 * size)
    vector = np.frombuffer(raw, "<i2").astype(np.float64) + 0.5
    return vector / np.linalg.norm(vector) if facts["normalized"] else vector / 2**12


#: Failures of a service: the error, its message and its fields.
_FAILURES = {
    "unavailable": ("UnavailableError", "it is down", {"status": 503}),
    "unavailable_later": ("UnavailableError", "it is down", {"status": 503}),
    "unavailable_billed": ("UnavailableError", "it broke off", {"billed": True}),
    "limited": ("RateLimitedError", "slow down", {"status": 429}),
    "refused": ("RefusedInputError", "it refuses a text", {"status": 400}),
    "protocol": ("ProtocolError", "no JSON", {"billed": False}),
    "protocol_billed": ("ProtocolError", "no JSON", {"billed": True}),
    "authentication": ("AuthenticationError", "wrong key", {"status": 401}),
    "quota": ("QuotaExceededError", "no money left", {"status": 402}),
}


class _Service:
    """Service with the faults of a profile. Each fault depends on the texts and their number of tries, not on order."""

    def __init__(self, endpoint) -> None:
        self.facts = facts = json.loads(endpoint.options["facts"])
        self.route = endpoint.route
        self.declared = LAYOUT.declared(**facts["declared"])
        self._profile = scenarios.PROFILES[facts["profile"]]

    async def asked(self, texts, more: dict) -> tuple[str, float]:
        """Wait for the answer's delay; return the fault, and a number that depends on the request."""
        texts = tuple(texts)
        asked = (self.route, texts, *more.values())
        number = LOG.tries[asked] = LOG.tries.get(asked, -1) + 1
        draw = scenarios.chance(self.facts["salt"], asked, number)
        what, passed = "well", 0.0
        for fault, share in self._profile.items():
            passed += share
            if draw < passed:
                what = fault
                break
        if any("poison" in text for text in texts):
            what = "refused"
        request = {"at": CLOCK.since(), "route": self.route, "try": number, "texts": list(texts), **more, "what": what}
        LOG.requests.append(request)
        latency = self.facts["slow_s"] * (0.05 + scenarios.chance("latency", self.facts["salt"], asked, number))
        try:
            if what == "hang":
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(latency)
        except asyncio.CancelledError:
            request["cancelled"] = CLOCK.since()
            raise
        self.fail(what, draw)
        return what, draw

    def fail(self, what: str, draw: float) -> None:
        from embedway import errors

        if what == "stranger":
            raise ValueError("a stranger's error, with a text in it")
        if what not in _FAILURES:
            return
        kind, message, facts = _FAILURES[what]
        later = {"retry_after_s": round(draw * 1.5, 3)} if what in {"limited", "unavailable_later"} else {}
        error = getattr(errors, kind)(message, route=self.route, **facts, **later)
        if what == "limited" and draw * 1e6 % 2 < 1:
            error.rates = LAYOUT.rates(requests_limit=60, requests_remaining=0, requests_reset_s=later["retry_after_s"])
        raise error

    def spoilt(self, what: str, vectors: np.ndarray) -> np.ndarray:
        if what == "count":
            return vectors[:-1]
        vectors = vectors.copy()
        if what in {"nan", "inf", "zero"}:
            vectors[-1] = {"nan": np.nan, "inf": np.inf, "zero": 0.0}[what]
        return vectors[:, :-1] if what == "width" and vectors.shape[1] > 1 else vectors

    def tokens(self, what: str, texts) -> int | None:
        return None if what == "untold" else sum(3 + len(text) // 4 for text in texts)

    def told(self, what: str):
        return (
            LAYOUT.rates(requests_limit=60, requests_remaining=1, requests_reset_s=0.7)
            if what == "rates"
            else (LAYOUT.rates())
        )

    async def aclose(self) -> None:
        LOG.requests.append({"at": CLOCK.since(), "route": self.route, "what": "closed", "try": 0, "texts": []})


class Scripted(_Service):
    """Provider of the scenario."""

    async def embed(self, texts, *, input_type, dimensions):
        what, draw = await self.asked(texts, {"input_type": input_type, "dimensions": dimensions})
        facts = self.facts
        mark = input_type if facts["prompt"] else ""
        rows = np.stack([vector_of(mark + text, facts) for text in texts])[:, : dimensions or facts["dimensions"]]
        if dimensions and facts["normalized"]:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        if facts["declared"].get("batch_dependent"):
            rows = rows * (1 + 1e-6 * draw)
        vectors = self.spoilt(what, rows.astype(np.float32))
        return LAYOUT.answer(vectors, tokens=self.tokens(what, texts), rates=self.told(what))


class ScriptedReranker(_Service):
    """Reranker of the scenario."""

    async def rerank(self, query, documents):
        what, _ = await self.asked(documents, {"query": query})
        scores = np.array([scenarios.chance("score", query, text) for text in documents], np.float32)
        scores = self.spoilt(what, scores) if what in {"count", "nan", "inf"} else scores
        searches = -(-len(documents) // 100) if self.facts["searches"] else None
        tokens = None if self.facts["searches"] else self.tokens(what, documents)
        return LAYOUT.scores(scores, tokens=tokens, searches=searches, rates=self.told(what))


class Canon:
    """Converts values to JSON that is equal for every run: folders and random ids get fixed names."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        #: Content of each ledger entry, by its id.
        self.entries: dict[str, str] = {}

    def text(self, text: str) -> str:
        return text.replace(self._folder, "<folder>")

    def value(self, value):  # noqa: C901, PLR0911  one line for each kind of value
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, np.ndarray):
            return array(value)
        if isinstance(value, np.generic):
            return self.value(value.item())
        if isinstance(value, bytes):
            return f"{len(value)} bytes {digest(value)}"
        if isinstance(value, BaseException):
            return self.error(value)
        if dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            fields.pop("timing", None)
            if "ledger_entries" in fields:
                fields["ledger_entries"] = [self.entries.get(one, "unknown") for one in fields["ledger_entries"]]
            return {name: self.value(one) for name, one in fields.items()}
        if isinstance(value, Mapping):
            return {str(key): self.value(one) for key, one in value.items()}
        if isinstance(value, (set, frozenset)):
            return sorted((self.value(one) for one in value), key=repr)
        if isinstance(value, (list, tuple)):
            return [self.value(one) for one in value]
        return self.text(f"{type(value).__name__} {value}")

    def error(self, error: BaseException) -> dict:
        seen = {"type": type(error).__name__, "message": self.text(str(error))}
        facts = {name: value for name, value in vars(error).items() if not name.startswith("_")}
        facts.pop("table", None)
        seen["attributes"] = self.value(facts)
        if isinstance(error, BaseExceptionGroup):
            seen["of"] = [self.error(one) for one in error.exceptions]
        for name in ("__cause__", "__context__"):
            other = getattr(error, name)
            if other is not None and not (name == "__context__" and error.__suppress_context__):
                seen[name] = type(other).__name__
        return seen


def array(values: np.ndarray) -> str:
    values = np.ascontiguousarray(values)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values).astype(values.dtype)
    return f"{values.dtype}{list(values.shape)} {digest(values.tobytes())}"


def rows(vectors: np.ndarray) -> list[str]:
    """Return each row separately, so that a difference names its row."""
    return [array(row) for row in np.atleast_1d(vectors)]


#: Columns of tables that contain only a random or running number.
_DRAWN = {"entries": {"id", "grp"}, "groups": {"id"}}


def tables(path: Path, canon: Canon) -> dict:
    """Return all rows of a SQLite file, by table, without random ids."""
    if not path.exists():
        return {}
    found = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        pragmas = ("application_id", "user_version")
        found["pragmas"] = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
        for name in sorted(names):
            lines = []
            for row in connection.execute(f"SELECT * FROM {name}"):  # noqa: S608
                facts = {key: stored(row[key]) for key in row.keys() if key not in _DRAWN.get(name, ())}  # noqa: SIM118
                lines.append(facts)
                if name == "entries" and "lease_until" in facts:
                    canon.entries[row["id"]] = " ".join(str(facts[key]) for key in sorted(facts))
            found[name] = sorted(lines, key=lambda facts: json.dumps(facts, sort_keys=True))
    return found


def stored(value):
    if isinstance(value, float):
        # A point in time, rounded because adding virtual seconds to an epoch is inexact.
        return round(value - EPOCH_S, 5) if value > EPOCH_S / 2 else value
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 64 else f"{len(value)} bytes {digest(value)}"
    if isinstance(value, str) and value.startswith("{"):
        facts = json.loads(value)
        for key in ("since", "until"):
            if isinstance(facts.get(key), float):
                facts[key] = round(facts[key] - EPOCH_S, 5)
        facts["claim"] = bool(facts.get("claim"))
        return json.dumps(facts, sort_keys=True)
    return value


async def _carry_out(scenario: dict, folder: Path, canon: Canon) -> dict:
    from embedway import AsyncEmbedder, Config

    overrides = {
        "cache.path": str(folder / "cache.sqlite"),
        "ledger.path": str(folder / "ledger.sqlite"),
        "pins.path": str(folder / "pins.sqlite"),
        "weights.offline": True,
        "weights.directory": str(folder / "weights"),
        "weights.hub_cache": str(folder / "hub"),
        "tune.directory": str(folder / "tune"),
        **scenario["settings"],
    }
    embedder = AsyncEmbedder(config=Config.load(environ={}, overrides=overrides))
    loop = asyncio.get_running_loop()
    outcomes: list = [None] * len(scenario["calls"])

    async def one(number: int, call: dict) -> None:
        if "query" in call:
            asked = embedder.rerank(call["query"], call["texts"], **call["options"])
        else:
            asked = getattr(embedder, call["kind"])(call["texts"], **call["options"])
        task = asyncio.ensure_future(asked)
        if call.get("cancel_after_s"):
            loop.call_later(call["cancel_after_s"], task.cancel)
        try:
            outcomes[number] = (await task, CLOCK.since())
        except asyncio.CancelledError as error:
            outcomes[number] = (error, CLOCK.since())
        except Exception as error:  # noqa: BLE001  the outcome
            outcomes[number] = (error, CLOCK.since())

    tasks = []
    for number, call in enumerate(scenario["calls"]):
        await asyncio.sleep(CLOCK.began + call["at"] - CLOCK.now)
        tasks.append(asyncio.ensure_future(one(number, call)))
    await asyncio.wait(tasks, timeout=LONGEST_S)
    stats = None
    if scenario["settings"]["cache.backend"] != "none":
        stats = await embedder.cache.stats()
    pins = await embedder.pins.list()
    await embedder.aclose()
    return {"outcomes": outcomes, "stats": stats, "pins": pins}


def play(scenario: dict, scratch: Path, seed: int) -> dict:
    """Run a scenario and return everything observable of it."""
    folder = scratch / f"s{scenario['number']}"
    folder.mkdir()
    LOG.clear()
    Chance.salt, Chance.drawn = f"{seed}:{scenario['number']}", 0
    CLOCK.now = CLOCK.began = 1000.0
    canon = Canon(folder)
    loop = VirtualLoop()
    stuck, seen = "", {}
    try:
        asyncio.set_event_loop(loop)
        try:
            seen = loop.run_until_complete(_carry_out(scenario, folder, canon))
        except StuckError:
            stuck = "every task waits and no timer is set"
        except Exception as error:  # noqa: BLE001  an observable result
            stuck = repr(canon.error(error))
        closed_at = CLOCK.since()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            with contextlib.suppress(StuckError):
                loop.run_until_complete(asyncio.wait(left, timeout=1))
    finally:
        asyncio.set_event_loop(None)
        with contextlib.suppress(RuntimeError):
            loop.close()
    kept = {name: tables(folder / f"{name}.sqlite", canon) for name in ("cache", "ledger", "pins")}
    requests = sorted(LOG.requests, key=lambda one: (one["at"], json.dumps(one, sort_keys=True)))
    line = {
        "number": scenario["number"],
        "calls": [
            {"call": call["kind"], **_outcome(outcome, canon)}
            for call, outcome in zip(scenario["calls"], seen.get("outcomes", []), strict=False)
        ],
        "requests": requests,
        "kept": kept,
        "puts": dict(sorted(LOG.puts.items())),
        "stats": _stats(seen.get("stats"), canon),
        "pins": [
            canon.value(dataclasses.replace(pin, claim="", since=stored(pin.since))) for pin in seen.get("pins", ())
        ],
        "closed_at": closed_at,
        "stuck": stuck,
    }
    shutil.rmtree(folder)
    return line


def _stats(stats, canon):
    return None if stats is None else canon.value(stats)


def _outcome(outcome, canon: Canon) -> dict:
    if outcome is None:
        return {"never": "ended"}
    result, at = outcome
    if isinstance(result, BaseException):
        return {"raised": canon.error(result), "at": at}
    seen = {"at": at}
    if hasattr(result, "receipt"):
        seen["receipt"] = canon.value(result.receipt)
        seen["errors"] = {str(row): canon.error(error) for row, error in result.errors.items()}
        values = result.vectors if hasattr(result, "vectors") else result.scores
        seen["shape"] = list(values.shape)
        seen["rows"] = rows(values)
        for name in ("space", "order"):
            if hasattr(result, name):
                seen[name] = canon.value(getattr(result, name))
        return seen
    return {**seen, "plan": canon.value(result)}


def _swapped(result):
    return dataclasses.replace(result, vectors=result.vectors[::-1])


def _receipt(result, **changed):
    return dataclasses.replace(result, receipt=dataclasses.replace(result.receipt, **changed))


#: Faults that the comparison must detect, by name: a function of the result.
PLANTS = {
    "rows": _swapped,
    "tokens": lambda result: _receipt(result, tokens=result.receipt.tokens + 1),
    "cost": lambda result: _receipt(result, cost_nanousd=(result.receipt.cost_nanousd or 0) + 1),
    "errors": lambda result: dataclasses.replace(result, errors={row + 1: one for row, one in result.errors.items()}),
    "size": lambda result: dataclasses.replace(result, vectors=result.vectors[:, :-1]),
}


def plant(names: list[str]) -> None:
    """Apply faults to each result of `embed`."""
    from embedway import AsyncEmbedder

    embed = AsyncEmbedder.embed

    async def spoilt(self, *arguments, **options):
        result = await embed(self, *arguments, **options)
        for name in names:
            result = PLANTS[name](result)
        return result

    AsyncEmbedder.embed = spoilt


#: Cases that caches are written with, and read with by the other checkout.
_CACHED = [
    {"model": model, "codec": codec, "more": more, "overflow": overflow}
    for model in ("small", "exact", "raw", "catalog")
    for codec in ("f32", "f16", "i8")
    for more in ({}, {"cache.namespace": "team-a"}, {"cache.secret": "a-secret-of-the-cache-entries"})
    for overflow in ("truncate", "mean")
    if not (model == "catalog" and (more or overflow == "mean"))
]


def exchange(folder: Path) -> list[dict]:
    """Embed a fixed set of texts with caches in a permanent folder; return hits, vectors and requests."""
    told = []
    texts = [text for number in range(3) for text in scenarios._texts(random.Random(number))]
    texts = [text for text in dict.fromkeys(texts) if "poison" not in text]
    for number, case in enumerate(_CACHED):
        facts = scenarios.CATALOG if case["model"] == "catalog" else scenarios.MODELS[case["model"]]
        settings: dict = {"cache.backend": "sqlite", "cache.codec": case["codec"], "ledger.backend": "none"}
        if case["model"] != "catalog":
            settings |= {f"models.{case['model']}.{name}": value for name, value in facts.items()}
        route = {
            "profile": "well", "salt": 1, "declared": {"max_inputs": 32}, "place": 0, "slow_s": 0.01, "searches": False,
            "prompt": False, **{key: facts.get(key, True) for key in ("name", "dimensions", "normalized")},
        }  # fmt: skip
        # If a cut falls inside a character of several tokens, counting fails, and nothing is cached.
        given = [text for text in texts if text.isascii()] if case["model"] == "exact" else texts
        settings |= {"routes.r.model": facts["name"], "routes.r.provider": "scripted"}
        settings |= {"routes.r.options": {"facts": json.dumps(route)}, **case["more"]}
        calls = [
            {
                "at": 5.0 * place,
                "kind": "embed",
                "texts": given,
                "options": {"model": facts["name"], "on_overflow": case["overflow"], **more},
            }
            for place, more in enumerate(
                [{}, {"input_type": "query"}, *({"dimensions": size} for size in facts.get("matryoshka", ())[:1])]
            )
        ]
        settings["cache.path"] = str(folder / f"cache-{number}.sqlite")
        scenario = {"number": number, "settings": settings, "calls": calls}
        line = play(scenario, folder, 0)
        told.append(
            {
                "case": {**case, "number": number},
                "calls": [
                    {
                        "rows": call.get("rows"),
                        "raised": call.get("raised"),
                        "hits": call.get("receipt", {}).get("cache_hits"),
                        "unique": call.get("receipt", {}).get("unique_texts"),
                    }
                    for call in line["calls"]
                ],
                "requests": sum(one["what"] != "closed" for one in line["requests"]),
            }
        )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=50, help="the number after the last scenario")
    parser.add_argument("--calls", type=int, default=scenarios.CALLS)
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder")
    parser.add_argument("--source", type=Path, help="the folder that embedway must be imported from")
    parser.add_argument("--exchange", type=Path, help="a folder of caches: write or read these instead")
    parser.add_argument("--plant", choices=PLANTS, nargs="*", help="faults that the comparison must detect")
    arguments = parser.parse_args()
    global LAYOUT  # noqa: PLW0603  the fakes read it
    began = _real_monotonic()
    source = arguments.source and arguments.source.resolve()
    os.chdir(arguments.scratch)
    take_over()
    import embedway

    if source and not Path(embedway.__file__).resolve().is_relative_to(source):
        sys.exit(f"embedway was imported from {embedway.__file__}, not from {source}")
    LAYOUT = Layout()
    if arguments.plant:
        plant(arguments.plant)
    out = sys.stdout
    if arguments.exchange:
        out.write(json.dumps(exchange(arguments.exchange), sort_keys=True) + "\n")
        return
    for number in range(arguments.first, arguments.last):
        line = play(scenarios.scenario(arguments.seed, number, arguments.calls), arguments.scratch, arguments.seed)
        out.write(json.dumps(line, sort_keys=True) + "\n")
    out.write(json.dumps({"end": True, "wall_s": _real_monotonic() - began}) + "\n")


if __name__ == "__main__":
    main()
