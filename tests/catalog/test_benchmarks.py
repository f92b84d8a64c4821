"""Shipped scores against their board, by full repository name; sources of strengths; speeds by size of the model."""

import datetime as dt
import json
import runpy
import tomllib
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import COMPARED_SCALES, MTEB_EN, OWN_SCALE, default_benchmarks, with_same_weights
from embedway.catalog.services import default_services

DOCUMENT = tomllib.loads(resources.files("embedway.catalog").joinpath("benchmarks.toml").read_text("utf-8"))
ROWS, SPEEDS, BOARDS = DOCUMENT["models"], DOCUMENT["speeds"], DOCUMENT["boards"]
FOLDER = Path(__file__).parents[2] / "benchmarks"
#: Shapes of local models, from small to large.
SHAPES = ["l6-384", "l12-384", "l12-768", "l24-1024"]


def test_every_shipped_score_is_that_of_its_repository_on_the_board():
    scores = runpy.run_path(str(FOLDER / "scores.py"))
    stored = json.loads(scores["STORED"].read_text("utf-8"))
    assert scores["differences"](stored["rows"]) == []
    assert set(stored["rows"]) == {name for name, _ in scores["shipped"]().values()}
    board = BOARDS[MTEB_EN]
    assert board["url"] == f"{stored['repository']}/blob/{stored['commit']}/{stored['file']}"
    assert board["date"] == dt.date.fromisoformat(stored["date"])


def test_a_wrong_score_is_found():
    scores = runpy.run_path(str(FOLDER / "scores.py"))
    stored = json.loads(scores["STORED"].read_text("utf-8"))["rows"]
    large, average = "BAAI/bge-large-en-v1.5", scores["AVERAGE"]
    assert (stored[large][average], ROWS[large]["quality"]) == (63.89, 63.89)
    copied = {**stored, large: {**stored[large], average: 64.23}}  # that of nitsuai/bge-large-en-v1.5
    assert scores["differences"](copied) == [f"{large}: 63.89, but {large} has 64.23"]
    damaged = {**stored, large: {**stored[large], "STS Average (10 datasets)": 90}}
    assert "the categories of BAAI/bge-large-en-v1.5 have the mean" in scores["differences"](damaged)[0]
    gone = {name: row for name, row in stored.items() if name != large}
    assert scores["differences"](gone) == [f"{large}: {large} is not on the board once with an average"]


def test_a_board_is_read_by_full_repository_name(tmp_path):
    scores = runpy.run_path(str(FOLDER / "scores.py"))
    average, retrieval = scores["AVERAGE"], "Retrieval Average (15 datasets)"

    def row(url, name, score):
        return json.dumps({"Model": f'<a target="_blank" href="{url}">{name}</a>', average: score, retrieval: score})

    hub = "https://huggingface.co"
    lines = [
        row(f"{hub}/BAAI/bge-large-en-v1.5", "bge-large-en-v1.5", 63.89),
        row(f"{hub}/nitsuai/bge-large-en-v1.5", "bge-large-en-v1.5", 64.23),
        row("https://openai.com/blog/new", "text-embedding-3-small", 62.26),
        row(f"{hub}/BAAI/bge-m3", "bge-m3", ""),
        row(f"{hub}/a/twice", "twice", 1),
        row(f"{hub}/a/twice", "twice", 2),
    ]
    (tmp_path / "board.jsonl").write_text("\n".join(lines))
    board = scores["read_board"](tmp_path / "board.jsonl")
    assert {name: found[average] for name, found in board.items()} == {
        "BAAI/bge-large-en-v1.5": 63.89,
        "nitsuai/bge-large-en-v1.5": 64.23,
        "openai.com/text-embedding-3-small": 62.26,
    }
    assert scores["namesakes"](board) == ["nitsuai/bge-large-en-v1.5"]


def test_only_the_same_weights_share_a_score():
    holders = {}
    for name in ROWS:
        row = with_same_weights(ROWS, name)
        if "quality" in row:
            holders.setdefault((row["board"], row["quality"]), set()).add(row.get("same_weights", name))
    assert [models for models in holders.values() if len(models) > 1] == []
    same = {name: row["same_weights"] for name, row in ROWS.items() if "same_weights" in row}
    assert same == {f"fastembed-bge-{size}-en-v1.5": f"BAAI/bge-{size}-en-v1.5" for size in ("small", "base", "large")}
    catalog = {**{facts.name: facts for facts in default_catalog()}, **default_services()}
    for name, other in same.items():
        assert not {"quality", "board"} & set(ROWS[name])
        assert catalog[name].default_dimensions == catalog[other].dimensions
        found = default_benchmarks()[name]
        assert found["quality_score"] == ROWS[other]["quality"]
        assert f"for {other} (the same weights)" in found["quality_source"]


@pytest.mark.parametrize("name", ROWS)
def test_every_score_names_its_board_and_every_strength_its_source(name):
    row, found = with_same_weights(ROWS, name), default_benchmarks()[name]
    assert ("quality" in row) == ("board" in row)
    if "board" in row:
        assert found["quality_scale"] == row["board"]
        assert BOARDS[row["board"]]["metric"] in found["quality_source"]
        assert row.get("url", BOARDS[row["board"]]["url"]) in found["quality_source"]
        assert (found["quality_scale"] in COMPARED_SCALES) == (row["board"] == MTEB_EN)
    else:
        assert (found["quality_score"], found["quality_scale"], found["quality_source"]) == (None, OWN_SCALE, "")
    assert ("strengths" in row) == ("strengths_source" in row)
    if "strengths" in row:
        source = row["strengths_source"]
        assert set(source) == {"claim", "url", "date"}
        assert source["url"].startswith("https://")
        assert isinstance(source["date"], dt.date)
        assert found["strengths_source"] == f"{source['claim']}, {source['date']}: {source['url']}"


def test_a_larger_model_is_not_faster():
    for suffix, shapes in (("", SHAPES), ("-fastembed", SHAPES[1:])):
        for one, other in pairwise([SPEEDS[f"{shape}{suffix}"] for shape in shapes]):
            assert one["avg_latency_ms"] < other["avg_latency_ms"]
            assert one["tokens_per_second"] > other["tokens_per_second"]


def test_every_speed_says_whose_it_is():
    for name, speed in SPEEDS.items():
        assert speed["by"]
        if name in SHAPES:
            for part in ("cores of", "OpenVINO", "bf16", "median", "benchmarks/speeds.py"):
                assert part in speed["by"]
            assert isinstance(speed["date"], dt.date)
        else:
            assert speed["by"].startswith(("assumed", "not measured"))
            assert "date" not in speed
