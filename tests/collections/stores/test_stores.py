"""The contract of all sinks: whole or not at all, nothing left behind, and every fact kept."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway._version import __version__
from embedway.collections.stores import lancedb as lancedb_sink
from embedway.collections.stores import open_collection, open_sink, rejects_path
from embedway.collections.stores.jsonl import sidecar_path
from embedway.collections.stores.temporary import remove, stale_paths, temporary_path
from embedway.errors import MissingExtraError, SinkError, UsageError


@pytest.fixture
def write(space, make_rows):
    def run(destination, counts=(5,), *, overwrite=False, seed=0, into=space):
        sink = open_sink(destination, overwrite=overwrite)
        sink.open(into, {"chunk_tokens": 7}, ("topic",))
        first = 0
        for count in counts:
            sink.write(*make_rows(count, first, seed))
            first += count
        sink.commit()

    return run


@pytest.fixture
def dead_process():
    """The number of a process that has ended."""
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True, text=True
    )
    return int(process.stdout)


def test_rows_come_back_as_they_were_written(destination, write, make_rows, space):
    write(destination, (3, 1, 4))
    collection = open_collection(destination)
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
    sink = open_sink(destination)
    sink.open(space, {}, ())
    sink.write(*make_rows(20))
    with pytest.raises(SinkError, match="there is no such"):
        open_collection(destination)
    sink.abort()
    sink.abort()
    assert files_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_output_stays_after_commit(destination, write, tmp_path, files_in):
    write(destination)
    assert not [name for name in files_in(tmp_path) if ".embedway-" in name or name.endswith(".tmp")]


def test_an_existing_destination_is_refused_before_anything_is_written(destination, write, tmp_path, files_in):
    write(destination)
    before = files_in(tmp_path)
    with pytest.raises(SinkError, match="exists already"):
        open_sink(destination)
    assert files_in(tmp_path) == before


def test_one_that_appears_meanwhile_is_not_replaced(destination, write, space, make_rows):
    slow = open_sink(destination)
    slow.open(space, {}, ())
    slow.write(*make_rows(9))
    write(destination, (5,))
    with pytest.raises(SinkError, match="exists already"):
        slow.commit()
    slow.abort()
    assert open_collection(destination).count == 5


def test_overwriting_replaces_only_on_commit(destination, write, space, make_rows, tmp_path, files_in):
    write(destination, (5,))
    before = files_in(tmp_path)
    sink = open_sink(destination, overwrite=True)
    sink.open(space, {}, ())
    sink.write(*make_rows(9))
    assert open_collection(destination).count == 5
    sink.abort()
    assert files_in(tmp_path) == before
    write(destination, (7,), overwrite=True)
    assert open_collection(destination).count == 7
    assert not [name for name in files_in(tmp_path) if name.endswith(".tmp") or "replaced" in name]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    destination, write, space, make_rows, tmp_path, dead_process
):
    living = open_sink(destination)
    living.open(space, {}, ())
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


@pytest.mark.parametrize(
    "name", ["out", "out.txt", "lancedb:", "lancedb:dir", "lancedb:#t", "lancedb:d#", "lancedb:d#a/b", "x.gz"]
)
def test_other_forms_are_wrong_usage(name):
    with pytest.raises(UsageError, match="lancedb:DIR#TABLE"):
        open_sink(name)
    with pytest.raises(UsageError):
        open_collection(name)


def test_folders_that_do_not_do(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    for destination, reason in (
        (tmp_path / "missing" / "out.parquet", "does not exist"),
        (tmp_path / "missing" / "out.jsonl", "does not exist"),
        (tmp_path / "folder.parquet", "is a folder"),
        (f"lancedb:{tmp_path / 'file' / 'db'}#t", "is no folder that may be written to"),
    ):
        with pytest.raises(SinkError, match=reason):
            open_sink(str(destination))


def test_a_full_disk_is_a_sink_error_and_leaves_nothing(tmp_path):
    """A limit on the file's size stands in for the disk: the write fails in the same place."""
    script = (
        "import resource, signal, sys\n"
        "from embedway.collections.stores import open_sink\nfrom embedway.errors import SinkError\n"
        "from embedway.collections.stores.base import Chunk\nfrom embedway.types import Space\nimport numpy as np\n"
        "sink = open_sink(sys.argv[1])\n"
        "sink.open(Space('m', 'a' * 64, 64, 'mean', True), {}, ())\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "chunks = [Chunk(str(i), 'd', 'x', 0, 1, 1, None, 's', {}) for i in range(3000)]\n"
        "try:\n"
        "    sink.write(chunks, np.random.rand(3000, 64).astype('f4'))\n    sink.commit()\n"
        "except SinkError as error:\n    sink.abort()\n    print(error)\n"
    )
    for name in ("out.parquet", "out.jsonl"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        assert "File too large" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_parquet_holds_fixed_size_vectors_and_says_what_it_is(tmp_path, write, make_rows, space):
    path = tmp_path / "out.parquet"
    write(str(path))
    table = pq.read_table(path)
    assert table.column_names == [
        "id",
        "document_id",
        "source",
        "start_line",
        "title",
        "text",
        "topic",
        "vector",
    ]
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<element: float")
    assert table.schema.field("vector").type.list_size == 6
    chunks, vectors = make_rows(5)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table["topic"].to_pylist() == [chunk.metadata["topic"] for chunk in chunks]
    metadata = table.schema.metadata
    assert json.loads(metadata[b"embedway.space"]) == space.to_json()
    assert json.loads(metadata[b"embedway.settings"]) == {"chunk_tokens": 7}
    assert metadata[b"embedway.version"] == __version__.encode()
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_streams_row_groups(tmp_path, space, make_rows, monkeypatch):
    monkeypatch.setattr("embedway.collections.stores.parquet.ROW_GROUP_ROWS", 10)
    sink = open_sink(str(tmp_path / "out.parquet"))
    sink.open(space, {}, ())
    for first in range(0, 36, 4):
        sink.write(*make_rows(4, first))
        assert sink._held_rows < 10
    sink.commit()
    assert [pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(n).num_rows for n in range(3)] == [
        12,
        12,
        12,
    ]


def test_jsonl_gives_the_exact_floats(tmp_path, space):
    from embedway.collections.stores.base import Chunk

    path = tmp_path / "out.jsonl"
    values = np.array([[0.1, -1e-9, 3e-38, 16777216, -0.0, 1 / 3], [1, 2, 1e20, 1e-45, 123456.79, -5]], np.float32)
    chunks = [Chunk(str(n), "d", "x", 0, 1, 1, None, "s", {"topic": "t"}) for n in range(2)]
    sink = open_sink(str(path))
    sink.open(space, {"a": 1}, ("topic",))
    sink.write(chunks, values)
    sink.commit()
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), values)
    assert rows[0]["space"] == space.id
    assert rows[0]["topic"] == "t"
    (entry,) = json.loads(sidecar_path(path).read_text())["collections"]
    assert entry["space"] == space.to_json()
    assert (entry["settings"], entry["rows"], entry["bytes"]) == ({"a": 1}, 2, path.stat().st_size)


