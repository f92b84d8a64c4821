"""Entries with a right checksum and an invalid vector: no caller, cache or receipt ever sees one."""

import asyncio
import logging

import numpy as np
import pytest

from cache_configs import MODEL, TEXTS, config_of, empty_server
from embedway import AsyncEmbedder
from embedway.cache.codec import decode, encode
from embedway.cache.factory import open_secret_keys
from embedway.cache.redis import RedisCache
from embedway.providers.fake import vector_of
from embedway.types import TextMeta
from inside import cache_of, counters_of, provider_of, set_faults, settle, store_of
from stored import some_entries

PHRASE = "correct-horse-battery-staple"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def backend(request):
    return request.param


@pytest.fixture(params=[None, PHRASE], ids=["plain", "keyed"])
def secret(request):
    return request.param


@pytest.fixture
def make(backend, secret, tmp_path, request):
    """Settings of one store."""
    url = empty_server(request, backend)
    keyed = {"cache.secret": secret} if secret else {}
    return lambda **more: config_of(backend, tmp_path, url, **{**keyed, **more})


def spoiled(kind, vector):
    bad = vector.copy()
    if kind == "nan":
        bad[3] = np.nan
    elif kind == "infinity":
        bad[3] = -np.inf
    elif kind == "too large to square":
        bad[3] = 1e30
    elif kind == "zeros":
        bad[:] = 0
    else:
        bad *= kind
    return bad


def mac_of(embedder, group):
    seals = open_secret_keys(embedder.config.cache)
    return seals[0].mac(group) if seals else None


async def spoil(embedder, kinds, codec="f32"):
    """Replace entries by invalid ones with right checksums, as another writer could."""
    await settle(embedder)
    cache = store_of(embedder)
    (held,) = await cache.group_sizes()
    mac = mac_of(embedder, held.group)
    pairs = (await some_entries(cache, held.group, 1000))[: len(kinds)]
    keys = [key for key, _ in pairs]
    vectors = np.empty((len(keys), 16), np.float32)
    metas = decode(keys, [entry for _, entry in pairs], 16, vectors, mac=mac)
    bad = np.array([spoiled(kind, vector) for kind, vector in zip(kinds, vectors, strict=True)])
    await cache.put_many(held.group, list(zip(keys, encode(keys, bad, metas, codec, mac=mac), strict=True)))


async def embedded(embedder, texts=TEXTS, **options):
    result = await embedder.embed(texts, model="acme/m", **options)
    await settle(embedder)
    return result


def assert_right(result, texts=TEXTS, atol=1e-6):
    np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=atol)


BAD = ["nan", "infinity", "too large to square", "zeros", 3, 0.5, 1.03]


@pytest.mark.parametrize("tiered", [False, True], ids=["alone", "behind memory"])
def test_bad_vectors_are_misses_that_are_counted_logged_and_replaced(make, tiered, caplog):
    async def main():
        async with AsyncEmbedder(config=make(**{"cache.tiered": tiered})) as embedder:
            await embedded(embedder)
            await spoil(embedder, BAD)
            plan = await embedder.plan(TEXTS, model="acme/m")
            checked = await embedder.cache.verify(TEXTS, model="acme/m", sample=12)
            with caplog.at_level(logging.WARNING, "embedway.cache"):
                again = await embedded(embedder)
            alone = [await embedded(embedder, [text]) for text in TEXTS]
            return plan, checked, again, alone, await embedder.cache.stats()

    plan, checked, again, alone, stats = asyncio.run(main())
    assert plan.cached_texts == 12 - len(BAD)
    assert (checked.found, checked.damaged, checked.recomputed) == (12 - len(BAD), len(BAD), 12 - len(BAD))
    assert checked.lowest_cosine > 0.9999
    assert_right(again)
    assert (again.receipt.cache_hits, again.receipt.billed_tokens) == (12 - len(BAD), 2 * len(BAD))
    for result, text in zip(alone, TEXTS, strict=True):
        assert_right(result, [text])
        assert result.receipt.cache_hits == 1
    assert (stats.total.invalid, stats.total.damaged, stats.total.misses) == (len(BAD), 0, 12 + len(BAD))
    (told,) = caplog.messages
    assert told.startswith(f"the cache contained {len(BAD)} invalid vectors of acme/m")
    assert "text 0" not in told


