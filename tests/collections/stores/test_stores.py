"""Store for each destination, and destinations that cannot be used."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections.stores import create_store, open_store, store_for
from embedway.errors import SinkError, UsageError


@pytest.mark.parametrize(
    "name", ["out", "out.txt", "lancedb:", "lancedb:dir", "lancedb:#t", "lancedb:d#", "lancedb:d#a/b", "x.gz"]
)
def test_other_forms_are_wrong_usage(name):
    with pytest.raises(UsageError, match="lancedb:DIR#TABLE"):
        create_store(name)
    with pytest.raises(UsageError):
        open_store(name)


def test_folders_that_do_not_do(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    for destination, reason in (
        (tmp_path / "missing" / "out.parquet", "does not exist"),
        (tmp_path / "missing" / "out.jsonl", "does not exist"),
        (tmp_path / "folder.parquet", "is a folder"),
        (f"lancedb:{tmp_path / 'file' / 'db'}#t", "is not a writable folder"),
    ):
        with pytest.raises(SinkError, match=reason):
            create_store(str(destination))


def test_a_full_disk_is_a_sink_error_and_leaves_nothing(tmp_path):
    """A limit on the file's size simulates a full disk: the write fails in the same place."""
    script = (
        "import resource, signal, sys\n"
        "from embedway.collections.stores import create_store\nfrom embedway.errors import SinkError\n"
        "from embedway.collections.chunks import Chunk\nfrom embedway.collections.record import Record\n"
        "from embedway.types import Space\nimport numpy as np\n"
        "store = create_store(sys.argv[1])\n"
        "store.begin(Record(Space('m', 'a' * 64, 64, 'mean', True)))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "chunks = [Chunk(str(i), 'd', 'x', 0, 1, 1, None, 's', {}) for i in range(3000)]\n"
        "try:\n"
        "    store.write(chunks, np.random.rand(3000, 64).astype('f4'))\n    store.commit()\n"
        "except SinkError as error:\n    store.abort()\n    print(error)\n"
    )
    for name in ("out.parquet", "out.jsonl"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        assert "File too large" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_where_rejects_go(tmp_path):
    assert store_for("a/x.parquet").rejects_path.as_posix() == "a/x.parquet.rejects.jsonl"
    assert store_for("lancedb:a/b#t").rejects_path.as_posix() == "a/b/t.rejects.jsonl"


def test_files_that_do_not_say_what_they_hold(tmp_path, space, make_rows):
    table = pa.table({"id": ["a"], "vector": [[1.0]]})
    pq.write_table(table, tmp_path / "plain.parquet")
    pq.write_table(table.replace_schema_metadata({"embedway.space": "{"}), tmp_path / "odd.parquet")
    (tmp_path / "plain.jsonl").write_text('{"vector": [1]}\n')
    (tmp_path / "broken.parquet").write_text("no")
    for name, reason in (
        ("plain.parquet", "has no record of its vector space"),
        ("odd.parquet", "cannot read"),
        ("plain.jsonl", "has an unknown vector space"),
        ("broken.parquet", "reading failed"),
        ("missing.parquet", "no such file"),
    ):
        with pytest.raises(SinkError, match=reason):
            open_store(str(tmp_path / name))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_link_stays_and_its_target_is_replaced_and_locked(tmp_path, write, ending):
    link, target = tmp_path / f"link.{ending}", tmp_path / "folder" / f"target.{ending}"
    target.parent.mkdir()
    link.symlink_to(target)
    write(str(link), (5,))
    assert open_store(str(target)).count == 5
    with pytest.raises(SinkError, match=r"already exists.*overwrite=True"):
        write(str(link), (6,))
    write(str(link), (6,), overwrite=True)
    assert link.is_symlink()
    assert [open_store(str(path)).count for path in (link, target)] == [6, 6]
    assert store_for(str(link)).identity == store_for(str(target)).identity
    with store_for(str(link)).lock(), pytest.raises(SinkError, match="changes the collection"):
        store_for(str(target)).lock().__enter__()
    assert {path.name for path in tmp_path.iterdir()} == {"folder", link.name}


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_relative_name_with_a_colon_is_a_file(tmp_path, monkeypatch, write, ending):
    monkeypatch.chdir(tmp_path)
    write(f"new:one.{ending}", (5,))
    assert open_store(f"new:one.{ending}").count == 5
    assert store_for(f"new:one.{ending}").identity == str((tmp_path / f"new:one.{ending}").resolve())


def test_a_pipe_in_place_of_a_sidecar_is_not_opened(tmp_path, write):
    write(str(tmp_path / "out.jsonl"), (5,))
    sidecar = tmp_path / "out.jsonl.embedway.json"
    sidecar.unlink()
    os.mkfifo(sidecar)
    with pytest.raises(SinkError, match="is missing or cannot be read"):
        open_store(str(tmp_path / "out.jsonl"))
