"""`sync`, `export`, `verify` and `forget` with the real default model, as a user sees them."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("with_model")


@pytest.fixture
def docs(place):
    """Write a folder of two documents and one file that is skipped."""
    folder = place / "docs"
    folder.mkdir()
    (folder / "budget.md").write_text("# Budgets\n\nSet a budget with a limit for each month.\n")
    (folder / "bread.md").write_text("# Bread\n\nBake bread at 230 degrees.\n")
    (folder / "photo.png").write_bytes(b"x")
    return folder


@pytest.fixture
def handbook(command, docs):
    """Create a collection of the folder."""
    assert command("sync", docs.name, "--to", "h.parquet").code == 0
    return "h.parquet"


def changes(done):
    """Return the counts of a summary or a plan."""
    assert done.code == 0, done.stderr
    return [done.json[name] for name in ("added", "updated", "removed", "unchanged")]


def test_a_dry_run_says_what_the_sync_then_does(command, docs, handbook, place):
    (docs / "budget.md").write_text("# Budgets\n\nSet a limit for each day.\n")
    (docs / "bread.md").unlink()
    (docs / "new.md").write_text("A new page.\n")
    before = (place / handbook).read_bytes()
    planned = command("sync", "--to", handbook, "--dry-run", "--json")
    assert changes(planned) == [1, 1, 1, 0]
    assert (planned.json["chunks"], planned.json["embedding"]["texts"]) == (2, 2)
    assert (place / handbook).read_bytes() == before
    done = command("sync", "--to", handbook, "--json")
    assert changes(done) == [1, 1, 1, 0]
    assert [name.endswith("docs/photo.png") for name in done.json["skipped"]["reasons"]["ending"]["names"]] == [True]
    table = command("sync", "--to", handbook).stdout
    assert "documents added          0\n" in table
    assert "unchanged                2\n" in table
    assert "kept                     0\n" in table


def test_a_document_that_cannot_be_read_is_in_the_summary(command, docs, handbook):
    (docs / "bread.md").write_bytes(b"a\xff text")
    refused = command("sync", "--to", handbook)
    assert refused.code == 1
    assert "docs/bread.md" in refused.stderr
    done = command("sync", "--to", handbook, "--on-error", "skip")
    assert done.code == 4
    assert "kept                     1 with old rows, because the new content cannot be read\n" in done.stdout
    assert "1 row or file was rejected; the reasons are in h.parquet.rejects.jsonl" in done.stderr


def test_sources_are_added_removed_and_named_in_errors(command, docs, handbook, place):
    (place / "notes.jsonl").write_text(json.dumps({"id": "n", "text": "Brot", "lang": "de", "year": "2021"}) + "\n")
    added = command("sync", "n=notes.jsonl", "--to", handbook, "--keep", "lang", "--keep", "year:int", "--json")
    assert changes(added) == [1, 0, 0, 0]
    found = command("search", handbook, "bread", "--where", "lang = 'de' and year > 2020", "--json").json["hits"]
    assert [hit["document_id"] for hit in found] == ["n"]
    wrong = command("sync", "--to", handbook, "--remove", "m")
    assert (wrong.code, "its sources are: docs, n" in wrong.stderr) == (2, True)
    (place / "notes.jsonl").unlink()
    gone = command("sync", "--to", handbook)
    assert "notes.jsonl: there is no such file or folder; --remove n removes its documents" in gone.stderr
    assert changes(command("sync", "--to", handbook, "--remove", "n", "--json")) == [0, 0, 1, 0]
    for path in docs.iterdir():
        path.unlink()
    empty = command("sync", "--to", handbook)
    assert "docs: has no document, but the collection has documents of it; --allow-empty removes them" in empty.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sync", "--to", "none.parquet"], "there is no such collection; name a source to create it"),
        (["search", "none.parquet", "q"], "`embedway sync SOURCE --to COLLECTION` creates it"),
        (["sync", "docs", "--to", "h.parquet", "--watch", "--json"], "--watch cannot be used with"),
        (["sync", "docs", "--to", "a.parquet", "--no-chunk", "--overlap", "3"], "cannot be used with --no-chunk"),
        (["export", "h.parquet", "--to", "e.jsonl", "--vectors", "bits"], "cannot store vectors as bits"),
        (["export", "h.parquet", "--to", "h.parquet"], "cannot be exported into itself"),
        (["forget", "none", "--from", "h.parquet"], "`embedway search --json` shows their names"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("handbook")
def test_wrong_use_says_what_to_do(command, arguments, message):
    done = command(*arguments)
    assert done.code in {1, 2}
    assert message in done.stderr
    assert "=True" not in done.stderr


@pytest.mark.usefixtures("docs")
def test_an_export_is_a_collection_that_is_verified_and_forgets(command, handbook):
    exported = command("export", handbook, "--to", "e.jsonl")
    assert exported.stdout.startswith("e.jsonl: 2 rows of 2 documents as float32, in ")
    assert changes(command("sync", "--to", "e.jsonl", "--json")) == [0, 0, 0, 2]
    assert command("verify", "e.jsonl").code == 0
    forgotten = command("forget", "bread.md", "--from", "e.jsonl", "--from", handbook).stdout.splitlines()
    assert forgotten[0].startswith("e.jsonl: removed 1 document with 1 row, and ")
    assert any(line.startswith("h.parquet: removed 1 document with 1 row, and ") for line in forgotten)
    assert "  the source docs: a sync adds the document again unless it is removed or excluded there" in forgotten
    assert command("verify", "e.jsonl", "--json").json["rows"] == 1


def test_another_model_is_refused_before_its_weights_are_searched(command, docs, handbook):
    for options in ([], ["--dry-run"]):
        done = command("sync", docs.name, "--to", handbook, "--model", "bge-small-en-v1.5", *options)
        assert (done.code, done.stdout) == (1, "")
        assert "h.parquet contains vectors of the space all-MiniLM-L6-v2@" in done.stderr
        assert "the documents would be of the space BAAI/bge-small-en-v1.5" in done.stderr
    assert changes(command("sync", "--to", handbook, "--model", "all-MiniLM-L6-v2", "--json")) == [0, 0, 0, 2]
