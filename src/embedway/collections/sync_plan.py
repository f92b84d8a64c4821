"""Dry runs of syncs: what would change, and what it would cost. Nothing is computed or written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from embedway.collections.chunk_reader import ChunkReader, batch_sizes
from embedway.collections.inventory import source_texts
from embedway.collections.job_sources import (
    named_sources,
    note_reading,
    recorded_sources,
    refuse_emptied,
    refuse_itself,
    without_written,
)
from embedway.collections.journal import Journal, journal_path, vector_facts
from embedway.collections.option_checks import check_class
from embedway.collections.options import SyncOptions
from embedway.collections.plan import ModelPlan, add_texts
from embedway.collections.preparation import open_for_sync
from embedway.collections.prepared_job import find_inventory, prepare_job
from embedway.collections.stores import store_for
from embedway.selection.deduplication import TextDeduplicator
from embedway.worker import Worker

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.documents import DocumentKey
    from embedway.collections.options import RunOptions
    from embedway.collections.preparation import Opened
    from embedway.collections.stores.base import Store
    from embedway.errors import SourceError


@dataclass(frozen=True, slots=True)
class SyncPlan:  # a field for each fact of the plan's JSON
    """Changes that a sync would make. `resumed` counts texts that an interrupted job has computed.

    `model` is the plan of the texts to compute; None if only sources are removed.
    """

    destination: str
    added: int
    updated: int
    removed: int
    unchanged: int
    kept: int
    rejected: int
    chunks: int
    chunks_removed: int
    resumed: int
    settings_changed: bool
    skipped: dict[str, Any] = field(default_factory=dict)
    model: ModelPlan | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types, with money in dollars."""
        facts = {name: getattr(self, name) for name in self.__slots__ if name != "model"}
        return {**facts, "embedding": None if self.model is None else self.model.to_json()}


async def plan_sync(
    embedder: AsyncEmbedder,
    destination: str | os.PathLike[str] | Store,
    sources: Iterable[str | os.PathLike[str]] = (),
    options: SyncOptions | None = None,
    *,
    standard_input: IO[bytes] | None = None,
) -> SyncPlan:
    """Plan `sync_collection`: read the sources, compute, spend and write nothing. Raises as it does."""
    sources = source_texts(sources)
    store = store_for(destination)
    sync = SyncOptions() if options is None else options
    check_class(sync, SyncOptions, "options")
    refuse_itself(sources, store.destination)
    with closing(Worker("embedway-reader")) as reader:
        try:
            opened = await reader.call(open_for_sync, store, sync)
            return await _plan(embedder, store, list(sources), sync, opened, reader, standard_input)
        finally:
            await reader.call(store.close)


async def _plan(  # noqa: PLR0917  the parts of one plan
    embedder: AsyncEmbedder,
    store: Store,
    sources: list[str],
    sync: SyncOptions,
    opened: Opened,
    reader: Worker,
    standard_input: IO[bytes] | None,
) -> SyncPlan:
    old, rows = opened.old, opened.manifest.documents
    removed_sources = named_sources(old, sync.remove) if old is not None and sync.remove else set()
    gone = [key for key in rows if key.source in removed_sources]
    if removed_sources and not sources:
        chunks = sum(rows[key].rows for key in gone)
        return SyncPlan(store.destination, 0, 0, len(gone), 0, 0, 0, 0, chunks, 0, settings_changed=False)
    sources = sources or recorded_sources(old, store.destination)
    found = await reader.call(find_inventory, opened, sources, removed_sources)
    inventory = without_written(found, (store.destination, *map(str, (store.rejects_path, *store.sidecars))))
    rejected: list[None] = []

    def on_bad_row(fault: SourceError) -> None:
        if opened.options.on_error == "stop":
            raise fault
        rejected.append(None)

    job = await prepare_job(embedder, store, opened, inventory, on_bad_row, standard_input=standard_input, load=False)
    note_reading(old, job.options, inventory.sources, removed_sources)
    run, described, changes = job.options, job.described, job.changes
    journal = Journal(journal_path(store), described.space, vector_facts(described, run.on_overflow))
    model = ModelPlan(described.model, described.space.id)
    counts = await _count(embedder, job.chunk_reader, journal, model, run, reader)
    refuse_emptied(changes, sync)
    removed = changes.removed() + gone
    return SyncPlan(
        destination=store.destination,
        added=changes.counts["added"],
        updated=changes.counts["updated"] + changes.counts["resumed"],
        removed=len(removed),
        unchanged=changes.counts["unchanged"],
        kept=changes.kept,
        rejected=len(rejected),
        chunks=counts.chunks,
        chunks_removed=sum(rows[key].rows for key in {*removed, *counts.replaced} if key in rows),
        resumed=counts.resumed,
        settings_changed=job.recut,
        skipped=inventory.skipped.to_json(),
        model=model,
    )


@dataclass(slots=True)
class _Counts:
    chunks: int = 0
    resumed: int = 0
    replaced: set[DocumentKey] = field(default_factory=set)


async def _count(  # noqa: PLR0917  the parts of one plan
    embedder: AsyncEmbedder,
    chunk_reader: ChunkReader,
    journal: Journal,
    model: ModelPlan,
    run: RunOptions,
    reader: Worker,
) -> _Counts:
    """Count the chunks to write, and plan the texts to compute, in the batches of a sync."""
    counts = _Counts()
    cached = embedder.config.cache.backend != "none"
    deduplicator = TextDeduplicator()
    sizes = batch_sizes()
    await reader.call(journal.read)
    try:
        while (batch := await reader.call(chunk_reader.next_batch, next(sizes))) is not None:
            texts = [chunk.embedded_text for chunk in batch.chunks]
            known = journal.find(texts)
            texts = [text for row, text in enumerate(texts) if row not in known]
            counts.chunks += len(batch.chunks)
            counts.resumed += len(known)
            counts.replaced |= batch.replaced
            model.texts += len(texts)
            unique = deduplicator.filter(texts) if cached else texts
            if unique:
                await add_texts(model, embedder, run.model, unique, run)
    finally:
        await reader.call(chunk_reader.close)
        journal.close()
    return counts
