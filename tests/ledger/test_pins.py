"""Pins: a collection keeps the space of its first write. One suite for every store."""

import asyncio
import contextlib
import itertools
import json
import logging
import sqlite3

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import AuthenticationError, ConfigError, LedgerError, SpaceMismatchError
from embedway.ledger.pins import new_pin, read_pin
from embedway.ledger.redis_pins import RedisPins
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.selection.collection_pins import CLAIM_S, CollectionPins
from embedway.selection.selector import ModelSelector
from embedway.types import Space
from inside import set_pin_store
from spaces import recorded

SMALL = Space("small", "service:small", 8, "service", normalized=True)
LARGE = Space("large", "service:large", 16, "service", normalized=True)


@pytest.fixture
def pins(kind, tmp_path, clock, request):
    """Return a function that makes stores over the same storage."""
    if kind == "sqlite":
        return lambda: SqlitePins(tmp_path / "state" / "pins.sqlite", clock=clock)
    cluster = kind == "redis cluster"
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return lambda: RedisPins(url, cluster=cluster, clock=clock)


def run(pins, work):
    async def whole():
        one, other = pins(), pins()
        try:
            return await work(one, other)
        finally:
            await one.aclose()
            await other.aclose()

    return asyncio.run(whole())


def test_the_first_claim_holds_for_everyone(pins):
    async def work(one, other):
        assert await one.get("docs") is None
        mine, theirs = new_pin("docs", "small", SMALL, "a"), new_pin("docs", "large", LARGE, "b")
        assert await one.claim(mine, 60) == mine
        assert await other.claim(theirs, 60) == mine
        assert await other.get("docs") == mine
        assert await one.get("other") is None

    run(pins, work)


def test_a_claim_is_withdrawn_only_by_its_owner_and_only_before_a_write_succeeded(pins):
    async def work(one, other):
        mine, theirs = new_pin("docs", "small", SMALL, "a"), new_pin("docs", "small", SMALL, "b")
        await one.claim(mine, 60)
        await other.withdraw(theirs)
        assert await one.get("docs") == mine
        await one.withdraw(mine)
        assert await one.get("docs") is None
        await one.claim(mine, 60)
        await other.confirm(mine)  # a concurrent write succeeded
        await one.withdraw(mine)
        held = await one.get("docs")
        assert held is not None
        assert (held.space, held.claim, held.model) == (SMALL, "", "small")

    run(pins, work)


def test_a_write_that_succeeded_pins_although_its_claim_is_gone(pins):
    async def work(one, other):
        mine = new_pin("docs", "small", SMALL, "a")
        await one.claim(mine, 60)
        await one.withdraw(mine)  # the owner of the claim failed; a write that joined it did not
        held = await other.confirm(mine)
        assert (held.space, held.claim) == (SMALL, "")
        assert await one.all() == [held]

    run(pins, work)


def test_of_two_spaces_the_first_write_that_succeeded_wins(pins):
    async def work(one, other):
        mine, theirs = new_pin("docs", "small", SMALL, "a"), new_pin("docs", "large", LARGE, "b")
        await one.claim(mine, 60)
        await one.withdraw(mine)
        assert await other.claim(theirs, 60) == theirs
        # A claim is not a write, so the completed write wins.
        assert (await one.confirm(mine)).space == SMALL
        assert (await other.confirm(theirs)).space == SMALL
        await other.withdraw(theirs)
        assert (await other.get("docs")).space == SMALL

    run(pins, work)


def test_the_claim_of_a_write_that_died_runs_out(pins, clock):
    async def work(one, other):
        dead, mine = new_pin("docs", "small", SMALL, "a"), new_pin("docs", "large", LARGE, "b")
        await one.claim(dead, 60)
        clock.now += 59
        assert await other.claim(mine, 60) == dead
        await other.renew(mine, 60)  # it does not own this claim
        await one.renew(dead, 60)
        clock.now += 59
        assert await other.claim(mine, 60) == dead
        clock.now += 2
        assert await one.get("docs") is None
        assert await one.all() == []
        assert not await one.remove("docs")
        assert await other.claim(mine, 60) == mine
        await one.withdraw(dead)
        assert await one.get("docs") == mine
        await other.confirm(mine)
        clock.now += 10**6
        assert (await one.get("docs")).space == LARGE

    run(pins, work)


def pins_of_collections(*, sleep):
    config = Config.load(environ={})
    return CollectionPins(config, ModelSelector(config), sleep=sleep)


