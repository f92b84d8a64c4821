"""`forget` on collections in real stores."""

import json

import pytest

from six_documents import TEXTS

pytestmark = pytest.mark.usefixtures("with_model")


def test_a_forgotten_document_is_gone_and_what_is_left_is_said(command, collection, place):
    assert command("search", collection, "engine", "--mode", "keyword").code == 0
    done = command("forget", "docs/3.md", "--from", collection)
    assert done.code == 0, done.stderr
    assert "removed 1 document with 1 row, and 1 cached vector" in done.stdout
    assert "the source docs" in done.stdout
    assert "backups" in done.stdout
    found = command("search", collection, "Section 3", "-n", "10", "--json").json
    assert "3.md" not in {hit["document_id"] for hit in found["hits"]}
    left = [one for one in place.rglob("*") if one.is_file() and one.parent.name != "docs"]
    assert left
    assert not [one for one in left if TEXTS["3.md"].encode() in one.read_bytes()]
    done = command("forget", "3.md", "--from", collection)
    assert (done.code, done.stdout) == (2, "")
    assert "no document '3.md'" in done.stderr
    assert "(did you mean '" in command("forget", "5.dm", "--from", collection).stderr


def test_a_dry_run_names_what_would_be_removed_and_removes_nothing(command, collection):
    done = command("forget", "docs/3.md", "--from", collection, "--dry-run")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{collection}: would remove 1 document with 1 row, and their cached vectors:",
        "  docs/3.md",
    ]
    assert (
        command("forget", "docs/3.md", "--from", collection, "--dry-run", "--json").json["collections"][0]["rows"] == 1
    )
    assert (
        "removed 1 document with 1 row, and 1 cached vector" in command("forget", "3.md", "--from", collection).stdout
    )


def test_forget_prints_json_for_several_collections(command, place):
    (place / "a.md").write_text("A text about glaciers.")
    for name in ("one.parquet", "two.jsonl"):
        assert command("sync", "a.md", "--to", name).code == 0
    done = command("forget", "a.md", "--from", "one.parquet", "--from", "two.jsonl", "--json")
    assert done.code == 0, done.stderr
    reports = json.loads(done.stdout)["collections"]
    assert [(one["destination"], one["rows"], one["documents"]) for one in reports] == [
        ("one.parquet", 1, ["a.md"]),
        ("two.jsonl", 1, ["a.md"]),
    ]
    assert command("verify", "one.parquet").stdout.splitlines()[-1] == "the collection has no rows"
