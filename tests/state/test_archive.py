"""An archive is untrusted: any content gives a clear error, and nothing is restored in part."""

import asyncio
import contextlib
import hashlib
import json
import random
import sqlite3
import struct
import zipfile

import pytest
import redis

from embedway.errors import EmbedwayError, LedgerError, StateError, UsageError
from embedway.state.backup import back_up, restore


@pytest.fixture
def archive(place, tmp_path):
    """Return the parts of a backup of the current state, and the state."""
    place.fill()
    with zipfile.ZipFile(back_up(place.parts, tmp_path / "good.zip").file) as good:
        parts = {name: good.read(name) for name in good.namelist()}
    place.spend(1000)
    return parts, place.look()


def packed(path, contents, *, manifest=None, also=(), **changes):
    """Write an archive of parts, with a valid manifest except for the given changes."""
    facts = json.loads(contents["manifest.json"])
    rest = {name: data for name, data in contents.items() if name != "manifest.json"}
    facts["parts"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in rest.items()
    }
    facts.update(changes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (*rest.items(), *also):
            archive.writestr(name, data)
        archive.writestr("manifest.json", json.dumps(facts) if manifest is None else manifest)
    return path


def refused(place, file, before, match, error=StateError):
    with pytest.raises(error, match=match):
        restore(place.parts, file, overwrite=True)
    assert place.look() == before
    assert not list(place.folder.glob("state-before-*"))


MANIFESTS = [
    ({"manifest": b"{"}, "is not a backup of embedway's state"),
    ({"manifest": b"[]"}, "is not a backup of embedway's state"),
    ({"manifest": b"[" * 50_000}, "is not a backup of embedway's state"),
    ({"manifest": b" " * 70_000}, "it has no manifest"),
    ({"format": "other"}, "is not a backup of embedway's state"),
    ({"version": 2}, "has version 2, and this embedway supports versions up to 1: use the newer"),
    ({"version": "1"}, "is not a backup of embedway's state"),
    ({"created": "yesterday"}, "is not a backup of embedway's state|manifest that cannot be read"),
    ({"created": 5}, "manifest that cannot be read"),
    ({"parts": {}}, "does not contain the parts that its manifest lists"),
    ({"parts": []}, "manifest that cannot be read"),
    ({"parts": {"trust.json": 5}}, "manifest that cannot be read"),
]


@pytest.mark.parametrize(("changes", "match"), MANIFESTS)
def test_a_wrong_manifest(files, tmp_path, changes, match):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {name: good.read(name) for name in good.namelist()}
    refused(files, packed(tmp_path / "bad.zip", parts, **changes), files.look(), match)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "ledger.sqlite/../x", "more.json", "état"])
def test_a_part_of_another_name(files, tmp_path, name):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    bad = packed(tmp_path / "bad.zip", {**parts, name: b"evil"})
    refused(files, bad, files.look(), "contains a part that this embedway does not support|does not contain the parts")
    assert not list(tmp_path.rglob("*evil*"))


def test_a_part_that_the_manifest_does_not_list(files, tmp_path):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    bad = packed(tmp_path / "bad.zip", parts, also=[("batches.sqlite", b"x")])
    refused(files, bad, files.look(), "does not contain the parts that its manifest lists")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_twice(files, tmp_path):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    bad = packed(tmp_path / "bad.zip", parts, also=[("trust.json", parts["trust.json"])])
    refused(files, bad, files.look(), "contains a part twice")


def test_a_part_that_is_compressed_could_be_a_bomb(files, tmp_path):
    files.fill()
    before = files.look()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("ledger.sqlite", bytes(50_000_000))
        bomb.writestr("manifest.json", "{}")
    assert (tmp_path / "bomb.zip").stat().st_size < 60_000
    refused(files, tmp_path / "bomb.zip", before, "contains compressed or encrypted parts")


