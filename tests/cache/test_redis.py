"""Layout in Redis: entries of version 1, versions that share a server, stamps, and third-party data."""

import asyncio
import base64
import contextlib
import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import redis
import xxhash

from embedway import AsyncEmbedder, Config
from embedway.cache.base import CacheFilter, Group
from embedway.cache.codec import MAX_ENTRY_BYTES
from embedway.cache.redis import RedisCache
from embedway.cache.redis_server import FORMAT
from embedway.errors import CacheError, ConfigError
from embedway.providers.fake import vector_of
from inside import cache_of, counters_of, forget_in_memory, opened_model, read_generation_again, settle, store_of
from stored import read_entries

WRITTEN = json.loads((Path(__file__).parents[1] / "project" / "formats" / "redis-cache-v1.json").read_text("utf-8"))
PHRASE = "correct-horse-battery-staple"
GROUP = Group("m", "m@1/4")
KEY = bytes(range(32))
TEXTS = [f"text {n}" for n in range(10)]


@pytest.fixture
def server(valkey):
    """Return a client of an empty server."""
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        yield client


def config_for(url, **cache):
    overrides = {**WRITTEN["models"], "ledger.backend": "none", "cache.backend": "redis", "cache.url": url}
    overrides |= {name if "." in name else f"cache.{name}": value for name, value in cache.items()}
    return Config.load(environ={}, overrides=overrides)


def providers_of(embedder):
    model = opened_model(embedder)
    return [] if model is None else [route.provider for route in model.routes]


def load_v1(server):
    """Load the entries of version 1 into a server."""
    for name, value in WRITTEN["keys"].items():
        if isinstance(value, dict):
            fields = {base64.b64decode(field): base64.b64decode(held) for field, held in value.items()}
            server.hset(base64.b64decode(name), mapping=fields)
        else:
            server.set(base64.b64decode(name), base64.b64decode(value))


def dumped(server, pattern="embedway:v1:*"):
    return {
        name: server.hgetall(name) if server.type(name) == b"hash" else server.get(name)
        for name in server.scan_iter(pattern)
    }


# ---------------------------------------------------------------- version 1


def test_the_fixture_is_of_version_1():
    names = {base64.b64decode(name) for name in WRITTEN["keys"]}
    assert len(names) == 10 + 3
    assert b"embedway:format" not in names
    entries = [base64.b64decode(held)[8:] for held in WRITTEN["keys"].values() if isinstance(held, str)]
    assert sum(entry.startswith(b"eW\2") for entry in entries) == 10
    assert {VersionOne(None).name(text).encode() for text in ("first", "second")} <= names


@pytest.mark.parametrize("tiered", [False, True], ids=["alone", "behind memory"])
def test_what_version_1_wrote_is_found_and_nothing_of_it_is_destroyed(server, valkey, tiered):
    load_v1(server)
    before = dumped(server)

    async def main():
        found = None
        for model, settings, options, texts in WRITTEN["texts"]:
            async with AsyncEmbedder(config=config_for(valkey, tiered=tiered, **settings)) as embedder:
                result = await embedder.embed(texts, model=model, **options)
                await settle(embedder)
                assert (result.receipt.cache_hits, result.receipt.route) == (len(texts), "cache")
                assert not any(provider.calls for provider in providers_of(embedder))
                if not options and not any(text.startswith("long") for text in texts):
                    wanted = [vector_of(text, result.vectors.shape[1]) for text in texts]
                    np.testing.assert_allclose(result.vectors, wanted, atol=0.02)
                assert len(result.receipt.truncations) == sum(text.startswith("long ") for text in texts)
                assert len(result.receipt.averaged) == (options.get("on_overflow") == "mean")
            found = await stats(embedder.config)
        return found

    async def stats(config):
        async with AsyncEmbedder(config=config) as embedder:
            return await embedder.cache.stats()

    total = asyncio.run(main()).total
    after = dumped(server)
    counts = b"embedway:v1:counts"
    assert {name: after[name] for name in before if name != counts} == {
        name: value for name, value in before.items() if name != counts
    }
    assert set(after) == set(before)
    assert (total.entries, total.hits, total.misses, total.damaged) == (10, 10 + 10, 10, 0)


