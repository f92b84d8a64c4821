"""Syncs on a store in memory, with an embedder whose vectors depend on the text."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from embedway.collections import chunk_reader
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from embedway.collections.watching import watch_collection
from embedway.errors import SourceError, UnavailableError, UsageError
from memory_store import PLACES, MemoryStore


@pytest.fixture(autouse=True)
def no_collections(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    PLACES.clear()


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.md").write_text(f"# Title {number}\n\nthe event loop of {number}\n")
    return folder


def sync(embedder, sources, **options):
    return asyncio.run(sync_collection(embedder, MemoryStore("memory:a"), sources, SyncOptions(**options)))


def rows():
    return {key: (fields["fingerprint"], fields["text"]) for key, (fields, _) in PLACES["memory:a"][1].items()}


def test_a_sync_adds_updates_and_removes(fake_embedder, docs):
    embedder = fake_embedder()
    first = sync(embedder, [str(docs)])
    assert (first.added, first.updated, first.removed, first.unchanged) == (5, 0, 0, 0)
    (docs / "1.md").write_text("another text")
    (docs / "2.md").unlink()
    (docs / "new.md").write_text("a new text")
    second = sync(embedder, [])
    assert (second.added, second.updated, second.removed, second.unchanged) == (1, 1, 1, 3)
    found = rows()
    PLACES.clear()
    sync(embedder, [str(docs)])
    assert rows() == found


def test_nothing_changed_computes_nothing(fake_embedder, docs):
    sync(fake_embedder(), [str(docs)])
    embedder = fake_embedder()
    assert sync(embedder, []).unchanged == 5
    assert embedder.calls == []


def test_an_interrupted_sync_computes_nothing_twice(fake_embedder, docs, monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 1)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 1)

    async def fail(texts):
        if len(embedder.calls) == 4:
            raise UnavailableError("the service failed", route="r", status=500)

    embedder = fake_embedder(on_embed=fail)
    with pytest.raises(UnavailableError, match=r".*") as caught:
        sync(embedder, [str(docs)])
    assert "3 texts are computed and kept" in caught.value.__notes__[0]
    again = fake_embedder()
    summary = sync(again, [str(docs)])
    assert (summary.resumed, sum(again.calls)) == (3, summary.chunks_written - 3)


def test_kept_texts_of_edited_documents_are_no_part_of_the_number_of_texts(fake_embedder, docs, monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 2)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 2)

    def interrupted(version):
        """Sync other texts, until the third batch fails; return the note of the error."""
        for path in docs.iterdir():
            path.write_text(f"# {path.stem}\n\nthe {version} text of {path.stem}\n")

        async def fail(texts):
            if len(embedder.calls) == 3:
                raise UnavailableError("the service failed", route="r", status=500)

        embedder = fake_embedder(on_embed=fail)
        with pytest.raises(UnavailableError) as caught:
            sync(embedder, [str(docs)])
        return caught.value.__notes__[0]

    assert interrupted("first").startswith("4 of 5 texts are computed and kept;")
    # Also those of the first texts, of which no document has any.
    assert interrupted("second").startswith("8 texts are computed and kept;")


def test_a_source_that_is_empty_removes_nothing_unless_it_is_allowed(fake_embedder, docs):
    sync(fake_embedder(), [str(docs)])
    for path in docs.iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="allow_empty=True removes them"):
        sync(fake_embedder(), [])
    assert len(rows()) > 0
    assert sync(fake_embedder(), [], allow_empty=True).removed == 5
    assert rows() == {}


def test_a_removed_source_leaves_the_others(fake_embedder, docs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("a text of another source")
    sync(fake_embedder(), [str(docs), str(other)])
    embedder = fake_embedder()
    assert sync(embedder, [], remove=("docs",)).removed == 5
    assert embedder.calls == []
    assert [key.partition("/")[0] for key in rows()] == ["other"]
    assert [one.name for one in PLACES["memory:a"][0].sources] == ["other"]
    with pytest.raises(UsageError, match="its sources are: other"):
        sync(fake_embedder(), [], remove=("docs",))


def test_a_watch_goes_on_after_the_error_of_a_round(fake_embedder, docs):
    done, failed = [], []

    async def changes():
        (docs / "1.md").write_bytes(b"a\xff text")
        yield 1
        (docs / "1.md").write_text("a new text")
        yield 2

    report = SimpleNamespace(begin=lambda: None, done=lambda one: done.append(one.updated), failed=failed.append)
    watched = watch_collection(
        fake_embedder(), MemoryStore("memory:a"), [str(docs)], SyncOptions(), report, changes=changes()
    )
    asyncio.run(watched)
    assert (done, [type(one) for one in failed]) == ([0, 1], [SourceError])


def test_a_file_that_was_half_written_is_complete_after_the_next_round(fake_embedder, docs):
    done = []

    async def changes():
        (docs / "new.md").write_text("# Title\n\nthe first ha")
        yield 1
        (docs / "new.md").write_text("# Title\n\nthe first half, and the second\n")
        yield 2

    report = SimpleNamespace(begin=lambda: None, done=lambda one: done.append((one.added, one.updated)), failed=None)
    watched = watch_collection(
        fake_embedder(), MemoryStore("memory:a"), [str(docs)], SyncOptions(), report, changes=changes()
    )
    asyncio.run(watched)
    assert done == [(5, 0), (1, 0), (0, 1)]
    assert [text for name, (_, text) in rows().items() if "new.md" in name] == [
        "Title\n\nthe first half, and the second"
    ]


def test_a_watch_goes_on_when_its_folder_is_removed_and_back(fake_embedder, docs, tmp_path):
    done, failed = [], []

    async def changes():
        docs.rename(tmp_path / "away")
        yield 1
        (tmp_path / "away").rename(docs)
        yield 2

    report = SimpleNamespace(begin=lambda: None, done=lambda one: done.append(one.unchanged), failed=failed.append)
    watched = watch_collection(
        fake_embedder(), MemoryStore("memory:a"), [str(docs)], SyncOptions(), report, changes=changes()
    )
    asyncio.run(watched)
    missing = f"{docs}: there is no such file or folder; remove=['docs'] removes its documents from the collection"
    assert (done, [str(error) for error in failed]) == ([0, 5], [missing])
    assert len(rows()) == 5


def test_sources_may_lack_a_column_that_the_collection_has(fake_embedder, tmp_path):
    for name, row in (("a", '{"text": "one", "lang": "de"}'), ("b", '{"text": "two"}')):
        (tmp_path / f"{name}.jsonl").write_text(row)
    sync(fake_embedder(), [str(tmp_path / "a.jsonl")], keep=("lang",))
    assert sync(fake_embedder(), [str(tmp_path / "b.jsonl")]).added == 1
    embedder = fake_embedder()
    with pytest.raises(SourceError, match=r"'lnag': is not a column .*; existing columns: 'text'"):
        sync(embedder, [str(tmp_path / "b.jsonl")], keep=("lang", "lnag"))
    assert embedder.calls == []


def test_another_kept_column_is_added_to_those_of_the_collection(fake_embedder, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "lang": "de", "year": 2020}')
    sync(fake_embedder(), [str(path)], keep=("lang",))
    assert sync(fake_embedder(), [str(path)], keep=("year",)).updated == 1
    ((fields, _),) = PLACES["memory:a"][1].values()
    assert (fields["lang"], fields["year"]) == ("de", 2020)
    assert sync(fake_embedder(), [], keep=("year",)).unchanged == 1
    assert sync(fake_embedder(), []).unchanged == 1
    assert sync(fake_embedder(), [], keep=()).unchanged == 1


def test_options_of_reading_that_change_for_other_sources_are_a_warning(fake_embedder, docs, tmp_path, caplog):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.md").write_text("one")
    assert sync(fake_embedder(), [str(docs)], include=("*.md",)).notes == ()
    assert sync(fake_embedder(), [str(docs)], include=("*.m*",)).notes == ()
    assert sync(fake_embedder(), [str(tmp_path / "more")]).notes == ()
    assert not caplog.records
    [note] = sync(fake_embedder(), [str(tmp_path / "more")], include=("a*",), encoding="cp1252").notes
    assert "the next sync of docs uses this encoding, include too" in note
    assert [record.getMessage() for record in caplog.records] == [note]
    assert sync(fake_embedder(), [str(tmp_path / "more")], include=(), remove=("docs",)).notes == ()


def test_types_are_inferred_from_rows_after_the_first_batch(fake_embedder, docs, tmp_path, monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 2)
    rows_of_a = [{"text": "no value"}] * 4
    rows_of_a += [{"text": "one", "year": 2024, "size": 1}, {"text": "two", "size": 1.5}]
    (docs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_a))
    assert sync(fake_embedder(), [str(docs)], keep=("year", "size"), on_error="skip").rejected == 0
    assert PLACES["memory:a"][0].keep == {"year": "int", "size": "float"}


def test_a_column_that_no_row_has_is_found_before_texts_are_computed(fake_embedder, docs, monkeypatch):
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 2)
    (docs / "a.jsonl").write_text('{"text": "one", "year": 2024}\n')
    embedder = fake_embedder()
    with pytest.raises(SourceError, match="'yaer': is not a column that can be kept"):
        sync(embedder, [str(docs)], keep=("yaer",))
    assert embedder.calls == []
    sync(embedder, [str(docs)], keep=("year",))
    (docs / "0.md").write_text("another text")
    assert sync(embedder, [str(docs / "0.md")], keep=("year", "size")).added == 1


@pytest.mark.parametrize(("kind", "fits"), [("int", True), ("text", False), ("bool", False)])
def test_another_type_of_a_column_of_the_collection_is_refused(fake_embedder, tmp_path, kind, fits):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "year": 2024}\n')
    sync(fake_embedder(), [str(tmp_path / "a.jsonl")], keep=("year",))
    if fits:
        assert sync(fake_embedder(), [], keep=("year",), keep_types={"year": kind}).unchanged == 1
        return
    with pytest.raises(UsageError, match="the collection has the column 'year' with the type int"):
        sync(fake_embedder(), [], keep=("year",), keep_types={"year": kind})
