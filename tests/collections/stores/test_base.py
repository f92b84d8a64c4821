"""Contract of every store: all or nothing, no leftovers, every fact stored, exact search, one space."""

import dataclasses
import os
import stat

import numpy as np
import pytest

from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store, store_for
from embedway.collections.stores.base import READ_ROWS
from embedway.errors import SinkError, SpaceMismatchError, UsageError


def test_rows_come_back_as_they_were_written(destination, write, make_rows, space):
    write(destination, (3, 1, 4))
    collection = open_store(destination)
    assert collection.space == space
    assert collection.count == 8
    expected = [make_rows(n, first) for n, first in ((3, 0), (1, 3), (4, 4))]
    for chunks, vectors in expected:
        for chunk, vector in zip(chunks, vectors, strict=True):
            hit = collection.search(vector, 1)[0]
            assert hit.score == pytest.approx(1.0, abs=1e-5)
            assert (hit.id, hit.document_id, hit.source, hit.start_line, hit.title, hit.text) == (
                chunk.id,
                chunk.document_id,
                chunk.source,
                chunk.start_line,
                chunk.title,
                chunk.text,
            )


def test_nothing_shows_before_commit_and_nothing_stays_after_abort(destination, tmp_path, space, make_rows, files_in):
    store = create_store(destination)
    store.begin(Record(space))
    store.write(*make_rows(20))
    with pytest.raises(SinkError, match="there is no such"):
        open_store(destination)
    store.abort()
    store.abort()
    assert files_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_output_stays_after_commit(destination, write, tmp_path, files_in):
    write(destination)
    assert not [name for name in files_in(tmp_path) if ".embedway-" in name or name.endswith(".tmp")]


