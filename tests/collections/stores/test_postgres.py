"""Tables in a real PostgreSQL with pgvector."""

import contextlib
import os
import pickle
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from embedway.collections.documents import DocumentKey
from embedway.collections.search import cosines
from embedway.collections.stores import postgres_table, store_for
from embedway.collections.stores.postgres_rows import query_text
from embedway.collections.where import And, Compare, In, IsNull, Not, Or
from embedway.errors import SinkError, UsageError
from scripts import run_script


@pytest.fixture
def write(table, record, some_rows):
    """Write a new collection of n rows and return its open store."""

    def run(n=10, overwrite=False, **changes):
        store = store_for(table)
        store.prepare(overwrite=overwrite)
        store.begin(replace(record, **changes))
        store.write(*some_rows(n))
        store.commit()
        store.close()
        store.open()
        return store

    return run


@pytest.mark.parametrize(("vector_type", "tolerance"), [("float32", 0), ("float16", 2e-3)])
def test_rows_come_back_in_order_with_types(write, some_rows, record, vector_type, tolerance):
    store = write(10, vector_type=vector_type)
    chunks, vectors = some_rows(10)
    (rows,) = store.read()
    assert np.abs(rows.vectors - vectors).max() <= tolerance
    for chunk, fields in zip(chunks, rows.fields, strict=True):
        assert {name: fields[name] for name in record.keep} == chunk.metadata
        assert all(fields[name] == getattr(chunk, name) for name in ("id", "text", "title", "number", "headings"))
    assert store.count == 10
    assert store.record.keep == record.keep
    store.close()


def test_bits_keep_signs_and_rank_by_the_query(write, some_rows):
    store = write(10, vector_type="bits")
    (rows,) = store.read()
    assert (rows.vectors == np.where(some_rows(10)[1] > 0, 1, -1)).all()
    # Rows 1 and 4 have the same signs, so they tie, in the order of rows.
    assert [hit.id for hit in store.search(some_rows(10)[1][4], 2)] == ["s/d0#1", "s/d2#0"]
    store.close()


@pytest.mark.parametrize("indexed", [False, True])
def test_search_is_that_of_all_rows(write, some_rows, monkeypatch, indexed):
    monkeypatch.setattr(postgres_table, "INDEX_ROWS", 50 if indexed else 10_000)
    store = write(300)
    assert store._indexed is indexed  # noqa: SLF001
    chunks, vectors = some_rows(300)
    query = vectors[7]
    best = np.argsort(-cosines(vectors, query / np.linalg.norm(query)), kind="stable")
    hits = store.search(query, 5)
    assert [hit.id for hit in hits] == [chunks[row].id for row in best[:5]]
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert len(store.search(query, 250)) == 250
    # Few rows meet the condition, so the index alone would not reach them.
    assert [hit.metadata["n"] for hit in store.search(query, 3, where=Compare("n", "=", 299))] == [299]
    store.close()


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (Compare("n", ">=", 8), {8, 9}),
        (Compare("lang", "=", "de"), {1, 3, 5, 7, 9}),
        (Not(Compare("lang", "=", "fr")), {1, 3, 5, 7, 9}),
        (IsNull("lang"), {0, 2, 4, 6, 8}),
        (Not(IsNull("lang")), {1, 3, 5, 7, 9}),
        (In("n", (1, 2, 99)), {1, 2}),
        (Not(In("n", tuple(range(9)))), {9}),
        (Compare("tags", "contains", "x3"), {3}),
        (Compare("part", "<", 0.5), {0, 1}),
        (Compare("when", ">", "2026-01-10T00:00:00Z"), {9}),
        (Or((Compare("n", "=", 0), And((Compare("n", "=", 1), Compare("ok", "=", value=False))))), {0, 1}),
        (Not(Or((Compare("n", "<", 8), Compare("n", "=", 8)))), {9}),
        (Compare("lang", "=", "'; DROP TABLE x; --%s"), set()),
    ],
)
def test_conditions(write, some_rows, where, wanted):
    store = write()
    assert {hit.metadata["n"] for hit in store.search(some_rows(1)[1][0], 10, where=where)} == wanted
    store.close()


