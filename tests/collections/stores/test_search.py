"""Search: exact, in row order among equals, and never across spaces."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections.search import _Best
from embedway.collections.stores import open_collection, open_sink
from embedway.errors import SinkError, SpaceMismatchError, UsageError


@pytest.fixture
def collection(destination, space, make_rows):
    sink = open_sink(destination)
    sink.open(space, {}, ())
    for first in range(0, 1400, 200):
        sink.write(*make_rows(200, first))
    sink.commit()
    return open_collection(destination)


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
    with pytest.raises(UsageError, match=r"\(5,\).*takes \(6,\)"):
        collection.search(np.ones(5, np.float32), 3)
    with pytest.raises(UsageError, match="ask for 1 or more"):
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
    sink = open_sink(destination)
    sink.open(space, {}, ())
    sink.write(*make_rows(2))
    sink.commit()
    collection = open_collection(destination)
    collection.check_space(space)
    asked = dataclasses.replace(space, **change)
    with pytest.raises(SpaceMismatchError) as caught:
        collection.check_space(asked)
    assert caught.value.collection == destination
    assert caught.value.collection_space == space.id
    assert asked.id in str(caught.value)
    assert space.id in str(caught.value)
    assert caught.value.asked_space != space.id


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), max_size=60),
    batch=st.integers(1, 17),
    top_n=st.integers(1, 12),
)
def test_the_best_rows_do_not_depend_on_the_batches(scores, batch, top_n):
    best = _Best(top_n)
    array = np.array(scores, np.float32)
    for first in range(0, len(array), batch):
        best.offer(array[first : first + batch], first)
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:top_n]
    assert best.rows.tolist() == expected


def test_files_that_do_not_say_what_they_hold(tmp_path, space, make_rows):
    table = pa.table({"id": ["a"], "vector": [[1.0]]})
    pq.write_table(table, tmp_path / "plain.parquet")
    pq.write_table(table.replace_schema_metadata({"embedway.space": "{"}), tmp_path / "odd.parquet")
    (tmp_path / "plain.jsonl").write_text('{"vector": [1]}\n')
    (tmp_path / "broken.parquet").write_text("no")
    for name, reason in (
        ("plain.parquet", "does not say which vector space"),
        ("odd.parquet", "cannot read"),
        ("plain.jsonl", "does not say which vector space"),
        ("broken.parquet", "reading failed"),
        ("missing.parquet", "no such file"),
    ):
        with pytest.raises(SinkError, match=reason):
            open_collection(str(tmp_path / name))


def test_a_table_that_is_not_ours(tmp_path):
    import lancedb

    lancedb.connect(str(tmp_path)).create_table("t", pa.table({"id": ["a"]}))
    with pytest.raises(SinkError, match="does not say which vector space"):
        open_collection(f"lancedb:{tmp_path}#t")
    with pytest.raises(SinkError, match="no such table"):
        open_collection(f"lancedb:{tmp_path}#other")


def test_jsonl_changed_after_it_was_written(tmp_path, space, make_rows):
    path = tmp_path / "out.jsonl"
    sink = open_sink(str(path))
    sink.open(space, {}, ())
    sink.write(*make_rows(3))
    sink.commit()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"tiny@', b'"tinz@') + lines[2])
    with pytest.raises(SinkError, match="line 2 is no row of the space"):
        open_collection(str(path)).search(np.ones(6, np.float32), 1)
    path.write_bytes(b"".join(lines) + lines[0])
    with pytest.raises(SinkError, match="another version"):
        open_collection(str(path))