def test_jsonl_killed_between_its_two_renames_keeps_the_old_space(tmp_path, write, space, monkeypatch):
    """The sidecar is new, the data is old: the old data must not be taken for vectors of the new space."""
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
    assert open_collection(str(path)).space == space
    write(str(path), (9,), overwrite=True, into=other)
    assert open_collection(str(path)).space == other
    assert len(json.loads(sidecar_path(path).read_text())["collections"]) == 1


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
    assert open_collection(destination).count == 3
    sink = open_sink(destination, overwrite=True)
    remove(left)
    left.mkdir()
    table.rename(left / "replaced.lance")
    sink._clean_up_after_the_dead()
    assert open_collection(destination).count == 3


def test_lancedb_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(lancedb_sink.importlib.util, "find_spec", lambda name: None)
    for function in (open_sink, open_collection):
        with pytest.raises(MissingExtraError, match=r"pip install 'embedway\[lancedb\]'"):
            function(f"lancedb:{tmp_path}#t")


def test_tables_lie_side_by_side(tmp_path, write):
    write(f"lancedb:{tmp_path / 'new' / 'db'}#one", (2,))
    write(f"lancedb:{tmp_path / 'new' / 'db'}#two", (3,))
    assert open_collection(f"lancedb:{tmp_path / 'new' / 'db'}#one").count == 2
    assert sorted(path.name for path in (tmp_path / "new" / "db").iterdir()) == ["one.lance", "two.lance"]


def test_where_rejects_go(tmp_path):
    assert rejects_path("a/x.parquet").as_posix() == "a/x.parquet.rejects.jsonl"
    assert rejects_path("lancedb:a/b#t").as_posix() == "a/b/t.rejects.jsonl"