def test_statistics_and_clearing_of_what_version_1_wrote(server, valkey):
    load_v1(server)

    async def main():
        async with AsyncEmbedder(config=config_for(valkey)) as embedder:
            stats = await embedder.cache.stats()
            old = await embedder.cache.clear(older_than_s=86_400 * 365 * 50)
            tenant = await embedder.cache.clear(namespace="tenant")
            aged = await embedder.cache.clear(model="acme/m", older_than_s=60)
            rest = await embedder.cache.clear()
            return stats, [(done.before, done.after) for done in (old, tenant, aged, rest)]

    stats, cleared = asyncio.run(main())
    assert {model: one.entries for model, one in stats.models.items()} == {"acme/m": 9, "text-embedding-3-small": 1}
    assert stats.models["acme/m"].nanousd_saved == 158_000
    assert cleared == [(10, 10), (1, 0), (8, 0), (1, 0)]
    assert set(dumped(server)) == {b"embedway:v1:groups", b"embedway:v1:counts", b"embedway:v1:cleared"}
    assert int(server.get("embedway:v1:cleared")) == 5


class VersionOne:
    """Makes keys, reads and writes with the commands and bytes of version 1, for the fixture's own model."""

    def __init__(self, client):
        self.client = client
        self.group = Group("acme/m", "m@0b8050f8/16")

    def key(self, text):
        facts = json.dumps(["service:acme/m", "service", True, "", "", ""])
        digest = hashlib.sha256(facts.encode()).hexdigest()
        fields = ["embedway 1", "m", digest, "16", "", "document", "", "truncate", "20", ""]
        made = b"".join(len(field).to_bytes(8, "little") + field.encode() for field in fields)
        return hashlib.blake2b(made + text.encode(), digest_size=32).digest()

    def name(self, text, prefix="embedway:v1:"):
        return f"{prefix}{self.group.id}:{self.key(text).hex()}"

    def write(self, text):
        head = struct.pack("<2sBBIIB3sIIII", b"eW", 2, 1, 16, 2, 0, b"\0\0\0", 0, 0, 0, 0)
        body = vector_of(text, 16).astype("<f4").tobytes()
        checksum = xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(self.key(text) + head))
        self.client.hset(
            "embedway:v1:groups",
            self.group.id,
            json.dumps([self.group.model, self.group.space_id, self.group.namespace]),
        )
        self.client.set(self.name(text), struct.pack("<d", 1e9) + head + struct.pack("<Q", checksum) + body)

    def read(self, text):
        value = self.client.get(self.name(text))
        if value is None:
            return None
        head, checksum, body = value[8:40], value[40:48], value[48:]
        seed = xxhash.xxh3_64_intdigest(self.key(text) + head)
        assert struct.unpack("<Q", checksum)[0] == xxhash.xxh3_64_intdigest(body, seed)
        assert head[2] == 2
        return np.frombuffer(body, "<f4")

    def clear(self):
        for name in list(self.client.scan_iter(f"embedway:v1:{self.group.id}:*")):
            self.client.unlink(name)
        self.client.incr("embedway:v1:cleared")


def test_version_1_and_this_one_take_turns_on_the_same_keys(server, valkey):
    config, keyed = config_for(valkey), config_for(valkey, secret=PHRASE)
    old = VersionOne(server)

    async def embed(embedder, texts):
        result = await embedder.embed(texts, model="acme/m")
        await settle(embedder)
        np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)
        return result.receipt.cache_hits

    async def main():
        async with AsyncEmbedder(config=config) as new, AsyncEmbedder(config=keyed) as secret:
            for number, text in enumerate(TEXTS):
                if number % 2:
                    old.write(text)
                else:
                    assert old.read(text) is None
                    assert await embed(new, [text]) == 0
                np.testing.assert_allclose(old.read(text), vector_of(text, 16), atol=1e-6)
                assert await embed(new, [text]) == 1
                old.write(text)  # overwrites entries of this version or its own
            assert await embed(new, TEXTS) == 10
            assert await embed(secret, TEXTS) == 0
            assert await embed(secret, TEXTS) == 10
            for text in TEXTS:  # neither saw the other's entries
                np.testing.assert_allclose(old.read(text), vector_of(text, 16), atol=1e-6)
            read_generation_again(store_of(new))
            assert await embed(new, TEXTS) == 10
            old.clear()
            read_generation_again(store_of(new), store_of(secret))
            assert await embed(secret, TEXTS) == 10
            assert await embed(new, TEXTS) == 0

    asyncio.run(main())


