"""Engine of jobs: read sources, split changed documents into chunks, embed them, and write them to a collection.

Three steps run at once, each on one batch of chunks: one thread reads and splits the next batch, the current one is
embedded, and another thread writes the previous one. So at most three batches are in memory, however large the corpus.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

from embedway import unfinished
from embedway.collections.changes import Changes, Manifest
from embedway.collections.chunk_reader import batch_sizes, key_of
from embedway.collections.embedding import BatchEmbedder
from embedway.collections.inventory import Inventory
from embedway.collections.job_sources import (
    joined_sources,
    named_sources,
    note_reading,
    reading_record,
    recorded_sources,
    refuse_emptied,
    without_written,
)
from embedway.collections.journal import Journal, journal_path, vector_facts
from embedway.collections.kept_columns import KeptColumns
from embedway.collections.preparation import Opened, open_for_sync
from embedway.collections.prepared_job import find_inventory, prepare_job
from embedway.collections.provenance import catalog_facts, made_by
from embedway.collections.record import Record
from embedway.collections.rejects import RejectsFile
from embedway.collections.report import Tally, as_progress, is_stored, note_progress
from embedway.collections.saved_vectors import SavedVectors
from embedway.collections.store_calls import uncancelled
from embedway.errors import CollectionLockedError, EmbedwayError, SinkError, SourceError
from embedway.remedies import by_place, option
from embedway.text import count_of
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunk_reader import ChunkBatch
    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.options import RunOptions, SyncOptions
    from embedway.collections.prepared_job import PreparedJob
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Store
    from embedway.space import Space
    from embedway.types import Vectors

#: Interval between two tries to lock a collection, in seconds.
_LOCK_AGAIN_S = 0.5


@dataclass(slots=True)
class Kept:
    """What a stopped job keeps, for messages."""

    #: Computed vectors in the journal, and rows in a store without transactions.
    vectors: int = 0
    rows: int = 0
    complete: bool = False


@dataclass(slots=True)
class Outcome:
    """Result of a job, from which summaries are made."""

    space: Space
    inventory: Inventory
    changes: Changes
    #: Names of sources whose documents are removed.
    removed_sources: Collection[str] = ()
    recut: bool = False
    removed: list[DocumentKey] = field(default_factory=list)
    chunks_removed: int = 0


class Job:
    """One change of a collection. `sync` is None for a new collection, and the options of a sync otherwise."""

    def __init__(
        self,
        embedder: AsyncEmbedder,
        store: Store,
        options: RunOptions,
        *,
        sync: SyncOptions | None = None,
        progress: RunProgress | None = None,
        clock: Callable[[], float],
        kept: Kept | None = None,
    ) -> None:
        self._embedder = embedder
        self._store = store
        self.options = options
        self._sync = sync
        self._progress = as_progress(progress)
        self._clock = clock
        self._kept = kept or Kept()
        self.rejects = RejectsFile(store.rejects_path)
        self.tally = Tally(notes=options.notes)
        self._locks = ExitStack()
        self._manifest = Manifest()
        self._old: Record | None = None
        self._begun = False
        #: Record of a new collection that has no rows yet, in a store without transactions.
        self._staged: Record | None = None
        self._outdated: set[DocumentKey] = set()
        self._columns = KeptColumns((), {}, {})

    async def run(self, sources: Sequence[str], standard_input: IO[bytes] | None) -> Outcome:
        """Run the job. Raises as `run_job` does."""
        with closing(Worker("embedway-reader")) as reader, closing(Worker("embedway-writer")) as writer:
            await self._lock(writer)
            try:
                return await self._run(sources, standard_input, reader, writer)
            finally:
                await writer.call(self._store.close)
                await writer.call(self._locks.close)

    async def _lock(self, writer: Worker) -> None:
        while True:
            try:
                await writer.call(self._locks.enter_context, self._store.lock())
            except CollectionLockedError:
                if not self.options.wait:
                    raise
            else:
                return
            await asyncio.sleep(_LOCK_AGAIN_S)

    async def _run(
        self, sources: Sequence[str], standard_input: IO[bytes] | None, reader: Worker, writer: Worker
    ) -> Outcome:
        opened = await writer.call(self._open_and_resolve_options)
        removed_sources = self._removed_sources()
        if opened.old is not None and removed_sources and not sources:
            return await self._remove_sources(opened.old, removed_sources, writer)
        if not sources and self._sync is not None:
            sources = recorded_sources(opened.old, self._store.destination)
        inventory = await reader.call(find_inventory, opened, sources, removed_sources)
        inventory = await self._check_destination(inventory, writer)
        job = await prepare_job(
            self._embedder, self._store, opened, inventory, self._on_bad_row, standard_input=standard_input
        )
        self.options = job.options
        record = self._record(job, removed_sources)
        self.tally.notes += note_reading(opened.old, job.options, inventory.sources, removed_sources)
        self._columns = KeptColumns(job.options.keep, job.options.keep_types, record.keep)
        outcome = Outcome(record.space, inventory, job.changes, removed_sources, recut=job.recut)
        facts = vector_facts(job.described, job.options.on_overflow)
        saved = SavedVectors(Journal(journal_path(self._store), record.space, facts), record.space)
        try:
            await self._stream(job, saved, record, reader, writer)
            await self._finish(outcome, record, writer)
            await uncancelled(writer.call(self._commit, record))
        except BaseException as error:
            await self._abort(error, job, saved, reader, writer)
            raise
        # First, because the journal is removed even if the rest is cancelled.
        await saved.close(remove=True)
        await reader.call(job.chunk_reader.close)
        await writer.call(self.rejects.remove_outdated)
        return outcome

    def _record(self, job: PreparedJob, removed_sources: Collection[str]) -> Record:
        """Return the record of the collection after the job, without new kept columns."""
        old, space = self._old, job.described.space
        return Record(
            space,
            chunking=job.settings,
            sources=joined_sources(old, job.inventory.sources, removed_sources),
            reading=reading_record(job.options),
            made_by=made_by(job.described),
            facts=(old.facts if old is not None else {}) or catalog_facts(space.model),
            keep={} if old is None else old.keep,
        )

    def _open_and_resolve_options(self) -> Opened:
        """Open an existing collection for a sync; resolve the options that its record decides."""
        store = self._store
        if self._sync is not None:
            opened = open_for_sync(store, self._sync)
            self.options, self._old, self._manifest = opened.options, opened.old, opened.manifest
            return opened
        if store.exists() and not self.options.overwrite:
            update = by_place(command="`embedway sync SOURCE --to COLLECTION`", python="`Collection.sync`")
            raise SinkError(
                f"already exists; {update} updates it, and {option('overwrite', True)} replaces it",
                destination=store.destination,
            )
        return Opened(self.options)

    async def _check_destination(self, inventory: Inventory, writer: Worker) -> Inventory:
        """Refuse an unusable destination; return the inventory without files of collections."""
        if self._old is None:
            await writer.call(self._store.prepare, overwrite=self.options.overwrite)
        written = (self._store.destination, *map(str, (self.rejects.path, *self._store.sidecars)))
        inventory = without_written(inventory, written)
        if not self.options.overwrite:
            await writer.call(self.rejects.refuse_existing)
        return inventory

    async def _stream(
        self, job: PreparedJob, saved: SavedVectors, record: Record, reader: Worker, writer: Worker
    ) -> None:
        """Embed and write all chunks of changed documents."""
        chunk_reader, changes = job.chunk_reader, job.changes
        batches = BatchEmbedder(
            self._embedder, self._store.destination, job.options, saved, self.tally, self._on_bad_row
        )
        sizes = batch_sizes()
        await saved.open()
        pending = reader.call(chunk_reader.next_batch, next(sizes))
        writing: asyncio.Future[None] | None = None
        while (batch := await pending) is not None:
            await reader.call(self._columns.infer, batch.chunks, job.kept_values(self._old))
            await writer.call(self._begin, replace(record, keep=self._columns.types))
            pending = reader.call(chunk_reader.next_batch, next(sizes))
            batch = self._fitting(batch, changes)
            if not batch.chunks:
                continue
            self.tally.begin(self._clock())
            done = await batches.embed(batch, record.space)
            self._kept.vectors = saved.count
            ended = self._clock()
            if writing is not None:
                await writing
            for row in done.failed:
                changes.keep(key_of(row))
            if not done.chunks:
                continue
            writing = writer.call(self._write, batch.replaced, done.chunks, done.vectors)
            if not self._store.transactional and saved.is_large:
                await writing
                await saved.clear()
            self.tally.add(batch.documents, len(done.chunks), done.result, ended)
            if self._progress is not None:
                self._progress.update(self.tally.status(batch))
        if writing is not None:
            await writing
        else:
            self._check_not_empty()

    def _check_not_empty(self) -> None:
        """Raise `SourceError` if a new collection would have no rows."""
        if self._old is None:
            first = self.rejects.first
            rows = count_of(self.rejects.count, "row was", "rows were")
            rejected = f"; {rows} rejected, the first: {first}" if first else ""
            raise SourceError(f"there is nothing to embed{rejected}", path="sources")

    def _fitting(self, batch: ChunkBatch, changes: Changes) -> ChunkBatch:
        """Return a batch without the documents whose kept values do not fit their columns."""
        chunks, bad = self._columns.fit(batch.chunks)
        rejected = set()
        for chunk, fault in bad:
            if key_of(chunk) not in rejected:
                rejected.add(key_of(chunk))
                self._on_bad_row(fault)
                changes.keep(key_of(chunk))
        return replace(batch, chunks=tuple(chunks))

    def _begin(self, record: Record) -> None:
        if self._begun:
            return
        store = self._store
        if self._old is not None:
            store.begin_update(record)
        else:
            store.begin(record)
            self._staged = None if store.transactional else record
        self._begun = True

    def _show_rows(self, record: Record) -> None:
        """Give a new collection its name, so that rows stay if the job is stopped, and a sync continues it."""
        store = self._store
        store.commit()
        store.open()
        store.begin_update(record)

    def _write(self, replaced: Collection[DocumentKey], chunks: Sequence[Chunk], vectors: Vectors) -> None:
        if self._staged is not None:
            # Not before there are vectors: a model that fails must not cost the collection that is replaced.
            self._show_rows(self._staged)
            self._staged = None
        outdated = (set(replaced) & {key_of(chunk) for chunk in chunks}) - self._outdated
        if outdated:
            self._store.remove(outdated)
            self._outdated |= outdated
        self._store.write(chunks, vectors)
        if not self._store.transactional:
            self._kept.rows += len(chunks)

    def _removed_sources(self) -> set[str]:
        """Return the names of the sources to remove. Raises UsageError for unknown ones."""
        if self._sync is None or not self._sync.remove:
            return set()
        if self._old is None:
            raise SinkError("does not exist, so it has no source to remove", destination=self._store.destination)
        return named_sources(self._old, self._sync.remove)

    def _documents_of(self, names: Collection[str]) -> list[DocumentKey]:
        return [key for key in self._manifest.documents if key.source in names]

    async def _remove_sources(self, old: Record, removed_sources: Collection[str], writer: Worker) -> Outcome:
        """Remove sources, and change nothing else. Needs no model."""
        record = replace(old, sources=joined_sources(old, (), removed_sources))
        outcome = Outcome(old.space, Inventory((), ()), Changes(self._manifest, old.chunking, ()), removed_sources)
        try:
            await self._finish(outcome, record, writer)
            await uncancelled(writer.call(self._commit, record))
        except BaseException:
            await writer.call(self._store.abort)
            raise
        return outcome

    async def _finish(self, outcome: Outcome, record: Record, writer: Worker) -> None:
        """Remove the documents that the sources no longer have."""
        if self._sync is None:
            return
        refuse_emptied(outcome.changes, self._sync)
        outcome.removed = outcome.changes.removed() + self._documents_of(outcome.removed_sources)
        if outcome.removed:
            await writer.call(self._begin, record)
            await writer.call(self._store.remove, outcome.removed)
        rows = self._manifest.documents
        outcome.chunks_removed = sum(rows[key].rows for key in (*outcome.removed, *self._outdated))

    def _commit(self, record: Record) -> None:
        """Commit the rejects, then the collection."""
        old = self._old
        with unfinished.commit():
            self.rejects.commit()
            if self._begun:
                self._store.commit()
            elif old is not None and replace(record, made_by=old.made_by, revision=old.revision) != old:
                self._store.write_record(replace(record, made_by=old.made_by, revision=old.revision))
            self._kept.complete = True

    async def _abort(
        self, error: BaseException, job: PreparedJob, saved: SavedVectors, reader: Worker, writer: Worker
    ) -> None:
        chunk_reader, inventory = job.chunk_reader, job.inventory
        total = chunk_reader.total
        chunk_reader.stop()
        await saved.close()
        self._kept.vectors = saved.count
        if isinstance(error, EmbedwayError):
            # The journal also has vectors of rows that are written, until it is emptied.
            kept = max(self._kept.rows, self._kept.vectors)
            if not kept and await is_stored(self._embedder, self.tally.last_text, self.options):
                kept = self.tally.computed
            if kept:
                note_progress(error, kept, total)
        # In this order, because the store removes the folder that it created only if the folder is empty.
        await writer.call(self.rejects.abort)
        await writer.call(self._store.abort)
        closed = reader.call(chunk_reader.close)
        if not isinstance(error, asyncio.CancelledError) and all(f.size_bytes is not None for f in inventory.files):
            # A reader of a pipe may wait forever, so it is not awaited. Nor is any reader after a cancellation,
            # because it may parse a document for long. Readers leave nothing behind.
            await closed

    def _on_bad_row(self, fault: SourceError) -> None:
        if self.options.on_error == "stop":
            raise fault
        self.rejects.add(fault)
