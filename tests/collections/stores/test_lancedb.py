"""LanceDB tables."""

import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from embedway.collections.documents import DocumentKey
from embedway.collections.stores import create_store, lancedb_table, open_store
from embedway.collections.stores.temporary import stale_paths, temporary_path
from embedway.collections.where import parse_where
from embedway.errors import MissingExtraError, SinkError, UsageError
from embedway.unfinished import remove
from inside import remove_stale
from store_contract import change, chunk, content, create, document, record_of, rows_of, texts, vectors_for


def test_a_table_moved_away_by_a_killed_process_comes_back(tmp_path, write, dead_process):
    destination = f"lancedb:{tmp_path}#rows"
    write(destination, (5,))
    table = tmp_path / "rows.lance"
    left = temporary_path(table)
    left = left.with_name(left.name.replace(f"-{left.name.split('-')[-2]}-", f"-{dead_process}-"))
    left.mkdir()
    table.rename(left / "replaced.lance")
    assert stale_paths(table) == [left]
    write(f"lancedb:{tmp_path}#rows", (3,), overwrite=True)
    assert open_store(destination).count == 3
    store = create_store(destination, overwrite=True)
    remove(left)
    left.mkdir()
    table.rename(left / "replaced.lance")
    remove_stale(store)
    assert open_store(destination).count == 3


def test_lancedb_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(lancedb_table.importlib.util, "find_spec", lambda name: None)
    for function in (create_store, open_store):
        with pytest.raises(MissingExtraError, match=r"pip install 'embedway\[lancedb\]'"):
            function(f"lancedb:{tmp_path}#t")


def test_tables_lie_side_by_side(tmp_path, write):
    write(f"lancedb:{tmp_path / 'new' / 'db'}#one", (2,))
    write(f"lancedb:{tmp_path / 'new' / 'db'}#two", (3,))
    assert open_store(f"lancedb:{tmp_path / 'new' / 'db'}#one").count == 2
    assert sorted(path.name for path in (tmp_path / "new" / "db").iterdir()) == ["one.lance", "two.lance"]


def test_a_table_moved_away_comes_back_when_it_is_opened(tmp_path, write, dead_process):
    destination = f"lancedb:{tmp_path}#rows"
    write(destination, (5,))
    left = temporary_path(tmp_path / "rows.lance")
    left = left.with_name(left.name.replace(f"-{left.name.split('-')[-2]}-", f"-{dead_process}-"))
    left.mkdir()
    (tmp_path / "rows.lance").rename(left / "replaced.lance")
    assert open_store(destination).count == 5


@pytest.mark.parametrize("version", [None, "2"])
def test_tables_of_older_versions_are_read_and_searched(tmp_path, space, version):
    metadata = {"embedway.space": json.dumps(space.to_json()), "embedway.settings": '{"chunk_tokens": 7}'}
    if version:
        metadata["embedway.format"] = version
    texts = ["id", "document_id", "source", "title", "text", "lang"]
    kinds = [*((name, pa.string()) for name in texts), ("start_line", pa.int64())]
    schema = pa.schema([*kinds, ("vector", pa.list_(pa.float32(), space.dimensions))], metadata=metadata)
    rows = [
        {**{name: f"{name} {n}" for name in texts}, "start_line": n, "vector": np.eye(space.dimensions)[n]}
        for n in range(3)
    ]
    lancedb.connect(str(tmp_path)).create_table("old", pa.Table.from_pylist(rows, schema))
    store = open_store(f"lancedb:{tmp_path}#old")
    assert (store.count, store.record.format_version, store.record.keep) == (3, int(version or 1), {"lang": "text"})
    query = np.eye(space.dimensions, dtype=np.float32)[1]
    hits = store.search(query, 2, where=parse_where("lang in ('lang 0', 'lang 1') and start_line > 0"))
    assert [(hit.id, hit.score, hit.number, hit.metadata) for hit in hits] == [("id 1", 1.0, None, {"lang": "lang 1"})]
    with pytest.raises(UsageError, match="no column 'page'"):
        store.search(query, 2, where=parse_where("page = 1"))
    assert [row["text"] for batch in store.read() for row in batch.fields] == ["text 0", "text 1", "text 2"]
    assert {document.rows for document in store.documents()} == {1}
    assert store.write_facts(dataclasses.replace(space, tokenizer="ab" * 32))
    assert open_store(f"lancedb:{tmp_path}#old").space.tokenizer == "ab" * 32
    with pytest.raises(SinkError, match="can be read and not changed"):
        store.begin_update(store.record)


