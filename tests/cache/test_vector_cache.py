"""Embedding with a cache: the same vectors as without, and each text is computed once."""

import asyncio
import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Config, Embedder
from embedway.cache.base import CacheFilter
from embedway.cache.codec import decode, encode
from embedway.cache.factory import open_secret_keys
from embedway.cache.stats import ClearResult
from embedway.errors import (
    CacheError,
    EmbedwayError,
    InputError,
    RefusedInputError,
    TextTooLongError,
    UnavailableError,
    UsageError,
)
from embedway.providers.fake import vector_of
from embedway.vectors import to_size
from inside import cache_of, counters_of, provider_of, set_delay, set_faults, settle, store_of
from stored import some_entries

MODEL = {
    "name": "acme/m",
    "dimensions": 16,
    "matryoshka": [8, 4],
    "max_tokens": 20,
    "price_usd_per_million_tokens": "1",
}
ROUTE = {"model": "acme/m", "provider": "fake", "options": {"width": "16", "max_inputs": "4"}}
BACKENDS = ["memory", "sqlite", "redis"]
_numbers = itertools.count()


def config_for(backend, place, url="", **more):
    overrides = {
        "models.m": MODEL,
        "routes.r": ROUTE,
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.001,
        "upstream.max_attempts": 2,
        "cache.backend": backend,
        "cache.path": str(place / "v.sqlite"),
        **({"cache.url": url} if url else {}),
        **more,
    }
    return Config.load(environ={}, overrides=overrides)


@pytest.fixture(params=[*BACKENDS, *(f"{backend} keyed" for backend in BACKENDS)])
def config(request, tmp_path):
    url, (backend, *keyed) = "", request.param.split()
    if backend == "redis":
        url = request.getfixturevalue("valkey")
        import redis

        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushall()
    return config_for(backend, tmp_path, url, **({"cache.secret": "correct-horse-battery-staple"} if keyed else {}))


async def embed(embedder, texts, **options):
    return await embedder.embed(texts, model="acme/m", **options)


TEXTS = st.lists(
    st.sampled_from([*(f"text {n}" for n in range(7)), "long " * 30, "longer " * 50]), min_size=1, max_size=12
)
OPTIONS = st.fixed_dictionaries(
    {
        "input_type": st.sampled_from(["query", "document"]),
        "dimensions": st.sampled_from([None, 16, 8, 4]),
        "on_overflow": st.sampled_from(["truncate", "mean"]),
    }
)
#: Requests of two tenants that share one store.
REQUESTS = st.lists(st.tuples(TEXTS, OPTIONS, st.booleans()), min_size=1, max_size=5)