def test_unknown_column_is_refused(write, some_rows):
    store = write()
    with pytest.raises(UsageError, match="no column 'nope'"):
        store.search(some_rows(1)[1][0], 1, where=Not(IsNull("nope")))
    with pytest.raises(UsageError, match="has the type int"):
        store.search(some_rows(1)[1][0], 1, where=Compare("n", "=", "1"))
    store.close()


def test_update_is_one_transaction(write, table, some_rows, record):
    store, other = write(), store_for(table)
    first = store.record.revision
    store.begin_update(replace(record, keep={**record.keep, "more": "text"}))
    store.remove([DocumentKey("s", "d0"), DocumentKey("s", "unknown")])
    store.write(*some_rows(4, 8))  # two replaced, two new
    other.open()
    assert (other.count, other.record.revision) == (10, first)
    store.commit()
    other.open()
    assert (other.count, other.record.keep["more"]) == (10, "text")
    assert other.record.revision != first
    assert [row["id"] for rows in other.read() for row in rows.fields][-4:] == ["s/d4#0", "s/d4#1", "s/d5#0", "s/d5#1"]
    store.begin_update(store.record)
    store.remove([DocumentKey("s", "d1")])
    store.abort()
    store.open()
    assert {document.key.document_id for document in store.documents()} == {"d1", "d2", "d3", "d4", "d5"}
    assert set(store.fetch(["s/d1#0", "nope"])) == {"s/d1#0"}
    store.close()
    other.close()


def test_row_written_twice_is_one_row(table, record, some_rows):
    store = store_for(table)
    store.prepare(overwrite=False)
    store.begin(record)
    for _ in range(2):
        store.write(*some_rows(4))
    store.commit()
    assert store.count == 4
    store.close()


def test_aborted_creation_leaves_nothing(table, record, some_rows, postgres_url):
    store = store_for(table)
    store.prepare(overwrite=False)
    store.begin(record)
    store.write(*some_rows(4))
    store.abort()
    assert not store.exists()
    with psycopg.connect(postgres_url) as link:
        assert not link.execute("SELECT 1 FROM pg_class WHERE relname LIKE 'embedway_%' AND relkind = 'r'").fetchall()
    store.close()


def test_rows_of_several_writes_are_one_collection_and_an_abort_between_them_frees_the_store(table, record, some_rows):
    chunks, vectors = some_rows(30)
    store = store_for(table)
    store.prepare(overwrite=False)
    for complete in (False, True):
        store.begin(record)
        for start in range(0, 30, 10):
            store.write(chunks[start : start + 10], vectors[start : start + 10])
        if complete:
            store.commit()
        else:
            store.abort()
            assert not store.exists()
    store.open()
    assert [row["id"] for rows in store.read() for row in rows.fields] == [chunk.id for chunk in chunks]
    store.close()


@pytest.mark.parametrize("end", ["abort", "close"])
def test_a_server_that_ends_between_writes_is_a_sink_error(table, record, some_rows, postgres_url, end):
    chunks, vectors = some_rows(3_000)
    store = store_for(table)
    store.prepare(overwrite=False)
    store.begin(record)
    store.write(chunks[:1_000], vectors[:1_000])
    pid = store._link.info.backend_pid  # noqa: SLF001  the connection of the copy is ended
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    def go_on():
        for _ in range(3):
            store.write(chunks, vectors)
        store.commit()

    with pytest.raises(SinkError, match="failed: "):
        go_on()
    getattr(store, end)()
    store.close()
    with contextlib.closing(store_for(table)) as again:
        assert not again.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_process_that_frees_a_store_leaves_the_open_copy_alone(postgres_url, table, record, some_rows):
    script = f"""
import gc, os, pickle
from embedway.collections.stores import store_for
record, *batches = pickle.loads({pickle.dumps((record, some_rows(10), some_rows(10, 10)))!r})
store = store_for({table!r})
store.prepare(overwrite=False)
store.begin(record)
store.write(*batches[0])
if (child := os.fork()) == 0:
    del store
    gc.collect()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
store.write(*batches[1])
store.commit()
print(store.count)
store.close()
"""
    assert run_script(script) == ["0", "20"]


def test_existing_table_is_refused_or_replaced(write, table, record):
    write(10).close()
    with contextlib.closing(store_for(table)) as other, pytest.raises(SinkError, match="already exists"):
        other.prepare(overwrite=False)
    store = write(4, overwrite=True)
    assert store.count == 4
    store.close()


