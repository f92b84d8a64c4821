"""Access to private parts that no public call offers. Tests know the names of private attributes only here."""

import os
import sqlite3
from pathlib import Path

from embedway.cache.redis import RedisCache
from embedway.cache.sqlite import SqliteCache
from embedway.ledger.redis import RedisLedger


def variables():
    """Variables for a process whose code imports this module."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


# ---- an embedder


def cache_of(embedder):
    """The read-through cache."""
    return embedder._pipeline.cache


def store_of(embedder):
    """The store of the cache."""
    return cache_of(embedder).store


def counters_of(embedder, model="acme/m"):
    """The counters of a model's cache entries, of this embedder alone."""
    return cache_of(embedder).counters.of(model)


async def settle(embedder):
    """Wait until all that was computed is stored."""
    await cache_of(embedder).settle()


async def open_model(embedder, model="acme/m"):
    """The opened model of a name; it is loaded first."""
    return await embedder._models.open(model)


def opened_model(embedder, model="acme/m"):
    """The opened model of a full name, or None."""
    return embedder._models.opened(model)


def routes_of(embedder, model="acme/m"):
    """The routes of an opened model."""
    return opened_model(embedder, model).routes


def provider_of(embedder, model="acme/m"):
    """The provider of an opened model's first route."""
    return routes_of(embedder, model)[0].provider


def scheduler_of(embedder, model="acme/m"):
    """The scheduler of an opened model of a service."""
    return opened_model(embedder, model)._scheduling[1]


def client_of(embedder):
    """The client that sends requests to services."""
    return embedder._models._environment.client


def budgets_of(embedder):
    """The budgets, with the accounts that are open."""
    return embedder._budgets


def ledger_of(embedder):
    """The ledger."""
    return budgets_of(embedder).ledger


def thread_of(embedder):
    """The thread of a blocking embedder's event loop."""
    return embedder._running._thread


# ---- providers, routes and their time


def set_faults(provider, faults):
    """Let the fake provider ask these faults from now on."""
    provider._faults = faults


def set_delay(provider, delay_s):
    """Let the fake provider answer after this time."""
    provider._delay_s = delay_s


def set_time(part, clock, *, sleep=None, chance=None):
    """Give a client, a rate limiter or a circuit breaker another time, and the client another chance."""
    part._clock = clock
    if sleep is not None:
        part._sleep = sleep
    if chance is not None:
        part._chance = chance


def set_failures(circuit, limit):
    """Let a circuit open after this number of failures."""
    circuit._limit = limit


def failures_of(circuit):
    """The number of failures in a row that a circuit breaker has counted."""
    return circuit._failed


def places_of(semaphore):
    """The number of places taken, whether the one for queries is, and those who wait."""
    return semaphore._taken, semaphore._express_taken, semaphore._waiting


# ---- schedulers


def queries_running(scheduler):
    """The number of batches of queries that run."""
    return scheduler._running_queries


def batches_running(scheduler):
    """The number of batches that run."""
    return scheduler._running


def set_client(backend, client):
    """Let a backend send its requests by this client."""
    backend._client = client


# ---- pins


def set_pin_store(pins, store):
    """Let a selector's pins be kept in this store."""
    pins._store = store


# ---- writing behind


def flights_under_way(cache):
    """The computations that others may wait for."""
    return cache.flights._going


def order_of(writes):
    """The lock of a write-behind queue: one write at a time."""
    return writes._order


def waiting_for_order(writes):
    """Those who wait for that lock."""
    return writes._order._waiters


def tasks_of(writes):
    """The tasks that write."""
    return writes._tasks


def gathering_in(writes):
    """The chunks of entries that wait for others."""
    return writes._gathering.values()


# ---- stores of the cache and of the ledger


def set_store_clock(store, clock):
    """Give a cache store another time."""
    for part in (store, *(getattr(store, name) for name in ("_reading", "_writing") if hasattr(store, name))):
        part._clock = clock
    if isinstance(store, RedisCache):
        store._server.clock = clock


def set_cache_patience(monkeypatch, wait_s):
    """Let cache stores wait this long for a server's connection and answer, and for another's lock."""
    for module, name in (
        ("redis_server", "_CONNECT_S"),
        ("redis_server", "ANSWER_S"),
        ("redis", "ANSWER_S"),
        ("sqlite_connection", "BUSY_S"),
        ("sqlite", "BUSY_S"),
    ):
        monkeypatch.setattr(f"embedway.cache.{module}.{name}", wait_s)


def server_of(store):
    """The connection of a cache store to its Redis."""
    return store._server


def prefix_of(store):
    """The prefix of a cache store's keys in Redis."""
    return store._prefix


def read_generation_again(*stores):
    """Let the stores ask Redis for the generation of its entries before their next read."""
    for store in stores:
        store._generation_read_at = float("-inf")


def memory_entries(store):
    """The entries of a store in memory, by key: (entry, group, time)."""
    return store._entries


def forget_in_memory(store, key):
    """Drop an entry of a store in memory."""
    store._remove(key)


async def on_reader(store, work):
    """Call `work` with the connection that a SQLite cache reads by, on its thread."""
    assert isinstance(store, SqliteCache)
    return await store._reading.call(work)


async def on_writer(store, work):
    """Call `work` with the connection that a SQLite cache writes by, on its thread."""
    assert isinstance(store, SqliteCache)
    return await store._writing.call(work)


def writing_connection(store):
    """The connection that a SQLite cache writes by."""
    return store._writing._thread.connection


def ledger_connection(ledger):
    """The connection of a SQLite ledger, or None after its last close."""
    return ledger._file.connection


async def ask_ledger_file(ledger, query):
    """The first column of the answer to a query, on the ledger's own connection."""
    return await ledger._file.submit(lambda: ledger_connection(ledger).execute(query).fetchone()[0])


async def wipe_ledger(ledger):
    """Delete all that a ledger holds."""
    if isinstance(ledger, RedisLedger):
        await ledger._client.flushall()
    else:
        await ledger.entries()
        for table in ("entries", "accounts", "limits", "warnings"):
            await ledger._file.transact(sqlite3.Connection.execute, f"DELETE FROM {table}")  # noqa: S608  constants


# ---- the built-in runtime, counters of tokens, and stores of collections


def check_quality(vectors, reference):
    """The gate that vectors must pass: (cosine, neighbours, identical, reason)."""
    from embedway.local import tune

    return tune._check_quality(vectors, reference)


def same_neighbours(vectors, reference, *, tie):
    """The share of neighbours that stay the same."""
    from embedway.local import tune

    return tune._same_neighbours(vectors, reference, tie=tie)


def candidate_options(threads):
    """The ways to run that tuning measures."""
    from embedway.local import tune

    return tune._candidate_options(threads)


def graph_encoder(operations, recipe, tensors):
    """The encoder of a graph, whose hidden states can be asked for."""
    from embedway.local import graph

    return graph._Encoder(operations, recipe, tensors)


def token_ids(counter, text):
    """The ids that a counter's encoding gives a text."""
    return counter._encoding.encode_ordinary(text)


def remove_stale(store):
    """Remove what writers that died left beside a table."""
    store._remove_stale()


def rows_in_group(store):
    """The number of rows that a Parquet file's writer holds back."""
    return store._group.rows
