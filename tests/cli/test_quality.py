"""`embedway quality`, as a user runs it."""

import contextlib
import json
import re
import sqlite3
import sys

import numpy as np
import pytest

from drift_faults import int8, real_vectors, rotated, unchanged
from drifting_server import DriftingServer, settings_of
from embedway import BaselineSummary, LastCheck, QualityCheck, RouteCheck, RouteNoise
from embedway.cli.quality import _print_check, _print_summary


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
    assert "for $0.012739 (acme/m: routes.r0)" in done.stderr
    assert done.stdout.splitlines()[0] == "acme/m"
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
    assert "routes.r0: Ask the operator" in done.stdout
    assert "--model acme/m --replace" in done.stdout
    assert "differ" not in done.stderr  # the report says it
    assert "routes.r0: routes.r0" not in done.stdout
    refused = started("-c", "own.json", "embed", "harbour")
    assert refused.code == 1
    assert "embedway quality release --model acme/m --route routes.r0" in refused.stderr
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
    assert "There is no baseline" in quality("list").stdout
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
    assert quality("check").code == 2


def test_a_refusal_comes_before_the_estimate_and_names_the_model(quality):
    quality("baseline")
    for arguments in (("--replace", "--max-cost", "x"), ("--replace", "--pairs", "none.jsonl"), ()):
        refused = quality("baseline", *arguments)
        assert refused.code in (1, 2)
        assert "texts" not in refused.stderr
    assert "embedway quality baseline --model acme/m --replace" in refused.stderr


def test_own_pairs_are_kept_by_a_replaced_baseline(quality, place, server):
    rows = [{"query": f"query {n}", "passage": f"passage {n}"} for n in range(3)]
    (place / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    known = zip(rows, server.known.copy(), strict=False)
    server.known = {**server.known, **{row[key]: np.roll(server.known[text], 1) for row, text in known for key in row}}
    first = quality("baseline", "--pairs", "own.jsonl")
    assert first.code == 0, first.stderr
    done = quality("baseline", "--replace", "--json")
    assert done.json["baseline"]["pairs"] == {"built-in": 67, "own": 3}
    assert "the 3 own pairs of the replaced baseline are kept" in done.stderr


def test_the_list_has_the_last_check_and_the_quarantine(quality, server):
    quality("baseline")
    assert quality("list", "--json").json[0]["checks"] == {}
    server.fault = rotated
    quality("check")
    [found] = quality("list", "--json").json
    assert found["checks"]["routes.r0"]["verdict"] == "drifted"
    assert found["checks"]["routes.r0"]["quarantined"]
    assert "drifted, quarantine" in quality("list").stdout
    assert quality("release", "--json").json == {"released": ["routes.r0"]}
    assert "quarantine" not in quality("list").stdout


def test_rows_of_another_text_are_called_rows_without_advice_to_switch_the_check_off(quality, server):
    quality("baseline")
    server.fault = lambda rows, texts: rows[::-1].copy()
    done = quality("check")
    assert done.code == 1
    assert "rows" in done.stdout
    assert "check_diversity" not in done.stdout + done.stderr


def test_tables_on_a_terminal_of_80_columns_keep_names_and_numbers(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    for suffix in ("", "-of-a-company-with-a-long-name"):
        names = [f"routes.{letter}{suffix}" for letter in "ab"]
        routes = tuple(
            RouteCheck(name, "drifted", (), "", 16, tuple(range(16)), 0.123456, 0.999999, 0.54, 0.98, quarantined=True)
            for name in names
        )
        _print_check(QualityCheck("acme/docs-v2", "docs-v2@0a1b2c3d/384", 0.0, 0.0, routes, (), 1, 1, 0))
        noise = {name: {"query": RouteNoise({"again": 1e-7}, 0.999999)} for name in names}
        last = {name: LastCheck("drifted", True, 0.0, 0.0) for name in names}
        shares, prices = dict.fromkeys(names, 0.54), dict.fromkeys(names, 20_000_000)
        _print_summary(
            BaselineSummary("acme/docs-v2", "s", 0.0, "1", {"built-in": 67}, {}, noise, shares, prices, last)
        )
        text = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, text.splitlines())) <= 80
        for part in (
            *names,
            "0.123456",
            "0.999999",
            "drifted, quarantine",
            "16 of 16",
            "54%",
            "0.02",
            "1970-01-01 00:00",
        ):
            assert part in text
