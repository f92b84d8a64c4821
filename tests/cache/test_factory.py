"""`cache.secret`: settings, configurations that share a store, rotation, and planted entries."""

import asyncio
import dataclasses

import numpy as np
import pytest

from cache_configs import TEXTS, config_of, empty_server
from embedway import AsyncEmbedder, Config, Embedder
from embedway.cache.codec import encode
from embedway.cache.factory import open_secret_keys
from embedway.cache.secret_keys import SecretKeys
from embedway.errors import ConfigError
from embedway.providers.fake import vector_of
from embedway.types import TextMeta
from inside import settle, store_of
from stored import some_entries

FIRST, SECOND, THIRD = (f"{word}-horse-battery-staple" for word in ("first", "second", "third"))


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def make(request, tmp_path):
    """Settings of one store."""
    url = empty_server(request, request.param)
    return lambda **cache: config_of(
        request.param, tmp_path, url, **{f"cache.{name}": value for name, value in cache.items()}
    )


async def hits(config, texts=TEXTS, **options):
    """Return the number of texts that a new embedder finds in the cache. Its vectors must be right."""
    async with AsyncEmbedder(config=config) as embedder:
        result = await embedder.embed(texts, model="acme/m", **options)
        np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=0.02)
        await settle(embedder)
        return result.receipt.cache_hits


async def totals(config):
    async with AsyncEmbedder(config=config) as embedder:
        return (await embedder.cache.stats()).total


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": "fifteen-letters"}, "cache.secret: must be at least 16 printable ASCII characters"),
        ({"secret": ""}, "cache.secret: must be at least 16 printable ASCII characters"),
        ({"secret": "with a space in its middle"}, "without spaces"),
        ({"secret": "correct-hörse-battery"}, "printable ASCII"),
        ({"secret": "correct-horse\nbattery"}, "printable ASCII"),
        ({"secret": FIRST, "secret_previous": "short"}, "cache.secret_previous: must be at least 16"),
        ({"secret_previous": FIRST}, "secret_previous must be unset if secret is unset"),
        ({"secret": FIRST, "secret_previous": FIRST}, "secret_previous must differ from secret"),
        ({"secret_previous": FIRST, "secret_file": "/there"}, "secret_previous must be unset if secret is unset"),
    ],
)
def test_secrets_that_cannot_be_ones_are_refused_and_not_shown(settings, words):
    overrides = {f"cache.{name}": value for name, value in settings.items()}
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=overrides)
    assert words in str(caught.value)
    shown = [value for value in settings.values() if value and value.isascii() and not value.startswith("/")]
    assert not any(value in str(caught.value) for value in shown)


def test_a_secret_comes_from_the_environment_and_is_shown_nowhere():
    environ = {"EMBEDWAY_CACHE__SECRET": "1234567890123456", "EMBEDWAY_CACHE__SECRET_PREVIOUS": FIRST}
    config = Config.load(environ=environ)
    assert config.cache.secret.get_secret_value() == "1234567890123456"
    assert len(open_secret_keys(config.cache)) == 2
    for shown in (repr(config), config.model_dump_json(), str(config.cache)):
        assert "1234567890123456" not in shown
        assert FIRST not in shown


def test_a_file_holds_the_secret_and_the_one_before_it(tmp_path):
    path = tmp_path / "secret"
    config = Config.load(environ={}, overrides={"cache.secret_file": str(path)})
    for text, secrets in ((f"{FIRST}", [FIRST]), (f"{SECOND}\r\n{FIRST}\n\n", [SECOND, FIRST])):
        path.write_text(text)
        names = [seal.entry_names([b"k" * 32]) for seal in open_secret_keys(config.cache)]
        assert names == [SecretKeys(secret).entry_names([b"k" * 32]) for secret in secrets]
    # A setting overrides the file, as the environment overrides it.
    config = Config.load(environ={"EMBEDWAY_CACHE__SECRET": THIRD}, overrides={"cache.secret_file": str(path)})
    assert [seal.entry_names([b"k" * 32]) for seal in open_secret_keys(config.cache)] == [
        SecretKeys(THIRD).entry_names([b"k" * 32])
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe" * 20, "cannot be read: it is not a text file"),
        (b"", "has 0 lines"),
        (f"{FIRST}\n{SECOND}\n{THIRD}\n".encode(), "has 3 lines"),
        (b"short\n", "line 1 must be at least 16 printable ASCII characters"),
        (f"{FIRST}\n# a note\n".encode(), "line 2 must be at least 16 printable ASCII characters"),
        (f"{FIRST}\n{FIRST}\n".encode(), "has the same secret twice"),
    ],
)
def test_a_file_that_holds_no_secrets_is_an_error_that_names_it(tmp_path, data, words):
    path = tmp_path / "secret"
    if data is not None:
        path.write_bytes(data)
    config = Config.load(environ={}, overrides={"cache.secret_file": str(path), "cache.backend": "memory"})
    with pytest.raises(ConfigError) as caught:
        Embedder(config=config)
    assert str(path) in str(caught.value)
    assert "cache.secret_file" in str(caught.value)
    assert words in str(caught.value)
    assert "horse" not in str(caught.value)


