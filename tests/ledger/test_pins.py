"""Pins: a collection keeps the space of its first write; one suite for every store."""

import asyncio
import contextlib
import json
import sqlite3

import pytest
import redis

from embedway.errors import LedgerError
from embedway.ledger.pins import RedisPins, SqlitePins, new_pin, read_pin
from embedway.types import Space

SMALL = Space("small", "service:small", 8, "service", normalized=True)
LARGE = Space("large", "service:large", 16, "service", normalized=True)


@pytest.fixture
def pins(kind, tmp_path, request):
    """Makes stores that share what lies behind."""
    if kind == "sqlite":
        return lambda: SqlitePins(tmp_path / "state" / "pins.sqlite")
    cluster = kind == "redis cluster"
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return lambda: RedisPins(url, cluster=cluster)


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
        assert await one.claim(mine) == mine
        assert await other.claim(theirs) == mine
        assert await other.get("docs") == mine
        assert await one.get("other") is None

    run(pins, work)


def test_a_claim_is_withdrawn_only_by_its_owner_and_only_before_a_write_succeeded(pins):
    async def work(one, other):
        mine, theirs = new_pin("docs", "small", SMALL, "a"), new_pin("docs", "small", SMALL, "b")
        await one.claim(mine)
        await other.withdraw(theirs)
        assert await one.get("docs") == mine
        await one.withdraw(mine)
        assert await one.get("docs") is None
        await one.claim(mine)
        await other.confirm("docs")  # a write beside the first one succeeded
        await one.withdraw(mine)
        held = await one.get("docs")
        assert held is not None
        assert (held.space, held.claim, held.model) == (SMALL, "", "small")

    run(pins, work)


def test_confirming_what_is_not_there_makes_nothing(pins):
    async def work(one, other):
        await one.confirm("docs")
        assert await other.all() == []
        assert not await one.remove("docs")

    run(pins, work)


def test_many_claims_at_once_agree(pins):
    async def work(one, other):
        claims = [new_pin("docs", f"m{n}", Space(f"m{n}", "w", 8, "mean", normalized=True), str(n)) for n in range(20)]
        held = await asyncio.gather(*((one, other)[n % 2].claim(claim) for n, claim in enumerate(claims)))
        assert len(set(held)) == 1

    run(pins, work)


def test_all_are_listed_by_name_and_one_is_forgotten(pins):
    async def work(one, other):
        for name in ("zebra", "ärger", "docs: {a}", "a b"):
            await one.claim(new_pin(name, "small", SMALL, "x"))
        assert [pin.collection for pin in await other.all()] == sorted(["zebra", "ärger", "docs: {a}", "a b"])
        assert await other.remove("docs: {a}")
        assert await one.get("docs: {a}") is None
        await one.claim(new_pin("docs: {a}", "large", LARGE, "x"))
        assert (await other.get("docs: {a}")).space == LARGE

    run(pins, work)


def test_a_pin_is_read_as_it_was_written():
    pin = new_pin("docs", "small", SMALL, "a")
    assert read_pin("docs", pin.written()) == pin


@pytest.mark.parametrize("written", ["", "{}", "[]", '{"model": "m", "space": {"x": 1}, "since": 1, "claim": ""}'])
def test_what_another_version_wrote_is_told(written):
    with pytest.raises(LedgerError, match=r"the pin of collection 'docs' cannot be read by this version"):
        read_pin("docs", written)


def test_a_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "pins.sqlite"
    path.write_bytes(b"this is no database at all" * 100)

    async def main():
        store = SqlitePins(path)
        with pytest.raises(LedgerError, match=r"pins\.sqlite cannot be used: .*set pins\.path"):
            await store.get("docs")
        await store.aclose()

    asyncio.run(main())
    assert path.read_bytes().startswith(b"this is no database")


def test_a_server_that_is_down_is_told():
    async def main():
        store = RedisPins("redis://127.0.0.1:1/0")
        with pytest.raises(LedgerError, match="the pins of collections in Redis cannot be used"):
            await store.get("docs")
        await store.aclose()

    asyncio.run(main())


def test_the_file_holds_what_others_can_read(tmp_path):
    async def main():
        store = SqlitePins(tmp_path / "pins.sqlite")
        await store.claim(new_pin("docs", "small", SMALL, "a"))
        await store.aclose()

    asyncio.run(main())
    with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite")) as connection:
        ((name, written),) = connection.execute("SELECT collection, pin FROM pins").fetchall()
    assert name == "docs"
    assert json.loads(written)["space"]["id"] == SMALL.id
