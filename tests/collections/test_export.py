"""Export of collections into other stores, and declared spaces of files without record."""

import asyncio
import json
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway import AsyncEmbedder, Config
from embedway.collections.chunks import Chunk
from embedway.collections.declared import open_declared
from embedway.collections.export import export_collection, export_stored
from embedway.collections.record import Record
from embedway.collections.stores import open_store
from embedway.errors import SinkError, SpaceMismatchError, UsageError
from embedway.space import Space
from memory_store import PLACES, MemoryStore

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [f"The connector waits {n} seconds for shard {n * 7 % 13} before it retries." for n in range(10)]


def chunks_of(texts):
    return [
        Chunk(
            id=f"docs/d{n // 2}#{n % 2}",
            document_id=f"d{n // 2}",
            text=text,
            start_char=0,
            end_char=len(text),
            start_line=n + 1,
            title=None,
            source="docs",
            metadata={"n": n, "tags": ["a", str(n)], "any": {"x": n}},
            number=n % 2,
            total=2,
            context="Connector" if n % 3 else "",
            fingerprint=f"{n // 2:032x}",
        )
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def memory(monkeypatch):
    """Return a collection in memory with ten rows."""
    monkeypatch.setattr("memory_store.PLACES", PLACES.copy())
    store = MemoryStore("memory:export")
    space = Space("tiny", "cd" * 32, 6, "mean", normalized=False)
    store.begin(Record(space, keep={"n": "int", "tags": "list", "any": "json"}))
    store.write(chunks_of(TEXTS), np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32))
    store.commit()
    store.open()
    return store


def rows_of(store):
    found = {}
    for rows in store.read():
        found |= {row["id"]: (row, vector) for row, vector in zip(rows.fields, rows.vectors, strict=True)}
    return found


@pytest.mark.parametrize("form", ["X.parquet", "X.jsonl", "chroma:db#rows"])
def test_all_columns_and_vectors_are_the_same(memory, tmp_path, form):
    destination = f"chroma:{tmp_path / 'db'}#rows" if form.startswith("chroma:") else str(tmp_path / form)
    summary = export_collection(memory, destination)
    assert (summary.rows, summary.documents, summary.space_id) == (10, 5, memory.space.id)
    store = open_store(destination)
    own, found = rows_of(memory), rows_of(store)
    assert own.keys() == found.keys()
    for one, (row, vector) in own.items():
        assert found[one][0] == row
        assert np.abs(found[one][1] - vector).max() < 1e-6
    assert replace(store.record, revision="") == replace(memory.record, revision="")
    with pytest.raises(SinkError, match="already exists"):
        export_collection(memory, destination)
    assert export_collection(memory, destination, overwrite=True).rows == 10
    store.close()


def test_vectors_can_be_converted(memory, tmp_path):
    destination = str(tmp_path / "x.parquet")
    assert export_collection(memory, destination, vector_type="float16").vector_type == "float16"
    with pytest.raises(UsageError, match="cannot store vectors as int8; it can as float32"):
        export_collection(memory, f"chroma:{tmp_path / 'db'}#rows", vector_type="int8")
    memory.record = replace(memory.record, vector_type="bits")
    with pytest.raises(UsageError, match="only the signs"):
        export_collection(memory, str(tmp_path / "y.jsonl"), vector_type="float32")


def test_collections_before_version_3_get_numbers(memory, tmp_path):
    memory.record = replace(memory.record, format_version=2)
    for row, _ in memory._rows.values():  # noqa: SLF001
        row["number"] = row["total"] = row["fingerprint"] = row["context"] = row["headings"] = None
    export_collection(memory, str(tmp_path / "x.parquet"))
    store = open_store(str(tmp_path / "x.parquet"))
    found = [(row["number"], row["total"], row["fingerprint"]) for row, _ in rows_of(store).values()]
    assert found == [(0, 2, ""), (1, 2, "")] * 5


def test_cancelled_export_stops_and_leaves_nothing(memory, tmp_path, monkeypatch):
    async def cancel():
        loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        read = memory.read

        def wait_and_read():
            for rows in read():
                loop.call_soon_threadsafe(reading.set)
                assert go_on.wait(60)
                yield rows

        memory.read = wait_and_read
        monkeypatch.setattr("embedway.collections.export.open_store", lambda _: memory)
        task = asyncio.create_task(export_stored("memory:export", str(tmp_path / "x.parquet")))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(cancel())  # which waits for threads
    assert not list(tmp_path.iterdir())


def test_failed_export_leaves_nothing(memory, tmp_path):
    memory.count = 11
    with pytest.raises(SinkError, match="changed during the export"):
        export_collection(memory, str(tmp_path / "x.parquet"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="into itself"):
        export_collection(memory, MemoryStore(memory.destination))


@pytest.mark.parametrize(("ending", "is_linked"), [("parquet", False), ("jsonl", False), ("jsonl", True)])
def test_declared_space_is_proven_by_rows(tmp_path, ending, is_linked):
    lost, good = tmp_path / f"lost.{ending}", tmp_path / f"good.{ending}"
    config = Config.load(environ={}, overrides={"cache.path": tmp_path / "cache.sqlite"})

    async def run():
        async with AsyncEmbedder(config=config) as embedder:
            result = await embedder.embed([chunk.embedded_text for chunk in chunks_of(TEXTS)], model=MODEL)
            memory = MemoryStore("memory:declared")
            memory.begin(Record(result.space, keep={"n": "int", "tags": "list", "any": "json"}))
            memory.write(chunks_of(TEXTS), result.vectors)
            memory.commit()
            memory.open()
            export_collection(memory, str(good))
            if ending == "parquet":
                pq.write_table(pq.read_table(good).replace_schema_metadata(None), lost)
            elif is_linked:  # and without a final newline
                (tmp_path / "data").write_bytes(good.read_bytes().removesuffix(b"\n"))
                lost.symlink_to("data")
            else:
                lost.write_bytes(good.read_bytes())
            with pytest.raises(SinkError):
                open_store(str(lost))
            async with open_declared(embedder, str(lost), MODEL) as store:
                export_collection(store, str(tmp_path / f"again.{ending}"))
            damage(lost)
            with pytest.raises(SpaceMismatchError):
                async with open_declared(embedder, str(lost), MODEL):
                    pass
        return result.space

    space = asyncio.run(run())
    again, first = open_store(str(tmp_path / f"again.{ending}")), open_store(str(good))
    assert again.space == space
    own, found = rows_of(first), rows_of(again)
    if ending == "parquet":  # JSON is a text in the file
        found = {one: (row | {"any": json.loads(row["any"])}, vector) for one, (row, vector) in found.items()}
    assert {one: row for one, (row, _) in own.items()} == {one: row for one, (row, _) in found.items()}


def damage(path):
    """Exchange the texts of a file's rows."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        texts = table.column("text").to_pylist()
        place = table.schema.get_field_index("text")
        pq.write_table(table.set_column(place, table.schema.field("text"), [texts[1:] + texts[:1]]), path)
        return
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [row["text"] for row in rows]
    for row, text in zip(rows, texts[1:] + texts[:1], strict=True):
        row["text"] = text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_file_that_lacks_columns_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": "a", "text": "b", "vector": [1.0]}\n')

    async def run(name):
        async with AsyncEmbedder() as embedder, open_declared(embedder, str(tmp_path / name), MODEL):
            pass

    with pytest.raises(SinkError, match="lacks the columns document_id, source"):
        asyncio.run(run("x.jsonl"))
    with pytest.raises(UsageError, match=r"X\.parquet"):
        asyncio.run(run("x.csv"))