@pytest.mark.parametrize("kind", BAD)
def test_a_lone_query_is_never_a_bad_vector(make, kind):
    async def main():
        async with AsyncEmbedder(config=make()) as embedder:
            await embedded(embedder, ["q"], input_type="query")
            await spoil(embedder, [kind])
            wrong = await embedded(embedder, ["q"], input_type="query")
            right = await embedded(embedder, ["q"], input_type="query")
            return wrong, right, counters_of(embedder).invalid

    wrong, right, invalid = asyncio.run(main())
    np.testing.assert_array_equal(wrong.vectors, right.vectors)
    assert np.linalg.norm(right.vectors) == pytest.approx(1)
    assert [result.receipt.cache_hits for result in (wrong, right)] == [0, 1]
    assert invalid == 1


@pytest.mark.parametrize(("codec", "zstd"), [("f16", False), ("f16", True), ("i8", False)])
def test_lossy_entries_pass_and_bad_ones_do_not(make, codec, zstd):
    config = make(**{"cache.codec": codec, "cache.zstd": zstd})

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder)
            good = await embedded(embedder)
            await spoil(embedder, [3, 0.1], codec)
            # A vector that the codec cannot represent is stored as float32, so these are exact.
            await embedded(embedder)
            await spoil(embedder, ["nan", "infinity", "zeros"], codec)
            return good, await embedded(embedder), counters_of(embedder).invalid

    good, again, invalid = asyncio.run(main())
    assert (good.receipt.cache_hits, good.receipt.lossy_hits) == (12, 12)
    assert (again.receipt.cache_hits, again.receipt.lossy_hits, invalid) == (9, 9, 5)
    for result in (good, again):
        assert_right(result, atol=0.02)
        np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)


def test_compressed_i8_entries_of_older_versions_are_hits(make):
    async def main():
        async with AsyncEmbedder(config=make(**{"cache.codec": "i8", "cache.tiered": False})) as embedder:
            await embedded(embedder)
            store = store_of(embedder)
            (size,) = await store.group_sizes()
            keys, entries = zip(*await some_entries(store, size.group, 12), strict=True)
            vectors, mac = np.empty((12, 16), np.float32), mac_of(embedder, size.group)
            metas = decode(keys, entries, 16, vectors, mac=mac)
            compressed = encode(keys, vectors, metas, "i8", zstd=True, mac=mac)
            await store.put_many(size.group, list(zip(keys, compressed, strict=True)))
            return await embedded(embedder)

    again = asyncio.run(main())
    assert (again.receipt.cache_hits, again.receipt.lossy_hits) == (12, 12)
    assert_right(again, atol=0.02)


@pytest.mark.parametrize("body", [b"\0\0\xc0\x7f" + bytes([1] * 16), b"\0\0\x80\xff" + bytes([1] * 16), bytes(20)])
def test_a_lossy_entry_of_a_bad_scale_is_a_miss(make, body):
    """NaN, infinity and 0 as the scale of codec i8. Our encoder never writes them."""

    async def main():
        async with AsyncEmbedder(config=make(**{"cache.codec": "i8"})) as embedder:
            await embedded(embedder, ["a"])
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            ((key, entry),) = await some_entries(cache, held.group, 1)
            mac = mac_of(embedder, held.group)
            if mac is not None:
                signed = entry[:32] + mac(key, entry[:32], body) + body
            else:
                import xxhash

                checksum = xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(key + entry[:32]))
                signed = entry[:32] + checksum.to_bytes(8, "little") + body
            await cache.put_many(held.group, [(key, signed)])
            return await embedded(embedder, ["a"]), counters_of(embedder)

    result, counts = asyncio.run(main())
    assert_right(result, ["a"], atol=0.02)
    assert (result.receipt.cache_hits, counts.invalid, counts.damaged) == (0, 1, 0)


def test_where_vectors_have_any_length_only_what_is_none_is_a_miss(make):
    config = make(**{"models.m": {**MODEL, "normalized": False}})

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder)
            await spoil(embedder, ["nan", "infinity", "zeros", 3])
            return await embedded(embedder), counters_of(embedder).invalid

    again, invalid = asyncio.run(main())
    assert (again.receipt.cache_hits, invalid) == (9, 3)
    lengths = np.linalg.norm(again.vectors, axis=1)
    np.testing.assert_allclose(np.sort(lengths), [1] * 11 + [3], atol=1e-5)


