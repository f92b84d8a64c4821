"""Whatever is edited, renamed or set between two syncs, and wherever one fails, the collection equals a new one."""

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections import chunk_reader, job, sync_plan
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from embedway.collections.sync_plan import plan_sync
from embedway.errors import SpaceMismatchError, UnavailableError
from fake_embedder import FakeEmbedder
from memory_store import PLACES, MemoryStore

NAMES = st.sampled_from(["a.md", "b.md", "guide/c.md", "guide/d.txt"])
TEXTS = st.sampled_from(["", "the event loop", "# Title\n\nthe event loop\n", "one part of the loop\n\n" * 30])
#: A row without text is rejected and keeps its old row, so it is not in step.
ROWS = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("xyz"), "text": TEXTS.filter(bool), "year": st.integers(1, 3)}),
    max_size=3,
    unique_by=lambda row: row["id"],
)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, TEXTS),
        st.tuples(st.just("remove"), NAMES, st.none()),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("rows"), st.none(), ROWS),
    ),
    max_size=5,
)
#: Options of one sync that differ from those of the collection.
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "chunk_tokens": st.sampled_from([24, 32]),
        "context": st.sampled_from(["headings", "none", "{title}"]),
        "keep": st.sampled_from([(), ("year",)]),
        "exclude": st.sampled_from([(), ("guide",)]),
    },
)
ROUNDS = st.lists(st.tuples(EDITS, CHANGES), min_size=1, max_size=4)


class Embedder(FakeEmbedder):
    """Counts the texts that it computes."""

    def __init__(self, fail_at=None):
        super().__init__(on_embed=self._note)
        self.texts, self._fail_at = Counter(), fail_at

    async def _note(self, texts):
        if self._fail_at is not None and len(self.calls) > self._fail_at:
            raise UnavailableError("the service failed", route="r", status=500)
        self.texts.update(texts)

    async def plan(self, texts, **_):
        plan = await super().plan(texts)
        for name in ("unique_texts", "tokens", "billed_tokens", "requests", "cost_nanousd", "batch_cost_nanousd"):
            setattr(plan, name, len(texts) if name in {"unique_texts", "cost_nanousd"} else 0)
        plan.truncations, plan.seconds, plan.estimated = (), 0.0, False
        return plan


class FailingStore(MemoryStore):
    """Fails at one call of a method that changes the collection."""

    fail_at = None

    def _count(self):
        if self.fail_at is not None:
            if self.fail_at == 0:
                self.fail_at = None
                raise OSError("the disk failed")
            self.fail_at -= 1

    def begin(self, record):
        self._count()
        super().begin(record)

    def begin_update(self, record):
        self._count()
        super().begin_update(record)

    def write(self, chunks, vectors):
        self._count()
        super().write(chunks, vectors)
        self._keep()

    def remove(self, documents):
        self._count()
        super().remove(documents)
        self._keep()

    def _keep(self):
        if not self.transactional:
            PLACES[self.destination] = (self.record, dict(self._rows))

    def commit(self):
        self._count()
        super().commit()


@contextmanager
def sources():
    """Make a folder of documents, with journals of its own and small batches; forget all collections."""
    PLACES.clear()
    with tempfile.TemporaryDirectory() as place, ExitStack() as patches:

        def path(store):
            return Path(place) / "jobs" / store.destination

        patches.enter_context(mock.patch.multiple(chunk_reader, FIRST_BATCH_CHUNKS=2, MAX_BATCH_CHUNKS=4))
        for module in (job, sync_plan):
            patches.enter_context(mock.patch.object(module, "journal_path", path))
        folder = Path(place) / "docs"
        (folder / "guide").mkdir(parents=True)
        (folder / "always.md").write_text("a text that stays")
        yield folder


def apply(folder, edits):
    """Edit the files of the folder."""
    for kind, name, value in edits:
        if kind == "write":
            (folder / name).write_text(value)
        elif kind == "remove":
            (folder / name).unlink(missing_ok=True)
        elif kind == "rename" and (folder / name).exists():
            shutil.move(folder / name, folder / value)
        elif kind == "rows":
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in value))


OPTIONS = SyncOptions(chunk_tokens=32, allow_empty=True, on_error="skip", keep=("year",), keep_types={"year": "int"})


