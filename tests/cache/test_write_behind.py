"""Computed vectors are stored, no matter how their request or process ends."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import subprocess
import sys

import numpy as np
import pytest
import redis

from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import BadVectorsError, RefusedInputError
from embedway.providers.fake import vector_of
from inside import (
    cache_of,
    flights_under_way,
    gathering_in,
    order_of,
    provider_of,
    set_faults,
    settle,
    tasks_of,
    thread_of,
    waiting_for_order,
)

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"}
TEXTS = [f"text {n}" for n in range(40)]


def overrides_for(place, **more):
    return {
        "models.m": MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake", "options": {"max_inputs": "4"}},
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.001,
        "upstream.max_attempts": 2,
        "cache.path": str(place / "v.sqlite"),
        "ledger.backend": "none",
        **more,
    }


@pytest.fixture(params=["memory", "sqlite", "redis"])
def config(request, tmp_path):
    more = {"cache.backend": request.param}
    if request.param == "redis":
        more["cache.url"] = request.getfixturevalue("valkey")
        with contextlib.closing(redis.Redis.from_url(more["cache.url"])) as client:
            client.flushall()  # counts of other tests
    return Config.load(environ={}, overrides=overrides_for(tmp_path, **more))


async def until(true):
    while not true():  # noqa: ASYNC110  others make it true, over several turns of the loop
        await asyncio.sleep(0)


async def embed(embedder, texts, **options):
    result = await embedder.embed(texts, model="acme/m", **options)
    assert len(result.vectors) == len(texts)
    return result


def refuses(word):
    refused = RefusedInputError("no", route="r")
    return lambda _number, texts: refused if any(word in text for text in texts) else None


def answered(provider):
    return sorted(text for call in provider.done for text in call)


def test_what_was_answered_before_a_refusal_is_kept(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            set_faults(provider, refuses("bad"))
            with pytest.raises(RefusedInputError):
                await embed(embedder, [*TEXTS, "bad"])
            paid = answered(provider)
            await settle(embedder)
            provider.done.clear()
            again = await embed(embedder, TEXTS)
            return paid, again, answered(provider), await embedder.cache.stats()

    paid, again, later, stats = asyncio.run(main())
    assert len(paid) > 20
    assert sorted([*paid, *later]) == sorted(TEXTS)  # each was billed once
    assert again.receipt.cache_hits == len(paid)
    assert stats.total.stored == 40
    np.testing.assert_allclose(again.vectors, [vector_of(text, 16) for text in TEXTS], atol=1e-6)


def test_what_was_answered_before_a_cancellation_is_kept(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            answer, gate = provider.embed, asyncio.Event()

            async def gated(texts, **options):
                if TEXTS.index(texts[0]) >= 20:
                    await gate.wait()
                return await answer(texts, **options)

            provider.embed = gated
            bulk = asyncio.create_task(embed(embedder, TEXTS))
            await until(lambda: len(answered(provider)) >= 20)
            # A caller that needs one of them does not wait for the bulk.
            early = await embed(embedder, TEXTS[3:5])
            assert not bulk.done()
            bulk.cancel()
            await asyncio.gather(bulk, return_exceptions=True)
            await settle(embedder)
            gate.set()
            again = await embed(embedder, TEXTS)
            return early, again, answered(provider)

    early, again, paid = asyncio.run(main())
    np.testing.assert_allclose(early.vectors, [vector_of(text, 16) for text in TEXTS[3:5]], atol=1e-6)
    assert paid == sorted(TEXTS)
    assert again.receipt.cache_hits == 20


def test_windows_land_when_all_of_them_are_there_and_are_what_they_are_without_a_cache(tmp_path):
    long = [" ".join(f"w{n}x{i}" for i in range(3 + 9 * n)) for n in range(6)]
    kept = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.backend": "memory"}))
    plain = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.backend": "none"}))

    async def main():
        async with AsyncEmbedder(config=kept) as embedder, AsyncEmbedder(config=plain) as other:
            await embedder.models.describe("acme/m")
            wanted = await embed(other, long, on_overflow="mean")
            provider = provider_of(embedder)
            set_faults(provider, refuses("w5x40"))
            with pytest.raises(RefusedInputError):
                await embed(embedder, long, on_overflow="mean")
            await settle(embedder)
            set_faults(provider, lambda _number, _texts: None)
            return wanted, await embed(embedder, long, on_overflow="mean")

    wanted, found = asyncio.run(main())
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    assert found.receipt.averaged == wanted.receipt.averaged
    assert found.receipt.tokens == wanted.receipt.tokens
    assert 0 < found.receipt.cache_hits < 6


def test_cuts_are_reported_for_texts_that_were_stored_early(tmp_path):
    config = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.backend": "memory"}))
    long = "word " * 30

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            set_faults(provider_of(embedder), refuses("bad"))
            with contextlib.suppress(RefusedInputError):
                await embed(embedder, ["a", long, "b", "c", "bad"])
            await settle(embedder)
            return await embed(embedder, [long, "a"])

    result = asyncio.run(main())
    assert result.receipt.cache_hits == 2
    assert [cut.row for cut in result.receipt.truncations] == [0]
    assert result.receipt.truncations[0].kept_tokens == 20


@pytest.mark.parametrize("kind", ["not finite", "depends on its batch"])
def test_what_must_not_be_kept_does_not_land(tmp_path, kind):
    config = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.backend": "memory"}))

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            if kind == "depends on its batch":
                provider.declared = dataclasses.replace(provider.declared, batch_dependent=True)
                set_faults(provider, refuses("bad"))
                with pytest.raises(RefusedInputError):
                    await embed(embedder, [*TEXTS, "bad"])
            else:
                spoiled = np.full((4, 16), np.nan, np.float32)
                set_faults(
                    provider,
                    lambda _, texts: (
                        (lambda answer: dataclasses.replace(answer, vectors=spoiled[: len(texts)]))
                        if "text 0" in texts
                        else None
                    ),
                )
                with pytest.raises(BadVectorsError):
                    await embed(embedder, TEXTS[:4])
            return await embedder.cache.stats()

    assert asyncio.run(main()).total.entries == 0


def count_puts(cache):
    """Return a list that receives the number of entries of each later write."""
    puts, put = [], cache.store.put_many

    async def counted(group, items):
        puts.append(len(items))
        return await put(group, items)

    cache.store.put_many = counted
    return puts


def test_parts_are_stored_together_while_something_is_being_stored(tmp_path):
    config = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.tiered": False}))
    many = [f"text {n}" for n in range(4000)]

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            puts = count_puts(cache_of(embedder))
            await embed(embedder, many)
            await settle(embedder)
            return puts

    puts = asyncio.run(main())
    assert sum(puts) == 4000
    assert max(puts) <= 2100
    assert len(puts) < 500  # for a thousand parts


@pytest.fixture
def slow_gathering(monkeypatch):
    """Entries wait for others until a caller waits for them."""
    monkeypatch.setattr("embedway.cache.write_behind._GATHER_S", 3600.0)


def test_parts_wait_for_others_until_a_caller_waits_for_them(config, slow_gathering):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            cache = cache_of(embedder)
            puts = count_puts(cache)
            for text in TEXTS[:5]:
                await embed(embedder, [text])
            first = await embedder.cache.stats()
            again = await embed(embedder, TEXTS[:5])
            await embed(embedder, ["another"])
            cleared = await embedder.cache.clear()
            await embed(embedder, ["before the end"])
            return puts, first, again, cleared, cache.store.supports_leases

    puts, first, again, cleared, leases = asyncio.run(main())
    # If other processes wait for a text that this one computes, it is stored at once.
    assert puts == [1] * 7 if leases else [5, 1, 1]
    assert (first.total.entries, again.receipt.cache_hits, cleared.before, cleared.after) == (5, 5, 6, 0)


#: A process that embeds, and whose event loop ends while vectors wait for others. Its embedder's threads end with it.
FORGETFUL = """
import asyncio, json, sys
from embedway import AsyncEmbedder, Config
from embedway.cache import write_behind