def test_a_text_that_version_1_is_computing_is_waited_for(server, valkey):
    config = config_for(valkey, tiered=False)
    old = VersionOne(server)

    async def main():
        async with AsyncEmbedder(config=config) as new:
            asked, sleep = asyncio.Event(), asyncio.sleep

            async def slept(seconds):
                asked.set()
                await sleep(seconds)

            cache_of(new).sleep = slept
            server.set(old.name("text 0", "embedway:lease:"), b"version one", px=10_000)
            waiting = asyncio.create_task(new.embed(["text 0"], model="acme/m"))
            await asked.wait()
            old.write("text 0")
            server.delete(old.name("text 0", "embedway:lease:"))
            await waiting
            return [provider.calls for provider in providers_of(new)]

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [[]]


# ---------------------------------------------------------------- stamps


def test_a_server_is_stamped_when_something_is_written(server, valkey):
    async def main():
        cache = RedisCache(valkey)
        await cache.get_many(GROUP, [KEY])
        read = server.exists("embedway:format")
        await cache.put_many(GROUP, [(KEY, b"entry")])
        await cache.aclose()
        return read

    assert asyncio.run(main()) == 0
    assert server.hgetall("embedway:format") == {b"cache": b"%d" % FORMAT}
    # Fields of other formats, which have their own versions, stay.
    server.hset("embedway:format", mapping={"ledger": "7"})
    asyncio.run(main_again(valkey))
    assert server.hgetall("embedway:format") == {b"cache": b"%d" % FORMAT, b"ledger": b"7"}


async def main_again(url):
    cache = RedisCache(url)
    await cache.put_many(GROUP, [(KEY, b"entry")])
    await cache.aclose()


@pytest.mark.parametrize("secret", [None, PHRASE], ids=["plain", "keyed"])
@pytest.mark.parametrize("tiered", [False, True], ids=["alone", "behind memory"])
def test_a_newer_format_is_an_error_of_every_use_and_nothing_is_written(server, valkey, tiered, secret):
    load_v1(server)
    server.hset("embedway:format", "cache", FORMAT + 1)
    before = dumped(server, "*")
    config = config_for(valkey, tiered=tiered, **({"secret": secret} if secret else {}))

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            calls = [
                lambda: embedder.embed(TEXTS, model="acme/m"),
                lambda: embedder.embed(TEXTS, model="acme/m"),
                lambda: embedder.plan(TEXTS, model="acme/m"),
                lambda: embedder.cache.verify(TEXTS, model="acme/m"),
                embedder.cache.stats,
                embedder.cache.clear,
            ]
            for call in calls:
                with pytest.raises(CacheError) as caught:
                    await call()
                assert f"has version {FORMAT + 1}," in str(caught.value)
                assert f"supports versions up to {FORMAT}:" in str(caught.value)
                assert "cache.url" in str(caught.value)
                assert "127.0.0.1" not in str(caught.value)
            return [provider.calls for provider in providers_of(embedder)]

    assert asyncio.run(main()) == [[]]
    assert dumped(server, "*") == before


def test_a_newer_format_is_seen_while_a_process_runs(server, valkey, clock):
    async def main():
        cache = RedisCache(valkey, clock=clock)
        await cache.put_many(GROUP, [(KEY, b"entry")])
        server.hset("embedway:format", "cache", FORMAT + 1)
        assert await read_entries(cache, GROUP, [KEY]) == [b"entry"]
        clock.now += 61
        # Only reading raises, so that a vector computed in the meantime still reaches its caller.
        assert await cache.put_many(GROUP, [(KEY, b"other")]) == 0
        assert await cache.add_counts({"m": {"hits": 1}}) is False
        assert await cache.lease(GROUP, [KEY], 10) == [True]
        with pytest.raises(CacheError, match=f"version {FORMAT + 1}"):
            await cache.get_many(GROUP, [KEY])
        server.hset("embedway:format", "cache", FORMAT)
        assert await read_entries(cache, GROUP, [KEY]) == [b"entry"]
        await cache.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("stamp", [b"", b"one", b"-1", b"1.5", b"9" * 5000, b"\xff\xfe", None])
