"""A Redis that is down, slow, full or restarted: no wrong vector, no failed request, and the counters report it."""

import asyncio
import contextlib
import socket

import pytest
import redis

from embedway import AsyncEmbedder
from embedway.cache.base import Group
from embedway.cache.redis import RedisCache
from faulty_caches import GROUP, TEXTS, clocked, config_for, embedded
from inside import (
    server_of,
    set_cache_patience,
    store_of,
)
from stored import read_entries
from valkey_server import start_cluster, start_valkey


@pytest.fixture(autouse=True)
def patient_cache():
    """Use the cache's own timeouts."""


def test_valkey_stopped_and_started_again_under_load(tmp_path, clock, monkeypatch):
    set_cache_patience(monkeypatch, 30.0)  # what fails here is a refused connection, at once

    async def main(first):
        port = first.port
        async with AsyncEmbedder(config=config_for(backend="redis", url=f"redis://127.0.0.1:{port}")) as embedder:
            cache = clocked(embedder, clock)
            done, stopping = [], asyncio.Event()

            async def load(n):
                while not stopping.is_set():
                    await embedded(embedder, [f"{n} {len(done) % 50}", *TEXTS[n : n + 5]])
                    done.append(n)

            async def reach(count):
                while len(done) < count:  # noqa: ASYNC110  the loads make it true, over several turns of the loop
                    await asyncio.sleep(0)

            loads = [asyncio.create_task(load(n)) for n in range(8)]
            await reach(200)
            assert cache.errors.failed_reads == 0
            await asyncio.to_thread(first.stop)
            await reach(len(done) + 200)
            assert cache.errors.failed_reads > 0
            second = await asyncio.to_thread(start_valkey, tmp_path, port=port)
            try:
                failed = -1
                while failed != cache.errors.failed_reads:  # an earlier call may fail and skip the cache again
                    failed = cache.errors.failed_reads
                    clock.now += 10
                    await reach(len(done) + 200)
                stopping.set()
                await asyncio.gather(*loads)
                failed = cache.errors.failed_reads
                assert (await embedded(embedder)).cache_hits >= 12
                assert (await embedded(embedder)).cache_hits == 40
                assert cache.errors.failed_reads == failed
                (held,) = await cache.group_sizes()
                assert (held.group.model, held.entries >= 40) == ("acme/m", True)
            finally:
                second.stop()

    first = start_valkey(tmp_path)
    try:
        asyncio.run(main(first))
    finally:
        if first.is_running():
            first.stop()


@pytest.mark.parametrize("listening", [True, False])
def test_a_server_that_does_not_answer_costs_one_wait_and_no_request(listening, clock):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(100)

        async def main():
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                cache = clocked(embedder, clock)
                asked, client = [], server_of(cache).client.hget  # the first command of all
                server_of(cache).client.hget = lambda *names: asked.append(names) or client(*names)
                for _ in range(20):
                    assert (await embedded(embedder)).cache_hits == 0
                assert len(asked) == 1
                assert cache.errors.failed_reads >= 20
                assert cache.errors.failed_writes >= 20
                clock.now += 10
                await embedded(embedder)
                assert len(asked) == 2

        asyncio.run(asyncio.wait_for(main(), 30))


def test_entries_in_valkey_have_the_time_to_live_that_was_set(valkey):
    async def main():
        cache = RedisCache(valkey, ttl_s=60.0)
        await cache.put_many(Group("ttl", "m@1/4"), [(b"k" * 32, b"entry")])
        await cache.aclose()

    asyncio.run(main())
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        (name,) = client.scan_iter(f"embedway:v1:{Group('ttl', 'm@1/4').id}:*")
        assert 50_000 < client.pttl(name) <= 60_000


def test_a_valkey_that_is_full_refuses_and_reads_go_on(tmp_path):
    with contextlib.ExitStack() as stack:
        server = start_valkey(tmp_path)
        stack.callback(server.stop)
        url = f"redis://127.0.0.1:{server.port}"
        client = stack.enter_context(contextlib.closing(redis.Redis.from_url(url)))

        async def main():
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                cache = store_of(embedder)
                await embedded(embedder, TEXTS[:20])
                client.config_set("maxmemory", 1)
                assert (await embedded(embedder)).cache_hits == 20
                assert cache.errors.failed_writes > 0
                client.config_set("maxmemory", 0)
                assert (await embedded(embedder)).cache_hits == 20
                assert (await embedded(embedder)).cache_hits == 40

        asyncio.run(main())


@pytest.mark.parametrize("listening", [True, False])
def test_a_cluster_that_does_not_answer_fails_no_request(listening, clock):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(100)

        async def main():
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url, cluster=True)) as embedder:
                cache = clocked(embedder, clock)
                loop = asyncio.get_running_loop()
                began = loop.time()
                for _ in range(5):
                    assert (await embedded(embedder)).cache_hits == 0
                assert loop.time() - began < 5
                assert cache.errors.failed_reads >= 5
                assert cache.errors.failed_writes >= 5

        asyncio.run(asyncio.wait_for(main(), 30))


def test_a_cluster_whose_node_stops_fails_no_request(tmp_path, clock):
    server = start_cluster(tmp_path)
    try:

        async def main():
            url = f"redis://127.0.0.1:{server.port}"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url, cluster=True)) as embedder:
                cache = clocked(embedder, clock)
                await embedded(embedder)
                assert (await embedded(embedder)).cache_hits == 40
                await asyncio.to_thread(server.stop)
                for _ in range(3):
                    clock.now += 10
                    assert (await embedded(embedder)).cache_hits == 0
                assert cache.errors.failed_reads >= 3

        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        if server.is_running():
            server.stop()


def test_a_slow_server_costs_a_large_request_one_wait(clock):
    """Each answer comes just before the timeout."""
    asked = []

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(2**20):
                if b"HGET" in data.upper():
                    writer.write(b"$-1\r\n")  # no stamp
                    continue
                if b"INFO" in data.upper():
                    writer.write(b"-NOPERM\r\n" * data.upper().count(b"INFO"))
                    continue
                if b"MGET" not in data.upper():
                    writer.write(b"+OK\r\n" * max(1, data.upper().count(b"CLIENT")))
                    continue
                while data.count(b"embedway:v1") < 500:
                    data += await reader.read(2**20)
                asked.append(len(data))
                await asyncio.sleep(0.9)
                writer.write(b"*500\r\n" + b"$-1\r\n" * 500)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        cache = RedisCache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2", clock=clock)
        found = await read_entries(cache, GROUP, [n.to_bytes(32) for n in range(5000)])
        assert found == [None] * 5000
        assert cache.errors.failed_reads == 1
        await cache.get_many(GROUP, [bytes(32)])
        assert (cache.errors.failed_reads, 1 <= len(asked) <= 2) == (2, True)
        await cache.aclose()
        server.close()

    asyncio.run(asyncio.wait_for(main(), 30))