# ---------------------------------------------------------------- shared stores


@pytest.mark.parametrize("tiered", [False, True], ids=["alone", "behind memory"])
def test_configurations_that_share_a_store_leave_each_other_s_entries_alone(make, tiered):
    kinds = [{}, {"secret": FIRST}, {"secret": SECOND}, {"namespace": "n"}, {"secret": FIRST, "namespace": "n"}]
    configs = [make(tiered=tiered, **kind) for kind in kinds]

    async def main():
        rounds = [[await hits(config) for config in configs] for _ in range(3)]
        return rounds, await totals(configs[0])

    rounds, total = asyncio.run(main())
    assert rounds == [[0] * 5, [12] * 5, [12] * 5]
    assert (total.entries, total.damaged, total.invalid) == (60, 0, 0)


def test_clearing_forgets_the_entries_of_every_secret(make):
    async def main():
        for config in (make(), make(secret=FIRST)):
            await hits(config)
        async with AsyncEmbedder(config=make(secret=SECOND)) as embedder:
            cleared = await embedder.cache.clear(model="acme/m")
        return cleared, [await hits(config) for config in (make(), make(secret=FIRST))]

    cleared, found = asyncio.run(main())
    assert dataclasses.astuple(cleared) == (24, 0)
    assert found == [0, 0]


def test_a_text_cannot_be_looked_up_without_the_secret(make):
    """Neither the key of a text nor a value derived from it without the secret is in the store."""

    async def names(config):
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed(TEXTS, model="acme/m")
            await settle(embedder)
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            found = {name for name, _ in await some_entries(cache, held.group, 100)}
            await embedder.cache.clear()
            return found

    async def main():
        return [await names(make(**kind)) for kind in ({}, {"secret": FIRST}, {"secret": SECOND}, {"secret": FIRST})]

    plain, first, second, again = asyncio.run(main())
    assert len(plain | first | second) == 36
    assert first == again


@pytest.mark.parametrize("kind", ["plain", "of another secret", "of another group", "of another text", "flipped"])
def test_planted_entries_count_as_damaged_and_are_computed_again(make, kind):
    """Someone who can write to the store, but has no secret, replaces a vector."""

    async def main():
        async with AsyncEmbedder(config=make(secret=FIRST, tiered=False)) as embedder:
            await embedder.embed(TEXTS, model="acme/m")
            await settle(embedder)
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            pairs = await some_entries(cache, held.group, 2)
            (name, entry), (_, other) = pairs
            vector = np.eye(16, dtype=np.float32)[:1]
            mac = {
                "of another secret": SecretKeys(SECOND).mac(held.group),
                "of another group": SecretKeys(FIRST).mac(dataclasses.replace(held.group, namespace="tenant")),
            }.get(kind)
            planted = encode([name], vector, [TextMeta(1)], mac=mac)[0]
            if kind == "of another text":
                planted = other
            elif kind == "flipped":
                planted = entry[:60] + bytes([entry[60] ^ 1]) + entry[61:]
            await cache.put_many(held.group, [(name, planted)])
        assert await hits(make(secret=FIRST)) == 11
        assert await hits(make(secret=FIRST)) == 12
        return await totals(make(secret=FIRST))

    total = asyncio.run(main())
    assert (total.damaged, total.entries) == (1, 12)


# ---------------------------------------------------------------- rotation