def test_a_stamp_that_is_no_version_fails_no_request(server, valkey, stamp):
    if stamp is None:
        server.set("embedway:format", "a text")
    else:
        server.hset("embedway:format", "cache", stamp)

    async def main():
        async with AsyncEmbedder(config=config_for(valkey)) as embedder:
            for _ in range(2):
                result = await embedder.embed(TEXTS, model="acme/m")
                assert result.receipt.cache_hits in {0, 10}
            assert store_of(embedder).errors.failed_reads > 0
            with pytest.raises(
                CacheError,
                match=r"cannot be read: (the field cache of its key|another program)",
            ):
                await embedder.cache.stats()

    asyncio.run(main())


def test_a_user_who_may_not_read_the_stamp_goes_on_as_before(server, valkey):
    server.execute_command("ACL", "SETUSER", "old", "on", ">word", "+@all", "~embedway:v1:*", "~embedway:lease:*")
    try:
        url = valkey.replace("redis://", "redis://old:word@")

        async def main():
            async with AsyncEmbedder(config=config_for(url, tiered=False)) as embedder:
                await embedder.embed(TEXTS, model="acme/m")
                await settle(embedder)
                result = await embedder.embed(TEXTS, model="acme/m")
                return result.receipt.cache_hits, store_of(embedder).errors

        hits, troubles = asyncio.run(main())
        assert (hits, troubles.failed_reads, troubles.failed_writes) == (10, 0, 0)
    finally:
        server.execute_command("ACL", "DELUSER", "old")


# ---------------------------------------------------------------- third-party data

JUNK = [b"", b"junk", b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b'"text"', b"[1, 2, 3]", b'["a", "b", null]', b"{}"]


def test_what_others_write_into_counts_and_groups_is_left_out(server, valkey):
    load_v1(server)
    for number, junk in enumerate(JUNK):
        server.hset("embedway:v1:groups", f"group{number}", junk)
        server.hset("embedway:keyed:v1:groups", f"group{number}", junk)
        server.hset("embedway:v1:counts", junk, "7")
        server.hset("embedway:v1:counts", json.dumps(["acme/m", f"count{number}"]), junk)
    server.hset("embedway:v1:groups", Group("acme/m", "x").id, json.dumps(["another", "x", ""]))
    server.hset("embedway:v1:counts", json.dumps(["acme/m", "damaged"]), "-5")
    server.hset("embedway:v1:counts", json.dumps(["large", "hits"]), b"9" * 17)
    server.hset("embedway:v1:counts", json.dumps(["half \ud800", "hits"]), b"1")

    async def main():
        async with AsyncEmbedder(config=config_for(valkey)) as embedder:
            stats = await embedder.cache.stats()
            cleared = await embedder.cache.clear()
            return stats, cleared

    stats, cleared = asyncio.run(main())
    assert set(stats.models) == {"acme/m", "text-embedding-3-small", "large", "half \ud800"}
    assert (stats.models["acme/m"].hits, stats.models["acme/m"].entries, stats.models["acme/m"].damaged) == (9, 9, 0)
    assert (cleared.before, cleared.after) == (10, 0)


def test_a_hash_without_end_is_read_in_part(server, valkey, monkeypatch):
    monkeypatch.setattr("embedway.cache.redis_server.MAX_FIELDS", 1000)
    for start in range(0, 20_000, 5000):
        fields = {json.dumps([f"m{n}", "hits"]): 1 for n in range(start, start + 5000)}
        server.hset("embedway:v1:counts", mapping=fields)

    async def main():
        cache = RedisCache(valkey)
        found = await cache.counts()
        await cache.aclose()
        return found

    assert 1000 <= len(asyncio.run(main())) <= 2001


def test_counts_that_others_spoiled_keep_no_other_from_being_counted(server, valkey):
    server.hset("embedway:v1:counts", mapping={'["m", "hits"]': "junk", '["m", "stored"]': str(2**63 - 1)})

    async def main():
        cache = RedisCache(valkey)
        told = await cache.add_counts({"m": {"hits": 1, "misses": 2, "stored": 3}})
        found = await cache.counts()
        await cache.aclose()
        return told, found["m"]

    assert asyncio.run(main()) == (True, {"misses": 2})
    server.set("embedway:v1:counts", "no hash")
    cache = RedisCache(valkey)

    async def refused():
        told = await cache.add_counts({"m": {"hits": 1}})
        await cache.aclose()
        return told

    assert asyncio.run(refused()) is False  # reported again later


