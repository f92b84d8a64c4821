"""Whatever another program does to rows, `verify` reports it; a repair and a sync make the collection as it was."""

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections import job, sync_plan
from embedway.collections.options import SyncOptions
from embedway.collections.stores import open_store
from embedway.collections.sync import sync_collection
from embedway.collections.verification import plan_verification, verify_collection
from embedway.errors import BudgetExceededError
from embedway.models.base import Estimate
from embedway.types import Bill
from fake_embedder import FakeEmbedder, vectors_of

NAMES = ("a.md", "b.md", "c.md")
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["delete", "copy", "swap", "text", "nan", "empty"]), st.integers(0, 50), st.integers(0, 50)
    ),
    min_size=1,
    max_size=4,
)


class Embedder(FakeEmbedder):
    """Computes rows again at a price of one nano-dollar a text."""

    @property
    def cache(self):
        return self

    async def recompute(self, texts, *, max_cost=None, **_):
        self.calls.append(len(texts))
        return vectors_of(texts), Bill(3 * len(texts), len(texts), 1, ())

    async def plan_recompute(self, texts, **_):
        return Estimate(3 * len(texts), 1, len(texts), 0)


def verify(destination, **options):
    """Verify all rows of a collection."""
    embedder, store = Embedder(), open_store(destination)
    try:
        return asyncio.run(verify_collection(embedder, store, **{"sample": 10_000, **options})), embedder
    finally:
        store.close()


def sync(folder, destination):
    return asyncio.run(sync_collection(FakeEmbedder(), destination, [str(folder)], SyncOptions(chunk_tokens=24)))


def content(destination):
    """Return the rows with their vectors, how often each exists."""
    store = open_store(destination)
    try:
        return Counter(
            (json.dumps(row, sort_keys=True, default=str), vector.tobytes())
            for rows in store.read(strict=False)
            for row, vector in zip(rows.fields, rows.vectors, strict=True)
        )
    finally:
        store.close()


def documents_in(found):
    return {json.loads(row)["document_id"] for row, _ in found}


def damage(rows, steps):
    """Damage rows as another program may do it."""
    for kind, first, second in steps:
        if not rows:
            return
        row = rows[first % len(rows)]
        if kind == "delete":
            rows.remove(row)
        elif kind == "copy":
            rows.append(dict(row))
        elif kind == "swap":
            others = [one for one in rows if one["document_id"] == row["document_id"]]
            other = others[second % len(others)]
            row["number"], other["number"] = other["number"], row["number"]
        elif kind == "text":
            row["text"] += f" {second}"
        elif kind == "nan":
            row["vector"] = [float("nan"), *row["vector"][1:]]
        else:
            row["text"] = ""


class Parquet:
    """A file that another program reads and writes, with its metadata."""

    ending = "c.parquet"
    examples = 40

    def change(self, destination, steps):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(destination)
        rows = table.to_pylist()
        damage(rows, steps)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), destination)


class Lines:
    """A file of lines that another program writes, with the size and the number of rows beside it."""

    ending = "c.jsonl"
    examples = 40

    def change(self, destination, steps):
        path = Path(destination)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        damage(rows, steps)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sidecar = Path(f"{destination}.embedway.json")
        entries = json.loads(sidecar.read_text())
        entries["collections"][0] |= {"bytes": path.stat().st_size, "rows": len(rows)}
        sidecar.write_text(json.dumps(entries))


class Lance:
    """A table that another program changes by LanceDB."""

    ending = "lancedb:c#rows"
    examples = 10

    def change(self, destination, steps):
        import lancedb
        import pyarrow as pa

        table = lancedb.connect(destination.removeprefix("lancedb:").partition("#")[0]).open_table("rows")
        rows = table.to_arrow().to_pylist()
        damage(rows, steps)
        table.delete("true")
        table.add(pa.Table.from_pylist(rows, schema=table.schema), on_bad_vectors="drop")


