"""Collections of Chroma in a folder."""

import contextlib
import itertools
from dataclasses import replace

import chromadb
import pytest
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings

import store_contract
from embedway.collections.stores import store_for
from embedway.collections.stores.server_columns import stored_columns
from embedway.collections.where import And, Compare, In, IsNull, Not, Or, matches
from embedway.collections.where_types import check_where
from embedway.errors import SinkError, UsageError
from store_contract import StoreContract


@pytest.fixture
def destination(tmp_path):
    return f"chroma:{tmp_path / 'db'}#rows"


@pytest.fixture
def write(destination, record, some_rows):
    made = []

    def run(n=10, *, overwrite=False, **changes):
        store = store_for(destination)
        made.append(store)
        store.prepare(overwrite=overwrite)
        store.begin(replace(record, **changes))
        store.write(*some_rows(n))
        store.commit()
        store.open()
        return store

    yield run
    for store in made:
        store.close()


class TestContract(StoreContract):
    @pytest.fixture
    def destination(self, tmp_path, monkeypatch):
        # The index stores vectors with length 1, and their length apart.
        monkeypatch.setattr(store_contract, "TOLERANCE", 1e-6)
        return f"chroma:{tmp_path / 'db'}#rows"


@pytest.mark.parametrize(
    "where",
    [
        Compare("n", ">=", 8),
        Compare("n", "!=", 3),
        Compare("lang", "=", "de"),
        Compare("lang", "!=", "de"),
        Compare("lang", "<", "e"),
        Not(Compare("lang", "=", "fr")),
        IsNull("lang"),
        Not(IsNull("page")),
        In("n", (1, 2, 99)),
        Not(In("n", tuple(range(9)))),
        Compare("tags", "contains", "x3"),
        Compare("part", "<", 0.75),
        Compare("part", "!=", 0.75),
        Compare("ok", "!=", value=True),
        Compare("when", ">", "2026-01-08T00:00:00Z"),
        Or((Compare("n", "=", 0), And((Compare("n", "=", 1), Compare("ok", "=", value=False))))),
        Not(Or((Compare("n", "<", 8), Compare("n", "=", 8)))),
    ],
    ids=str,
)
def test_conditions_hold_as_in_python(write, some_rows, where):
    store = write()
    found = {hit.id for hit in store.search(some_rows(1)[1][0], 10, where=where)}
    checked = check_where(where, stored_columns(store.record))
    assert found == {row["id"] for rows in store.read() for row in rows.fields if matches(checked, row)}


def test_collection_of_another_program_is_never_dropped(destination, tmp_path):
    client = chromadb.PersistentClient(tmp_path / "db", settings=Settings(anonymized_telemetry=False))
    client.create_collection("rows", embedding_function=None)
    store = store_for(destination)
    with pytest.raises(SinkError, match="no record of embedway"):
        store.prepare(overwrite=True)
    assert [one.name for one in client.list_collections()] == ["rows"]
    store.close()
    client.close()


def test_looking_for_a_collection_creates_no_folder(destination, tmp_path):
    store = store_for(destination)
    assert not store.exists()
    with pytest.raises(SinkError, match="no such collection"):
        store.open()
    assert not (tmp_path / "db").exists()


def test_env_file_of_the_working_directory_does_not_choose_a_server(destination, write, tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("chroma_api_impl=os.system\nchroma_server_host=evil.example\n")
    monkeypatch.chdir(tmp_path)
    assert write(4).count == 4


def test_killed_creation_is_removed_by_the_next(destination, record, some_rows, write):
    store = store_for(destination)
    store.begin(record)
    store.write(*some_rows(4))
    names = {one.name for one in write(6)._client.list_collections()}  # noqa: SLF001
    assert names == {"rows"}
    store.close()


@pytest.mark.parametrize("form", ["chroma:db", "chroma:db#a", "chroma:db#a/b", "chroma:http://u:s3cret@h#rows"])
def test_other_forms_are_refused(form):
    with pytest.raises(UsageError, match="the form is") as caught:
        store_for(form)
    assert "s3cret" not in str(caught.value)


def test_no_server_is_told():
    store = store_for("chroma:http://127.0.0.1:1#rows")
    with pytest.raises(SinkError, match="no server listens there"):
        store.open()
    store.close()


def test_collections_with_similar_names_stay(destination, record, some_rows, tmp_path):
    names = ["rows.embedway-backup", "rows.embedway-0123456789ab", "rows.embedway-0123456789ac"]
    client = chromadb.PersistentClient(tmp_path / "db", settings=Settings(anonymized_telemetry=False))
    for name in names[:2]:
        with contextlib.closing(store_for(destination.replace("#rows", f"#{name}"))) as store:
            store.begin(record)
            store.write(*some_rows(2))
            store.commit()
    client.create_collection(names[2], embedding_function=None, metadata={"embedway": '{"staged_for": "rows"}'})
    with contextlib.closing(store_for(destination)) as store:
        store.begin(record)
        store.commit()
    assert {one.name for one in client.list_collections()} == {"rows", *names}
    client.close()


def test_collection_that_appears_meanwhile_is_never_dropped(destination, record, tmp_path):
    client = chromadb.PersistentClient(tmp_path / "db", settings=Settings(anonymized_telemetry=False))
    for overwrite, message in ((False, "already exists"), (True, "no record of embedway")):
        with contextlib.closing(store_for(destination)) as store:
            store.prepare(overwrite=overwrite)
            store.begin(record)
            client.create_collection("rows", embedding_function=None)
            with pytest.raises(SinkError, match=message):
                store.commit()
            store.abort()
        assert [one.name for one in client.list_collections()] == ["rows"]
        client.delete_collection("rows")
    client.close()


def test_a_collection_that_lost_its_name_has_it_again_after_an_update(write, destination, some_rows, monkeypatch):
    old = write(4)
    modify, calls = Collection.modify, itertools.count(1)

    def lose_the_server(collection, **options):
        if next(calls) > 1:
            raise ConnectionError
        modify(collection, **options)

    with monkeypatch.context() as context:
        context.setattr(Collection, "modify", lose_the_server)
        with pytest.raises(SinkError, match="finishing failed"):
            write(6, overwrite=True)
    assert "rows" not in {one.name for one in old._client.list_collections()}  # noqa: SLF001
    with pytest.raises(SinkError, match="already exists"):
        write(6)
    with contextlib.closing(store_for(destination)) as store:
        assert store.exists()
        store.open()
        store.begin_update(store.record)
        store.write(*some_rows(2, 4))
        store.commit()
        assert store.count == 6
        assert "rows" in {one.name for one in store._client.list_collections()}  # noqa: SLF001
    assert {one.name for one in write(6, overwrite=True)._client.list_collections()} == {"rows"}  # noqa: SLF001
