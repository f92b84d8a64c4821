"""Jobs that keep a collection in step with its sources."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from embedway.collections.inventory import source_texts
from embedway.collections.job import Job, Kept
from embedway.collections.job_sources import refuse_itself
from embedway.collections.option_checks import check_class
from embedway.collections.options import SyncOptions
from embedway.collections.stores import store_for
from embedway.collections.termination import terminable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Store


@dataclass(frozen=True, slots=True)
class SyncSummary:  # a field for each fact of the summary's JSON
    """Result of a sync.

    `kept` documents cannot be used and keep their old rows. `computed`, `cached` and `resumed` count texts: computed
    now, found in the cache, and computed by an interrupted job. Costs are in nano-dollars, None if a price is unknown.
    """

    destination: str
    space_id: str
    added: int
    updated: int
    removed: int
    unchanged: int
    kept: int
    chunks_written: int
    chunks_removed: int
    computed: int
    cached: int
    resumed: int
    rejected: int
    rejects_path: str | None
    skipped: dict[str, Any]
    settings_changed: bool
    tokens: int
    billed_tokens: int
    cost_nanousd: int | None
    unsure_nanousd: int
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all fields, for `--json`."""
        return asdict(self)


async def sync_collection(
    embedder: AsyncEmbedder,
    destination: str | os.PathLike[str] | Store,
    sources: Iterable[str | os.PathLike[str]] = (),
    options: SyncOptions | None = None,
    *,
    progress: RunProgress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    standard_input: IO[bytes] | None = None,
    kept: Kept | None = None,
) -> SyncSummary:
    """Add, update and remove documents, so that the collection equals the sources; create it if it does not exist.

    Without sources, those of the collection's record are read. Unchanged documents are neither parsed nor tokenized.
    `kept` is filled with what the job keeps if it is stopped. Raises as `run_job` does, and SpaceMismatchError for
    another model than the collection's.
    """
    started = clock()
    sources = source_texts(sources)
    store = store_for(destination)
    options = SyncOptions() if options is None else options
    check_class(options, SyncOptions, "options")
    refuse_itself(sources, store.destination)
    job = Job(embedder, store, options.resolve(None), sync=options, progress=progress, clock=clock, kept=kept)
    outcome = await terminable(job.run(sources, standard_input))
    tally, counts = job.tally, outcome.changes.counts
    return SyncSummary(
        destination=store.destination,
        space_id=outcome.space.id,
        added=counts["added"],
        updated=counts["updated"] + counts["resumed"],
        removed=len(outcome.removed),
        unchanged=counts["unchanged"],
        kept=outcome.changes.kept,
        chunks_written=tally.chunks,
        chunks_removed=outcome.chunks_removed,
        computed=tally.computed - tally.cached,
        cached=tally.cached,
        resumed=tally.resumed,
        rejected=job.rejects.count,
        rejects_path=str(job.rejects.path) if job.rejects.count else None,
        skipped=outcome.inventory.skipped.to_json(),
        settings_changed=outcome.recut,
        tokens=tally.tokens,
        billed_tokens=tally.billed_tokens,
        cost_nanousd=tally.cost_nanousd,
        unsure_nanousd=tally.unsure_nanousd,
        seconds=clock() - started,
        notes=tally.notes,
    )
