"""`embedway sync` on the command line: changes, dry runs, removed sources, and refusals."""

from contextlib import ExitStack

import pytest

from embedway.collections.stores.file_store import FileStore
from embedway.collections.stores.locks import exclusive
from paid_model import MODEL

MODEL_NAME = ("--model", "acme/m")


@pytest.fixture
def docs(place):
    (place / "embedway.toml").write_text(MODEL)
    folder = place / "docs"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.md").write_text(f"# Title {name}\n\nthe text {name}\n")
    return folder


@pytest.fixture
def sync(own_settings, docs):
    """Return a function that syncs to `out.jsonl`; with `json=True`, it returns the document."""

    def start(*arguments, json=False, code=0):
        done = own_settings("sync", *arguments, "--to", "out.jsonl", *(("--json",) if json else ()))
        assert done.code == code, done.stderr
        return done.json if json else done

    return start


def counts(document):
    return tuple(document[name] for name in ("added", "updated", "removed", "unchanged", "kept"))


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_dry_run_prints_what_the_sync_then_does(sync, docs, place):
    before = files(place)
    plan = sync("docs", *MODEL_NAME, "--dry-run", json=True)
    assert files(place) == before
    assert counts(plan) == (3, 0, 0, 0, 0)
    assert counts(sync("docs", *MODEL_NAME, json=True)) == counts(plan)
    (docs / "a.md").write_text("another text")
    (docs / "b.md").unlink()
    before = files(place)
    plan = sync("--dry-run", json=True)
    assert files(place) == before
    assert (counts(plan), plan["chunks"], plan["chunks_removed"]) == ((0, 1, 1, 1, 0), 1, 2)
    # The real model, also if none was named.
    assert (plan["embedding"]["model"], plan["embedding"]["texts"]) == ("acme/m", 1)
    summary = sync(json=True)
    assert counts(summary) == counts(plan)
    assert (summary["chunks_written"], summary["chunks_removed"]) == (plan["chunks"], plan["chunks_removed"])
    # The service counts fewer tokens than the plan, which says that it estimates.
    assert plan["embedding"]["tokens_estimated"]
    assert 0 < summary["billed_tokens"] <= plan["embedding"]["billed_tokens"]


def test_the_tables_of_a_sync_and_of_its_dry_run(sync, docs):
    found = sync("docs", *MODEL_NAME, "--dry-run").stdout
    assert [line.split("  ")[0] for line in found.splitlines()[1:7]] == [
        *("collection", "documents added", "updated", "removed", "unchanged", "kept")
    ]
    sync("docs", *MODEL_NAME)
    (docs / "a.md").write_bytes(b"a text \xff")
    done = sync("--on-error", "skip", code=4)
    line = next(line for line in done.stdout.splitlines() if line.startswith("kept"))
    assert line.split(maxsplit=1)[1] == "1 with old rows, because the new content cannot be read"
    assert "1 row or file was rejected; the reasons are in out.jsonl.rejects.jsonl" in done.stderr


def test_the_list_of_rejected_rows_goes_away_when_all_can_be_read(sync, docs, place):
    sync("docs", *MODEL_NAME)
    good = (docs / "a.md").read_bytes()
    (docs / "a.md").write_bytes(b"a text \xff")
    sync("--on-error", "skip", code=4)
    assert (place / "out.jsonl.rejects.jsonl").exists()
    (docs / "a.md").write_bytes(good)
    assert sync(json=True)["unchanged"] == 3
    assert not (place / "out.jsonl.rejects.jsonl").exists()


def test_the_list_of_rejected_rows_of_a_removed_source_goes_away(sync, docs, place):
    (place / "other.md").write_text("a text")
    (docs / "bad.md").write_bytes(b"a text \xff")
    sync("docs", "other.md", *MODEL_NAME, "--on-error", "skip", code=4)
    assert counts(sync("--remove", "docs", json=True)) == (0, 0, 3, 0, 0)
    assert counts(sync(json=True)) == (0, 0, 0, 1, 0)
    assert not (place / "out.jsonl.rejects.jsonl").exists()


def test_a_source_is_removed_while_another_is_synced(sync, docs, place):
    other = place / "other"
    other.mkdir()
    (other / "d.md").write_text("the text d")
    sync("docs", "other", *MODEL_NAME)
    (other / "e.md").write_text("the text e")
    plan = sync("other", "--remove", "docs", "--dry-run", json=True)
    summary = sync("other", "--remove", "docs", json=True)
    assert counts(plan) == counts(summary) == (1, 0, 3, 1, 0)
    assert counts(sync(json=True)) == (0, 0, 0, 2, 0)
    refused = sync("other", "--remove", "other", code=2)
    assert "the source 'other' is given both to be read and to be removed" in refused.stderr
    assert "its sources are: other" in sync("--remove", "docs", code=2).stderr


def test_two_sources_with_one_name_are_refused(sync, place):
    (place / "x" / "docs").mkdir(parents=True)
    (place / "x" / "docs" / "a.md").write_text("another text a")
    refused = sync("docs", "x/docs", *MODEL_NAME, code=2)
    assert "have the same name, 'docs'; give one another name: NAME=x/docs" in refused.stderr
    sync("docs", *MODEL_NAME)
    refused = sync("x/docs", code=2)
    assert "the collection has a source 'docs' from" in refused.stderr
    assert counts(sync("more=x/docs", json=True)) == (1, 0, 0, 0, 0)
    # A name that is given replaces the source.
    assert counts(sync("docs=x/docs", json=True)) == (0, 1, 2, 0, 0)


def test_an_emptied_source_is_refused_unless_it_is_allowed(sync, docs):
    sync("docs", *MODEL_NAME)
    for path in docs.iterdir():
        path.unlink()
    for more in ((), ("--dry-run",)):
        assert "--allow-empty" in sync(*more, code=1).stderr
    assert counts(sync("--allow-empty", json=True)) == (0, 0, 3, 0, 0)


def test_a_collection_that_another_process_changes_is_refused_by_name_or_waited_for(sync, place, monkeypatch):
    sync("docs", *MODEL_NAME)
    with ExitStack() as other:
        other.enter_context(exclusive(place / "out.jsonl", destination="out.jsonl"))
        refused = sync(code=1)
        assert "out.jsonl: another process or thread changes the collection" in refused.stderr
        tries, lock = [], FileStore.lock

        def released_at_the_second_try(self):
            tries.append(self)
            if len(tries) == 2:
                other.close()
            return lock(self)

        monkeypatch.setattr(FileStore, "lock", released_at_the_second_try)
        assert sync("--wait", json=True)["unchanged"] == 3
        assert len(tries) == 2


@pytest.mark.parametrize("more", [("--dry-run",), ("--json",), ("--remove", "docs")])
def test_a_watch_has_no_plan_and_no_document(sync, more):
    assert "--watch cannot be used with" in sync("docs", "--watch", *more, code=2).stderr


def test_the_collection_is_no_source_of_itself(sync, place):
    text = '{"text": "a"}\n'
    (place / "out.jsonl").write_text(text)
    for more in ((), ("--dry-run",)):
        assert "out.jsonl is a source and would be overwritten" in sync("out.jsonl", *MODEL_NAME, *more, code=2).stderr
    assert (place / "out.jsonl").read_text() == text


def test_standard_input_alone_must_be_named_again(own_settings, docs):
    assert own_settings("sync", "-", "--to", "in.jsonl", *MODEL_NAME, stdin="a text\n").code == 0
    done = own_settings("sync", "--to", "in.jsonl")
    assert (done.code, "the only source of the collection is standard input" in done.stderr) == (2, True)