@pytest.mark.parametrize("anew", [False, True], ids=["one embedder", "a new one each round"])
@pytest.mark.parametrize("tiered", [False, True], ids=["alone", "behind memory"])
@pytest.mark.parametrize("backend", BACKENDS)
@given(st.lists(REQUESTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_hits_and_misses_gives_the_uncached_vectors_and_computes_each_key_once(
    backend, tiered, anew, tmp_path, valkey, rounds
):
    if backend == "memory" and (anew or tiered):
        return  # it ends with its embedder, and has no memory tier
    # A separate namespace acts as an empty cache.
    number = next(_numbers)
    tenants = [
        config_for(
            backend,
            tmp_path,
            valkey,
            **{"cache.namespace": f"{name}{number}", "cache.tiered": tiered, "ledger.backend": "none"},
        )
        for name in "nm"
    ]
    plain = config_for("none", tmp_path, **{"ledger.backend": "none"})

    windows = {}

    async def main():
        sent, seen = [], set()
        async with contextlib.AsyncExitStack() as stack:
            uncached = await stack.enter_async_context(AsyncEmbedder(config=plain))

            async def opened():
                embedders = [await stack.enter_async_context(AsyncEmbedder(config=config)) for config in tenants]
                for embedder in embedders:
                    await embedder.models.describe("acme/m")
                return embedders

            cached = await opened()
            for requests in rounds:
                results = await asyncio.gather(
                    *(embed(cached[tenant], texts, **options) for texts, options, tenant in requests)
                )
                for (texts, options, _), result in zip(requests, results, strict=True):
                    # Narrower sizes are cut from full vectors: the service's own differ only by rounding.
                    whole = await embed(uncached, texts, **{**options, "dimensions": None})
                    space = dataclasses.replace(whole.space, dimensions=options["dimensions"] or 16)
                    np.testing.assert_array_equal(result.vectors, to_size(whole.vectors, space))
                    other = await embed(uncached, texts, **options)
                    np.testing.assert_allclose(result.vectors, other.vectors, atol=1e-6)
                    windows.update({texts[item.row]: item.windows for item in other.receipt.averaged})
                    assert result.space == other.space
                    assert result.receipt.tokens == other.receipt.tokens
                    assert result.receipt.truncations == other.receipt.truncations
                    assert result.receipt.averaged == other.receipt.averaged
                seen |= {
                    (text, options["input_type"], options["on_overflow"], tenant)
                    for texts, options, tenant in requests
                    for text in texts
                }
                if anew:
                    for embedder in cached:
                        sent += [text for call in provider_of(embedder).calls for text in call]
                        await embedder.aclose()
                    cached = await opened()
            sent += [text for embedder in cached for call in provider_of(embedder).calls for text in call]
        return sent, seen

    sent, seen = asyncio.run(main())
    assert len(sent) == sum(windows.get(text, 1) if overflow == "mean" else 1 for text, _, overflow, _ in seen)


def test_a_second_process_finds_what_the_first_computed(config):
    async def main():
        async with AsyncEmbedder(config=config) as first:
            one = await embed(first, ["a", "b", "a"])
        async with AsyncEmbedder(config=config) as second:
            two = await embed(second, ["b", "c", "a", "b"])
            narrow = await embed(second, ["a", "b", "c"], dimensions=4)
            return one, two, narrow, provider_of(second).calls, counters_of(second)

    one, two, narrow, calls, counts = asyncio.run(main())
    np.testing.assert_array_equal(two.vectors[[2, 0]], one.vectors[:2])
    np.testing.assert_allclose(
        narrow.vectors[0], vector_of("a", 16)[:4] / np.linalg.norm(vector_of("a", 16)[:4]), atol=1e-6
    )
    if config.cache.backend == "memory":
        assert calls == [("b", "c", "a")]
        return
    assert calls == [("c",)]
    assert (two.receipt.cache_hits, two.receipt.unique_texts, two.receipt.attempts) == (2, 3, 1)
    assert (narrow.receipt.cache_hits, narrow.receipt.route, narrow.receipt.cost_nanousd) == (3, "cache", 0)
    assert (counts.hits, counts.misses, counts.stored) == (5, 1, 1)
    assert (counts.tokens_saved, counts.nanousd_saved) == (5, 5000)


def test_input_types_overflow_and_namespaces_do_not_meet(config, tmp_path):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embed(embedder, ["a"])
            await embed(embedder, ["a"], input_type="query")
            await embed(embedder, ["a"], on_overflow="mean")
            calls = list(provider_of(embedder).calls)
        other = config.model_copy(update={"cache": config.cache.model_copy(update={"namespace": "tenant"})})
        async with AsyncEmbedder(config=other) as embedder:
            await embed(embedder, ["a"])
            return calls, provider_of(embedder).calls

    calls, others = asyncio.run(main())
    assert calls == [("a",)] * 3
    assert others == [("a",)]


def test_cuts_and_means_are_reported_for_hits_too(config):
    long = "word " * 30

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            results = []
            for policy in ("truncate", "mean"):
                results.append(await embed(embedder, ["short", long], on_overflow=policy))
                results.append(await embed(embedder, [long, "short", long], on_overflow=policy))
            for partial in (False, True):
                with contextlib.suppress(TextTooLongError):
                    results.append(await embed(embedder, ["ok", "short", long], on_overflow="error", partial=partial))
            with pytest.raises(TextTooLongError, match="text 2: has"):
                await embed(embedder, ["ok", "short", long, long], on_overflow="error")
            return results

    cut, cut_again, mean, mean_again, partial = asyncio.run(main())
    (told,) = cut.receipt.truncations
    assert [dataclasses.replace(item, row=1) for item in cut_again.receipt.truncations] == [told, told]
    assert [item.row for item in cut_again.receipt.truncations] == [0, 2]
    assert cut_again.receipt.cache_hits == 2
    assert cut_again.receipt.tokens == cut.receipt.tokens
    assert mean_again.receipt.cache_hits == 2
    assert [item.row for item in mean_again.receipt.averaged] == [0, 2]
    assert mean_again.receipt.averaged[0].windows == mean.receipt.averaged[0].windows == 3
    assert mean_again.receipt.truncations == ()
    np.testing.assert_array_equal(mean.vectors[1], mean_again.vectors[0])
    assert set(partial.errors) == {2}
    assert "text 2: has" in str(partial.errors[2])


def test_64_callers_compute_each_text_once(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            set_delay(provider_of(embedder), 0.01)
            wanted = [[f"text {(n * k) % 50}" for k in range(1, 9)] for n in range(64)]
            results = await asyncio.gather(*(embed(embedder, texts) for texts in wanted))
            for texts, result in zip(wanted, results, strict=True):
                np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
            sent = [text for call in provider_of(embedder).calls for text in call]
            assert sorted(sent) == sorted({text for texts in wanted for text in texts})
            return counters_of(embedder)

    counts = asyncio.run(main())
    assert counts.shared > 0
    assert counts.stored == 50


class Gate:
    """Holds provider calls until it is opened."""

    def __init__(self, provider):
        self.asked, self.opened = [], asyncio.Event()
        self.most = self.now = 0
        self._embed = provider.embed
        provider.embed = self

    async def __call__(self, texts, **options):
        self.asked.append(tuple(texts))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.opened.wait()
            return await self._embed(texts, **options)
        finally:
            self.now -= 1


async def until(true):
    while not true():  # noqa: ASYNC110  others make it true, over several turns of the loop
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_when_the_leader_goes_64_followers_compute_each_text_once(config, how):
    leading = ["text 0", "text 1", "text 2", "text 3"]
    wanted = [leading, *([f"text {(n * k) % 50}" for k in range(8)] for n in range(1, 65))]

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            gate, down = Gate(provider), UnavailableError("down", route="r")
            # Its own request and the retry.
            failing = iter([down, down]) if how == "failed" else iter(())
            set_faults(provider, lambda _, texts: next(failing, None) if tuple(texts) == tuple(leading) else None)
            leader = asyncio.create_task(embed(embedder, leading))
            await until(lambda: gate.asked)
            followers = [asyncio.create_task(embed(embedder, texts)) for texts in wanted[1:]]
            counts = counters_of(embedder)
            await until(lambda: counts.misses == sum(len(set(texts)) for texts in wanted))
            if how == "cancelled":
                leader.cancel()
                await asyncio.gather(leader, return_exceptions=True)
            gate.opened.set()
            return await asyncio.gather(leader, *followers, return_exceptions=True), provider.done

    (leader, *followers), done = asyncio.run(asyncio.wait_for(main(), 60))
    assert isinstance(leader, asyncio.CancelledError if how == "cancelled" else UnavailableError)
    for texts, result in zip(wanted[1:], followers, strict=True):
        np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
    sent = [text for call in done for text in call]
    assert sorted(sent) == sorted({text for texts in wanted for text in texts})


def test_an_error_of_a_text_is_raised_for_all_callers_that_wait_for_it(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            gate, bad = Gate(provider), RefusedInputError("bad", route="r")
            set_faults(provider, lambda _, texts: bad if "bad" in texts else None)
            calls = [embed(embedder, ["bad"]) for _ in range(16)]
            calls += [embed(embedder, ["good", "bad"], partial=True) for _ in range(16)]
            tasks = [asyncio.create_task(call) for call in calls]
            counts = counters_of(embedder)
            await until(lambda: counts.misses == 16 + 32)
            gate.opened.set()
            return await asyncio.gather(*tasks, return_exceptions=True), gate.asked

    results, asked = asyncio.run(asyncio.wait_for(main(), 60))
    assert all(isinstance(result, RefusedInputError) for result in results[:16])
    for result in results[16:]:
        np.testing.assert_allclose(result.vectors[0], vector_of("good", 16), atol=1e-6)
        assert set(result.errors) == {1}
        assert isinstance(result.errors[1], RefusedInputError)
    # First together, then separately because of the other caller's text; not once per caller.
    assert sum("bad" in texts for texts in asked) <= 3


def test_a_text_that_is_too_long_is_reported_with_each_caller_s_own_row(config):
    long = "word " * 30

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            gate = Gate(provider_of(embedder))
            first = asyncio.create_task(embed(embedder, ["a", long], on_overflow="error", partial=True))
            await until(lambda: gate.asked)
            second = asyncio.create_task(embed(embedder, ["b", "c", long], on_overflow="error", partial=True))
            third = asyncio.create_task(embed(embedder, [long], on_overflow="error"))
            await until(lambda: counters_of(embedder).misses == 6)
            gate.opened.set()
            return await asyncio.gather(first, second, third, return_exceptions=True)

    first, second, third = asyncio.run(asyncio.wait_for(main(), 60))
    assert "text 1: has" in str(first.errors[1])
    assert "text 2: has" in str(second.errors[2])
    assert isinstance(third, TextTooLongError)
    assert "text 0: has" in str(third)


def test_callers_of_what_keeps_failing_do_not_wait_for_one_another(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            gate, down = Gate(provider), UnavailableError("down", route="r")
            gate.opened.set()
            set_faults(provider, lambda *_: down)
            outcomes = await asyncio.gather(*(embed(embedder, ["a"]) for _ in range(16)), return_exceptions=True)
            return outcomes, gate

    outcomes, gate = asyncio.run(asyncio.wait_for(main(), 60))
    assert all(isinstance(outcome, EmbedwayError) for outcome in outcomes)
    assert max(map(len, gate.asked)) > 1 or gate.most > 1  # the third and all later calls ran concurrently


def test_partial_results_are_kept_and_their_errors_not(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            bad = RefusedInputError("bad", route="r")
            set_faults(provider, lambda _, texts: bad if "bad" in texts else None)
            first = await embed(embedder, ["a", "bad", "", "b", "bad"], partial=True)
            with pytest.raises(InputError):
                await embed(embedder, ["a", ""])
            set_faults(provider, lambda _number, _texts: None)
            provider.calls.clear()
            return first, await embed(embedder, ["b", "bad", "a"], partial=True), provider.calls

    first, second, calls = asyncio.run(main())
    assert set(first.errors) == {1, 2, 4}
    assert np.isnan(first.vectors[[1, 2, 4]]).all()
    np.testing.assert_allclose(first.vectors[[0, 3]], [vector_of("a", 16), vector_of("b", 16)], atol=1e-6)
    assert second.errors == {}
    assert calls == [("bad",)]


def test_vectors_that_depend_on_their_batch_are_never_kept(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            provider = provider_of(embedder)
            provider.declared = dataclasses.replace(provider.declared, batch_dependent=True)
            await embed(embedder, ["a", "b"])
            await embed(embedder, ["a", "b"])
            return provider.calls, await store_of(embedder).group_sizes()

    calls, held = asyncio.run(main())
    assert calls == [("a", "b")] * 2
    assert held == []


def test_flipped_bits_are_found_out_counted_and_put_right(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            good = await embed(embedder, ["a", "b"])
            cache = store_of(embedder)
            await settle(embedder)
            (held,) = await cache.group_sizes()
            spoiled = []
            for key, entry in await some_entries(cache, held.group, 10):
                bad = bytearray(entry)
                bad[60] ^= 1
                spoiled.append((key, bytes(bad)))
            await cache.put_many(held.group, spoiled)
            again = await embed(embedder, ["a", "b"])
            await settle(embedder)
            third = await embed(embedder, ["a", "b"])
            return good, again, third, counters_of(embedder)

    good, again, third, counts = asyncio.run(main())
    np.testing.assert_array_equal(good.vectors, again.vectors)
    assert (again.receipt.cache_hits, third.receipt.cache_hits) == (0, 2)
    assert counts.damaged == 2


def test_after_clearing_texts_are_computed_again(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embed(embedder, ["a", "b"])
            await settle(embedder)
            gone = await store_of(embedder).clear(CacheFilter(model="acme/m"))
            result = await embed(embedder, ["a"])
            return gone, result

    gone, result = asyncio.run(main())
    assert (gone, result.receipt.cache_hits) == (2, 0)


def test_the_default_model_s_vectors_come_back_to_the_bit(default_model_directory, tmp_path):
    overrides = {
        "weights.directory": str(default_model_directory),
        "tune.directory": str(tmp_path / "tune"),
        "cache.backend": "sqlite",
        "cache.path": str(tmp_path / "v.sqlite"),
    }
    texts = ["What is a coroutine?", "word " * 400, "a", "What is a coroutine?"]
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        first = embedder.embed(texts)
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        second = embedder.embed(texts)
        reordered = embedder.embed([*texts[::-1], "new"])
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.vectors[::-1], reordered.vectors[:4])
    assert (second.receipt.cache_hits, reordered.receipt.cache_hits) == (3, 3)
    assert second.receipt.truncations == first.receipt.truncations
    other = Config.load(environ={}, overrides={**overrides, "local.precision": "f32", "local.backend": "onnxruntime"})
    with Embedder(config=other) as embedder:
        hits = embedder.embed(texts).receipt.cache_hits
    assert hits in {0, 3}  # 3 where the CPU computes f32 anyway


def test_what_was_computed_is_found_while_it_is_being_stored_and_is_stored_before_the_end(config):
    async def main():
        storing, going = asyncio.Event(), asyncio.Event()
        async with AsyncEmbedder(config=config) as embedder:
            cache = store_of(embedder)
            put = cache.put_many

            async def slow(group, items):
                storing.set()
                await going.wait()
                await put(group, items)

            cache.put_many = slow
            first = await embed(embedder, ["a", "b"])
            await storing.wait()
            second = await embed(embedder, ["b", "a", "c"])
            asyncio.get_running_loop().call_soon(going.set)
            calls = list(provider_of(embedder).calls)
        async with AsyncEmbedder(config=config) as embedder:
            third = await embed(embedder, ["a", "b", "c"])
            return first, second, third, calls

    first, second, third, calls = asyncio.run(main())
    assert calls == [("a", "b"), ("c",)]
    np.testing.assert_array_equal(second.vectors[:2], first.vectors[::-1])
    assert second.receipt.cache_hits == 2
    assert third.receipt.cache_hits == (0 if config.cache.backend == "memory" else 3)


def test_what_is_stored_while_it_is_looked_for_again_is_not_computed_again(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.describe("acme/m")
            cache, looks = cache_of(embedder), []
            get, put, answered, going = cache.store.get_many, cache.store.put_many, asyncio.Event(), asyncio.Event()

            async def slow_put(group, items):
                await going.wait()
                return await put(group, items)

            async def slow_get(group, keys):
                looks.append(keys)
                mine = len(looks)
                entries = await get(group, keys)
                if mine == late:  # the missing entries are stored now
                    await answered.wait()
                if mine == late + again:  # they are stored now
                    going.set()
                    await cache.settle()
                return entries

            # A lease causes another lookup too.
            late, again = (3, 1) if cache.store.supports_leases else (2, 1)
            cache.store.get_many, cache.store.put_many = slow_get, slow_put
            gate = Gate(provider_of(embedder))
            first = asyncio.create_task(embed(embedder, ["a"]))
            await until(lambda: gate.asked)
            second = asyncio.create_task(embed(embedder, ["a"]))
            await until(lambda: len(looks) == late)
            gate.opened.set()
            await first
            answered.set()
            await second
            return gate.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [("a",)]


def test_what_waits_for_the_cache_does_not_wait_for_those_who_come_later(tmp_path):
    async def main():
        async with AsyncEmbedder(config=config_for("memory", tmp_path)) as embedder:
            cache, numbers = cache_of(embedder), itertools.count()
            put, stopping = cache.store.put_many, asyncio.Event()

            async def slow(group, items):
                for _ in range(20):
                    await asyncio.sleep(0)
                return await put(group, items)

            async def load():
                while not stopping.is_set():
                    await embed(embedder, [f"new {next(numbers)}"])

            cache.store.put_many = slow
            loads = [asyncio.create_task(load()) for _ in range(8)]
            await until(lambda: cache.writes.unstored)
            plan = await embedder.plan(["x"], model="acme/m")
            stats = await embedder.cache.stats()
            stopping.set()
            await asyncio.gather(*loads)
            return plan, stats

    plan, stats = asyncio.run(asyncio.wait_for(main(), 30))
    assert plan.cached_texts == 0
    assert stats.total.misses > 0


def test_a_caller_that_goes_while_its_lease_is_granted_leaves_none(tmp_path, valkey):
    config = config_for("redis", tmp_path, valkey, **{"cache.namespace": str(tmp_path), "cache.lease_s": 600.0})

    async def main():
        async with AsyncEmbedder(config=config) as embedder, AsyncEmbedder(config=config) as other:
            await embedder.models.describe("acme/m")
            cache = store_of(embedder)
            lease, granted, answer = cache.lease, asyncio.Event(), asyncio.Event()

            async def slow(*arguments):
                answered = await lease(*arguments)
                granted.set()
                await answer.wait()
                return answered

            cache.lease = slow
            gone = asyncio.create_task(embed(embedder, ["a", "b"]))
            await granted.wait()
            gone.cancel()
            await asyncio.sleep(0)
            answer.set()
            (outcome,) = await asyncio.gather(gone, return_exceptions=True)
            return outcome, await embed(other, ["a", "b"])

    outcome, result = asyncio.run(asyncio.wait_for(main(), 30))
    assert isinstance(outcome, asyncio.CancelledError)
    assert result.receipt.attempts == 1


@pytest.mark.parametrize("codec", ["f16", "i8"])
def test_lossy_entries_are_reported_and_never_used_as_exact_ones(tmp_path, codec):
    async def main():
        results = []
        # Exact, lossy, exact again: an entry is used if it is at least as precise as requested.
        for wanted in (codec, codec, "f32", codec, "f32"):
            async with AsyncEmbedder(config=config_for("sqlite", tmp_path, **{"cache.codec": wanted})) as embedder:
                results.append((await embed(embedder, ["a", "b"])).vectors)
                results.append((await embed(embedder, ["a", "b"])).receipt)
                results.append((await embedder.cache.stats()).models["acme/m"].damaged)
                await settle(embedder)
        return results

    exact = np.array([vector_of(text, 16) for text in ("a", "b")])
    results = asyncio.run(main())
    vectors, receipts, damaged = results[::3], results[1::3], results[2::3]
    assert [np.array_equal(one, exact) for one in vectors] == [True, False, True, True, True]
    np.testing.assert_allclose(np.linalg.norm(vectors[1], axis=1), 1, atol=1e-6)
    assert [receipt.lossy_hits for receipt in receipts[1:]] == [2, 0, 0, 0]
    assert damaged == [0] * 5


def test_what_is_stored_while_the_cache_is_asked_is_a_hit(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            cache = cache_of(embedder)
            get, put, going = cache.store.get_many, cache.store.put_many, asyncio.Event()

            async def slow_put(group, items):
                await going.wait()
                return await put(group, items)

            async def overtaken(group, keys):
                entries = await get(group, keys)
                going.set()
                await cache.settle()
                return entries

            cache.store.put_many = slow_put
            first = await embed(embedder, ["a", "b"])
            cache.store.get_many = overtaken
            second = await embed(embedder, ["b", "a"])
            return first, second, cache.counters.of("acme/m"), provider_of(embedder).calls

    first, second, counts, calls = asyncio.run(main())
    assert calls == [("a", "b")]
    np.testing.assert_array_equal(second.vectors, first.vectors[::-1])
    assert (second.receipt.cache_hits, counts.hits, counts.shared) == (2, 2, 0)


def test_a_plan_knows_what_is_in_the_cache(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            before = await embedder.plan(["a", "b", "a"], model="acme/m")
            await embed(embedder, ["a"])
            half = await embedder.plan(["a", "b", "a"], model="acme/m", dimensions=8)
            await embed(embedder, ["b"])
            after = await embedder.plan(["a", "b", "a"], model="acme/m")
            stats = await embedder.cache.stats()
            return before, half, after, stats

    before, half, after, stats = asyncio.run(main())
    assert [plan.cached_texts for plan in (before, half, after)] == [0, 1, 2]
    assert [plan.cost_nanousd for plan in (before, half, after)] == [2000, 1000, 0]
    assert before.tokens == after.tokens == 2
    assert (stats.total.misses, stats.total.hits) == (2, 0)


def test_statistics_are_of_all_processes_and_of_each_model(config):
    async def main():
        async with AsyncEmbedder(config=config) as first:
            await embed(first, ["a", "b"])
            await embed(first, ["a", "c"])
            one = await first.cache.stats()
        async with AsyncEmbedder(config=config) as second:
            await asyncio.gather(*(embed(second, ["a", "new"]) for _ in range(3)))
            two = await second.cache.stats()
        return one, two

    one, two = asyncio.run(main())
    mine = one.models["acme/m"]
    assert (mine.hits, mine.misses, mine.stored, mine.entries) == (1, 3, 3, 3)
    assert (mine.tokens_saved, mine.nanousd_saved) == (1, 1000)
    assert mine.bytes >= 3 * 64
    assert one.total == mine
    if config.cache.backend != "memory":
        again = two.models["acme/m"]
        assert (again.stored, again.entries) == (4, 4)
        assert again.hits + again.misses == 10
        # Every other text was a hit or was taken from the caller that computed it.
        assert again.hits + again.shared == 6
        assert again.tokens_saved == 6
        assert again.nanousd_saved == 1000 * again.tokens_saved


def test_checking_compares_with_newly_computed_vectors(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embed(embedder, ["a", "b", "c"])
            good = await embedder.cache.verify(["x", "c", "a", "c"], model="acme/m", sample=10)
            await settle(embedder)
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            (one, _), (two, mine), _ = await some_entries(cache, held.group, 3)
            await cache.put_many(held.group, [(one, mine)])  # the entry of another text
            vectors = np.empty((1, 16), np.float32)
            seals = open_secret_keys(config.cache)
            mac = seals[0].mac(held.group) if seals else None
            metas = decode([two], [mine], 16, vectors, mac=mac)
            await cache.put_many(held.group, [(two, *encode([two], vectors[:, ::-1], metas, mac=mac))])
            bad = await embedder.cache.verify(["a", "b", "c"], model="acme/m")
            none = await embedder.cache.verify(["x"], model="acme/m")
            return good, bad, none, len(provider_of(embedder).calls)

    good, bad, none, calls = asyncio.run(main())
    assert (good.texts, good.found, good.recomputed, good.cost_nanousd) == (3, 2, 2, 2000)
    assert good.lowest_cosine == pytest.approx(1)
    assert bad.lowest_cosine < 0.99
    assert (bad.found, bad.damaged) == (2, 1)
    assert bad.row in {0, 1, 2}
    assert (none.found, none.lowest_cosine, none.row) == (0, None, None)
    assert calls == 3


def test_what_is_not_there_is_said(tmp_path):
    with Embedder(config=config_for("none", tmp_path)) as embedder:
        for call in (embedder.cache.stats, embedder.cache.clear, lambda: embedder.cache.verify(["a"], model="acme/m")):
            with pytest.raises(UsageError, match=r"cache\.backend is none"):
                call()
    with Embedder(config=config_for("memory", tmp_path)) as embedder:
        with pytest.raises(UsageError, match="sample is 0"):
            embedder.cache.verify(["a"], model="acme/m", sample=0)
        embedder.embed(["a", "b"], model="acme/m")
        assert embedder.cache.clear(model="acme/m") == ClearResult(2, 0)
        assert embedder.cache.clear() == ClearResult(0, 0)
        assert embedder.cache.stats().total.entries == 0


def test_a_cache_that_cannot_be_read_fails_only_who_asks_for_it(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with Embedder(config=config_for("sqlite", tmp_path / "file")) as embedder:
        assert embedder.embed(["a"], model="acme/m").receipt.cache_hits == 0
        assert embedder.plan(["b"], model="acme/m").cached_texts == 0
        for call in (embedder.cache.stats, embedder.cache.clear):
            with pytest.raises(CacheError, match=r"v\.sqlite cannot be (read|cleared): a part of its path is a file"):
                call()
