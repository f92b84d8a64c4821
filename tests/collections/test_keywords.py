"""Keyword index: follows the collection, is private, and survives damage and concurrent processes."""

import contextlib
import sqlite3
import stat
import threading
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections import keyword_index
from embedway.collections.chunks import Chunk
from embedway.collections.documents import DocumentKey
from embedway.collections.journal import journal_path
from embedway.collections.keywords import Keywords, KeywordUpdate, forget_keywords, index_path
from embedway.collections.record import Record
from embedway.collections.stores import store_for
from embedway.errors import SinkError
from embedway.space import Space
from memory_store import PLACES, MemoryStore

RECORD = Record(Space("fake", "ab" * 32, 8, "mean", normalized=True))
TEXTS = {
    "a": "The event loop runs tasks. Error E1133 stops it.",
    "b": "Glaciers carve valleys.",
    "c": "The connector retries tasks after a timeout.",
}


def chunk(name, text, fingerprint="1"):
    return Chunk(f"{name}#0", name, text, 0, len(text), 1, None, "docs", {}, fingerprint=fingerprint)


def write(store, texts, fingerprint="1"):
    store.write([chunk(name, text, fingerprint) for name, text in texts.items()], np.ones((len(texts), 8), np.float32))
    store.commit()


@pytest.fixture
def store(tmp_path):
    store = MemoryStore(f"memory:{tmp_path}")
    store.begin(RECORD)
    write(store, TEXTS)
    store.open()
    return store


@pytest.fixture
def keywords(store, tmp_path):
    return Keywords(store, tmp_path / "keywords")


def ids(hits):
    return [row_id for row_id, _ in hits.rows]


def test_finds_words_identifiers_and_forms(keywords):
    update = keywords.update()
    assert (update.added, update.removed, update.rebuilt) == (3, 0, True)
    assert ids(keywords.search("E1133", 5)) == ["a#0"]
    assert ids(keywords.search("retried by the connector", 5))[0] == "c#0"
    assert keywords.search("zebra", 5).rows == []
    assert keywords.search("!?", 5).rows == []
    assert keywords.update() == type(update)()


def test_operators_of_fts5_are_plain_words(keywords):
    keywords.update()
    nasty = (
        "\0",
        "a\0loop",
        "🙂",
        "x" * 100_000,
        "loop " * 20_000,
        '"' * 100_000,
        "*" * 9999,
        "\u202e",
        "rank",
        "'; --",
    )
    for query in (
        *nasty,
        '"',
        "NOT loop",
        "text:loop",
        "loop*",
        "NEAR(a b)",
        "a AND (",
        "^loop",
        "{text}: loop",
        "--loop",
    ):
        keywords.search(query, 5)


def test_the_file_is_private(keywords, tmp_path):
    keywords.update()
    assert stat.S_IMODE(keywords.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keywords").stat().st_mode) == 0o700


def test_a_change_of_the_collection_changes_only_its_rows(keywords, store):
    keywords.update()
    store.begin_update(store.record)
    store.remove({DocumentKey("docs", "b")})
    write(store, {"a": "A loop of zebras.", "d": "New glaciers."}, "2")
    store.open()
    update = keywords.update()
    assert (update.added, update.removed, update.rebuilt) == (2, 1, False)
    assert ids(keywords.search("E1133", 5)) == []
    assert ids(keywords.search("zebra", 5)) == ["a#0"]
    assert ids(keywords.search("glacier", 5)) == ["d#0"]
    # Removed texts are in none of the tables.
    connection = sqlite3.connect(keywords.path)
    connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, row)")
    assert not connection.execute("SELECT * FROM temp.terms WHERE term IN ('valley', 'e1133')").fetchall()
    connection.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "version", "other application", "empty"])
def test_a_damaged_index_is_built_again(keywords, damage):
    keywords.update()
    data = {"garbage": b"\x00garbage" * 5000, "truncated": keywords.path.read_bytes()[:5000], "empty": b""}
    if damage in data:
        keywords.path.write_bytes(data[damage])
    else:
        change(keywords, "PRAGMA user_version = 1" if damage == "version" else "PRAGMA application_id = 1")
    assert keywords.update().rebuilt
    assert ids(keywords.search("E1133", 5)) == ["a#0"]


def test_an_index_that_lost_a_table_is_deleted_and_the_next_update_builds_it(keywords):
    keywords.update()
    change(keywords, "DROP TABLE rows")
    # The revision is still recorded, so the update has nothing to do; the search finds the damage.
    assert keywords.update() == KeywordUpdate()
    assert ids(keywords.search("E1133", 5)) == ["a#0"]