def test_table_of_another_program_is_never_dropped(postgres_url):
    with psycopg.connect(postgres_url) as link:
        link.execute("CREATE TABLE users (id int)")
    store = store_for(f"{postgres_url}#users")
    with contextlib.closing(store), pytest.raises(SinkError, match="no record of embedway"):
        store.prepare(overwrite=True)


def test_lock_excludes_another_process(write, table):
    store = write()
    with store.lock(), pytest.raises(SinkError, match="another process"), store_for(table).lock():
        pass
    with store_for(table).lock():
        pass
    store.close()


def test_nul_is_refused_with_its_row(table, record, some_rows):
    chunks, vectors = some_rows(2)
    store = store_for(table)
    store.prepare(overwrite=False)
    store.begin(record)
    with pytest.raises(SinkError, match="'s/d0#1': 'text' has a NUL"):
        store.write([chunks[0], replace(chunks[1], text="a\0b")], vectors)
    store.abort()
    store.close()


def test_password_is_never_shown():
    store = store_for("postgresql://me:s3cret@127.0.0.1:1/db?sslpassword=s3cret#t")
    with pytest.raises(SinkError, match="no server listens there") as caught:
        store.open()
    shown = f"{store.destination} {caught.value!r} {caught.value.__cause__} {caught.value.__context__} {vars(store)}"
    assert "s3cret" not in shown


def test_column_of_another_type_is_refused(write, table, postgres_url, some_rows):
    store = write(4)
    name = table.partition("#")[2]
    with psycopg.connect(postgres_url) as link:
        link.execute(f'ALTER TABLE "{name}" ADD COLUMN more double precision')
    with pytest.raises(SinkError, match="'more' has the type double precision, and the collection needs bigint"):
        store.begin_update(replace(store.record, keep={**store.record.keep, "more": "int"}))
    store.abort()
    store.open()
    with psycopg.connect(postgres_url) as link:
        link.execute(f'ALTER TABLE "{name}" ALTER COLUMN n TYPE text')
    with pytest.raises(SinkError, match="'n' has the type text"):
        store.begin_update(store.record)
    store.abort()
    with pytest.raises(SinkError, match="'n' has the type text"):
        store.open()
    with psycopg.connect(postgres_url) as link:
        link.execute(f'ALTER TABLE "{name}" ALTER COLUMN n TYPE bigint USING n::bigint')
    store.open()
    store.begin_update(store.record)
    store.write(*some_rows(2, 4))
    store.commit()
    assert [row["n"] for rows in store.read() for row in rows.fields] == list(range(6))
    store.close()


def test_column_of_an_aborted_change_is_made_again_with_the_right_type(write, table, some_rows):
    store = write(4)
    store.begin_update(replace(store.record, keep={**store.record.keep, "more": "int"}))
    store.abort()
    store.close()
    chunks, vectors = some_rows(2, 4)
    chunks = [replace(chunk, metadata={**chunk.metadata, "more": 2021.5}) for chunk in chunks]
    with contextlib.closing(store_for(table)) as again:
        again.open()
        assert "more" not in again.record.keep
        again.begin_update(replace(again.record, keep={**again.record.keep, "more": "float"}))
        again.write(chunks, vectors)
        again.commit()
        assert [row["more"] for rows in again.read() for row in rows.fields] == [None] * 4 + [2021.5] * 2


ODD_NAMES = ["100%", "%s", "%(x)s", 'q"uo"te', "sin'gle", "back\\slash", "ünï 🙂", "{}", "N", "Id", "a;--", "é" * 31]


def test_names_may_have_any_character(postgres_url, record, some_rows):
    keep = {**record.keep, **dict.fromkeys(ODD_NAMES, "text")}
    chunks, vectors = some_rows(4)
    values = [dict(zip(ODD_NAMES, (f"{name} {row}" for name in ODD_NAMES), strict=True)) for row in range(4)]
    chunks = [replace(chunk, metadata=chunk.metadata | own) for chunk, own in zip(chunks, values, strict=True)]
    with contextlib.closing(store_for(f'{postgres_url}#odd % %s "{{}}\\ ü')) as store:
        store.prepare(overwrite=True)
        store.begin(replace(record, keep=record.keep))
        store.write(chunks, vectors)
        store.commit()
        store.open()
        store.begin_update(replace(record, keep=keep))
        store.remove([DocumentKey("s", "d0")])
        store.write(chunks[2:], vectors[2:])
        store.commit()
        (rows,) = store.read(documents=[DocumentKey("s", "d1")])
        for fields, own in zip(rows.fields, values[2:], strict=True):
            assert {name: fields[name] for name in ODD_NAMES} == own
        for name in ODD_NAMES:
            (hit,) = store.search(vectors[0], 9, where=Compare(name, "=", f"{name} 3"))
            assert hit.metadata[name] == f"{name} 3"
        assert set(store.fetch(["s/d1#0"])) == {"s/d1#0"}
        assert len(list(store.documents())) == 1
        store.write_record(store.record)