def sync(folder, place, embedder=None, store=None, options=OPTIONS):
    embedder = embedder or Embedder()
    summary = asyncio.run(sync_collection(embedder, store or MemoryStore(place), [str(folder)], options))
    return summary, embedder.texts


def rows(place):
    return {key: (fields, vector.tobytes()) for key, (fields, vector) in PLACES[place][1].items()}


@settings(max_examples=30, deadline=None)
@given(ROUNDS)
def test_a_collection_equals_its_sources_after_any_edits_and_options(rounds):
    with sources() as folder:
        options, columns = OPTIONS, ()
        for edits, changed in rounds:
            apply(folder, edits)
            options = replace(options, **changed)
            columns = columns or options.keep  # a collection does not lose columns
            sync(folder, "memory:kept", options=options)
        sync(folder, "memory:new", options=replace(options, keep=columns))
        assert comparable(rows("memory:kept")) == comparable(rows("memory:new"))
        assert not sync(folder, "memory:kept", options=options)[1]


def comparable(found):
    """Return rows of a collection without what may differ.

    Rows that are older than a column lack it. A row with an id that only moved to another line keeps its line.
    """
    without = {}
    for key, (fields, vector) in found.items():
        line = None if "rows.jsonl" in fields["document_id"] else fields["start_line"]
        without[key] = {**fields, "year": fields.get("year"), "start_line": line}, vector
    return without


@settings(max_examples=30, deadline=None)
@given(ROUNDS, st.integers(0, 8), st.booleans(), st.booleans())
def test_a_sync_that_fails_anywhere_and_is_repeated_equals_an_undisturbed_one(rounds, at, in_store, transactional):
    with sources() as folder, mock.patch.object(FailingStore, "transactional", transactional):
        for edits, _ in rounds[:-1]:
            apply(folder, edits)
            sync(folder, "memory:kept", store=FailingStore("memory:kept"))
            sync(folder, "memory:other")
        apply(folder, rounds[-1][0])
        store = FailingStore("memory:kept")
        store.fail_at = at if in_store else None
        failing = Embedder(fail_at=None if in_store else at)
        with suppress(OSError, UnavailableError):
            sync(folder, "memory:kept", failing, store)
        _, again = sync(folder, "memory:kept", store=FailingStore("memory:kept"))
        _, undisturbed = sync(folder, "memory:other")
        assert rows("memory:kept") == rows("memory:other")
        computed = failing.texts + again
        if transactional:
            # The journal may even know a text that several documents have.
            assert computed <= undisturbed
        else:
            # Without transactions, the rows of the batch that is written, and of the next one, are computed again.
            assert computed.total() <= undisturbed.total() + 2 * chunk_reader.MAX_BATCH_CHUNKS


@settings(max_examples=30, deadline=None)
@given(ROUNDS)
def test_a_dry_run_says_what_the_sync_then_does_and_changes_nothing(rounds):
    with sources() as folder:
        options = OPTIONS
        for edits, changed in rounds:
            apply(folder, edits)
            options = replace(options, **changed)
            before = (dict(PLACES), sorted(map(str, folder.parent.rglob("*"))))
            planner = Embedder()
            plan = asyncio.run(plan_sync(planner, MemoryStore("memory:kept"), [str(folder)], options))
            assert (dict(PLACES), sorted(map(str, folder.parent.rglob("*")))) == before
            assert not planner.calls
            summary, texts = sync(folder, "memory:kept", options=options)
            names = ("added", "updated", "removed", "unchanged", "kept", "rejected", "chunks_removed", "resumed")
            assert {name: getattr(plan, name) for name in names} == {name: getattr(summary, name) for name in names}
            assert (plan.chunks, plan.settings_changed) == (summary.chunks_written, summary.settings_changed)
            assert plan.model.texts == texts.total()
            assert plan.model.model == "fake"


def test_a_model_of_another_space_changes_nothing():
    with sources() as folder:
        sync(folder, "memory:kept")
        before = rows("memory:kept")
        embedder = Embedder()
        embedder.prompt = "passage: "
        for task in (sync_collection, plan_sync):
            with pytest.raises(SpaceMismatchError):
                asyncio.run(task(embedder, MemoryStore("memory:kept"), [str(folder)], OPTIONS))
        assert rows("memory:kept") == before
        assert not embedder.texts