def test_float16_and_conditions_on_typed_columns(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    day = datetime(2026, 1, 1, tzinfo=UTC)
    chunks = [
        chunk(f"d{n}", metadata={"at": day + timedelta(days=n), "tags": ["even"] * (n % 2 == 0), "extra": {"n": n}})
        for n in range(10)
    ]
    record = record_of(keep={"at": "timestamp", "tags": "list", "extra": "json"}, vector_type="float16")
    create(destination, chunks, record=record)
    store = open_store(destination)
    found = next(store.read()).vectors
    assert found.dtype == np.float32
    assert np.allclose(found, vectors_for(chunks), atol=2e-3)
    where = parse_where("tags contains 'even' and at > '2026-01-03' and source = 'docs'")
    hits = store.search(vectors_for(chunks)[6], 10, where=where)
    assert sorted(hit.document_id for hit in hits) == ["d4", "d6", "d8"]
    assert (hits[0].document_id, hits[0].metadata["extra"]) == ("d6", {"n": 6})
    assert hits[0].score == pytest.approx(1, abs=1e-3)


def test_a_change_of_a_killed_process_is_undone_by_the_next(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    create(destination, document("a"), document("b"))
    first = open_store(destination).record
    killed = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from store_contract import *
store = open_store({destination!r})
store.begin_update(record_of(keep={{"year": "int"}}))
store.remove({{DocumentKey("docs", "a")}})
put(store, document("c", 17_000))
put(store, document("d", 300))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    table = lancedb.connect(str(tmp_path)).open_table("rows")
    assert "docs/c#0" in table.to_arrow().column("id").to_pylist()
    assert content(destination) == texts(document("a"), document("b"))
    assert open_store(destination).record == first
    change(destination, document("e"))
    assert content(destination) == texts(document("a"), document("b"), document("e"))
    assert open_store(destination).record.keep == {}


def test_a_damaged_state_is_refused_and_that_of_another_table_ignored(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    create(destination, document("a"))
    change(destination, document("b"))
    state = tmp_path / "rows.lance" / "embedway.json"
    good = state.read_text()
    for bad in ("", "[]", "[" * 100_000, good.replace('"unfinished_from": null', '"unfinished_from": -1')):
        state.write_text(bad)
        with pytest.raises(SinkError, match=r"embedway.json in its folder is damaged"):
            open_store(destination)
    state.write_text(good.replace('"of": "', '"of": "0'))
    assert open_store(destination).count == 4
    state.write_text(good.replace('"unfinished_from": null', '"unfinished_from": 999'))
    with pytest.raises(SinkError):
        open_store(destination)


def test_purge_removes_the_texts_of_removed_rows_from_the_disk(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    others = [document(f"d{n}", 100) for n in range(5)]
    create(destination, document("a", text="SECRETTEXT"), *others)
    change(destination, {DocumentKey("docs", "a")})
    before = open_store(destination)

    def on_disk():
        return any(b"SECRETTEXT" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert on_disk()
    assert before.purge() == ()
    assert not on_disk()
    assert content(destination) == texts(*others)
    assert before.count == open_store(destination).count == 500
    assert open_store(destination).record == before.record
    assert [path.name for path in tmp_path.iterdir()] == ["rows.lance"]
    change(destination, document("z"))
    assert content(destination) == texts(*others, document("z"))


def test_a_reader_keeps_its_version_while_the_table_changes(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    create(destination, document("a"))
    reader = open_store(destination)
    change(destination, document("b"))
    assert len(rows_of(reader)) == reader.count == 2
    assert open_store(destination).count == 4


def test_more_equal_scores_than_are_asked_for_are_in_row_order(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    store = create_store(destination)
    store.begin(record_of())
    chunks = document("a", 1000)
    store.write(chunks, np.ones((1000, 6), np.float32))
    store.commit()
    assert [hit.number for hit in open_store(destination).search(np.ones(6, np.float32), 9)] == [*range(9)]


def test_rows_of_equal_ids_in_one_new_table(tmp_path):
    destination = f"lancedb:{tmp_path}#rows"
    create(destination, [*document("a", text="x"), *document("a", text="y")], document("b"), document("a", text="z"))
    assert content(destination) == texts(document("a", text="z"), document("b"))


@pytest.mark.parametrize("name", ["a.b", "`b`", "_rowid", ""])
def test_names_of_columns_that_lancedb_lacks(tmp_path, name):
    store = create_store(f"lancedb:{tmp_path}#rows")
    with pytest.raises(SinkError, match="LanceDB cannot have a column"):
        store.begin(record_of(keep={name: "text"}))


def test_a_table_that_is_not_ours(tmp_path):
    lancedb.connect(str(tmp_path)).create_table("t", pa.table({"id": ["a"]}))
    with pytest.raises(SinkError, match="has no record of its vector space"):
        open_store(f"lancedb:{tmp_path}#t")
    with pytest.raises(SinkError, match="no such table"):
        open_store(f"lancedb:{tmp_path}#other")