@pytest.mark.parametrize(
    ("codec", "zstd"), [("f32", False), ("f32", True), ("f16", False), ("f16", True), ("i8", False)]
)
def test_a_secret_is_changed_without_computing_anything_again(make, codec, zstd):
    kept = {"codec": codec, "zstd": zstd}
    old, both, new = (
        make(secret=FIRST, **kept),
        make(secret=SECOND, secret_previous=FIRST, **kept),
        make(secret=SECOND, **kept),
    )

    async def main():
        await hits(old, TEXTS[:8])
        found = [await hits(both, TEXTS), await hits(both, TEXTS), await hits(new, TEXTS), await hits(old, TEXTS)]
        return found, await totals(new)

    found, total = asyncio.run(main())
    # The old configuration, which another machine may still use, still reads its own entries.
    assert found == [8, 12, 12, 8]
    assert (total.stored, total.damaged, total.invalid) == (8 + 4 + 4, 0, 0)


def test_entries_of_the_previous_secret_come_back_as_they_were(make):
    long, options = "word " * 30, {"on_overflow": "mean"}

    async def main():
        results = []
        for secrets in ({"secret": FIRST}, {"secret": SECOND, "secret_previous": FIRST}, {"secret": SECOND}):
            async with AsyncEmbedder(config=make(codec="i8", **secrets)) as embedder:
                results.append(await embedder.embed([*TEXTS, long], model="acme/m", **options))
                cut = await embedder.embed(["b " * 30], model="acme/m")
                results[-1] = (results[-1], cut)
        return results

    first, second, third = asyncio.run(main())
    for (averaged, cut), count in ((second, 13), (third, 13)):
        assert (averaged.receipt.cache_hits, averaged.receipt.lossy_hits) == (count, count)
        assert averaged.receipt.averaged == first[0].receipt.averaged
        assert (cut.receipt.cache_hits, cut.receipt.truncations) == (1, first[1].receipt.truncations)
    np.testing.assert_array_equal(second[0].vectors, third[0].vectors)


def test_an_entry_of_the_previous_secret_is_checked_like_any_other(make):
    async def main():
        await hits(make(secret=FIRST))
        async with AsyncEmbedder(config=make(secret=FIRST)) as embedder:
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            (one, _), (two, entry), *_ = await some_entries(cache, held.group, 12)
            mac = SecretKeys(FIRST).mac(held.group)
            bad = encode([one], np.zeros((1, 16), np.float32), [TextMeta(1)], mac=mac)
            await cache.put_many(held.group, [(one, *bad), (two, entry[:-1])])
        both = make(secret=SECOND, secret_previous=FIRST)
        found = [await hits(both), await hits(both), await hits(make(secret=FIRST))]
        return found, await totals(both)

    found, total = asyncio.run(main())
    assert found == [10, 12, 10]
    assert (total.invalid, total.damaged) == (1, 1)


def test_many_entries_of_the_previous_secret_are_written_again_in_parts(make):
    texts = [f"many {n}" for n in range(2500)]

    async def main():
        await hits(make(secret=FIRST), texts)
        found = await hits(make(secret=SECOND, secret_previous=FIRST), texts)
        return found, await hits(make(secret=SECOND), texts)

    assert asyncio.run(main()) == (2500, 2500)


def test_a_plan_and_a_check_know_both_secrets(make):
    async def main():
        await hits(make(secret=FIRST))
        async with AsyncEmbedder(config=make(secret=SECOND, secret_previous=FIRST)) as embedder:
            plan = await embedder.plan(TEXTS, model="acme/m")
            checked = await embedder.cache.verify(TEXTS, model="acme/m")
        async with AsyncEmbedder(config=make(secret=THIRD)) as embedder:
            return plan, checked, await embedder.plan(TEXTS, model="acme/m")

    plan, checked, other = asyncio.run(main())
    assert (plan.cached_texts, checked.found, checked.damaged, other.cached_texts) == (12, 12, 0, 0)
    assert checked.lowest_cosine == pytest.approx(1)


def test_the_default_model_with_a_secret_from_a_file(tmp_path, default_model_directory):
    path, texts = tmp_path / "secret", ["a first text", "a second one"]
    overrides = {
        "weights.directory": str(default_model_directory),
        "cache.path": str(tmp_path / "v.sqlite"),
        "cache.secret_file": str(path),
    }

    def embed():
        with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            return embedder.embed(texts)

    results = []
    for text in (FIRST, FIRST, f"{SECOND}\n{FIRST}\n", SECOND, THIRD):
        path.write_text(text)
        results.append(embed())
    assert [result.receipt.cache_hits for result in results] == [0, 2, 2, 2, 0]
    for result in results[1:4]:
        np.testing.assert_array_equal(result.vectors, results[0].vectors)
