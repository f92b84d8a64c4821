"""API keys: their text, their values, and their records in every store."""

import asyncio
import contextlib
import json
import sqlite3
import time
from dataclasses import fields, replace

import pytest
import redis

from embedway.errors import LedgerError, UsageError
from embedway.ledger.records import Record
from embedway.ledger.redis_records import RedisRecords
from embedway.ledger.sqlite_records import SqliteRecords
from embedway.server.caller import Caller
from embedway.server.keys import (
    ApiKey,
    all_keys,
    digest_of,
    find_key,
    is_secret_of,
    new_key,
    parse_key,
    revoke_key,
    store_new_key,
)
from memory_records import MemoryRecords

RIGHTS = {
    "tenant": "acme",
    "models": ("a", "b"),
    "weight": 2.5,
    "max_priority": 3,
    "requests_per_minute": 60,
    "tokens_per_minute": 10_000,
    "admin": True,
}


def run(records, work):
    async def whole():
        try:
            return await work
        finally:
            await records.aclose()

    return asyncio.run(whole())


def test_a_text_has_an_id_and_a_secret_of_32_random_bytes():
    texts = [new_key("web") for _ in range(200)]
    assert len({key.id for key, _ in texts}) == len({text for _, text in texts}) == 200
    for key, text in texts:
        own_id, secret = parse_key(text)
        assert own_id == key.id
        assert len(secret) == 43
        assert is_secret_of(secret, bytes.fromhex(key.digest))
        assert not is_secret_of(secret[:-1] + ("A" if secret[-1] != "A" else "B"), bytes.fromhex(key.digest))


@pytest.mark.parametrize(
    "text",
    [
        *("", "ew_", "sk-123", "ew_123456789abc_short", f"ew_123456789abc_{'a' * 44}"),
        *(f"ew_123456789abc_{'a' * 43}\n", f" ew_123456789abc_{'a' * 43}"),
        *(f"ew_123456789ABC_{'a' * 43}", f"ew_123456789abc_{'é' * 43}"),
    ],
)
def test_other_texts_are_no_keys(text):
    assert parse_key(text) is None


def test_the_secret_is_in_no_repr_record_or_json():
    key, text = new_key("web", **RIGHTS)
    secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
    assert digest_of(secret).hex() == key.digest
    for shown in (repr(key), str(key), json.dumps(key.to_json()), repr(key.caller())):
        assert secret not in shown
        assert key.digest not in shown
    assert secret not in key.to_record().document
    assert secret not in repr(key.to_record())


def test_a_key_gives_every_right_of_a_caller():
    key, _ = new_key("web", **RIGHTS)
    caller = key.caller()
    assert caller == Caller(key_name="web", **RIGHTS)
    assert all(getattr(caller, one.name) != getattr(Caller(), one.name) for one in fields(Caller))
    assert new_key("web")[0].caller() == Caller(key_name="web")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "@a", "a/b", "a:b", "ä", "a" * 65, "a\n", "a\0"])
def test_names_are_checked(name):
    with pytest.raises(UsageError, match="is no name of a key: use 1 to 64 letters"):
        new_key(name)
    if name:
        with pytest.raises(UsageError, match="is no name of a tenant"):
            new_key("web", tenant=name)


@pytest.mark.parametrize(
    ("rights", "message"),
    [
        ({"models": ()}, "models must name"),
        ({"weight": 0.0}, "weight must be from 0.01 to 100"),
        ({"weight": float("nan")}, "weight must be"),
        ({"weight": float("inf")}, "weight must be"),
        ({"max_priority": 10}, "max_priority must be from 0 to 9"),
        ({"requests_per_minute": 0}, "requests_per_minute must be from 1"),
        ({"tokens_per_minute": 10**10}, "tokens_per_minute must be from 1"),
    ],
)
def test_rights_are_checked(rights, message):
    with pytest.raises(UsageError, match=message):
        new_key("web", **rights)


