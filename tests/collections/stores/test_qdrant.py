"""Collections of Qdrant, by the in-memory mode of its client."""

import functools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import store_contract
from embedway.collections.documents import DocumentKey
from embedway.collections.stores import store_for
from embedway.collections.stores.qdrant import QdrantStore
from embedway.collections.stores.qdrant_names import RECORD_POINT
from embedway.collections.stores.server_columns import stored_columns
from embedway.collections.where import And, Compare, In, IsNull, Not, Or, matches
from embedway.collections.where_types import check_where
from embedway.errors import SinkError, UsageError
from store_contract import StoreContract

DESTINATION = "qdrant:http://localhost:6333#rows"


class MemoryClient(QdrantClient):
    """Client in memory. `keeps_metadata` is false for a server before 1.16."""

    keeps_metadata = True

    def __init__(self):
        super().__init__(":memory:")
        self.indexes = {}

    def create_payload_index(self, collection_name, field_name, field_schema=None, **_):
        self.indexes[field_name] = field_schema  # in memory, indexes have no effect

    def create_collection(self, collection_name, *, metadata=None, **options):
        metadata = metadata if self.keeps_metadata else None
        return super().create_collection(collection_name, metadata=metadata, **options)

    def update_collection(self, collection_name, **options):
        if self.keeps_metadata:
            return super().update_collection(collection_name, **options)
        return True


@pytest.fixture(params=[True, False], ids=["metadata", "point"])
def client(request):
    found = MemoryClient()
    found.keeps_metadata = request.param
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Local mode")
        yield found
    found.close()


@pytest.fixture
def write(client, record, some_rows):
    def run(n=10, **changes):
        store = QdrantStore(DESTINATION, client=client)
        store.prepare(overwrite=False)
        store.begin(replace(record, **changes))
        store.write(*some_rows(n))
        store.commit()
        store.open()
        return store

    return run


class TestContract(StoreContract):
    @pytest.fixture
    def destination(self, monkeypatch, client):
        made = functools.partial(QdrantStore, client=client)

        def opened(destination):
            store = made(destination)
            store.open()
            return store

        def created(destination, *, overwrite=False):
            store = made(destination)
            store.prepare(overwrite=overwrite)
            return store

        monkeypatch.setattr(store_contract, "open_store", opened)
        monkeypatch.setattr(store_contract, "create_store", created)
        # Vectors are stored with length 1, and their length apart.
        monkeypatch.setattr(store_contract, "TOLERANCE", 1e-6)
        return DESTINATION


@pytest.mark.parametrize(
    "where",
    [
        Compare("n", ">=", 8),
        Compare("n", "!=", 3),
        Compare("n", "<", (1 << 60)),
        Compare("lang", "=", "de"),
        Compare("lang", "!=", "de"),
        Compare("lang", "<", "e"),
        Not(Compare("lang", "=", "fr")),
        Not(Compare("lang", "<", "a")),
        IsNull("lang"),
        IsNull("page"),
        Not(IsNull("lang")),
        In("n", (1, 2, 99)),
        In("part", (0.25, 0.5)),
        Not(In("n", tuple(range(9)))),
        Compare("tags", "contains", "x3"),
        Not(Compare("tags", "contains", "x3")),
        Compare("part", "=", 0.75),
        Compare("ok", "!=", value=True),
        Compare("when", ">", "2026-01-08T00:00:00Z"),
        Compare("when", "=", "2026-01-03T12:30:01.000250Z"),
        IsNull("any"),
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


def test_float16_is_declared_and_kept(write, client, some_rows):
    store = write(6, vector_type="float16")
    params = client.get_collection("rows").config.params.vectors
    assert params.datatype.value == "float16"
    assert store.record.vector_type == "float16"
    assert store.search(some_rows(6)[1][3], 1)[0].id == "s/d1#1"


def test_columns_that_are_searched_are_indexed(write, client):
    write()
    assert client.indexes == {
        **dict.fromkeys(("id", "source", "document_id", "lang", "tags"), "keyword"),
        "n": "integer",
        "part": "float",
        "ok": "bool",
        "when": "datetime",
    }


def test_names_of_columns_may_be_odd(client, record, some_rows):
    odd = {"a.b": "int", "x[0]": "text", 'q"': "int", "ü ": "int"}
    chunks, vectors = some_rows(4)
    chunks = [replace(one, metadata=dict(zip(odd, (n, f"t{n}", n, n), strict=True))) for n, one in enumerate(chunks)]
    store = QdrantStore(DESTINATION, client=client)
    store.begin(replace(record, keep=odd))
    store.write(chunks, vectors)
    store.commit()
    for name, value in {"a.b": 2, "x[0]": "t2", 'q"': 2, "ü ": 2}.items():
        assert [hit.id for hit in store.search(vectors[0], 9, where=Compare(name, "=", value))] == ["s/d1#0"]
    assert store.fetch(["s/d1#0"])["s/d1#0"]["a.b"] == 2


def test_collection_of_another_program_is_never_dropped(client):
    client.create_collection("rows", vectors_config=module_vectors())
    store = QdrantStore(DESTINATION, client=client)
    with pytest.raises(SinkError, match="no record of embedway"):
        store.prepare(overwrite=True)
    assert client.collection_exists("rows")


def test_killed_creation_is_removed_by_the_next(client, record, some_rows):
    for _ in range(2):
        store = QdrantStore(DESTINATION, client=client)
        store.prepare(overwrite=False)
        store.begin(record)
        store.write(*some_rows(4))
    store.commit()
    assert len(client.get_collections().collections) == 1


def test_killed_update_can_be_repeated(write, client, some_rows, record):
    store = write(4)
    for _ in range(2):
        again = QdrantStore(DESTINATION, client=client)
        again.open()
        again.begin_update(replace(record, keep={**record.keep, "more": "int"}))
        again.remove({DocumentKey("s", "d0")})
        again.write(*some_rows(4, 2))
    again.commit()
    assert again.count == 4
    store.open()
    assert store.record.keep["more"] == "int"
    assert len(store.search(some_rows(1)[1][0], 9, where=IsNull("more"))) == 4


def test_reserved_point_is_no_row(write, client):
    store = write()
    points, _ = client.scroll("rows", limit=100)
    assert len(points) - (RECORD_POINT in {point.id for point in points}) == store.count == 10


def test_no_server_is_told():
    store = store_for("qdrant:http://127.0.0.1:1#rows")
    with pytest.raises(SinkError, match="no server listens there") as caught:
        store.open()
    assert caught.value.__suppress_context__
    store.close()


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("qdrant:http://localhost:6333", "does not name a collection"),
        ("qdrant:http://localhost:6333#a/b", "does not name a collection"),
        ("qdrant:/some/folder#rows", "URL"),
        ("qdrant::memory:#rows", "URL"),
        ("qdrant:http://user:s3cret@localhost#rows", "QDRANT_API_KEY"),
    ],
)
def test_other_forms_are_refused(destination, message):
    with pytest.raises(UsageError, match=message) as caught:
        store_for(destination)
    assert "s3cret" not in str(caught.value)