def test_an_existing_destination_is_refused_before_anything_is_written(destination, write, tmp_path, files_in):
    write(destination)
    before = files_in(tmp_path)
    with pytest.raises(SinkError, match="already exists"):
        create_store(destination)
    assert files_in(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.parquet"])
def test_a_pipe_or_a_link_to_one_is_never_replaced(tmp_path, name):
    pipe, link = tmp_path / name, tmp_path / f"link-{name}"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(SinkError, match="is a device, a pipe or a socket"):
            create_store(str(path), overwrite=True)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()


def test_one_that_appears_meanwhile_is_not_replaced(destination, write, space, make_rows):
    slow = create_store(destination)
    slow.begin(Record(space))
    slow.write(*make_rows(9))
    write(destination, (5,))
    with pytest.raises(SinkError, match="already exists"):
        slow.commit()
    slow.abort()
    assert open_store(destination).count == 5


def test_overwriting_replaces_only_on_commit(destination, write, space, make_rows, tmp_path, files_in):
    write(destination, (5,))
    before = files_in(tmp_path)
    store = create_store(destination, overwrite=True)
    store.begin(Record(space))
    store.write(*make_rows(9))
    assert open_store(destination).count == 5
    store.abort()
    assert files_in(tmp_path) == before
    write(destination, (7,), overwrite=True)
    assert open_store(destination).count == 7
    assert not [name for name in files_in(tmp_path) if name.endswith(".tmp") or "replaced" in name]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    destination, write, space, make_rows, tmp_path, dead_process
):
    living = create_store(destination)
    living.begin(Record(space))
    living.write(*make_rows(3))
    folder = tmp_path / "db" if destination.startswith("lancedb") else tmp_path
    (held,) = [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    parts = held.name.split("-")
    dead = held.with_name("-".join([*parts[:-2], str(dead_process), "00000000.tmp"]))
    if held.is_dir():
        (dead / "rows.lance").mkdir(parents=True)
    else:
        dead.write_text("half")
    write(destination)
    assert not dead.exists()
    assert held.exists()
    living.abort()


@pytest.fixture
def collection(destination, space, make_rows):
    store = create_store(destination)
    store.begin(Record(space))
    for first in range(0, 1400, 200):
        store.write(*make_rows(200, first))
    store.commit()
    return open_store(destination)


def test_search_is_exact(collection, make_rows):
    vectors = np.concatenate([make_rows(200, first)[1] for first in range(0, 1400, 200)])
    query = np.random.default_rng(5).standard_normal(6).astype(np.float32) * 7
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    best = np.argsort(-cosines)[:25]
    hits = collection.search(query, 25)
    assert [hit.id for hit in hits] == [f"d{row}#0" for row in best]
    assert [hit.score for hit in hits] == pytest.approx(cosines[best].tolist(), abs=1e-5)
    assert len(collection.search(query, 5000)) == 1400


def test_a_query_of_another_shape_is_wrong_usage(collection):
    with pytest.raises(UsageError, match=r"\(5,\).*needs \(6,\)"):
        collection.search(np.ones(5, np.float32), 3)
    with pytest.raises(UsageError, match="request at least 1"):
        collection.search(np.ones(6, np.float32), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"weights": "ef" * 32},
        {"pooling": "cls"},
        {"query_prompt": "other: "},
        {"document_prompt": ""},
        {"normalized": False},
        {"dimensions": 12},
        {"head": "dense"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_space_is_refused_by_name(destination, space, make_rows, change):
    store = create_store(destination)
    store.begin(Record(space))
    store.write(*make_rows(2))
    store.commit()
    collection = open_store(destination)
    collection.check_space(space)
    asked = dataclasses.replace(space, **change)
    with pytest.raises(SpaceMismatchError) as caught:
        collection.check_space(asked)
    assert caught.value.collection == destination
    assert caught.value.collection_space == space.id
    assert asked.id in str(caught.value)
    assert space.id in str(caught.value)
    assert caught.value.asked_space != space.id


def test_rows_are_read_in_the_order_in_which_they_were_written_with_what_was_kept(destination, write, make_rows):
    write(destination, (700, 3, 900))
    batches = list(open_store(destination).read())
    assert max(len(batch.fields) for batch in batches) <= READ_ROWS
    fields = [row for batch in batches for row in batch.fields]
    chunks, vectors = zip(*(make_rows(n, first) for n, first in ((700, 0), (3, 700), (900, 703))), strict=True)
    expected = [chunk for part in chunks for chunk in part]
    assert [(row["id"], row["text"], row["topic"]) for row in fields] == [
        (chunk.id, chunk.text, chunk.metadata["topic"]) for chunk in expected
    ]
    assert np.array_equal(np.concatenate([batch.vectors for batch in batches]), np.concatenate(vectors))
    assert not {"vector", "unasked"} & fields[0].keys()


def test_a_store_without_rows_reads_and_finds_nothing(destination, write, make_rows):
    write(destination, ())
    store = open_store(destination)
    assert store.count == 0
    assert list(store.read()) == []
    assert store.search(np.ones(6, np.float32), 3) == []


def test_facts_that_are_verified_later_are_found_by_the_next_reader(destination, write, space):
    write(destination)
    complete = dataclasses.replace(space, tokenizer="ab" * 32, config="cd" * 32)
    store = open_store(destination)
    assert store.check_space(complete).unknown == ("tokenizer", "config")
    assert store.write_facts(complete)
    assert open_store(destination).check_space(complete).unknown == ()


def test_what_is_written_beside_a_destination_is_named(destination, write, tmp_path, files_in):
    write(destination)
    store = store_for(destination)
    beside = {str(path.relative_to(tmp_path)) for path in store.sidecars}
    data = {name for name in files_in(tmp_path) if name in {"out.parquet", "out.jsonl"} or "rows.lance/" in name}
    assert set(files_in(tmp_path)) == data | beside
    assert store.rejects_path.parent.is_relative_to(tmp_path)
    assert store.rejects_path.name.endswith(".rejects.jsonl")