def test_means_of_windows_are_checked_too(make):
    long = " ".join(f"w{n}" for n in range(50))

    async def main():
        async with AsyncEmbedder(config=make()) as embedder:
            first = await embedded(embedder, [long], on_overflow="mean")
            hit = await embedded(embedder, [long], on_overflow="mean")
            await spoil(embedder, [3])
            return first, hit, await embedded(embedder, [long], on_overflow="mean")

    first, hit, again = asyncio.run(main())
    assert [result.receipt.cache_hits for result in (first, hit, again)] == [0, 1, 0]
    for result in (hit, again):
        np.testing.assert_array_equal(result.vectors, first.vectors)
        assert result.receipt.averaged == first.receipt.averaged


def test_callers_at_the_same_time_never_see_one(make):
    async def main():
        async with AsyncEmbedder(config=make()) as embedder:
            await embedded(embedder)
            await spoil(embedder, ["nan"] * 12)
            return await asyncio.gather(*(embedder.embed(TEXTS[n:], model="acme/m") for n in range(12)))

    for n, result in enumerate(asyncio.run(main())):
        assert_right(result, TEXTS[n:])


def test_a_text_that_cannot_be_computed_again_has_an_error_and_no_bad_vector(make):
    async def main():
        async with AsyncEmbedder(config=make(**{"upstream.max_attempts": 1})) as embedder:
            await embedded(embedder)
            await spoil(embedder, ["zeros"] * 12)
            from embedway.errors import RefusedInputError

            provider = provider_of(embedder)
            set_faults(provider, lambda _, texts: RefusedInputError("no", route="r") if "text 3" in texts else None)
            return await embedder.embed(TEXTS, model="acme/m", partial=True)

    result = asyncio.run(main())
    assert set(result.errors) == {3}
    assert np.isnan(result.vectors[3]).all()
    rest = [row for row in range(12) if row != 3]
    np.testing.assert_allclose(result.vectors[rest], [vector_of(TEXTS[row], 16) for row in rest], atol=1e-6)


def test_vectors_that_another_process_stores_meanwhile_are_checked_too(make, backend, secret, valkey):
    if backend != "redis":
        return  # no other processes to wait for
    other, config = RedisCache(valkey, keyed=secret is not None), make()

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedded(embedder, ["a"])
            (held,) = await other.group_sizes()
            ((key, _),) = await some_entries(other, held.group, 1)
            await embedder.cache.clear()
            assert await other.lease(held.group, [key], 60) == [True]
            waiting = asyncio.create_task(embedder.embed(["a"], model="acme/m"))
            polled = cache_of(embedder).sleep
            asked = asyncio.Event()

            async def sleep(seconds):
                asked.set()
                await polled(seconds)

            cache_of(embedder).sleep = sleep
            await asked.wait()
            bad = np.full((1, 16), np.nan, np.float32)
            mac = mac_of(embedder, held.group)
            await other.put_many(held.group, [(key, *encode([key], bad, [TextMeta(1)], mac=mac))])
            await other.release(held.group, [key])
            result = await waiting
            await other.aclose()
            return result, counters_of(embedder).invalid

    result, invalid = asyncio.run(asyncio.wait_for(main(), 30))
    assert_right(result, ["a"])
    assert invalid == 1


def test_bad_vectors_of_the_default_model_are_computed_again(make, default_model_directory):
    config = make(**{"weights.directory": str(default_model_directory)})
    texts = ["a first text", "a second one", "and a third"]

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            first = await embedder.embed(texts)
            await settle(embedder)
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            pairs = await some_entries(cache, held.group, 3)
            keys = [key for key, _ in pairs]
            mac = mac_of(embedder, held.group)
            entries = encode(keys, np.full((3, 384), np.nan, np.float32), [TextMeta(5)] * 3, mac=mac)
            await cache.put_many(held.group, list(zip(keys, entries, strict=True)))
            second = await embedder.embed(texts)
            await settle(embedder)
            return first, second, await embedder.embed(texts), await embedder.cache.stats()

    first, second, third, stats = asyncio.run(main())
    assert [result.receipt.cache_hits for result in (first, second, third)] == [0, 0, 3]
    for result in (second, third):
        np.testing.assert_allclose(result.vectors, first.vectors, atol=1e-4)
        assert result.receipt.tokens == first.receipt.tokens
    assert (stats.total.invalid, stats.total.entries) == (3, 3)
