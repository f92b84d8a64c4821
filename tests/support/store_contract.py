"""Contract of stores: a suite for every store, derived from `StoreContract` with a fixture `destination`."""

import dataclasses
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.columns import CHUNK_COLUMNS, HIT_COLUMNS
from embedway.collections.documents import DocumentKey
from embedway.collections.record import ChunkSettings, MadeBy, ReadRecord, Record, SourceRecord
from embedway.collections.stores import create_store, open_store
from embedway.collections.stores.base import READ_ROWS
from embedway.collections.stores.tally import StoredDocument
from embedway.collections.where import Compare, parse_where
from embedway.errors import SinkError, SpaceMismatchError, UsageError
from embedway.space import Space

DIMENSIONS = 6
#: Maximum difference of numbers of vectors; suites of stores that round vectors replace it.
TOLERANCE = 0.0
SPACE = Space("tiny", "cd" * 32, DIMENSIONS, "mean", normalized=True, query_prompt="q: ", document_prompt="p: ü")
#: Texts that are unusual in files, tables, or queries.
ODD_TEXTS = (
    *("", " ", "\n", "\r\n", "\t", "\u2028", "\ufeff", "é", "e\u0301", "🙂", "\x00", "\x1f", "'", '"', "\\", '\\"'),
    *("null", "NaN", "%s", "{}", '"],"vector":[1]}', ',"vector":[', "#0", "a#0", "/", "../x", "'; DROP TABLE x; --"),
    "x" * 5000,
)
KEEP = {
    "topic": "text",
    "year": "int",
    "price": "float",
    "open": "bool",
    "at": "timestamp",
    "tags": "list",
    "extra": "json",
}
_HOLD = (
    "import sys; from embedway.collections.stores import store_for\n"
    "with store_for(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
)


def record_of(**changes):
    return Record(**{"space": SPACE, **changes})


def chunk(document, number=0, total=1, *, source="docs", text=None, fingerprint="f1", metadata=None, **fields):
    return Chunk(
        id=f"{source}/{document}#{number}",
        document_id=document,
        text=f"text {number} of {document}" if text is None else text,
        start_char=0,
        end_char=4,
        start_line=number + 1,
        title=fields.pop("title", f"Title {document}"),
        source=source,
        metadata=metadata or {},
        number=number,
        total=total,
        fingerprint=fingerprint,
        **fields,
    )


def document(name, total=2, **fields):
    return [chunk(name, number, total, **fields) for number in range(total)]


def vectors_for(chunks, seed=0):
    """Return the vector of each chunk: it depends on its id and text."""
    seeds = [abs(hash((one.id, one.text, seed))) % 2**32 for one in chunks]
    rows = [np.random.default_rng(one).standard_normal(DIMENSIONS) for one in seeds]
    return np.array(rows, np.float32).reshape(len(chunks), DIMENSIONS)


def put(store, chunks):
    store.write(chunks, vectors_for(chunks))


def create(destination, *documents, record=None, overwrite=False):
    store = create_store(destination, overwrite=overwrite)
    store.begin(record or record_of())
    for chunks in documents:
        put(store, chunks)
    store.commit()
    store.close()


def rows_of(store, **options):
    return [row for rows in store.read(**options) for row in rows.fields]


def in_order(store):
    """Return all rows in the order of their documents' numbers; stores have their own order of documents."""
    return sorted(rows_of(store), key=lambda row: int(row["document_id"].removeprefix("d")))


def content(destination):
    """Return the ids and texts of the rows of a collection, after a check of its vectors and number of rows."""
    store = open_store(destination)
    found = {}
    for rows in store.read():
        for row, vector in zip(rows.fields, rows.vectors, strict=True):
            own = chunk(row["document_id"], row["number"], source=row["source"], text=row["text"])
            assert np.abs(vector - vectors_for([own])[0]).max() <= TOLERANCE
            assert row["id"] not in found
            found[row["id"]] = row["text"]
    assert store.count == len(found)
    store.close()
    return found


