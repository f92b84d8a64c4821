"""Embedding with a cache: the same vectors as without, and each text computed once."""

import asyncio
import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Config, Embedder
from embedway.cache.base import Which
from embedway.cache.codec import decode, encode
from embedway.cache.stats import Cleared
from embedway.errors import (
    CacheError,
    InputError,
    RefusedInputError,
    TextTooLongError,
    UnavailableError,
    UsageError,
)
from embedway.providers.fake import vector_of

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


@pytest.fixture(params=BACKENDS)
def config(request, tmp_path):
    url = ""
    if request.param == "redis":
        url = request.getfixturevalue("valkey")
        import redis

        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushall()
    return config_for(request.param, tmp_path, url)


def provider_of(embedder):
    return embedder._routes["acme/m"][0].provider


async def embed(embedder, texts, **options):
    return await embedder.embed(texts, model="acme/m", **options)


TEXTS = st.lists(st.sampled_from([f"text {n}" for n in range(9)]), min_size=1, max_size=12)
REQUESTS = st.lists(
    st.tuples(TEXTS, st.sampled_from(["query", "document"]), st.sampled_from([None, 16, 8, 4])), min_size=1, max_size=5
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.lists(REQUESTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_hits_and_misses_gives_the_uncached_vectors_and_computes_each_key_once(
    backend, tmp_path, valkey, rounds
):
    # A namespace of its own stands for an empty cache.
    config = config_for(backend, tmp_path, valkey, **{"cache.namespace": f"n{next(_numbers)}"})
    plain = config_for("none", tmp_path)

    async def main():
        seen = set()
        async with AsyncEmbedder(config) as cached, AsyncEmbedder(plain) as uncached:
            for requests in rounds:
                asked = [(texts, {"input_type": kind, "dimensions": size}) for texts, kind, size in requests]
                results = await asyncio.gather(*(embed(cached, texts, **options) for texts, options in asked))
                for (texts, options), result in zip(asked, results, strict=True):
                    other = await embed(uncached, texts, **options)
                    if options["dimensions"] in {None, 16}:
                        np.testing.assert_array_equal(result.vectors, other.vectors)
                    else:
                        np.testing.assert_allclose(result.vectors, other.vectors, atol=1e-6)
                    assert result.space == other.space
                    assert result.receipt.tokens == other.receipt.tokens
                seen |= {(text, kind) for texts, kind, _ in requests for text in texts}
            sent = [text for call in provider_of(cached).calls for text in call]
            assert len(sent) == len(seen)
            return cached

    asyncio.run(main())


def test_a_second_process_finds_what_the_first_computed(config):
    async def main():
        async with AsyncEmbedder(config) as first:
            one = await embed(first, ["a", "b", "a"])
        async with AsyncEmbedder(config) as second:
            two = await embed(second, ["b", "c", "a", "b"])
            narrow = await embed(second, ["a", "b", "c"], dimensions=4)
            return one, two, narrow, provider_of(second).calls, second._recall.counts["acme/m"]

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
        async with AsyncEmbedder(config) as embedder:
            await embed(embedder, ["a"])
            await embed(embedder, ["a"], input_type="query")
            await embed(embedder, ["a"], on_overflow="mean")
            calls = list(provider_of(embedder).calls)
        other = config.model_copy(update={"cache": config.cache.model_copy(update={"namespace": "tenant"})})
        async with AsyncEmbedder(other) as embedder:
            await embed(embedder, ["a"])
            return calls, provider_of(embedder).calls

    calls, others = asyncio.run(main())
    assert calls == [("a",)] * 3
    assert others == [("a",)]


def test_cuts_and_means_are_told_of_hits_too(config):
    long = "word " * 30

    async def main():
        async with AsyncEmbedder(config) as embedder:
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
        async with AsyncEmbedder(config) as embedder:
            await embedder.describe("acme/m")
            provider_of(embedder)._delay_s = 0.01
            wanted = [[f"text {(n * k) % 50}" for k in range(1, 9)] for n in range(64)]
            results = await asyncio.gather(*(embed(embedder, texts) for texts in wanted))
            for texts, result in zip(wanted, results, strict=True):
                np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
            sent = [text for call in provider_of(embedder).calls for text in call]
            assert sorted(sent) == sorted({text for texts in wanted for text in texts})
            return embedder._recall.counts["acme/m"]

    counts = asyncio.run(main())
    assert counts.shared > 0
    assert counts.stored == 50


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_when_the_leader_goes_a_follower_takes_over(config, how):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            await embedder.describe("acme/m")
            provider = provider_of(embedder)
            provider._delay_s = 0.05
            if how == "failed":
                down = UnavailableError("down", route="r")
                provider._faults = lambda _, texts: down if tuple(texts) == ("a", "b") else None
            leader = asyncio.create_task(embed(embedder, ["a", "b"]))
            await asyncio.sleep(0.01)
            followers = [asyncio.create_task(embed(embedder, texts)) for texts in (["b", "c"], ["a"], ["b", "a"])]
            await asyncio.sleep(0.01)
            if how == "cancelled":
                leader.cancel()
            done = await asyncio.wait_for(asyncio.gather(leader, *followers, return_exceptions=True), 20)
            return done, provider.done

    (leader, *followers), done = asyncio.run(main())
    assert isinstance(leader, asyncio.CancelledError if how == "cancelled" else UnavailableError)
    for texts, result in zip((["b", "c"], ["a"], ["b", "a"]), followers, strict=True):
        np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
    sent = [text for call in done for text in call]
    assert sorted(sent) == sorted(set(sent)) or how == "cancelled"


def test_partial_results_are_kept_and_their_errors_not(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            await embedder.describe("acme/m")
            provider = provider_of(embedder)
            bad = RefusedInputError("bad", route="r")
            provider._faults = lambda _, texts: bad if "bad" in texts else None
            first = await embed(embedder, ["a", "bad", "", "b", "bad"], partial=True)
            with pytest.raises(InputError):
                await embed(embedder, ["a", ""])
            provider._faults = lambda _number, _texts: None
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
        async with AsyncEmbedder(config) as embedder:
            await embedder.describe("acme/m")
            provider = provider_of(embedder)
            provider.declared = dataclasses.replace(provider.declared, batch_dependent=True)
            await embed(embedder, ["a", "b"])
            await embed(embedder, ["a", "b"])
            return provider.calls, await embedder._recall.cache.held()

    calls, held = asyncio.run(main())
    assert calls == [("a", "b")] * 2
    assert held == []


def test_flipped_bits_are_found_out_counted_and_put_right(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            good = await embed(embedder, ["a", "b"])
            cache = embedder._recall.cache
            await embedder._recall.settle()
            (held,) = await cache.held()
            spoiled = []
            for key, entry in await cache.sample(held.group, 10):
                bad = bytearray(entry)
                bad[60] ^= 1
                spoiled.append((key, bytes(bad)))
            await cache.put_many(held.group, spoiled)
            again = await embed(embedder, ["a", "b"])
            await embedder._recall.settle()
            third = await embed(embedder, ["a", "b"])
            return good, again, third, embedder._recall.counts["acme/m"]

    good, again, third, counts = asyncio.run(main())
    np.testing.assert_array_equal(good.vectors, again.vectors)
    assert (again.receipt.cache_hits, third.receipt.cache_hits) == (0, 2)
    assert counts.damaged == 2


def test_after_clearing_texts_are_computed_again(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            await embed(embedder, ["a", "b"])
            await embedder._recall.settle()
            gone = await embedder._recall.cache.clear(Which(model="acme/m"))
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
    with Embedder(Config.load(environ={}, overrides=overrides)) as embedder:
        first = embedder.embed(texts)
    with Embedder(Config.load(environ={}, overrides=overrides)) as embedder:
        second = embedder.embed(texts)
        reordered = embedder.embed([*texts[::-1], "new"])
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.vectors[::-1], reordered.vectors[:4])
    assert (second.receipt.cache_hits, reordered.receipt.cache_hits) == (3, 3)
    assert second.receipt.truncations == first.receipt.truncations
    other = Config.load(environ={}, overrides={**overrides, "local.precision": "f32", "local.backend": "onnxruntime"})
    with Embedder(other) as embedder:
        hits = embedder.embed(texts).receipt.cache_hits
    assert hits in {0, 3}  # 3 where the CPU computes f32 anyway


def test_what_was_computed_is_found_while_it_is_being_stored_and_is_stored_before_the_end(config):
    async def main():
        storing, going = asyncio.Event(), asyncio.Event()
        async with AsyncEmbedder(config) as embedder:
            cache = embedder._recall.cache
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
        async with AsyncEmbedder(config) as embedder:
            third = await embed(embedder, ["a", "b", "c"])
            return first, second, third, calls

    first, second, third, calls = asyncio.run(main())
    assert calls == [("a", "b"), ("c",)]
    np.testing.assert_array_equal(second.vectors[:2], first.vectors[::-1])
    assert second.receipt.cache_hits == 2
    assert third.receipt.cache_hits == (0 if config.cache.backend == "memory" else 3)


def test_what_is_stored_while_the_cache_is_asked_is_a_hit(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            recall = embedder._recall
            get, put, going = recall.cache.get_many, recall.cache.put_many, asyncio.Event()

            async def slow_put(group, items):
                await going.wait()
                return await put(group, items)

            async def overtaken(group, keys):
                entries = await get(group, keys)
                going.set()
                await recall.settle()
                return entries

            recall.cache.put_many = slow_put
            first = await embed(embedder, ["a", "b"])
            recall.cache.get_many = overtaken
            second = await embed(embedder, ["b", "a"])
            return first, second, recall.counts["acme/m"], provider_of(embedder).calls

    first, second, counts, calls = asyncio.run(main())
    assert calls == [("a", "b")]
    np.testing.assert_array_equal(second.vectors, first.vectors[::-1])
    assert (second.receipt.cache_hits, counts.hits, counts.shared) == (2, 2, 0)


def test_a_plan_knows_what_is_in_the_cache(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            before = await embedder.plan(["a", "b", "a"], model="acme/m")
            await embed(embedder, ["a"])
            half = await embedder.plan(["a", "b", "a"], model="acme/m", dimensions=8)
            await embed(embedder, ["b"])
            after = await embedder.plan(["a", "b", "a"], model="acme/m")
            stats = await embedder.cache_stats()
            return before, half, after, stats

    before, half, after, stats = asyncio.run(main())
    assert [plan.cached_texts for plan in (before, half, after)] == [0, 1, 2]
    assert [plan.cost_nanousd for plan in (before, half, after)] == [2000, 1000, 0]
    assert before.tokens == after.tokens == 2
    assert (stats.total.misses, stats.total.hits) == (2, 0)


def test_statistics_are_of_all_processes_and_of_each_model(config):
    async def main():
        async with AsyncEmbedder(config) as first:
            await embed(first, ["a", "b"])
            await embed(first, ["a", "c"])
            one = await first.cache_stats()
        async with AsyncEmbedder(config) as second:
            await asyncio.gather(*(embed(second, ["a", "new"]) for _ in range(3)))
            two = await second.cache_stats()
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
        # Each text but those that were computed was found, or taken from the caller that computed it.
        assert again.hits + again.shared == 6
        assert again.tokens_saved == 6
        assert again.nanousd_saved == 1000 * again.tokens_saved


def test_checking_compares_with_what_is_computed_anew(config):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            await embed(embedder, ["a", "b", "c"])
            good = await embedder.check_cache(["x", "c", "a", "c"], model="acme/m", sample=10)
            cache = embedder._recall.cache
            (held,) = await cache.held()
            (one, _), (two, mine), _ = await cache.sample(held.group, 3)
            await cache.put_many(held.group, [(one, mine)])  # another's
            vectors = np.empty((1, 16), np.float32)
            metas = decode([two], [mine], 16, vectors)
            await cache.put_many(held.group, [(two, *encode([two], vectors[:, ::-1], metas))])
            bad = await embedder.check_cache(["a", "b", "c"], model="acme/m")
            none = await embedder.check_cache(["x"], model="acme/m")
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
    with Embedder(config_for("none", tmp_path)) as embedder:
        for call in (embedder.cache_stats, embedder.clear_cache, lambda: embedder.check_cache(["a"], model="acme/m")):
            with pytest.raises(UsageError, match=r"cache\.backend is none"):
                call()
    with Embedder(config_for("memory", tmp_path)) as embedder:
        with pytest.raises(UsageError, match="sample is 0"):
            embedder.check_cache(["a"], model="acme/m", sample=0)
        embedder.embed(["a", "b"], model="acme/m")
        assert embedder.clear_cache(model="acme/m") == Cleared(2, 0)
        assert embedder.clear_cache() == Cleared(0, 0)
        assert embedder.cache_stats().total.entries == 0


def test_a_cache_that_cannot_be_read_fails_only_who_asks_for_it(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with Embedder(config_for("sqlite", tmp_path / "file")) as embedder:
        assert embedder.embed(["a"], model="acme/m").receipt.cache_hits == 0
        assert embedder.plan(["b"], model="acme/m").cached_texts == 0
        for call in (embedder.cache_stats, embedder.clear_cache):
            with pytest.raises(CacheError, match="the cache cannot be"):
                call()
