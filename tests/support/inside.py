"""Access to private parts that no public call offers. Only this module and `stored.py` name private attributes."""

import contextlib
import os
import sqlite3
from pathlib import Path

from embedway import shared_servers
from embedway.cache.pause import Pause
from embedway.cache.redis import RedisCache
from embedway.cache.sqlite import SqliteCache
from embedway.ledger.continuity import SEEN_BY_PLACE
from embedway.ledger.redis import RedisLedger


def variables():
    """Return environment variables for a process whose code imports this module."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


# ---- an embedder


def engine_of(embedder):
    """Return the current engine of an embedder."""
    return embedder._engines.engine


def forget_engine(embedder):
    """Give up the engine of an embedder, as in a forked process."""
    embedder._engines.forget()


@contextlib.contextmanager
def another_process():
    """Use ledgers as another process would, without what this process has read in them."""
    kept = dict(SEEN_BY_PLACE._states)
    SEEN_BY_PLACE.clear()
    try:
        yield
    finally:
        SEEN_BY_PLACE.clear()
        SEEN_BY_PLACE._states.update(kept)


def cache_of(embedder):
    """Return the read-through cache."""
    return engine_of(embedder).pipeline.cache


def store_of(embedder):
    """Return the store of the cache."""
    return cache_of(embedder).store


def counters_of(embedder, model="acme/m"):
    """Return this embedder's counters of a model's cache entries."""
    return cache_of(embedder).counters.of(model)


async def settle(embedder):
    """Wait until all computed vectors are stored."""
    await cache_of(embedder).settle()


async def open_model(embedder, model="acme/m"):
    """Load the model of a name if needed, and return it."""
    return await engine_of(embedder).models.open(model)


def opened_model(embedder, model="acme/m"):
    """Return the opened model of a full name, or None."""
    return engine_of(embedder).models.opened(model)


def routes_of(embedder, model="acme/m"):
    """Return the routes of an opened model."""
    return opened_model(embedder, model).routes


def provider_of(embedder, model="acme/m"):
    """Return the provider of an opened model's first route."""
    return routes_of(embedder, model)[0].provider


def second_session_of(embedder, model="sentence-transformers/all-MiniLM-L6-v2"):
    """Return the future of the session that an encoder loads in the background."""
    return opened_model(embedder, model).encoder()._later


def scheduler_of(embedder, model="acme/m"):
    """Return the scheduler of an opened model of a service."""
    return opened_model(embedder, model)._scheduling[1]


def client_of(embedder):
    """Return the client that sends requests to services."""
    return engine_of(embedder).models._environment.client


def budgets_of(embedder):
    """Return the budgets, with their open accounts."""
    return engine_of(embedder).budgets


def ledger_of(embedder):
    """Return the ledger."""
    return budgets_of(embedder).ledger


def thread_of(embedder):
    """Return the thread of a blocking embedder's event loop."""
    return embedder._running._thread


def lock_of(embedder):
    """Return the lock that the calls of a blocking embedder take."""
    return embedder._running._lock


# ---- providers, routes and their time


def set_faults(provider, faults):
    """Set the faults of the fake provider."""
    provider._faults = faults


def set_delay(provider, delay_s):
    """Set the delay of the fake provider's answers."""
    provider._delay_s = delay_s


def set_time(part, clock, *, sleep=None, chance=None):
    """Replace the clock of a client, rate limiter or circuit breaker, and the client's sleep and randomness."""
    part._clock = clock
    if sleep is not None:
        part._sleep = sleep
    if chance is not None:
        part._chance = chance


def set_failures(circuit, limit):
    """Set the number of failures that opens a circuit."""
    circuit._limit = limit


def failures_of(circuit):
    """Return the number of consecutive failures of a circuit breaker."""
    return circuit._failed


def places_of(semaphore):
    """Return the number of taken places, whether the place for queries is taken, and the waiters."""
    return semaphore._taken, semaphore._express_taken, semaphore._waiting


# ---- schedulers


def queries_running(scheduler):
    """Return the number of running query batches."""
    return scheduler._running_queries


def batches_running(scheduler):
    """Return the number of running batches."""
    return scheduler._running


def set_client(backend, client):
    """Set the client of a backend."""
    backend._client = client


# ---- pins


def set_pin_store(pins, store):
    """Set the store of a selector's pins."""
    pins._store = store


# ---- write-behind


def flights_under_way(cache):
    """Return the computations that other callers may wait for."""
    return cache.flights._going


def order_of(writes):
    """Return the lock of a write-behind queue: one write at a time."""
    return writes._order


def waiting_for_order(writes):
    """Return the waiters of that lock."""
    return writes._order._waiters


def tasks_of(writes):
    """Return the tasks that write."""
    return writes._tasks


def gathering_in(writes):
    """Return the chunks of entries that wait for others."""
    return writes._gathering.values()


# ---- stores of the cache and of the ledger


