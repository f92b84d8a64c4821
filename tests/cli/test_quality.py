"""`embedway quality`, as a user runs it."""

import contextlib
import json
import sqlite3

import pytest

from drift_faults import int8, real_vectors, rotated, unchanged
from drifting_server import DriftingServer, settings_of


@pytest.fixture(scope="module")
def vectors(default_model_directory):
    return real_vectors(default_model_directory)


@pytest.fixture
def server(vectors):
    made = DriftingServer(vectors)
    yield made
    made.close()


@pytest.fixture
def quality(started, server, place):
    """Return a runner of `embedway quality` with a model whose route leads to the server."""
    settings = settings_of([server], place)
    (place / "own.json").write_text(json.dumps({**settings, "quality": {"on_drift": "quarantine"}}))
    return lambda *arguments: started("-c", "own.json", "quality", *arguments)


def test_a_baseline_says_its_cost_before_and_its_noise_after(quality):
    done = quality("baseline")
    assert done.code == 0, done.stderr
    assert "334 texts" in done.stderr
    assert "dollars (routes.r0)" in done.stderr
    assert "acme" not in done.stdout.splitlines()[0]
    assert "batch size" in done.stdout


def test_exit_codes_of_a_check(quality, server):
    assert quality("check").code == 2
    assert quality("baseline").code == 0
    passed = quality("check")
    assert passed.code == 0, passed.stderr
    server.status = 503
    unchecked = quality("check", "--json")
    assert (unchecked.code, unchecked.json["verdict"]) == (4, "unchecked")
    server.status, server.fault = 200, int8
    drifted = quality("check", "--json")
    assert (drifted.code, drifted.json["verdict"]) == (1, "drifted")
    assert drifted.json["routes"][0]["quarantined"]
    assert len(drifted.json["routes"][0]["differing"]) > 8


def test_a_drift_is_explained_and_a_quarantine_ends(quality, started, server):
    quality("baseline")
    server.fault = rotated
    done = quality("check")
    assert "16 of 16 canaries (document) differ" in done.stdout
    assert "are suspicious" in done.stdout
    assert "--replace" in done.stdout
    refused = started("-c", "own.json", "embed", "harbour")
    assert refused.code == 1
    assert "embedway quality release" in refused.stderr
    released = quality("release")
    assert "used again: routes.r0" in released.stderr
    assert started("-c", "own.json", "embed", "harbour").code == 0
    assert "no route of the model is in quarantine" in quality("release").stderr


def test_a_replaced_baseline_shows_its_differences_first(quality, server):
    quality("baseline")
    assert quality("baseline").code == 2
    server.fault = rotated
    done = quality("baseline", "--replace")
    assert done.code == 0
    assert "difference of routes.r0 to the replaced baseline: 16 of 16 canaries" in done.stderr
    assert quality("check").code == 0


def test_baselines_are_listed_and_removed(quality):
    assert "there is no baseline" in quality("list").stdout
    quality("baseline")
    assert quality("list", "--json").json[0]["model"] == "acme/m"
    assert "routes.r0" in quality("list").stdout
    assert quality("remove", "acme/m").code == 0
    assert quality("remove", "acme/m").code == 2
    assert quality("list", "--json").json == []


def test_own_pairs_are_read_from_a_file(quality, place, server):
    rows = [{"query": f"query {n}", "passage": f"passage {n}"} for n in range(3)]
    (place / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    server.known = {
        **server.known,
        # Other vectors than those of the built-in texts.
        **{
            row[key]: server.known[text][::-1] * sign
            for row, text in zip(rows, server.known, strict=False)
            for key, sign in (("query", 1), ("passage", -1))
        },
    }
    assert quality("baseline", "--pairs", "own.jsonl", "--json").json["baseline"]["pairs"] == {"built-in": 67, "own": 3}
    (place / "own.jsonl").write_text("{}")
    assert quality("baseline", "--pairs", "own.jsonl", "--replace").code == 1


def test_a_cost_over_the_maximum_sends_nothing(quality, server):
    assert quality("baseline", "--max-cost", "0.0000001").code == 3
    assert server.fault is unchanged
    assert server.requests == []


def test_only_a_drift_exits_with_1(quality, place):
    assert quality("baseline").code == 0
    with contextlib.closing(sqlite3.connect(place / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE records SET document = x'00'")
    done = quality("check")
    assert done.code == 4, done.stderr
    assert "damaged" in done.stderr
    (place / "ledger.sqlite").write_bytes(b"no database, but something else" * 99)
    assert quality("check").code == 4