def texts(*documents):
    return {one.id: one.text for chunks in documents for one in chunks}


def change(destination, *steps, record=None):
    """Change a collection: a list of chunks is written, a set of keys is removed."""
    store = open_store(destination)
    store.begin_update(record or store.record)
    for step in steps:
        store.remove(step) if isinstance(step, set) else put(store, step)
    store.commit()
    store.close()


class StoreContract:
    """Tests that every store passes."""

    @pytest.fixture
    def destination(self):
        raise NotImplementedError

    # ---- creating

    def test_rows_show_at_commit_only(self, destination):
        store = create_store(destination)
        store.begin(record_of())
        put(store, document("a"))
        assert not create_store(destination).exists()
        put(store, document("b", 3))
        store.commit()
        store.close()
        assert create_store(destination, overwrite=True).exists()
        assert content(destination) == texts(document("a"), document("b", 3))

    def test_an_aborted_collection_leaves_nothing(self, destination):
        store = create_store(destination)
        store.begin(record_of())
        put(store, document("a"))
        store.abort()
        store.abort()
        assert not create_store(destination).exists()
        with pytest.raises(SinkError):
            open_store(destination)

    def test_an_existing_collection_is_replaced_only_on_request_and_at_commit(self, destination):
        create(destination, document("a"))
        with pytest.raises(SinkError, match="already exists"):
            create_store(destination)
        store = create_store(destination, overwrite=True)
        store.begin(record_of())
        put(store, document("b"))
        store.abort()
        store.close()
        assert content(destination) == texts(document("a"))
        create(destination, document("b"), overwrite=True)
        assert content(destination) == texts(document("b"))

    def test_a_collection_without_rows(self, destination):
        create(destination)
        store = open_store(destination)
        assert (store.count, rows_of(store), list(store.documents()), store.fetch(["x"])) == (0, [], [], {})
        assert store.search(np.ones(DIMENSIONS, np.float32), 3) == []
        store.close()
        change(destination, document("a"))
        assert content(destination) == texts(document("a"))

    def test_unusable_vectors_are_refused(self, destination):
        store = create_store(destination)
        store.begin(record_of())
        chunks = document("a")
        for bad in (np.ones((2, 5)), np.ones((3, DIMENSIONS)), np.full((2, DIMENSIONS), np.nan)):
            with pytest.raises(SinkError):
                store.write(chunks, bad.astype(np.float32))
        store.abort()

    # ---- changing

    def test_a_change_adds_replaces_and_removes(self, destination):
        create(destination, document("a"), document("b"), document("c"))
        new = document("b", text="new", fingerprint="f2")
        change(destination, {DocumentKey("docs", "c"), DocumentKey("docs", "unknown")}, new, document("d"))
        assert content(destination) == texts(document("a"), new, document("d"))

    def test_an_aborted_change_of_a_transactional_store_does_nothing(self, destination):
        create(destination, document("a"), document("b"))
        store = open_store(destination)
        if not store.transactional:
            store.close()
            pytest.skip("each write is durable")
        revision = store.record.revision
        store.begin_update(store.record)
        store.remove({DocumentKey("docs", "a")})
        put(store, document("c"))
        assert content(destination) == texts(document("a"), document("b"))
        store.abort()
        store.abort()
        store.close()
        assert content(destination) == texts(document("a"), document("b"))
        assert open_store(destination).record.revision == revision

    def test_what_is_written_after_a_removal_stays_and_before_it_does_not(self, destination):
        create(destination, document("a", 3), document("b"))
        key, new = {DocumentKey("docs", "a")}, document("a", 2, text="new")
        change(destination, key, new)
        assert content(destination) == texts(document("b"), new)
        change(destination, document("a", 1, text="newer"), document("c"), key)
        assert content(destination) == texts(document("b"), document("c"))

    def test_a_row_that_is_written_twice_is_one_row(self, destination):
        create(destination, document("a"))
        change(destination, document("b", text="first"), document("a", text="x"), document("b", text="second"))
        assert content(destination) == texts(document("a", text="x"), document("b", text="second"))

    def test_documents_of_different_sources_are_different(self, destination):
        one, two = document("a", source="one"), document("a", source="two")
        create(destination, one, two)
        change(destination, {DocumentKey("one", "a")})
        assert content(destination) == texts(two)

    def test_a_change_of_many_rows(self, destination):
        many = [document(f"d{n}", 100) for n in range(30)]
        create(destination, *many)
        changed = [document(f"d{n}", 60, text=f"new {n}") for n in range(0, 30, 3)]
        change(destination, {DocumentKey("docs", f"d{n}") for n in range(0, 30, 3)}, *changed)
        assert content(destination) == texts(*(chunks for n, chunks in enumerate(many) if n % 3), *changed)

    def test_two_changes_of_an_open_collection(self, destination):
        create(destination, document("a"))
        store = open_store(destination)
        for name in ("b", "c"):
            store.begin_update(store.record)
            put(store, document(name))
            store.commit()
            assert {row["document_id"] for row in rows_of(store)} >= {"a", name}
        store.close()
        assert content(destination) == texts(document("a"), document("b"), document("c"))

    def test_another_space_and_another_type_of_a_column_are_refused(self, destination):
        create(destination, document("a"), record=record_of(keep={"year": "int"}))
        store = open_store(destination)
        with pytest.raises(SpaceMismatchError):
            store.begin_update(record_of(space=dataclasses.replace(SPACE, model="other")))
        with pytest.raises(SinkError, match="year"):
            store.begin_update(record_of(keep={"year": "text"}))
        store.close()
        assert content(destination) == texts(document("a"))

    # ---- reading

    def test_documents_have_a_fingerprint_if_all_their_rows_have_it(self, destination):
        mixed = [chunk("c", 0, 2), chunk("c", 1, 2, fingerprint="f2")]
        create(destination, document("a", 3), document("b", fingerprint="f9")[:1], mixed)
        store = open_store(destination)
        assert sorted(store.documents(), key=lambda one: one.key) == [
            StoredDocument(DocumentKey("docs", "a"), "f1", 3, 3),
            StoredDocument(DocumentKey("docs", "b"), "f9", 1, 2),
            StoredDocument(DocumentKey("docs", "c"), "", 2, 2),
        ]
        store.close()

    def test_documents_with_wrong_numbers_or_ids_are_damaged(self, destination):
        swapped = [dataclasses.replace(chunk("a", n, 3), number=(0, 2, 1)[n]) for n in range(3)]
        foreign = [chunk("b", 0, 2), dataclasses.replace(chunk("b", 1, 2), id="docs/a#9")]
        above = [chunk("c", 0, 2), chunk("c", 2, 2)]
        totals = [chunk("d", 0, 2), chunk("d", 1, 3)]
        missing = [chunk("e", 0, 3), chunk("e", 2, 3)]
        create(destination, swapped, foreign, above, totals, missing, document("f", 40)[::-1])
        store = open_store(destination)
        found = {one.key.document_id: one for one in store.documents()}
        assert {name: one.damaged for name, one in found.items()} == {
            **dict.fromkeys("abcd", True),
            **dict.fromkeys("ef", False),
        }
        assert (found["e"].rows, found["e"].total, found["e"].is_partial) == (2, 3, True)
        assert found["f"].is_complete
        store.close()

    def test_the_stamp_of_the_content_stays_until_it_changes(self, destination):
        create(destination, document("a"))
        stamps = []
        for _ in range(2):
            store = open_store(destination)
            stamps.append(store.content_stamp)
            store.close()
        assert stamps[0] == stamps[1]
        change(destination, document("b"))
        store = open_store(destination)
        assert store.content_stamp != stamps[0]
        store.close()

    def test_rows_are_read_in_parts_with_the_columns_and_documents_that_are_asked_for(self, destination):
        create(destination, document("a", READ_ROWS + 88), document("b", 700), document("c", 5))
        store = open_store(destination)
        batches = list(store.read())
        assert max(len(rows.fields) for rows in batches) <= READ_ROWS
        numbers = {}
        for row in (row for rows in batches for row in rows.fields):
            numbers.setdefault(row["document_id"], []).append(row["number"])
        assert numbers == {"a": [*range(READ_ROWS + 88)], "b": [*range(700)], "c": [*range(5)]}
        some = list(store.read(columns=("id", "number"), vectors=False, documents={DocumentKey("docs", "b")}))
        assert [row for rows in some for row in rows.fields] == [{"id": f"docs/b#{n}", "number": n} for n in range(700)]
        assert {rows.vectors.shape for rows in some} == {(len(rows.fields), 0) for rows in some}
        assert rows_of(store, documents={DocumentKey("docs", "no"), DocumentKey("other", "a")}) == []
        store.close()

    def test_every_column_comes_back(self, destination):
        one = chunk("a", 1, 4, page=3, headings="One \u203a Two", context="Title \u203a One", title=None)
        other = chunk("b", page=None, headings=None, context="")
        create(destination, [one, other])
        store = open_store(destination)
        found = store.fetch([one.id, "docs/none#0", other.id])
        names = [name for name in (*HIT_COLUMNS, *CHUNK_COLUMNS) if name != "context"]
        for own in (one, other):
            assert {name: found[own.id][name] for name in names} == {name: getattr(own, name) for name in names}
            assert (found[own.id]["context"] or "") == own.context
            assert "vector" not in found[own.id]
        assert found.keys() == {one.id, other.id}
        store.close()

    def test_odd_texts_come_back(self, destination):
        chunks = [
            chunk(
                f"d{n}", title=odd, headings=odd, context=odd, text=odd or "x", metadata={"topic": odd, "tags": [odd]}
            )
            for n, odd in enumerate(ODD_TEXTS)
        ]
        create(destination, chunks, record=record_of(keep={"topic": "text", "tags": "list"}))
        store = open_store(destination)
        for row, own in zip(in_order(store), chunks, strict=True):
            assert (row["title"], row["headings"], row["context"] or "", row["text"], row["topic"], row["tags"]) == (
                own.title,
                own.headings,
                own.context,
                own.text,
                own.metadata["topic"],
                own.metadata["tags"],
            )
        store.close()

    def test_odd_names_of_documents(self, destination):
        odd = [text for text in ODD_TEXTS if text and "\x00" not in text]
        create(destination, *(document(name, 1, source=name) for name in odd))
        store = open_store(destination)
        assert {one.key for one in store.documents()} == {DocumentKey(name, name) for name in odd}
        for name in odd:
            key = DocumentKey(name, name)
            assert [row["id"] for row in rows_of(store, documents={key})] == [f"{name}/{name}#0"]
            assert store.fetch([f"{name}/{name}#0"])[f"{name}/{name}#0"]["source"] == name
        store.close()
        change(destination, {DocumentKey(name, name) for name in odd[::2]})
        assert content(destination) == texts(*(document(name, 1, source=name) for name in odd[1::2]))

    def test_odd_names_of_kept_columns(self, destination):
        columns = ["100%", "%s", 'q"uo"te', "sin'gle", "back\\slash", "ünï 🙂", "{}", "n", "N", "TEXT", "a;--", "x[0]"]
        rows = [chunk(name, metadata={one: f"{one} of {name}" for one in columns}) for name in ("a", "b")]
        create(destination, rows, record=record_of(keep=dict.fromkeys(columns, "text")))
        store = open_store(destination)
        for one in columns:
            (hit,) = store.search(vectors_for(rows)[0], 9, where=Compare(one, "=", f"{one} of b"))
            assert {name: hit.metadata[name] for name in columns} == rows[1].metadata
        store.close()

    def test_a_document_has_the_largest_total_of_its_rows(self, destination):
        create(destination, [chunk("a", 0, 2), chunk("a", 1, 3), chunk("b", 0, 3), chunk("b", 1, 2)])
        store = open_store(destination)
        assert {(one.key.document_id, one.rows, one.total) for one in store.documents()} == {("a", 2, 3), ("b", 2, 3)}
        store.close()

    def test_typed_columns_come_back(self, destination):
        moment = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
        values = {
            "topic": ["t", "", None],
            "year": [2**63 - 1, -(2**63), None],
            "price": [0.1, -1e300, None],
            "open": [True, False, None],
            "at": [moment, moment - timedelta(days=40_000), None],
            "tags": [["a", "b,c"], [], None],
            "extra": [{"a": [1, None, "x"]}, "text", None],
        }
        chunks = [chunk(f"d{n}", metadata={name: column[n] for name, column in values.items()}) for n in range(3)]
        create(destination, chunks, record=record_of(keep=KEEP))
        store = open_store(destination)
        assert store.record.keep == KEEP
        for row, own in zip(in_order(store), chunks, strict=True):
            assert {name: row[name] for name in KEEP} == own.metadata
            assert {name: type(row[name]) for name in KEEP} == {name: type(own.metadata[name]) for name in KEEP}
        hit = store.search(vectors_for(chunks[:1])[0], 1)[0]
        assert hit.metadata == chunks[0].metadata
        store.close()

    def test_kept_columns_are_added_by_a_change(self, destination):
        create(destination, document("a", 1, metadata={"year": 1}), record=record_of(keep={"year": "int"}))
        new = document("b", 1, metadata={"year": 2, "tags": ["x"]})
        change(destination, new, record=record_of(keep={"year": "int", "tags": "list"}))
        store = open_store(destination)
        found = {row["document_id"]: (row["year"], row["tags"]) for row in rows_of(store)}
        assert found == {"a": (1, None), "b": (2, ["x"])}
        store.close()

    # ---- searching

    def test_search_is_exact_and_repeated_searches_find_the_same(self, destination):
        chunks = [chunk(f"d{n}") for n in range(1200)]
        create(destination, chunks[:500], chunks[500:])
        vectors = vectors_for(chunks)
        query = np.random.default_rng(5).standard_normal(DIMENSIONS).astype(np.float32) * 7
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        best = np.argsort(-cosines)[:25]
        store = open_store(destination)
        for _ in range(3):
            hits = store.search(query, 25)
            assert [hit.document_id for hit in hits] == [f"d{row}" for row in best]
            assert [hit.score for hit in hits] == pytest.approx(cosines[best].tolist(), abs=1e-5)
        assert (hits[0].number, hits[0].total, hits[0].text) == (0, 1, chunks[best[0]].text)
        assert len(store.search(query, 5000)) == 1200
        assert [*store.fetch([hits[0].id, "x"])] == [hits[0].id]
        for wrong, top in ((np.ones(5, np.float32), 3), (query, 0)):
            with pytest.raises(UsageError):
                store.search(wrong, top)
        store.close()

    def test_equal_scores_are_in_row_order(self, destination):
        store = create_store(destination)
        store.begin(record_of())
        store.write(document("a", 40), np.ones((40, DIMENSIONS), np.float32))
        store.commit()
        store.close()
        store = open_store(destination)
        for _ in range(3):
            assert [hit.number for hit in store.search(np.ones(DIMENSIONS, np.float32), 9)] == [*range(9)]
        store.close()

    def test_a_search_after_a_change_finds_the_change(self, destination):
        create(destination, document("a", 5), document("b", 5))
        store = open_store(destination)
        query = vectors_for(document("c", 1))[0]
        for _ in range(2):
            store.search(query, 3)
        store.begin_update(store.record)
        store.remove({DocumentKey("docs", "a")})
        put(store, document("c", 1))
        store.commit()
        hits = store.search(query, 20)
        assert (hits[0].document_id, len(hits)) == ("c", 6)
        assert math.isclose(hits[0].score, 1, abs_tol=1e-5)
        store.close()

    def test_only_rows_that_meet_a_condition_are_found(self, destination):
        chunks = [
            chunk(f"d{n}", metadata={"year": n if n % 4 else None, "tags": ["even"] if n % 2 == 0 else []})
            for n in range(600)
        ]
        create(destination, chunks, record=record_of(keep={"year": "int", "tags": "list"}))
        store = open_store(destination)
        query = vectors_for(chunks[:1])[0]
        for text, expected in (
            ("year < 9", {1, 2, 3, 5, 6, 7}),
            ("document_id = 'd4'", {4}),
            ("year is null and number = 0", set(range(0, 600, 4))),
            ("tags contains 'even' and year > 590", {594, 598}),
            ("year < 0", set()),
        ):
            for _ in range(2):
                hits = store.search(query, 600, where=parse_where(text))
                assert {int(hit.document_id[1:]) for hit in hits} == expected
                assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        with pytest.raises(UsageError, match="color"):
            store.search(query, 3, where=parse_where("color = 'x'"))
        store.close()

    # ---- record

    def test_the_record_comes_back_with_a_new_revision_at_each_commit(self, destination):
        record = record_of(
            chunking=ChunkSettings(chunk_tokens=100, overlap_tokens=7, context="{title}", max_tokens=256),
            keep={"year": "int"},
            sources=(SourceRecord("docs", "/data/ü"), SourceRecord("rows", "/x.jsonl")),
            reading=ReadRecord(
                text_field="body", encoding="latin-1", include=("*.md",), follow_links=True, keep_types={"year": "int"}
            ),
            made_by=MadeBy(embedway="1", runtime="onnx", libraries={"onnxruntime": "1.2"}, cpu="x"),
            facts={"licence": "MIT", "deep": [1, {"a": None}]},
        )
        create(destination, document("a"), record=record)
        store = open_store(destination)
        first = store.record
        assert first.revision
        assert dataclasses.replace(first, revision="") == record
        store.close()
        changed = dataclasses.replace(record, facts={"licence": "BSD"})
        change(destination, document("b"), record=changed)
        second = open_store(destination).record
        assert dataclasses.replace(second, revision="") == changed
        assert second.revision not in {"", first.revision}

    def test_facts_that_are_verified_later_are_stored(self, destination):
        create(destination, document("a"))
        store = open_store(destination)
        complete = dataclasses.replace(SPACE, tokenizer="ab" * 32, config="cd" * 32)
        assert store.check_space(complete).unknown == ("tokenizer", "config")
        assert store.write_facts(complete)
        store.close()
        again = open_store(destination)
        assert again.check_space(complete).unknown == ()
        assert again.record.revision == store.record.revision
        again.close()
        change(destination, document("b"))
        assert open_store(destination).check_space(complete).unknown == ()
        assert content(destination) == texts(document("a"), document("b"))

    # ---- lock

    def test_a_locked_collection_is_named(self, destination):
        create(destination, document("a"))
        with open_store(destination).lock():
            with pytest.raises(SinkError) as caught, open_store(destination).lock():
                pass
            assert destination in str(caught.value)
        with open_store(destination).lock():
            pass

    def test_the_lock_of_a_killed_process_is_free(self, destination):
        if destination.startswith("memory:"):
            pytest.skip("in one process")
        create(destination, document("a"))
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD, destination], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(SinkError), open_store(destination).lock():
                pass
        finally:
            holder.kill()
            holder.communicate()
        with open_store(destination).lock():
            pass
