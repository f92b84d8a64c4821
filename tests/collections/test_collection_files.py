"""Other collections inside a folder are skipped with the reason `collection`; a named one is read."""

import asyncio

import pytest

from embedway.collections.collection_files import is_collection_file
from embedway.collections.documents import ReadOptions
from embedway.collections.inventory import find_sources
from embedway.collections.options import RunOptions, SyncOptions
from embedway.collections.run import run_job
from embedway.collections.sync import sync_collection
from embedway.collections.sync_plan import plan_sync
from embedway.errors import SourceError, UsageError


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Title\n\nthe event loop\n")
    return folder


def found(folder, **options):
    """Return the ids of the documents that are read, and the names that are skipped as collections."""
    inventory = find_sources([str(folder)], ReadOptions(**options))
    skipped = {name.removeprefix(f"{folder}/") for name in inventory.skipped.names("collection")}
    return [file.document_id for file in inventory.files], skipped


def run(embedder, source, destination, **options):
    asyncio.run(run_job(embedder, [str(source)], str(destination), RunOptions(**options)))


def test_collections_in_files_are_no_documents(fake_embedder, docs):
    (docs / "rows.jsonl").write_text('{"id": "1", "text": "a row"}\n{"id": "2", "text": " "}\n')
    for name in ("out.parquet", "out.jsonl"):
        run(fake_embedder(), docs, docs / name, on_error="skip")
    written = {"out.parquet", "out.jsonl", "out.jsonl.embedway.json", "out.parquet.rejects.jsonl"}
    assert found(docs) == (["a.md", "rows.jsonl/"], written | {"out.jsonl.rejects.jsonl"})
    # Patterns do not bring them back: nobody embeds embedded chunks by a pattern.
    assert found(docs, include=("*.jsonl", "*.parquet"))[0] == ["rows.jsonl/"]


@pytest.mark.parametrize("name", ["OUT.PARQUET", "Out.JsonL"])
def test_endings_of_collections_are_in_any_case(fake_embedder, docs, name):
    run(fake_embedder(), docs, docs / name)
    assert name in found(docs)[1]
    for sidecar in docs.glob("*.embedway.json"):
        sidecar.unlink()
    assert found(docs)[1] == {name}


def test_a_jsonl_collection_without_its_sidecar_is_recognized_by_its_lines(fake_embedder, docs):
    (docs / 'name "of \\ it.md').write_text("another text")
    run(fake_embedder(), docs, docs / "out.jsonl")
    (docs / "out.jsonl.embedway.json").unlink()
    assert found(docs)[1] == {"out.jsonl"}


def test_tables_of_databases_are_no_documents(docs):
    (docs / "table.lance" / "data").mkdir(parents=True)
    (docs / "table.lance" / "data" / "notes.md").write_text("a text")
    index = docs / "chroma" / "0b5fd2a8-7f0e-4f6e-9d3f-2a7f4e1c9a11"
    index.mkdir(parents=True)
    (index / "header.txt").write_text("a text")
    (docs / "chroma" / "chroma.sqlite3").write_bytes(b"SQLite format 3\0")
    (docs / "chroma" / "guide.md").write_text("a document beside the database")
    skipped = {"table.lance/", "chroma/chroma.sqlite3", f"chroma/{index.name}/"}
    assert found(docs) == (["a.md", "chroma/guide.md"], skipped)


@pytest.mark.parametrize("name", ["plain.parquet", "plain.jsonl", "x.rejects.jsonl", "empty.parquet", "gone.parquet"])
def test_files_of_others_stay_documents(docs, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name == "plain.parquet":
        pq.write_table(pa.table({"id": ["1"], "text": ["a row"]}), docs / name)
    elif name != "gone.parquet":
        row = '{"id": "a", "document_id": "b", "source": "c", "text": "a row"}\n'
        (docs / name).write_text("" if name == "empty.parquet" else row)
    assert not is_collection_file(str(docs / name))


@pytest.mark.parametrize("end", [b"PAR1", b"\xff\xff\xff\xffPAR1", b"\x08\0\0\0PAR1", b"\x40\0\0\0PARE"])
def test_a_damaged_footer_is_no_collection(docs, end):
    (docs / "a.parquet").write_bytes(b"PAR1embedway.space" * 3 + b"longer" + end)
    assert not is_collection_file(str(docs / "a.parquet"))


def test_a_named_collection_is_a_source(fake_embedder, docs):
    run(fake_embedder(), docs, docs / "out.parquet")
    run(fake_embedder(), docs / "out.parquet", "of.jsonl")
    assert find_sources([str(docs / "out.parquet")], ReadOptions()).skipped.total == 0


def test_the_destination_itself_is_refused_as_a_source_also_in_a_dry_run(fake_embedder, docs):
    run(fake_embedder(), docs, docs / "out.parquet")
    for job in (sync_collection, plan_sync):
        with pytest.raises(UsageError, match="would be overwritten"):
            asyncio.run(job(fake_embedder(), str(docs / "out.parquet"), [str(docs / "out.parquet")], SyncOptions()))


def test_a_folder_with_nothing_but_collections_says_so(fake_embedder, docs):
    run(fake_embedder(), docs, docs / "out.parquet")
    (docs / "a.md").unlink()
    with pytest.raises(SourceError, match="1 file of a collection") as caught:
        find_sources([str(docs)], ReadOptions())
    assert "1 file skipped" in str(caught.value)