@pytest.mark.parametrize("rights", [{}, RIGHTS])
def test_a_record_is_read_as_it_was_written(rights):
    key, _ = new_key("web", **rights)
    assert ApiKey.from_record(key.to_record()) == key
    gone = replace(key, revoked=key.created + 1)
    assert ApiKey.from_record(gone.to_record()) == gone


def test_damaged_records_give_no_key():
    good = json.loads(new_key("web", **RIGHTS)[0].to_record().document)
    changes = [
        {name: None} for name in ("name", "id", "digest", "created", "tenant", "weight", "max_priority", "admin")
    ]
    changes += [{"version": 2}, {"version": True}, {"name": "other"}, {"id": "x"}, {"digest": "00"}, {"created": -1}]
    changes += [{"created": True}, {"models": "a"}, {"models": [1]}, {"models": []}, {"weight": "1"}, {"weight": 1e9}]
    changes += [{"max_priority": 1.5}, {"requests_per_minute": "60"}, {"revoked": "no"}, {"revoked": float("nan")}]
    documents = [json.dumps({**good, **change}) for change in changes]
    documents += ["", "[]", "null", "[" * 100_000, json.dumps({name: good[name] for name in good if name != "admin"})]
    for document in documents:
        assert ApiKey.from_record(Record("key", "web", document)) is None, document[:200]
    assert ApiKey.from_record(Record("key", "web", json.dumps({**good, "later": 1}))) is not None


@pytest.fixture(params=["sqlite", "redis", "memory"])
def records(request, tmp_path):
    """Return a function that opens the same records."""
    if request.param == "memory":
        memory = MemoryRecords()
        return lambda: memory
    if request.param == "sqlite":
        return lambda: SqliteRecords(tmp_path / "ledger.sqlite")
    url = request.getfixturevalue("valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return lambda: RedisRecords(url)


def test_a_key_is_stored_found_revoked_and_replaced(records):
    store = records()
    key, _ = new_key("web", **RIGHTS)
    later, _ = new_key("web")

    async def work():
        assert await all_keys(store) == ([], [])
        assert await store_new_key(store, key) is None
        assert await find_key(store, "web") == key
        with pytest.raises(UsageError, match="there is already a key 'web'"):
            await store_new_key(store, later)
        gone = await revoke_key(store, "web")
        assert gone.revoked == pytest.approx(time.time(), abs=60)
        assert replace(gone, revoked=None) == key
        assert await revoke_key(store, "web") == gone
        assert await all_keys(store) == ([gone], [])
        assert await store_new_key(store, later) == gone
        assert await all_keys(store) == ([later], [])
        for change in (find_key, revoke_key):
            with pytest.raises(UsageError, match="there is no key 'other'"):
                await change(store, "other")

    run(store, work())


def test_of_several_creators_of_one_name_one_wins(records):
    async def create():
        store = records()
        try:
            return await store_new_key(store, new_key("web")[0])
        finally:
            await store.aclose()

    async def work():
        done = await asyncio.gather(*(create() for _ in range(8)), return_exceptions=True)
        assert done.count(None) == 1
        for error in done:
            assert error is None or "already a key" in str(error) or "another process changes" in str(error)

    asyncio.run(work())


def test_an_unreadable_key_is_listed_and_can_be_revoked(records):
    store = records()

    async def work():
        await store_new_key(store, new_key("web")[0])
        await store.put(Record("key", "old", '{"version": 7}'))
        keys, unreadable = await all_keys(store)
        assert [key.name for key in keys] == ["web"]
        assert unreadable == ["old"]
        with pytest.raises(LedgerError, match="the key 'old' is damaged, or of a newer version"):
            await find_key(store, "old")
        assert await revoke_key(store, "old") is None
        assert (await all_keys(store))[1] == []

    run(store, work())


def test_the_file_has_no_secret(tmp_path):
    store, (key, text) = SqliteRecords(tmp_path / "ledger.sqlite"), new_key("web")
    run(store, store_new_key(store, key))
    secret = parse_key(text)[1]
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as file:
        assert file.execute("SELECT COUNT(*) FROM records WHERE kind = 'key'").fetchone() == (1,)
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in found
