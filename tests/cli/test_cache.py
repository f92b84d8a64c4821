"""`embedway cache stats|clear|verify`, as a user runs them."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import redis

from embedway import Config, Embedder
from embedway.cache.codec import decode, encode

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def ready_command(command, with_model):
    """Start a command that ends with `code`."""

    def start(*arguments, code=0, **options):
        done = command(*arguments, **options)
        assert done.code == code, done.stderr
        return done

    return start


LINES = [f"Paragraph {n} tells how to read the file {n}.csv and what it holds." for n in range(30)]


@pytest.fixture(scope="module")
def kept(weights_folder, tmp_path_factory):
    """Return a cache file with the vectors of 30 documents and a query."""
    path = tmp_path_factory.mktemp("kept") / "vectors.sqlite"
    overrides = {"weights.directory": str(weights_folder), "cache.path": str(path)}
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        embedder.embed(LINES)
        embedder.embed("how do I read a file", input_type="query")
    return path


@pytest.fixture
def cached(ready_command, place, environment, kept):
    """Return a runner of commands with these vectors in their cache."""
    (place / "rows.jsonl").write_text(
        "".join(json.dumps({"id": n, "text": line}) + "\n" for n, line in enumerate(LINES))
    )
    folder = Path(environment["HOME"], ".cache", "embedway")
    folder.mkdir(parents=True)
    shutil.copy(kept, folder)
    return ready_command


def stats(command):
    return command("cache", "stats", "--json").json


@pytest.mark.subprocess
def test_a_run_that_is_repeated_computes_nothing(cached):
    again = cached("run", "rows.jsonl", "--to", "again.parquet", "--json").json
    assert (again["cached"], again["chunks"]) == (30, 30)
    total = stats(cached)["total"]
    assert (total["entries"], total["hits"], total["misses"], total["stored"]) == (31, 30, 31, 31)
    assert total["tokens_saved"] == again["tokens"]
    assert total["hit_rate"] == pytest.approx(30 / 61)
    table = cached("cache", "stats").stdout
    assert MODEL in table
    assert "49.2%" in table


def test_vectors_that_a_codec_has_changed_are_told_of(ready_command, place):
    (place / "rows.jsonl").write_text('{"id": 1, "text": "a text"}\n')
    lossy = {"EMBEDWAY_CACHE__CODEC": "i8"}
    first = ready_command("run", "rows.jsonl", "--to", "one.parquet", "--json", variables=lossy).json
    second = ready_command("run", "rows.jsonl", "--to", "two.parquet", "--json", variables=lossy).json
    assert [(done["cached"], done["lossy"]) for done in (first, second)] == [(0, 0), (1, 1)]
    assert "1, 1 of them lossy" in ready_command("run", "rows.jsonl", "--to", "three.parquet", variables=lossy).stdout
    exact = ready_command("run", "rows.jsonl", "--to", "four.parquet", "--json").json
    assert (exact["cached"], exact["lossy"]) == (0, 0)


def test_without_a_cache_nothing_is_kept_and_asking_makes_no_file(ready_command):
    empty = ready_command("cache", "stats")
    assert "not created yet" in empty.stdout
    path = ready_command("cache", "clear", "--all", "--json").json
    assert path == {"before": 0, "after": 0}
    assert "not created yet" in ready_command("cache", "stats").stdout
    off = {"EMBEDWAY_CACHE__BACKEND": "none"}
    ready_command("embed", "text", variables=off)
    assert "not created yet" in ready_command("cache", "stats").stdout
    refused = ready_command("cache", "stats", variables=off, code=2)
    assert "cache.backend is none" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--model", "all-MiniLM-L6-v2"], 0),
        (["--model", MODEL, "--older-than", "1h"], 31),
        (["--older-than", "0s"], 0),
        (["--namespace", "tenant"], 31),
        (["--namespace", ""], 0),
        (["--all"], 0),
        (["--space", "nothing@1/2"], 31),
    ],
)
def test_clearing_tells_the_counts_before_and_after(cached, arguments, left):
    told = cached("cache", "clear", *arguments, "--json").json
    assert told["after"] == left or told == {"before": 0, "after": 0}
    assert stats(cached)["total"]["entries"] == left


def test_what_is_cleared_by_space(cached):
    space = cached("embed", "x", "--json").json["space"]["id"]
    words = cached("cache", "clear", "--space", space).stdout
    assert words == "32 vectors deleted: 32 before, 0 after\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "select the vectors to delete"),
        (["--all", "--model", MODEL], "select the vectors to delete"),
        (["--older-than", "soon"], "30d, 12h"),
        (["--model", "nobody"], f"cached models: {MODEL}"),
    ],
)
def test_wrong_clearing_clears_nothing(cached, arguments, words):
    refused = cached("cache", "clear", *arguments, code=2)
    assert words in refused.stderr
    assert stats(cached)["total"]["entries"] == 31


def test_verifying_computes_a_sample_anew(cached):
    told = cached("cache", "verify", "rows.jsonl", "--sample", "7", "--json").json
    assert (told["texts"], told["found"], told["recomputed"], told["damaged"]) == (30, 30, 7, 0)
    assert told["lowest_cosine"] > 0.9999
    query = cached("cache", "verify", "-", "--input-type", "query", stdin="how do I read a file\nnever asked\n")
    assert query.stdout.startswith("1 of 2 texts are in the cache\n1 recomputed: the lowest cosine is ")
    none = cached("cache", "verify", "-", "--input-type", "query", stdin="never asked\n")
    assert "nothing to compare" in none.stderr


def test_verifying_finds_a_foreign_vector(cached, place):
    (path,) = (place.parent / "home").rglob("vectors.sqlite")
    with sqlite3.connect(path) as database:
        (key, value), *_ = database.execute("SELECT key, value FROM entries ORDER BY id LIMIT 1 OFFSET 4").fetchall()
        vector = np.empty((1, 384), np.float32)
        (meta,) = decode([key], [value], 384, vector)
        (other,) = encode([key], np.roll(vector, 7, axis=1), [meta])
        database.execute("UPDATE entries SET value = ? WHERE key = ?", (other, key))
        damaged = bytearray(value)
        damaged[50] ^= 255
        database.execute("UPDATE entries SET value = ? WHERE id = 9", (bytes(damaged),))
    told = cached("cache", "verify", "rows.jsonl", "--json", code=1).json
    assert told["lowest_cosine"] < 0.9
    assert not told["same"]
    assert (told["found"], told["damaged"], told["recomputed"]) == (29, 1, 29)
    words = cached("cache", "verify", "rows.jsonl", code=1).stdout
    assert "1 entries are damaged" in words
    assert " differs; " in words


def test_vectors_that_cannot_be_right_are_told_by_verify_and_stats(cached, place):
    (path,) = (place.parent / "home").rglob("vectors.sqlite")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT key, value FROM entries ORDER BY id LIMIT 3").fetchall()
        for (key, value), number in zip(rows, (np.nan, np.inf, 0), strict=True):
            vector = np.empty((1, 384), np.float32)
            (meta,) = decode([key], [value], 384, vector)
            (bad,) = encode([key], vector * np.float32(number), [meta])
            database.execute("UPDATE entries SET value = ? WHERE key = ?", (bad, key))
    told = cached("cache", "verify", "rows.jsonl", "--json").json
    assert (told["found"], told["damaged"], told["same"]) == (27, 3, True)
    again = cached("run", "rows.jsonl", "--to", "again.parquet", "--json").json
    assert (again["cached"], again["chunks"]) == (27, 30)
    assert stats(cached)["total"]["invalid"] == 3
    assert "3 entries with invalid vectors" in cached("cache", "stats").stdout
    assert cached("cache", "verify", "rows.jsonl", "--json").json["damaged"] == 0


def test_a_secret_makes_entries_its_own(ready_command, place):
    (place / "rows.jsonl").write_text('{"id": 1, "text": "a text"}\n')
    (place / "secret").write_text("correct-horse-battery-staple\n")
    by_variable = {"EMBEDWAY_CACHE__SECRET": "correct-horse-battery-staple"}
    by_file = {"EMBEDWAY_CACHE__SECRET_FILE": str(place / "secret")}
    found = [
        ready_command("run", "rows.jsonl", "--to", f"{number}.parquet", "--json", variables=variables).json["cached"]
        for number, variables in enumerate([{}, by_variable, by_file, {}])
    ]
    assert found == [0, 0, 1, 1]
    refused = ready_command("cache", "stats", variables={"EMBEDWAY_CACHE__SECRET": "too-short"}, code=2)
    assert "must be at least 16 printable ASCII characters" in refused.stderr
    assert "too-short" not in refused.stderr


def test_names_in_redis_do_not_act_on_the_terminal(ready_command, valkey):
    variables = {"EMBEDWAY_CACHE__BACKEND": "redis", "EMBEDWAY_CACHE__URL": valkey}
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        client.hset("embedway:v1:counts", json.dumps(["\x1b]0;owned\x07 \ud800", "hits"]), "1")
        shown = ready_command("cache", "stats", variables=variables).stdout
        client.flushall()
    assert "\\x1b]0;owned" in shown
    assert "\x1b" not in shown


def test_a_newer_format_in_redis_is_an_error_of_every_command(ready_command, valkey):
    variables = {"EMBEDWAY_CACHE__BACKEND": "redis", "EMBEDWAY_CACHE__URL": valkey}
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
        client.hset("embedway:format", "cache", "2")
        for arguments in (("embed", "text"), ("cache", "stats"), ("cache", "clear", "--all")):
            refused = ready_command(*arguments, variables=variables, code=1)
            assert "has version 2, and this embedway supports versions up to 1" in refused.stderr
        client.flushall()


def test_a_cache_that_cannot_be_read_is_an_error_of_the_command_and_of_no_embedding(ready_command, place):
    (place / "file").write_text("no folder")
    variables = {"EMBEDWAY_CACHE__PATH": str(place / "file" / "v.sqlite")}
    assert '"embedding"' in ready_command("embed", "text", variables=variables).stdout
    (place / "folder").mkdir()
    variables = {"EMBEDWAY_CACHE__PATH": str(place / "folder")}
    refused = ready_command("cache", "stats", variables=variables, code=2)
    assert "folder: cache.path: is a folder, not a file" in refused.stderr
    down = {"EMBEDWAY_CACHE__BACKEND": "redis", "EMBEDWAY_CACHE__URL": "redis://127.0.0.1:1"}
    refused = ready_command("cache", "stats", variables=down, code=1)
    reason = "it cannot be reached: it refuses the connection: start the server, or correct host and port in cache.url"
    assert refused.stderr == f"embedway: error: the cache in Redis at 127.0.0.1:1 cannot be read: {reason}\n"


@pytest.mark.parametrize("store", ["redis", "sqlite"])
def test_each_command_says_once_that_the_cache_fails(own_settings, place, store):
    (place / "file").write_text("no folder")
    settings = {
        "redis": 'backend = "redis"\nurl = "redis://:TOPSECRETpw@127.0.0.1:1/0"',
        "sqlite": f'path = "{place}/file/v.sqlite"',
    }
    (place / "embedway.toml").write_text(
        '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\n[routes.r]\nmodel = "acme/m"\n'
        f'provider = "fake"\n[ledger]\nbackend = "none"\n[cache]\n{settings[store]}\n'
    )
    (place / "rows.jsonl").write_text("".join(json.dumps({"id": n, "text": f"text {n}"}) + "\n" for n in range(200)))
    name = {"redis": "the cache in Redis at 127.0.0.1:1", "sqlite": f"the cache {place}/file/v.sqlite"}[store]
    reason = {"redis": "it cannot be reached", "sqlite": "a part of its path is a file"}[store]
    for arguments in (
        ("embed", "a text", "--model", "acme/m"),
        ("plan", "rows.jsonl", "--model", "acme/m"),
        ("run", "rows.jsonl", "--to", "out.parquet", "--model", "acme/m"),
        ("search", "out.parquet", "a query"),
    ):
        done = own_settings(*arguments)
        assert done.code == 0, done.stderr
        told = [line for line in done.stderr.splitlines() if "cache" in line]
        assert len(told) == 1, done.stderr
        assert told[0].startswith(f"{name} cannot be read: {reason}")
        assert "vectors are computed again, and paid again" in told[0]
        assert "Remedy: " in told[0]
        assert "TOPSECRETpw" not in done.stdout + done.stderr