def test_parts_that_claim_to_be_larger_than_the_archive(files, tmp_path):
    files.fill()
    file = back_up(files.parts, tmp_path / "good.zip").file
    data, size = file.read_bytes(), len(file.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x05\x06"))
    claimed = bytearray(data)
    claimed[entry + 20 : entry + 28] = struct.pack("<II", size * 100, size * 100)
    file.write_bytes(claimed)
    refused(files, file, files.look(), "compressed or encrypted|is not a backup")


@pytest.mark.parametrize("what", ["missing", "folder", "empty", "text", "cut"])
def test_what_is_no_archive(files, tmp_path, what):
    files.fill()
    file = tmp_path / "file.zip"
    good = back_up(files.parts, tmp_path / "good.zip").file.read_bytes()
    if what == "folder":
        file.mkdir()
    elif what != "missing":
        file.write_bytes({"empty": b"", "text": b"my only copy", "cut": good[: len(good) // 2]}[what])
    refused(files, file, files.look(), r"file\.zip: (cannot be read|is not a regular file|is not a backup)")


def test_a_part_with_another_sum(files, tmp_path):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    facts = json.loads(parts["manifest.json"])["parts"]
    for name, field, value in (("ledger.sqlite", "sha256", "0" * 64), ("pins.sqlite", "bytes", 5)):
        wrong = {**facts, name: {**facts[name], field: value}}
        bad = packed(tmp_path / "bad.zip", parts, parts=wrong)
        refused(files, bad, files.look(), f"{name} is damaged: its size or sha256 does not match the manifest")


def test_any_byte_changed(files, tmp_path):
    """Either the change has no effect, or there is a clear error and nothing is restored."""
    files.fill()
    good = back_up(files.parts, tmp_path / "good.zip").file.read_bytes()
    files.spend(1000)
    before, chance, file = files.look(), random.Random(5), tmp_path / "bad.zip"
    heads = [at for at in range(len(good) - 1) if good[at : at + 2] == b"PK"]
    places = [*(at + chance.randrange(46) for at in heads for _ in range(20)), *chance.sample(range(len(good)), 100)]
    told = 0
    for place in places:
        bad = bytearray(good)
        bad[min(place, len(good) - 1)] ^= 1 << chance.randrange(8)
        file.write_bytes(bad)
        with contextlib.suppress(StateError, UsageError):
            restore(files.parts, file)
            pytest.fail("state already exists")
        try:
            restore(files.parts, file, overwrite=True)
        except EmbedwayError:
            told += 1
            assert files.look() == before
        else:
            # The changed byte has no effect on the state; it belongs to a date, for example.
            asyncio.run(confirmed(files))
            files.spend(1000)
            before = files.look()
    assert told > len(places) / 2


async def confirmed(place):
    ledger = place.ledger()
    try:
        return await ledger.confirm()
    finally:
        await ledger.aclose()


# ------------------------------------------------------------- databases


def changed(data, path, *statements):
    """Return the bytes of a database after some statements."""
    path.write_bytes(data)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path.read_bytes()


BAD_LEDGERS = [
    ("CREATE TRIGGER evil AFTER INSERT ON entries BEGIN DELETE FROM limits; END", "is not a file|more than tables"),
    ("CREATE VIEW evil AS SELECT * FROM limits", "is not a file|more than tables"),
    ("CREATE TABLE evil (x)", "other tables"),
    ("ALTER TABLE limits ADD COLUMN evil TEXT", "other tables"),
    ("CREATE INDEX evil ON entries (model)", "other tables"),
    ("DROP TABLE accounts", "other tables"),
    ("PRAGMA user_version = 4", "has version 4, and this embedway supports versions up to 3"),
    ("PRAGMA application_id = 1700221033", "is not a file of embedway's ledger"),
    ("PRAGMA application_id = 5", "is not a file of embedway's ledger"),
    ("UPDATE entries SET spent = 'much'", "invalid rows"),
    ("UPDATE entries SET reserved = 1.5", "invalid rows"),
    ("UPDATE accounts SET held = x'00'", "invalid rows"),
    ("UPDATE entries SET state = 'free'", "invalid entries"),
    ("UPDATE entries SET opened = 9e999", "invalid entries"),
    ("UPDATE entries SET opened = -1", "invalid entries"),
    ("UPDATE entries SET lease_until = 1e300", "invalid entries"),
    ("UPDATE limits SET warn_at = '['", "invalid rows"),
    ("UPDATE limits SET warn_at = '[\"x\"]'", "invalid amount"),
    ("UPDATE limits SET period = 'century'", "cannot be used: .*period is 'century'"),
    ("UPDATE limits SET nanousd = -5", "invalid rows"),
    ("UPDATE limits SET name = NULL", "invalid rows"),
    ("UPDATE limits SET hard = 2", "invalid rows"),
    ("UPDATE entries SET id = NULL WHERE rowid = 1", "invalid rows"),
    ("UPDATE entries SET model = CAST(x'ff' AS TEXT)", "invalid rows"),
    ("UPDATE accounts SET scope = CAST(x'ff' AS TEXT) WHERE rowid = 1", "invalid rows"),
    ("UPDATE accounts SET spent = -9000000000000000000", "invalid rows"),
    ("UPDATE accounts SET held = -1", "invalid rows"),
    ("UPDATE accounts SET saved = 9223372036854775807", "invalid rows"),
    ("UPDATE entries SET sent = -1", "invalid rows"),
    ("UPDATE entries SET unsure = -1", "invalid rows"),
    ("INSERT INTO meta VALUES (NULL, 'x')", "invalid rows"),
    ("INSERT INTO meta VALUES ('restored', '[]')", "cannot be used"),
    ("UPDATE records SET document = 'text'", "invalid rows"),
    ("UPDATE records SET document = x'00'", "cannot be used: .*record 'docs | ü' in the backup is damaged"),
    ("UPDATE records SET document = x'789c030000000001'", "invalid rows"),
    ("UPDATE records SET kind = 'other'", "invalid records"),
    ("UPDATE records SET name = ''", "invalid records"),
    ("UPDATE records SET changed = 1e300", "invalid records"),
    ("UPDATE records SET changed = 'now'", "invalid rows"),
    ("INSERT INTO leases VALUES ('baseline', 'docs', 'now', 1)", "invalid rows"),
]


@pytest.mark.parametrize(("statement", "match"), BAD_LEDGERS)
def test_a_ledger_that_is_not_what_it_should_be(files, tmp_path, statement, match):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    files.spend(1000)
    bad = {**parts, "ledger.sqlite": changed(parts["ledger.sqlite"], tmp_path / "work", statement)}
    refused(files, packed(tmp_path / "bad.zip", bad), files.look(), rf"ledger\.sqlite .*({match})")


def test_pins_and_trust_that_are_not_what_they_should_be(files, tmp_path):
    files.fill()
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    before = files.look()
    pins = changed(parts["pins.sqlite"], tmp_path / "work", "UPDATE pins SET pin = '{\"version\": 9}'")
    nameless = changed(parts["pins.sqlite"], tmp_path / "work", "UPDATE pins SET collection = NULL")
    for name, data, match in (
        ("pins.sqlite", pins, "has version 9"),
        ("pins.sqlite", nameless, "invalid rows"),
        ("pins.sqlite", parts["ledger.sqlite"], "is not a file of embedway's pins"),
        ("pins.sqlite", parts["pins.sqlite"][:5000], "is not a file|is a damaged database"),
        ("pins.sqlite", b"", "is empty"),
        ("trust.json", b"{}", "is not a file of embedway's trust"),
        ("trust.json", b"[" * 100_000, "is damaged"),
        ("trust.json", b"\xff\xfe", "is damaged"),
        ("trust.json", b'{"format": "embedway trust", "version": 2}', "has version 2"),
        ("trust.json", b'{"format": "embedway trust", "version": true, "files": {}}', "is damaged"),
        ("trust.json", b'{"format": "embedway trust", "version": 1}', "is damaged"),
        ("trust.json", b'{"format": "embedway trust", "version": 1, "files": null}', "is damaged"),
        ("trust.json", b'{"format": "embedway trust", "version": 1, "files": {"/a": null}}', "is damaged"),
        ("trust.json", b'{"format": "mine", "version": 1}', "is not a file of embedway's trust"),
    ):
        refused(files, packed(tmp_path / "bad.zip", {**parts, name: data}), before, rf"{name} .*({match})")


def test_a_ledger_with_damaged_pages(files, tmp_path):
    files.fill()
    for _ in range(40):
        files.spend(1)
    with zipfile.ZipFile(back_up(files.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    before, chance = files.look(), random.Random(2)
    data = parts["ledger.sqlite"]
    for _ in range(20):
        bad = bytearray(data)
        start = chance.randrange(4096, len(data) - 300)
        bad[start : start + 300] = chance.randbytes(300)
        file = packed(tmp_path / "bad.zip", {**parts, "ledger.sqlite": bytes(bad)})
        try:
            restore(files.parts, file, overwrite=True)
        except StateError:
            assert files.look() == before
        else:
            # Free space, or names in rows: the accounts are unchanged.
            asyncio.run(confirmed(files))
            assert files.look()["totals"] == before["totals"]


# ------------------------------------------------------------- state of a server


def entry(keys):
    return next(one for one in keys if ":entry:" in one[0])


def field(keys, key, name, value):
    one = next(one for one in keys if one[0].endswith(key))
    one[2][one[2].index(name) + 1] = value


def every_score(keys, value):
    (one,) = [one for one in keys if one[0].endswith(":all")]
    one[2][1::2] = [value] * (len(one[2]) // 2)


BAD_SERVERS = [
    (lambda keys: keys.append(["other:key", "hash", ["a", "b"]]), "invalid values"),
    (lambda keys: keys.append(["{embedway:ledger}:more", "hash", ["a", "b"]]), "invalid values"),
    (lambda keys: keys.append(["{embedway:ledger}:format", "string", ["3"]]), "invalid values"),
    (lambda keys: keys.append(list(keys[0])), "a key twice"),
    (
        lambda keys: keys.append(["{embedway:ledger}:entry:" + "0" * 32, "hash", list(entry(keys)[2])]),
        "invalid values",
    ),
    (lambda keys: keys.remove(entry(keys)), "invalid values"),
    (lambda keys: entry(keys)[2].append("odd"), "invalid values"),
    (lambda keys: entry(keys)[2].extend(["more", "1"]), "invalid values"),
    (lambda keys: entry(keys)[2].extend(["tokens", "1e5"]), "invalid values"),
    (lambda keys: entry(keys)[2].extend(["tokens", 5]), "invalid values"),
    (lambda keys: every_score(keys, "inf"), "invalid values"),
    (lambda keys: every_score(keys, "nan"), "invalid values"),
    (lambda keys: keys.__setitem__(0, [keys[0][0], "list", ["a"]]), "invalid values"),
    (lambda keys: keys.__setitem__(0, 5), "invalid values"),
    (lambda keys: field(keys, ":limits", "alle €", "{"), "invalid values"),
    (lambda keys: field(keys, ":limits", "alle €", "{}"), "invalid values"),
    (lambda keys: field(keys, ":limits", "day", '{"name": "alle €"}'), "invalid values"),
    (lambda keys: field(keys, ":accounts", "*|total|spent", "much"), "invalid values"),
    (lambda keys: keys.append(["{embedway:ledger}:meta", "hash", ["restored", "{}"]]), "cannot be used"),
    (lambda keys: every_score(keys, "1_795_435_200"), "invalid values"),
    (lambda keys: every_score(keys, " 1795435200 "), "invalid values"),
    (lambda keys: every_score(keys, "\u0661\u0667"), "invalid values"),
    (lambda keys: field(keys, ":accounts", "*|total|spent", "\u0661\u0667"), "invalid values"),
    (lambda keys: field(keys, ":accounts", "*|total|spent", "-5"), "invalid values"),
    (lambda keys: field(keys, ":accounts", "*|total|held", "-5"), "invalid values"),
    (lambda keys: entry(keys)[2].extend(["unsure", "-5"]), "invalid values"),
    (lambda keys: entry(keys)[2].extend(["closed", "1_795_435_200"]), "invalid values"),
    (lambda keys: entry(keys)[2].__setitem__(entry(keys)[2].index("docs"), "\ud800"), "invalid values"),
    (lambda keys: limit_with(keys, '"10000"', '"1_0000"'), "invalid values"),
    (lambda keys: limit_with(keys, '"10000"', "true"), "invalid values"),
    (lambda keys: limit_with(keys, '"*"', '"model:\\ud800"'), "invalid values"),
    (lambda keys: limit_with(keys, "[1]", "[-1]"), "invalid limits"),
    (lambda keys: limit_with(keys, '"hard"', '"x": NaN, "hard"'), "invalid values"),
    (lambda keys: field(keys, ":records", "baseline|docs | ü", "e30="), "record 'docs | ü' in the backup is damaged"),
    (lambda keys: field(keys, ":records", "baseline|docs | ü", "ü"), "record 'docs | ü' in the backup is damaged"),
    (lambda keys: field(keys, ":changed", "baseline|docs | ü", "now"), "invalid values"),
    (lambda keys: next(one for one in keys if one[0].endswith(":changed"))[2].clear(), "invalid values"),
    (lambda keys: next(one for one in keys if one[0].endswith(":records"))[2].clear(), "invalid values"),
    (lambda keys: kind_of_records(keys, "other|docs"), "invalid records"),
    (lambda keys: kind_of_records(keys, "baseline|"), "invalid records"),
    (lambda keys: keys.append(["{embedway:ledger}:leases", "hash", ["baseline|docs", "1 1"]]), "invalid values"),
]


def kind_of_records(keys, field):
    for one in keys:
        if one[0].endswith((":records", ":changed")):
            one[2][0] = field


def limit_with(keys, before, after):
    limits = next(one for one in keys if one[0].endswith(":limits"))[2]
    at = limits.index("alle €") + 1
    assert before in limits[at]
    limits[at] = limits[at].replace(before, after)


@pytest.mark.parametrize(("change", "match"), BAD_SERVERS)
def test_a_ledger_of_a_server_that_is_not_what_it_should_be(server, tmp_path, change, match):
    server.fill()
    with zipfile.ZipFile(back_up(server.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    server.spend(1000)
    document = json.loads(parts["ledger.redis.json"])
    change(document["keys"])
    bad = {**parts, "ledger.redis.json": json.dumps(document).encode()}
    refused(server, packed(tmp_path / "bad.zip", bad), server.look(), rf"ledger\.redis\.json .*({match})")


BAD_PINS = [
    lambda keys: keys[1][2].__setitem__(1, "1_795_435_200"),
    lambda keys: keys[0][2].__setitem__(0, "\ud800"),
    lambda keys: keys[0][2].__setitem__(1, keys[0][2][1].replace('"model": "small"', '"model": "\\ud800"', 1)),
    lambda keys: keys[0][2].__setitem__(1, keys[0][2][1].replace('"model": "small"', '"model": ["small"]', 1)),
]


@pytest.mark.parametrize("change", BAD_PINS)
def test_pins_of_a_server_that_are_not_what_they_should_be(server, tmp_path, change):
    server.fill()
    with zipfile.ZipFile(back_up(server.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    document = json.loads(parts["pins.redis.json"])
    change(document["keys"])
    bad = {**parts, "pins.redis.json": json.dumps(document).encode()}
    refused(
        server, packed(tmp_path / "bad.zip", bad), server.look(), r"pins\.redis\.json .*(invalid values|cannot be read)"
    )


UNREADABLE = [
    ("ledger", "{embedway:ledger}:all", "zset", ["0" * 32, "1_795_435_200"]),
    ("ledger", "{embedway:ledger}:accounts", "hash", ["*|total|spent", "-5"]),
    ("ledger", "{embedway:ledger}:limits", "hash", ["all", "{"]),
    ("ledger", "{embedway:ledger}:warned", "hash", ["\ud800", "50"]),
    ("ledger", "{embedway:ledger}:warned", "list", ["a", "b"]),
    ("pins", "{embedway:pins}:until", "zset", ["docs", "soon"]),
    ("pins", "{embedway:pins}", "hash", ["docs", "{"]),
]


@pytest.mark.parametrize(("what", "key", "kind", "values"), UNREADABLE)
def test_the_server_itself_refuses_what_it_cannot_read_before_it_replaces_anything(server, what, key, kind, values):
    server.fill()
    before = server.look()
    (part,) = [one for one in server.parts if one.name == f"{what}.redis.json"]
    with part.begin() as transaction:
        assert not transaction.is_empty()
        transaction.wanted = {key: (kind, values)}
        with pytest.raises(LedgerError, match=f"{what} in Redis cannot be used"):
            transaction.commit()
    assert server.look() == before


@pytest.mark.parametrize("command", ["zadd", "hset", "rename"])
def test_a_server_that_refuses_a_command_midway_keeps_what_it_has(server, tmp_path, command):
    server.fill()
    file = back_up(server.parts, tmp_path / "good.zip").file
    server.spend(1000)
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        before, keys = server.look(), set(client.keys())
        client.execute_command("ACL", "SETUSER", "default", f"-{command}")
        try:
            with pytest.raises(EmbedwayError, match="cannot be used"):
                restore(server.parts, file, overwrite=True)
        finally:
            client.execute_command("ACL", "SETUSER", "default", f"+{command}")
        assert set(client.keys()) == keys
    assert server.look() == before


def test_a_server_s_part_of_a_newer_version_or_another_kind(server, tmp_path):
    server.fill()
    with zipfile.ZipFile(back_up(server.parts, tmp_path / "good.zip").file) as good:
        parts = {one: good.read(one) for one in good.namelist()}
    before = server.look()
    pins = json.loads(parts["pins.redis.json"])
    for name, data, match in (
        ("pins.redis.json", json.dumps({**pins, "version": 3}).encode(), "has version 3"),
        ("pins.redis.json", parts["ledger.redis.json"], "is not the pins of a server"),
        ("ledger.redis.json", b"null", "invalid values"),
        ("ledger.redis.json", b"[" * 100_000, "invalid values"),
    ):
        refused(server, packed(tmp_path / "bad.zip", {**parts, name: data}), before, rf"{name} .*({match})")


def test_all_parts_are_checked_before_any_is_touched(archive, place, tmp_path):
    parts, before = archive
    name = next(one for one in parts if one.startswith("pins"))
    refused(place, packed(tmp_path / "bad.zip", {**parts, name: b"broken"}), before, name)