@pytest.mark.parametrize("junk", [b"junk", b"-1", b"1e3", b"9" * 5000, b"", b"9223372036854775807", None])
def test_a_number_of_clearings_that_others_spoiled_fails_nothing_and_is_put_right(server, valkey, junk, clock):
    if junk is None:
        server.lpush("embedway:v1:cleared", "a list")
    else:
        server.set("embedway:v1:cleared", junk)

    async def main():
        async with (
            AsyncEmbedder(config=config_for(valkey)) as first,
            AsyncEmbedder(config=config_for(valkey)) as second,
        ):
            await first.embed(TEXTS, model="acme/m")
            await settle(first)
            cleared = await second.cache.clear()
            before = await store_of(second).generation()
            await second.cache.clear()
            after = await store_of(second).generation()
            return cleared, before, after

    cleared, before, after = asyncio.run(main())
    assert (cleared.before, cleared.after) == (10, 0)
    assert before is not None
    assert after is not None
    assert before != after


def value(stamp, entry=b"entry"):
    return struct.pack("<d", stamp) + entry


@pytest.mark.parametrize(
    ("held", "entry", "age"),
    [
        (value(math.nan), b"entry", 1e6),
        (value(math.inf), b"entry", 1e6),
        (value(-math.inf), b"entry", 1e6),
        (value(1e300), b"entry", 1e6),
        (value(1_000_100.0), b"entry", 0),
        (value(999_990.0), b"entry", 10),
        (b"short", b"", 1e6),
        (b"", b"", 1e6),
        (value(999_990.0, bytes(MAX_ENTRY_BYTES)), bytes(MAX_ENTRY_BYTES), 10),
        (value(999_990.0, bytes(MAX_ENTRY_BYTES + 1)), b"", 10),
        (value(999_990.0, bytes(30_000_000)), b"", 10),
    ],
    ids=lambda held: f"{held[:12]}, {len(held)} bytes" if isinstance(held, bytes) else str(held),
)
def test_values_of_any_kind_are_of_a_bounded_length_and_no_time_to_come(server, valkey, clock, held, entry, age):
    server.set(f"embedway:v1:{GROUP.id}:{KEY.hex()}", held)

    async def main():
        cache = RedisCache(valkey, clock=clock)
        found = await cache.get_many(GROUP, [KEY])
        await cache.aclose()
        return found

    ((found, stored_at),) = asyncio.run(main())
    assert found == entry
    assert clock.now - stored_at == age


def test_keys_that_others_made_are_counted_cleared_and_never_fail(server, valkey, clock):
    load_v1(server)
    names = {base64.b64decode(name).decode() for name in WRITTEN["keys"]}
    (start,) = {name.rpartition(":")[0] for name in names if name.count(":") == 3 and "6366cf5f2d4e1bd9" in name}
    group = Group("acme/m", "m@0b8050f8/16")
    assert start.endswith(group.id)
    server.set(f"{start}:no key at all", b"junk")
    server.set(f"{start}:{'é' * 40}", b"junk")
    server.set(f"{start}:{'0' * 64}", value(math.nan))
    server.lpush(f"{start}:{'1' * 64}", "a list")

    async def main():
        cache = RedisCache(valkey)
        held = {one.group: one.entries for one in await cache.group_sizes()}
        missing = await read_entries(cache, group, [b"\x11" * 32])
        aged = await cache.clear(CacheFilter(older_than_s=86_400 * 365 * 50))
        rest = await cache.clear(CacheFilter())
        troubles = cache.errors
        await cache.aclose()
        return held[group], missing, aged, rest, troubles

    held, missing, aged, rest, troubles = asyncio.run(main())
    assert (held, missing) == (8 + 4, [None])
    # Entries without a storage time count as the oldest.
    assert (aged, rest) == (4, 10)
    assert (troubles.failed_reads, troubles.failed_writes) == (0, 0)