write_behind._GATHER_S = 3600.0

async def main():
    embedder = AsyncEmbedder(config=Config.load(environ={}, overrides=json.loads(sys.argv[1])))
    await embedder.embed([f"text {n}" for n in range(40)], model="acme/m")

asyncio.run(main())
"""


def test_an_event_loop_that_ends_stores_what_waited(tmp_path):
    overrides = overrides_for(tmp_path)
    command = [sys.executable, "-c", FORGETFUL, json.dumps(overrides)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        assert embedder.cache.stats().total.entries == 40


def test_what_is_answered_while_an_embedder_drains_is_stored(tmp_path, slow_gathering):
    config = Config.load(environ={}, overrides=overrides_for(tmp_path))

    async def main():
        embedder = AsyncEmbedder(config=config)
        await embed(embedder, TEXTS[:1])
        cache, provider = cache_of(embedder), provider_of(embedder)
        answer, gate = provider.embed, asyncio.Event()

        async def gated(texts, **options):
            await gate.wait()
            return await answer(texts, **options)

        provider.embed = gated
        late = asyncio.create_task(embed(embedder, TEXTS[1:2]))
        await until(lambda: flights_under_way(cache))
        closing = asyncio.create_task(embedder.aclose(drain=True))
        await asyncio.sleep(0)
        gate.set()
        await late
        await closing
        assert not cache.writes.unstored

    asyncio.run(main())
    with Embedder(config=config) as embedder:
        assert embedder.cache.stats().total.entries == 2
    with Embedder(config=config) as embedder:
        assert embedder.cache.stats().total.entries == 2


def test_entries_of_a_store_that_was_cancelled_leave_room_for_others(tmp_path, slow_gathering):
    config = Config.load(environ={}, overrides=overrides_for(tmp_path, **{"cache.backend": "memory"}))

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            writes = cache_of(embedder).writes
            async with order_of(writes):
                await embed(embedder, TEXTS[:1])
                (storing,) = tasks_of(writes)
                (chunk,) = gathering_in(writes)
                chunk.is_due.set()
                await until(lambda: waiting_for_order(writes))
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
            await embed(embedder, TEXTS[1:3])
            return await embedder.cache.stats()

    assert asyncio.run(main()).total.entries == 2


#: A process that embeds, and ends without closing anything.
PROCESS = """
import json, sys
from embedway import Config, Embedder

def embedded():
    embedder = Embedder(config=Config.load(environ={}, overrides=json.loads(sys.argv[1])))
    assert len(embedder.embed([f"text {n}" for n in range(2000)], model="acme/m").vectors) == 2000
    return embedder

embedder = embedded()
if sys.argv[2] == "forgotten":
    del embedder
if sys.argv[2] == "failed":
    raise ValueError("an error of the user's own")
sys.exit(0)
"""


@pytest.mark.parametrize("how", ["ended", "forgotten", "failed"])
def test_a_process_that_ends_without_closing_keeps_what_it_computed(tmp_path, how):
    overrides = overrides_for(tmp_path)
    command = [sys.executable, "-c", PROCESS, json.dumps(overrides), how]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, "an error" in ran.stderr) == ((1, True) if how == "failed" else (0, False)), ran.stderr
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        stats = embedder.cache.stats()
    assert (stats.total.entries, stats.total.misses) == (2000, 2000)


def test_an_embedder_that_is_garbage_collected_ends_its_thread(tmp_path):
    embedder = Embedder(config=Config.load(environ={}, overrides=overrides_for(tmp_path)))
    embedder.embed(["a"], model="acme/m")
    thread = thread_of(embedder)
    del embedder
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