def set_store_clock(store, clock):
    """Set the clock of a cache store."""
    for part in (store, *(getattr(store, name) for name in ("_reading", "_writing") if hasattr(store, name))):
        part._clock = clock
        if hasattr(part, "_pause"):
            part._pause = Pause(part._pause._seconds, clock, clock)
    if isinstance(store, RedisCache):
        server = store._server
        server.clock = clock
        server._pause, server._format_is_known = (
            Pause(pause._seconds, clock, clock) for pause in (server._pause, server._format_is_known)
        )


def set_cache_patience(monkeypatch, wait_s):
    """Set the time that cache stores wait for a server's connection and answer, and for a lock."""
    for module, name in (
        ("redis_server", "_CONNECT_S"),
        ("redis_server", "ANSWER_S"),
        ("redis", "ANSWER_S"),
        ("sqlite_connection", "BUSY_S"),
        ("sqlite", "BUSY_S"),
    ):
        monkeypatch.setattr(f"embedway.cache.{module}.{name}", wait_s)


def server_of(store):
    """Return the connection of a cache store to its Redis."""
    return store._server


def prefix_of(store):
    """Return the prefix of a cache store's keys in Redis."""
    return store._prefix


def read_generation_again(*stores):
    """Make the stores read the generation of their entries from Redis before the next read."""
    for store in stores:
        store._generation_read_at = float("-inf")


def memory_entries(store):
    """Return the entries of a memory store, by key: (entry, group, time of storing, start of its time to live)."""
    return store._entries


def forget_in_memory(store, key):
    """Drop an entry of a memory store."""
    store._remove(key)


async def on_reader(store, work):
    """Call `work` with the reading connection of a SQLite cache, on its thread."""
    assert isinstance(store, SqliteCache)
    return await store._reading.call("inspect", work)


async def on_writer(store, work):
    """Call `work` with the writing connection of a SQLite cache, on its thread."""
    assert isinstance(store, SqliteCache)
    return await store._writing.call("write", work)


def writing_connection(store):
    """Return the writing connection of a SQLite cache."""
    return store._writing._thread.connection


def ledger_connection(ledger):
    """Return the connection of a SQLite ledger, or None after its last close."""
    return ledger._file.connection


async def ask_ledger_file(ledger, query):
    """Return the first column of a query's result, on the ledger's own connection."""
    return await ledger._file.submit(lambda: ledger_connection(ledger).execute(query).fetchone()[0])


async def wipe_ledger(ledger):
    """Delete the complete content of a ledger."""
    if isinstance(ledger, RedisLedger):
        await ledger._client.flushall()
    else:
        await ledger.entries()
        for table in ("entries", "accounts", "limits", "warnings"):
            await ledger._file.transact(sqlite3.Connection.execute, f"DELETE FROM {table}")  # noqa: S608  constants


# ---- the built-in runtime, counters of tokens, and stores of collections


def check_quality(vectors, reference):
    """Check vectors with the quality gate: (cosine, neighbours, identical, reason)."""
    from embedway.local import tune

    return tune._check_quality(vectors, reference)


def same_neighbours(vectors, reference, *, tie):
    """Return the share of unchanged neighbours."""
    from embedway.local import tune

    return tune._same_neighbours(vectors, reference, tie=tie)


def candidate_options(threads):
    """Return the session options that tuning measures."""
    from embedway.local import tune

    return tune._candidate_options(threads)


def graph_encoder(operations, recipe, tensors):
    """Return the encoder of a graph, which can return hidden states."""
    from embedway.local import graph

    return graph._Encoder(operations, recipe, tensors)


def token_ids(counter, text):
    """Return the ids of a text in a counter's encoding."""
    return counter._encoding.encode_ordinary(text)


def remove_stale(store):
    """Remove the leftovers of dead writers beside a table."""
    store._remove_stale()


def rows_in_buffer(store):
    """Return the number of rows that a Parquet file's writer buffers."""
    return store._writer._buffer.rows


def forget_servers():
    """Forget which parts use which Redis servers, and the warnings about them, as in another process."""
    shared_servers._USES._parts.clear()
    shared_servers._USES._logged.clear()


async def measure_with(cache, meanwhile):
    """Make a cache in Redis measure its entries, and call a function before it corrects the count."""
    read = cache._bound._entries

    async def entries_and_others():
        async for found in read():
            yield found
        await meanwhile()

    cache._bound._entries = entries_and_others
    await cache._bound.make_room()


def difference_from_reference(shared, answered):
    """Return the difference of a route's results to the shared reference."""
    return shared._difference(answered)


def embedder_with(inference, config, **options):
    """Return an asynchronous embedder whose local models a process computes; `inference` connects to it."""
    from embedway import AsyncEmbedder
    from embedway._engine import Engines

    embedder = AsyncEmbedder(config=config, **options)
    replaced = Engines(config, (), None, inference)
    embedder._engines = replaced
    for admin in (embedder.cache, embedder.pins, embedder.models, embedder.quality):
        admin._engines = replaced
    return embedder