def test_an_entry_without_end_leaves_the_memory_in_front_as_it_is(server, valkey):
    async def main():
        async with AsyncEmbedder(config=config_for(valkey, memory_mib=1)) as embedder:
            await embedder.embed(TEXTS, model="acme/m")
            await settle(embedder)
            cache = store_of(embedder)
            (held,) = await cache.group_sizes()
            names = list(server.scan_iter(f"embedway:v1:{held.group.id}:*"))
            server.set(names[0], bytes(5_000_000))
            forget_in_memory(cache.memory, bytes.fromhex(names[0].rsplit(b":", 1)[1].decode()))
            result = await embedder.embed(TEXTS, model="acme/m")
            await settle(embedder)
            again = await embedder.embed(TEXTS, model="acme/m")
            return (
                result.receipt.cache_hits,
                again.receipt.cache_hits,
                counters_of(embedder).damaged,
            )

    assert asyncio.run(main()) == (9, 10, 1)
    assert max(server.strlen(name) for name in server.scan_iter("embedway:v1:*:*")) < 1000


@pytest.mark.parametrize("lease", ["for ever", "for a year", "no text"])
def test_a_lease_of_another_program_blocks_no_process(server, valkey, lease):
    config = config_for(valkey)
    name = VersionOne(server).name("text 0", "embedway:lease:")
    if lease == "no text":
        server.lpush(name, "a list")
    else:
        server.set(name, b"nobody", px=None if lease == "for ever" else 365 * 86_400_000)

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            return await embedder.embed(["text 0"], model="acme/m")

    result = asyncio.run(asyncio.wait_for(main(), 20))
    np.testing.assert_allclose(result.vectors[0], vector_of("text 0", 16), atol=1e-6)


# ---------------------------------------------------------------- time to live


@pytest.mark.parametrize(
    ("backend", "ttl_s", "expected"),
    [
        ("redis", None, 86_400.0),
        ("redis", "never", None),
        ("redis", 7.5, 7.5),
        ("sqlite", None, None),
        ("memory", None, None),
        ("sqlite", "never", None),
        ("sqlite", 7.5, 7.5),
    ],
)
def test_entries_in_redis_live_for_a_day_unless_it_is_set(backend, ttl_s, expected):
    overrides = {"cache.backend": backend} | ({} if ttl_s is None else {"cache.ttl_s": ttl_s})
    assert Config.load(environ={}, overrides=overrides).cache.lifetime_s == expected


@pytest.mark.parametrize("written", ["never", "86400.5"])
def test_the_time_to_live_is_read_from_a_variable(written):
    config = Config.load(environ={"EMBEDWAY_CACHE__TTL_S": written, "EMBEDWAY_CACHE__BACKEND": "redis"})
    assert config.cache.lifetime_s == (None if written == "never" else 86400.5)


@pytest.mark.parametrize("wrong", [0, -1, "soon", True])
def test_a_wrong_time_to_live_is_an_error(wrong):
    with pytest.raises(ConfigError, match="ttl_s"):
        Config.load(environ={}, overrides={"cache.ttl_s": wrong})


@pytest.mark.parametrize("ttl_s", [None, "never", 600.0])
def test_the_server_expires_entries(server, valkey, ttl_s):
    async def main():
        more = {} if ttl_s is None else {"ttl_s": ttl_s}
        async with AsyncEmbedder(config=config_for(valkey, **more)) as embedder:
            await embedder.embed(["first"], model="acme/m")

    asyncio.run(main())
    times = [server.pttl(name) for name in server.scan_iter("embedway:v1:*:*")]
    assert len(times) == 1
    longest = {None: 86_400_000, "never": -1, 600.0: 600_000}[ttl_s]
    assert times[0] == -1 if ttl_s == "never" else longest - 60_000 < times[0] <= longest


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("tiered", [False, True])
def test_a_hit_starts_the_time_to_live_again_if_that_is_set(server, valkey, refresh, tiered):
    async def main():
        config = config_for(valkey, ttl_s=600.0, refresh_on_hit=refresh, tiered=tiered)
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed(["first"], model="acme/m")
        (name,) = server.scan_iter("embedway:v1:*:*")
        server.pexpire(name, 60_000)
        async with AsyncEmbedder(config=config) as embedder:
            result = await embedder.embed(["first"], model="acme/m")
        assert result.receipt.cache_hits == 1
        assert (server.pttl(name) > 500_000) == refresh

    asyncio.run(main())