WRITES = st.lists(st.tuples(st.sampled_from(["begin", "succeed", "fail", "late"]), st.integers(0, 4)), max_size=25)
NUMBERS = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WRITES)
def test_however_first_writes_interleave_a_collection_takes_one_space(pins, clock, steps):
    collection = f"docs {next(NUMBERS)}"

    async def work(one, other):
        stands_still = asyncio.Event()
        users = [pins_of_collections(sleep=lambda _: stands_still.wait()) for _ in range(2)]
        for user, store in zip(users, (one, other), strict=True):
            set_pin_store(user, store)
        under_way, taken = {}, []
        for step, number in steps:
            user, space = users[number % 2], (SMALL, LARGE)[number // 2 % 2]
            if step == "late":
                clock.now += CLAIM_S + 1
            elif step == "begin" and number not in under_way:
                pin, mine = await one.get(collection), False
                if pin is None:
                    pin, mine = await user.claim(collection, space.model, space)
                if pin.space.id == space.id:
                    writing = user.hold(pin, own=mine)
                    under_way[number] = writing, await writing.__aenter__(), space
            elif step in {"succeed", "fail"} and number in under_way:
                writing, write, space = under_way.pop(number)
                write.has_vectors = step == "succeed"
                with contextlib.suppress(SpaceMismatchError):
                    await writing.__aexit__(None, None, None)
                    taken += [space.id] * write.has_vectors
            pin = await other.get(collection)
            assert len(set(taken)) <= 1
            assert not taken or (pin.space.id, pin.claim) == (taken[0], "")
        for writing, _, _ in under_way.values():
            await writing.__aexit__(None, None, None)

    run(pins, work)


def test_a_claim_is_kept_while_its_write_is_under_way(pins, clock, caplog):
    async def work(one, other):
        slept, go = asyncio.Queue(), asyncio.Queue()

        async def sleep(seconds):
            clock.now += seconds
            await slept.put(seconds)
            await go.get()

        user = pins_of_collections(sleep=sleep)
        set_pin_store(user, one)
        pin, mine = await user.claim("docs", "small", SMALL)
        async with user.hold(pin, own=mine) as write:
            for _ in range(9):
                await slept.get()
                assert await other.get("docs") == pin
                go.put_nowait(None)
            await slept.get()
            write.has_vectors = True
        assert (await other.get("docs")).claim == ""

    caplog.set_level(logging.WARNING, "embedway.pins")
    run(pins, work)
    assert not caplog.records


def test_many_claims_at_once_agree(pins):
    async def work(one, other):
        claims = [new_pin("docs", f"m{n}", Space(f"m{n}", "w", 8, "mean", normalized=True), str(n)) for n in range(20)]
        held = await asyncio.gather(*((one, other)[n % 2].claim(claim, 60) for n, claim in enumerate(claims)))
        assert len(set(held)) == 1

    run(pins, work)


def test_all_are_listed_by_name_and_one_is_forgotten(pins):
    async def work(one, other):
        for name in ("zebra", "ärger", "docs: {a}", "a b"):
            await one.claim(new_pin(name, "small", SMALL, "x"), 60)
        assert [pin.collection for pin in await other.all()] == sorted(["zebra", "ärger", "docs: {a}", "a b"])
        assert await other.remove("docs: {a}")
        assert await one.get("docs: {a}") is None
        await one.claim(new_pin("docs: {a}", "large", LARGE, "x"), 60)
        assert (await other.get("docs: {a}")).space == LARGE

    run(pins, work)


def test_a_pin_is_read_as_it_was_written():
    pin = new_pin("docs", "small", SMALL, "a")
    assert read_pin("docs", pin.written()) == pin


@pytest.mark.parametrize("written", ["", "{}", "[]", '{"model": "m", "space": {"x": 1}, "since": 1, "claim": ""}'])
def test_a_pin_of_another_version_is_an_error(written):
    with pytest.raises(LedgerError, match=r"the pin of collection 'docs' cannot be read by this version"):
        read_pin("docs", written)


def test_a_file_that_is_not_a_database_is_an_error(tmp_path):
    path = tmp_path / "pins.sqlite"
    path.write_bytes(b"this is no database at all" * 100)

    async def main():
        store = SqlitePins(path)
        with pytest.raises(ConfigError, match=r"pins\.sqlite: pins\.path: is not a file of embedway's pins"):
            await store.get("docs")
        await store.aclose()

    asyncio.run(main())
    assert path.read_bytes().startswith(b"this is no database")


def test_a_server_that_is_down_is_an_error():
    async def main():
        store = RedisPins("redis://127.0.0.1:1/0")
        with pytest.raises(LedgerError, match=r"in Redis at 127\.0\.0\.1:1 cannot be used: .*: start the server"):
            await store.get("docs")
        await store.aclose()

    asyncio.run(main())


def test_the_file_holds_what_others_can_read(tmp_path):
    async def main():
        store = SqlitePins(tmp_path / "pins.sqlite")
        await store.claim(new_pin("docs", "small", SMALL, "a"), 60)
        await store.aclose()

    asyncio.run(main())
    with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite")) as connection:
        ((name, written),) = connection.execute("SELECT collection, pin FROM pins").fetchall()
    assert name == "docs"
    assert json.loads(written)["space"]["id"] == SMALL.id


# ------------------------------------------------------------- in the engine


class GroupSize(OpenAIServer):
    """Answers on command, and refuses the key of a request that says so."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.refuse, self.answer_all = asyncio.Event(), asyncio.Event()
        self.one, self.both = asyncio.Event(), asyncio.Event()
        self.held = 0

    async def handle(self, request):
        texts = (await request.json())["input"]
        self.held += 1
        (self.one if self.held == 1 else self.both).set()
        if texts == ["will fail"]:
            await self.refuse.wait()
            self.misdeeds = ["401"]
        else:
            await self.answer_all.wait()
        return await super().handle(request)


@contextlib.asynccontextmanager
async def embedders(tmp_path):
    small, large = GroupSize(1536), GroupSize(3072)
    async with small.running(), large.running():
        overrides = {
            f"routes.{name}": {
                "model": f"text-embedding-3-{name}",
                "provider": "openai",
                "base_url": f"{server.url}/v1",
                "api_key": KEY,
            }
            for name, server in (("small", small), ("large", large))
        }
        overrides |= {"cache.backend": "none", "pins.path": str(tmp_path / "pins.sqlite")}
        config = Config.load(environ={}, overrides=overrides)
        async with AsyncEmbedder(config=config) as one, AsyncEmbedder(config=config) as other:
            yield one, other, small, large


def test_a_write_that_joined_a_claim_that_failed_pins_its_space(tmp_path):
    async def main():
        async with embedders(tmp_path) as (one, other, small, large):
            first = asyncio.create_task(one.embed(["will fail"], model="text-embedding-3-small", collection="docs"))
            await small.one.wait()
            second = asyncio.create_task(other.embed(["a text"], model="text-embedding-3-small", collection="docs"))
            await small.both.wait()
            with pytest.raises(SpaceMismatchError, match="is being written for the first time") as caught:
                await other.embed(["a text"], model="text-embedding-3-large", collection="docs")
            assert caught.value.claimed
            small.refuse.set()
            with pytest.raises(AuthenticationError):
                await first
            small.answer_all.set()
            space = (await second).space
            assert [(pin.space, pin.claim) for pin in await one.pins.list()] == [(recorded(space), "")]
            with pytest.raises(SpaceMismatchError, match="contains vectors of the space"):
                await one.embed(["a text"], model="text-embedding-3-large", collection="docs")
            assert not large.bodies

    asyncio.run(main())


def test_vectors_are_not_handed_out_where_another_space_was_first_after_all(tmp_path):
    async def main():
        async with embedders(tmp_path) as (one, other, small, large):
            first = asyncio.create_task(one.embed(["will fail"], model="text-embedding-3-small", collection="docs"))
            await small.one.wait()
            second = asyncio.create_task(other.embed(["a text"], model="text-embedding-3-small", collection="docs"))
            await small.both.wait()
            small.refuse.set()
            with pytest.raises(AuthenticationError):
                await first
            large.answer_all.set()
            third = await one.embed(["a text"], model="text-embedding-3-large", collection="docs")
            small.answer_all.set()
            with pytest.raises(SpaceMismatchError, match="contains vectors of the space text-embedding-3-large"):
                await second
            assert [pin.space for pin in await one.pins.list()] == [recorded(third.space)]

    asyncio.run(main())


def test_facts_that_a_pin_lacks_are_learned_once_and_only_by_the_pin_that_was_read(pins):
    old = Space("m", "ab" * 32, 8, "mean", normalized=True)
    known = Space("m", "ab" * 32, 8, "mean", normalized=True, tokenizer="cd" * 32, config="ef" * 32)

    async def work(one, other):
        await one.claim(new_pin("docs", "m", old, "a"), 60)
        claimed = await one.get("docs")
        assert not await one.learn(claimed, known)
        await one.confirm(claimed)
        pin = await other.get("docs")
        assert await one.learn(pin, known)
        learned = await other.get("docs")
        assert (learned.space.tokenizer, learned.space.config) == (known.tokenizer, known.config)
        assert (learned.space.id, learned.model, learned.since) == (old.id, pin.model, pin.since)
        # Learned by another caller in the meantime, or forgotten.
        assert not await other.learn(pin, known)
        await one.remove("docs")
        assert not await one.learn(learned, known)
        assert await one.get("docs") is None

    run(pins, work)