def change(keywords, statement):
    """Change the file of an index."""
    connection = sqlite3.connect(keywords.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_forgetting_deletes_the_file(keywords, store, tmp_path):
    keywords.update()
    assert forget_keywords(store, tmp_path / "keywords")
    assert list((tmp_path / "keywords").iterdir()) == []
    assert not forget_keywords(store, tmp_path / "keywords")
    assert keywords.update().rebuilt


def test_the_path_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    def paths_of(*destinations):
        stores = [store_for(destination) for destination in destinations]
        return [(index_path(store, tmp_path), journal_path(store)) for store in stores]

    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    first = paths_of("a.parquet", "lancedb:db#t", "chroma:db#abc")
    monkeypatch.chdir(tmp_path / "sub")
    assert first == paths_of("../a.parquet", "lancedb:../db#t", "chroma:../db/#abc")
    assert not set(first) & set(paths_of("a.parquet", "lancedb:db#t", "chroma:db#abc"))


def test_threads_build_it_once(store, tmp_path):
    updates, start = [], threading.Barrier(4)

    def build():
        mine = MemoryStore(store.destination)
        mine.open()
        keywords = Keywords(mine, tmp_path / "keywords")
        start.wait()
        updates.append(keywords.update())
        assert ids(keywords.search("E1133", 5)) == ["a#0"]

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(update.added for update in updates) == [0, 0, 0, 3]


def test_sqlite_without_fts5_is_told_with_a_remedy(keywords, monkeypatch):
    monkeypatch.setattr(keyword_index, "has_fts5", lambda: False)
    with pytest.raises(SinkError, match="mode='vector'"):
        keywords.update()


def test_an_unusable_folder_is_told_with_the_setting(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"search\.directory"):
        Keywords(store, tmp_path / "file").update()


def test_a_full_disk_is_told_and_leaves_the_index_as_it_was(keywords, store, monkeypatch):
    keywords.update()
    store.begin_update(store.record)
    write(store, {f"n{n}": f"word{n} " * 50 + " ".join(f"w{n}x{m}" for m in range(200)) for n in range(200)}, "2")
    store.open()
    opened = keyword_index.opened

    @contextlib.contextmanager
    def full(path):
        with opened(path) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            yield connection

    with monkeypatch.context() as patch:
        patch.setattr(keyword_index, "opened", full)
        with pytest.raises(SinkError, match="full"):
            keywords.update()
    with keyword_index.opened(keywords.path) as connection:
        assert keyword_index.count(connection) == 3
    assert keywords.update().added == 200
    assert ids(keywords.search("word7", 5)) == ["n7#0"]


def test_a_file_that_others_may_read_becomes_private(keywords):
    keywords.update()
    keywords.path.chmod(0o644)
    keywords.search("loop", 5)
    assert stat.S_IMODE(keywords.path.stat().st_mode) == 0o600


def test_the_index_of_a_removed_collection_has_none_of_its_rows_for_a_new_one(keywords, store, tmp_path):
    keywords.update()
    PLACES.pop(store.destination)
    made = MemoryStore(store.destination)
    made.begin(store.record)
    write(made, {"x": "Only bakeries here."}, "9")
    made.open()
    fresh = Keywords(made, tmp_path / "keywords")
    fresh.update()
    assert ids(fresh.search("loop E1133 glaciers bakeries", 9)) == ["x#0"]


def test_an_open_collection_and_a_newer_one_find_their_own_rows(keywords, store, tmp_path):
    """Two processes with different states of a collection share the index file."""
    keywords.update()
    newer = MemoryStore(store.destination)
    newer.open()
    newer.begin_update(newer.record)
    write(newer, {"d": "E1133 again."}, "2")
    newer.open()
    other = Keywords(newer, tmp_path / "keywords")
    other.update()
    assert sorted(ids(other.search("E1133", 5))) == ["a#0", "d#0"]


@pytest.mark.parametrize("ending", ["c.parquet", "c.jsonl", "lancedb:c#rows"])
def test_texts_that_another_program_changed_are_found(tmp_path, ending):
    """The record, with its revision, and all fingerprints stay as they were."""
    scheme, _, rest = ending.rpartition(":")
    destination = f"{scheme}:{tmp_path / rest}" if scheme else str(tmp_path / rest)
    with contextlib.closing(store_for(destination)) as store:
        store.begin(RECORD)
        write(store, TEXTS)
    opened = [store_for(destination) for _ in range(2)]
    keywords = [Keywords(store, tmp_path / "keywords") for store in opened]
    opened[0].open()
    assert ids(keywords[0].search("glaciers", 5)) == ["b#0"]
    _replace_text(destination, "Glaciers", "Zebrafin")
    opened[1].open()
    assert opened[0].record.revision == opened[1].record.revision
    assert keywords[1].update() == KeywordUpdate(3, 3, rebuilt=True)
    assert ids(keywords[1].search("zebrafin", 5)) == ["b#0"]
    assert ids(keywords[1].search("glaciers", 5)) == []
    assert keywords[1].update() == KeywordUpdate()
    for store in opened:
        store.close()


def _replace_text(destination, old, new):
    """Replace a word as another program does it; the number of bytes stays."""
    if destination.endswith(".jsonl"):
        path = Path(destination)
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        return
    if destination.endswith(".parquet"):
        table = pq.read_table(destination)
        rows = [{**row, "text": row["text"].replace(old, new)} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), destination)
        return
    table = lancedb.connect(destination.removeprefix("lancedb:").partition("#")[0]).open_table("rows")
    table.update(where="id = 'b#0'", values={"text": TEXTS["b"].replace(old, new)})
