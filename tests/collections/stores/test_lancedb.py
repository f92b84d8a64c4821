"""LanceDB tables."""

import pyarrow as pa
import pytest

from embedway.collections.stores import create_store, open_store
from embedway.collections.stores import lancedb as lancedb_store
from embedway.collections.stores.temporary import stale_paths, temporary_path
from embedway.errors import MissingExtraError, SinkError
from embedway.unfinished import remove
from inside import remove_stale


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
    monkeypatch.setattr(lancedb_store.importlib.util, "find_spec", lambda name: None)
    for function in (create_store, open_store):
        with pytest.raises(MissingExtraError, match=r"pip install 'embedway\[lancedb\]'"):
            function(f"lancedb:{tmp_path}#t")


def test_tables_lie_side_by_side(tmp_path, write):
    write(f"lancedb:{tmp_path / 'new' / 'db'}#one", (2,))
    write(f"lancedb:{tmp_path / 'new' / 'db'}#two", (3,))
    assert open_store(f"lancedb:{tmp_path / 'new' / 'db'}#one").count == 2
    assert sorted(path.name for path in (tmp_path / "new" / "db").iterdir()) == ["one.lance", "two.lance"]


def test_a_table_that_is_not_ours(tmp_path):
    import lancedb

    lancedb.connect(str(tmp_path)).create_table("t", pa.table({"id": ["a"]}))
    with pytest.raises(SinkError, match="has no record of its vector space"):
        open_store(f"lancedb:{tmp_path}#t")
    with pytest.raises(SinkError, match="no such table"):
        open_store(f"lancedb:{tmp_path}#other")