def test_name_that_the_server_would_cut_is_refused(table, record):
    with contextlib.closing(store_for(table)) as store, pytest.raises(SinkError, match="cannot have a column"):
        store.begin(replace(record, keep={"é" * 32: "text"}))


def test_lost_lock_does_not_let_two_changes_pass(write, table, some_rows, postgres_url):
    store, other = write(4), store_for(table)
    other.open()
    with contextlib.closing(other), contextlib.closing(store), store.lock():
        with psycopg.connect(postgres_url, autocommit=True) as link:
            link.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        store.begin_update(store.record)
        with other.lock(), pytest.raises(SinkError, match="another process or thread changes"):
            other.begin_update(other.record)
        store.write(*some_rows(2, 4))
        store.commit()
        # The plan of the other change is outdated now.
        with pytest.raises(SinkError, match="has changed this collection meanwhile"):
            other.begin_update(other.record)
        with pytest.raises(SinkError, match="has changed this collection meanwhile"):
            other.write_record(other.record)


def test_indexes_have_the_name_of_the_table(write, table, postgres_url):
    for overwrite in (False, True):
        write(4, overwrite=overwrite).close()
    name = table.partition("#")[2]
    with psycopg.connect(postgres_url) as link:
        found = link.execute("SELECT relname FROM pg_class WHERE relname LIKE %s AND relkind <> 'r'", [f"{name}%"])
        assert {row[0].removeprefix(name) for row in found} == {
            "_id_key",
            "_pkey",
            "_source_document_id_idx",
            "__position_seq",
        }
        left = link.execute("SELECT relname FROM pg_class WHERE relname LIKE 'embedway!_%' ESCAPE '!'")
        assert not left.fetchall()


def test_table_that_appears_meanwhile_is_never_dropped(table, record, some_rows, postgres_url):
    name = table.partition("#")[2]
    for overwrite, message in ((False, "already exists"), (True, "no record of embedway")):
        with contextlib.closing(store_for(table)) as store, psycopg.connect(postgres_url, autocommit=True) as link:
            link.execute(f'DROP TABLE IF EXISTS "{name}"')
            store.prepare(overwrite=overwrite)
            store.begin(record)
            store.write(*some_rows(4))
            link.execute(f'CREATE TABLE "{name}" (id int)')
            with pytest.raises(SinkError, match=message):
                store.commit()
            store.abort()
            link.execute(f'COMMENT ON TABLE "{name}" IS NULL')


def test_only_a_nul_character_is_refused_in_json(table, record, some_rows):
    chunks, vectors = some_rows(2)
    values = [{"path": "C:\\u0000"}, {"path": "\\"}]
    chunks = [replace(one, metadata={**one.metadata, "any": value}) for one, value in zip(chunks, values, strict=True)]
    with contextlib.closing(store_for(table)) as store:
        store.prepare(overwrite=False)
        store.begin(record)
        store.write(chunks, vectors)
        with pytest.raises(SinkError, match="'any' has a NUL"):
            store.write([replace(chunks[0], metadata={"any": {"path": "a\\\0"}})], vectors[:1])
        store.abort()


def test_zero_is_positive_in_bits_as_in_files(table, record, some_rows):
    chunks, _ = some_rows(1)
    vectors = np.array([[0.0, -0.0, 1, -1, 0, -2]], np.float32)
    with contextlib.closing(store_for(table)) as store:
        store.prepare(overwrite=False)
        store.begin(replace(record, vector_type="bits"))
        store.write(chunks, vectors)
        store.commit()
        (rows,) = store.read()
        assert rows.vectors.tolist() == [[1, 1, 1, -1, 1, -1]]
        assert query_text(vectors[0], "bits") == "111010"
