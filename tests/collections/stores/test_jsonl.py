"""JSON Lines files and their sidecar."""

import json

import numpy as np
import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store
from embedway.collections.stores.records import sidecar_path
from embedway.errors import SinkError


def test_jsonl_gives_the_exact_floats(tmp_path, space):

    path = tmp_path / "out.jsonl"
    values = np.array([[0.1, -1e-9, 3e-38, 16777216, -0.0, 1 / 3], [1, 2, 1e20, 1e-45, 123456.79, -5]], np.float32)
    chunks = [Chunk(str(n), "d", "x", 0, 1, 1, None, "s", {"topic": "t"}) for n in range(2)]
    store = create_store(str(path))
    store.begin(Record(space, facts={"a": 1}, keep={"topic": "text"}))
    store.write(chunks, values)
    store.commit()
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), values)
    assert rows[0]["space"] == space.id
    assert rows[0]["topic"] == "t"
    (entry,) = json.loads(sidecar_path(path).read_text())["collections"]
    assert entry["space"] == space.to_json()
    assert (entry["record"]["facts"], entry["rows"], entry["bytes"]) == ({"a": 1}, 2, path.stat().st_size)


def test_jsonl_killed_between_its_two_renames_keeps_the_old_space(tmp_path, write, space, monkeypatch):
    """The sidecar is new and the data is old. The old data must not count as vectors of the new space."""
    path = tmp_path / "out.jsonl"
    write(str(path), (5,))
    other = type(space)("other", "ef" * 32, 6, "cls", normalized=True)
    from embedway.collections.stores import jsonl

    def killed(temporary, target):
        if target == path:
            raise KeyboardInterrupt
        temporary.replace(target)

    monkeypatch.setattr(jsonl, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write(str(path), (9,), overwrite=True, into=other)
    monkeypatch.undo()
    assert open_store(str(path)).space == space
    write(str(path), (9,), overwrite=True, into=other)
    assert open_store(str(path)).space == other
    assert len(json.loads(sidecar_path(path).read_text())["collections"]) == 1


def test_jsonl_changed_after_it_was_written(tmp_path, space, make_rows):
    path = tmp_path / "out.jsonl"
    store = create_store(str(path))
    store.begin(Record(space))
    store.write(*make_rows(3))
    store.commit()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"tiny@', b'"tinz@') + lines[2])
    with pytest.raises(SinkError, match="line 2 is not a row of the space"):
        open_store(str(path)).search(np.ones(6, np.float32), 1)
    path.write_bytes(b"".join(lines) + lines[0])
    with pytest.raises(SinkError, match="another version"):
        open_store(str(path))


def test_a_change_copies_the_lines_that_stay_as_they_are(tmp_path, write, make_rows, space):
    path = tmp_path / "out.jsonl"
    write(str(path), (4,))
    foreign = json.dumps({**json.loads(path.read_bytes().splitlines()[1]), "more": 1}).encode()
    before = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([before[0], foreign, *before[2:]]) + b"\n")
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["collections"][0]["bytes"] = path.stat().st_size
    sidecar_path(path).write_text(json.dumps(sidecar))
    store = open_store(str(path))
    store.begin_update(store.record)
    store.remove({("a/b.md", "d2")})
    store.write(*make_rows(1, 9))
    store.commit()
    assert path.read_bytes().splitlines()[:3] == [before[0], foreign, before[3]]
    assert [row["id"] for rows in store.read() for row in rows.fields] == ["d0#0", "d1#0", "d3#0", "d9#0"]
    assert np.array_equal(next(store.read()).vectors[1], make_rows(4)[1][1])


def test_a_kept_value_that_looks_like_the_vector_is_not_one(tmp_path, space):
    path = tmp_path / "out.jsonl"
    value = {"a": 1, "vector": [1, 2, 3, 4, 5, 6]}
    store = create_store(str(path))
    store.begin(Record(space, keep={"extra": "json"}))
    store.write([Chunk("1", "d", "x", 0, 1, 1, None, "s", {"extra": value})], np.ones((1, 6), np.float32))
    store.commit()
    (rows,) = open_store(str(path)).read()
    assert rows.fields[0]["extra"] == value
    assert np.array_equal(rows.vectors, np.ones((1, 6)))
