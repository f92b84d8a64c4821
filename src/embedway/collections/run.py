"""Jobs that write a new collection."""

from __future__ import annotations

import time
from contextlib import closing
from typing import IO, TYPE_CHECKING

from embedway.collections.cutting import cut_document, open_chunker
from embedway.collections.documents import ByteCounter
from embedway.collections.inventory import source_texts
from embedway.collections.job import Job, Kept
from embedway.collections.option_checks import check_class
from embedway.collections.options import RunOptions
from embedway.collections.plan import next_documents
from embedway.collections.readers import find_sources, read_files
from embedway.collections.report import RunSummary
from embedway.collections.stores import store_for
from embedway.collections.termination import terminable
from embedway.worker import Worker

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Store
    from embedway.errors import SourceError

__all__ = ["RunOptions", "read_texts", "run_job"]


async def run_job(
    embedder: AsyncEmbedder,
    sources: Iterable[str | os.PathLike[str]],
    destination: str | os.PathLike[str] | Store,
    options: RunOptions,
    *,
    progress: RunProgress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    standard_input: IO[bytes] | None = None,
    kept: Kept | None = None,
) -> RunSummary:
    """Embed sources into a new destination, which appears only when the job is complete.

    `clock` returns seconds; `kept` is filled with what the job keeps if it is stopped. Raises `UsageError` and
    `SinkError` before anything is embedded, `SourceError` for an unreadable source or if there is nothing to embed, and
    the errors of the embedder. A job that ends early, also by cancellation or SIGTERM, leaves nothing at the
    destination; its vectors stay in the journal for the same job. After SIGTERM it raises `SystemExit(143)`. A job that
    is cancelled during its commit is completed.
    """
    started = clock()
    check_class(options, RunOptions, "options")
    sources = source_texts(sources)
    store = store_for(destination)
    job = Job(embedder, store, options, progress=progress, clock=clock, kept=kept)
    outcome = await terminable(job.run(sources, standard_input))
    tally = job.tally
    return RunSummary(
        documents=tally.documents,
        chunks=tally.chunks,
        rejected=job.rejects.count,
        truncated=tally.truncated,
        cached=tally.cached,
        lossy=tally.lossy,
        tokens=tally.tokens,
        seconds=clock() - started,
        texts_per_s=tally.rate(tally.chunks),
        tokens_per_s=tally.rate(tally.tokens),
        destination=store.destination,
        space_id=outcome.space.id,
        model=outcome.space.model,
        runtime=tally.runtime,
        rejects_path=str(job.rejects.path) if job.rejects.count else None,
        billed_tokens=tally.billed_tokens,
        cost_nanousd=tally.cost_nanousd,
        links_skipped=outcome.inventory.skipped.counts["link"],
        skipped=outcome.inventory.skipped.to_json(),
        notes=tally.notes,
        attempts=tally.attempts,
        routes=tally.routes,
        unsure_nanousd=tally.unsure_nanousd,
        estimated=tally.estimated,
        resumed=tally.resumed,
    )


async def read_texts(embedder: AsyncEmbedder, sources: Sequence[str], options: RunOptions) -> list[str]:
    """Return the texts that `run_job` would embed, in its order. Raises `SourceError` for unusable ones."""

    def refuse(fault: SourceError) -> None:
        raise fault

    described = await embedder.models.describe(options.model, options.dimensions, load=True)
    chunker, _ = open_chunker(described, options)
    texts: list[str] = []
    with closing(Worker("embedway-reader")) as reader:
        found = await reader.call(find_sources, sources, options.read_options())
        documents = read_files(found, options.read_options(), on_bad_row=refuse, counter=ByteCounter())
        while some := await reader.call(next_documents, documents):
            for document in some:
                texts += [chunk.embedded_text for chunk in await reader.call(cut_document, document, chunker)]
    return texts