class Chroma:
    """A collection that another program changes by Chroma, whose ids are unique and whose vectors are finite."""

    ending = "chroma:c#rows"
    examples = 10

    def change(self, destination, steps):
        import chromadb
        from chromadb.config import Settings

        folder = destination.removeprefix("chroma:").partition("#")[0]
        client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        stored = client.get_collection("rows", embedding_function=None)
        found = stored.get(include=["metadatas", "documents", "embeddings"])
        rows = [
            {**metadata, "id": one, "text": text, "vector": vector.tolist()}
            for one, metadata, text, vector in zip(
                found["ids"], found["metadatas"], found["documents"], found["embeddings"], strict=True
            )
        ]
        damage(rows, [step for step in steps if step[0] != "nan"])
        stored.delete(found["ids"])
        seen = Counter()
        for row in rows:
            vector, text, one = row.pop("vector"), row.pop("text"), row.pop("id")
            seen[one] += 1
            name = one if seen[one] == 1 else f"{one}~{seen[one]}"
            stored.add(ids=[name], embeddings=[vector], documents=[text], metadatas=[row])
        client.close()


@contextmanager
def collection(ending):
    """Make a collection of a folder in a place of its own; return the folder and the destination."""
    place = Path(tempfile.mkdtemp())

    def path(store):
        return place / "jobs" / "journal"

    try:
        (place / "docs").mkdir()
        for number, name in enumerate(NAMES):
            lines = [f"# Part {n}\n\nthe event loop {number} runs code {n}\n" for n in range(number + 2)]
            (place / "docs" / name).write_text("\n".join(lines))
        scheme, _, rest = ending.rpartition(":")
        destination = f"{scheme}:{place / rest}" if scheme else str(place / rest)
        with mock.patch.object(job, "journal_path", path), mock.patch.object(sync_plan, "journal_path", path):
            sync(place / "docs", destination)
            yield place / "docs", destination
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("store", [Parquet(), Lines(), Lance(), Chroma()], ids=lambda store: type(store).__name__)
def test_damage_is_reported_and_repaired(store):
    @settings(max_examples=store.examples, deadline=None)
    @given(DAMAGE)
    def check(steps):
        with collection(store.ending) as (folder, destination):
            before = content(destination)
            store.change(destination, steps)
            after = content(destination)
            # A document that is gone completely leaves no trace; the next sync adds it.
            kept = documents_in(after)
            expected = {row: times for row, times in before.items() if documents_in([row]) <= kept}
            found, _ = verify(destination)
            assert found.faultless == (after == expected), (found.faults, steps)
            repaired, _ = verify(destination, repair=True)
            assert repaired.faultless, (repaired, steps)
            sync(folder, destination)
            assert content(destination) == before, steps
            assert sync(folder, destination).unchanged == len(NAMES)

    check()


def test_a_price_is_told_before_it_is_spent_and_a_repair_pays_for_no_row_twice():
    with collection("c.parquet") as (_, destination):
        Parquet().change(destination, [("nan", 3, 0)])
        store = open_store(destination)
        plan = asyncio.run(plan_verification(Embedder(), store, sample=4))
        assert (plan.rows, plan.sampled, plan.cost_nanousd, plan.all_cost_nanousd) == (store.count, 4, 4, store.count)
        assert f"a repair of wrong rows recomputes all {store.count}" in plan.sentence
        store.close()
        told = []
        report, embedder = verify(destination, repair=True, note=told.append)
        assert told == [
            f"fake recomputes {report.rows} rows (about {3 * report.rows} tokens, $0.00000000{report.rows})"
        ]
        assert (report.repaired, report.tokens, report.cost_nanousd) == (1, 3 * report.rows, report.rows)
        assert sum(embedder.calls) == report.rows


def test_a_cost_over_the_maximum_is_refused_before_anything_is_computed_or_changed():
    with collection("c.parquet") as (_, destination):
        Parquet().change(destination, [("nan", number, 0) for number in range(9)])
        before = content(destination)
        for options in ({"most_nanousd": 3}, {"most_nanousd": 5, "sample": 4, "repair": True}):
            with pytest.raises(BudgetExceededError, match="nothing was"):
                verify(destination, **options)
        assert content(destination) == before