def test_key_is_not_sent_without_encryption_and_never_shown(monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    with pytest.raises(UsageError, match="use https") as caught:
        store_for("qdrant:http://db.example:6333#rows").open()
    assert "s3cret" not in str(caught.value)
    store = store_for("qdrant:http://127.0.0.1:1#rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SinkError) as refused:
            store.open()
    assert "s3cret" not in f"{refused.value!r} {vars(store)}"
    store.close()


def module_vectors():
    return models.VectorParams(size=3, distance=models.Distance.DOT)


def test_equal_scores_beyond_the_first_request_are_in_row_order(client, record, some_rows):
    store = QdrantStore(DESTINATION, client=client)
    store.begin(record)
    chunks, _ = some_rows(80)
    store.write(chunks, np.ones((80, 6), np.float32))
    store.commit()
    order = [row["id"] for rows in store.read() for row in rows.fields]
    assert [hit.id for hit in store.search(np.ones(6, np.float32), 7)] == order[:7]


def test_collections_with_similar_names_stay(client, record, some_rows):
    for name in ("rows.embedway-backup", "rows.embedway-0123456789ab"):
        store = QdrantStore(DESTINATION.replace("#rows", f"#{name}"), client=client)
        store.begin(record)
        store.write(*some_rows(2))
        store.commit()
    client.create_collection("rows.embedway-0123456789ac", vectors_config=module_vectors())
    before = {one.name for one in client.get_collections().collections}
    store = QdrantStore(DESTINATION, client=client)
    store.begin(record)
    store.commit()
    assert before < {one.name for one in client.get_collections().collections}


def test_collection_that_appears_meanwhile_is_never_dropped(client, record):
    for overwrite, message in ((False, "already exists"), (True, "no record of embedway")):
        store = QdrantStore(DESTINATION, client=client)
        store.prepare(overwrite=overwrite)
        store.begin(record)
        client.create_collection("rows", vectors_config=module_vectors())
        with pytest.raises(SinkError, match=message):
            store.commit()
        store.abort()
        assert [one.name for one in client.get_collections().collections] == ["rows"]
        client.delete_collection("rows")


def test_a_complete_collection_whose_alias_was_removed_stays(write, client, record, some_rows):
    write(4)
    (first,) = [one.name for one in client.get_collections().collections]
    removed = models.DeleteAlias(alias_name="rows")
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=removed)])
    store = QdrantStore(DESTINATION, client=client)
    assert not store.exists()
    store.begin(record)
    store.write(*some_rows(2))
    store.commit()
    assert first in [one.name for one in client.get_collections().collections]
    assert store.count == 2
