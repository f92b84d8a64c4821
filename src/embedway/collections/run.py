"""Streaming job: read sources, split documents into chunks, embed them, and write them to a destination.

Three steps run at once, each on one batch of chunks: one thread reads and splits the next batch, the current one is
embedded, and another thread writes the previous one. So at most three batches are in memory, however large the corpus.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Literal

from embedway import unfinished
from embedway.collections.chunk_reader import MAX_BATCH_CHUNKS, ChunkReader, batch_sizes
from embedway.collections.chunking import Chunker, chunk_limits, count_prompt_tokens
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_files
from embedway.collections.rejects import RejectsFile
from embedway.collections.report import RunSummary, Tally, is_stored, note_progress, rows_were
from embedway.collections.stores import store_for
from embedway.errors import (
    BadVectorsError,
    EmbedwayError,
    InputError,
    RefusedInputError,
    SourceError,
    SpaceMismatchError,
    UsageError,
    of_row,
    without_row,
)
from embedway.money import usd
from embedway.space import comparable
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunk_reader import ChunkBatch
    from embedway.collections.documents import SourceFormat
    from embedway.collections.readers import SourceFile
    from embedway.collections.report import RunProgress
    from embedway.collections.stores.base import Chunk
    from embedway.types import EmbedResult, ModelDescription, Overflow, Space


@dataclass(frozen=True, slots=True)
class RunOptions:  # a field for each option of a job
    """Options of a job.

    `chunk_tokens` includes special tokens and prompt; None means 256, or the model's limit if lower. `overlap_tokens`
    None means 32, or less for small chunks. With `chunk` false, each document is one row, truncated at the model's
    limit unless `on_overflow` says otherwise. `on_error` decides about unusable rows: `stop` ends the job, `skip`
    records the row and continues.
    """

    model: str = "auto"
    dimensions: int | None = None
    chunk: bool = True
    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    on_error: Literal["stop", "skip"] = "stop"
    on_overflow: Overflow = "truncate"
    overwrite: bool = False
    text_field: str = "text"
    id_field: str = "id"
    keep: tuple[str, ...] = ()
    format: SourceFormat = "auto"
    #: Whether to follow symbolic links inside folders.
    follow_links: bool = False
    #: Collection whose budget is charged, and whose vector space must match.
    collection: str = ""
    #: Maximum cost of the job, in nano-dollars.
    most_nanousd: int | None = None
    #: Notes on the choice of the model, for the summary.
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject options that contradict each other."""
        if not self.chunk and (self.chunk_tokens is not None or self.overlap_tokens is not None):
            raise UsageError("chunk size and overlap cannot be set if documents are not split into chunks")

    def read_options(self) -> ReadOptions:
        """Return the options for readers. Raises `UsageError`."""
        return ReadOptions(self.text_field, self.id_field, self.keep, self.format, self.follow_links)


async def run_job(
    embedder: AsyncEmbedder,
    sources: Sequence[str],
    destination: str,
    options: RunOptions,
    *,
    progress: RunProgress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    standard_input: IO[bytes] | None = None,
) -> RunSummary:
    """Embed sources into a destination, which appears only when the job is complete.

    `clock` returns seconds. Raises `UsageError` and `SinkError` before anything is embedded, `SourceError` for an
    unreadable source or if there is nothing to embed, and the errors of the embedder. A job that ends early, also by
    cancellation or SIGTERM, leaves nothing behind. After SIGTERM it raises `SystemExit(143)`. A job that is cancelled
    during its commit is completed.
    """
    with _sigterm_cancels() as terminated:
        try:
            job = _Job(embedder, destination, options, progress, clock)
            summary = await job.run(sources, standard_input)
        except asyncio.CancelledError:
            if terminated:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        if terminated:
            raise SystemExit(128 + signal.SIGTERM)
        return summary


@contextmanager
def _sigterm_cancels() -> Iterator[list[int]]:
    """Cancel the current task on SIGTERM, so that it can clean up; the list is not empty after that.

    Only if the signal has no other handler, and if a handler can be set (in the main thread, not on Windows).
    """
    received: list[int] = []
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    ours = (
        threading.current_thread() is threading.main_thread()
        and os.name != "nt"
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )

    def terminate() -> None:
        received.append(signal.SIGTERM)
        if task is not None:
            task.cancel()

    if ours:
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield received
    finally:
        if ours:
            loop.remove_signal_handler(signal.SIGTERM)


async def read_texts(embedder: AsyncEmbedder, sources: Sequence[str], options: RunOptions) -> list[str]:
    """Return the texts that `run_job` would embed, in its order. Raises `SourceError` for unusable ones."""

    def refuse(fault: SourceError) -> None:
        raise fault

    with closing(Worker("embedway-reader")) as reader:
        files = await reader.call(find_files, sources, options.read_options())
        chunker, _ = open_chunker(await embedder.models.describe(options.model, options.dimensions, load=True), options)
        chunk_reader = ChunkReader(files, options.read_options(), chunker, on_bad_row=refuse, counter=ByteCounter())
        texts: list[str] = []
        while (batch := await reader.call(chunk_reader.next_batch, MAX_BATCH_CHUNKS)) is not None:
            texts += [chunk.embedded_text for chunk in batch.chunks]
    return texts


class _Job:
    """One run of a job, with its worker threads."""

    def __init__(
        self,
        embedder: AsyncEmbedder,
        destination: str,
        options: RunOptions,
        progress: RunProgress | None,
        clock: Callable[[], float],
    ) -> None:
        self._embedder = embedder
        self._options = options
        self._progress = progress
        self._clock = clock
        self._store = store_for(destination)
        self._rejects = RejectsFile(self._store.rejects_path)
        self._tally = Tally(notes=options.notes)
        self._links: list[str] = []
        self._started = clock()

    async def run(self, sources: Sequence[str], standard_input: IO[bytes] | None) -> RunSummary:
        with closing(Worker("embedway-reader")) as reader, closing(Worker("embedway-writer")) as writer:
            return await self._run(sources, standard_input, reader, writer)

    async def _run(
        self, sources: Sequence[str], standard_input: IO[bytes] | None, reader: Worker, writer: Worker
    ) -> RunSummary:
        options, store = self._options, self._store
        read_options = options.read_options()
        files = await reader.call(find_files, sources, read_options, on_link=self._links.append)
        await writer.call(store.prepare, overwrite=options.overwrite)
        _refuse_own_source(files, (store.destination, *map(str, (self._rejects.path, *store.sidecars))))
        if not options.overwrite:
            await writer.call(self._rejects.refuse_existing)
        described = await self._embedder.models.describe(options.model, options.dimensions, load=True)
        chunker, settings = open_chunker(described, options)
        chunk_reader = ChunkReader(
            files,
            read_options,
            chunker,
            on_bad_row=self._on_bad_row,
            counter=ByteCounter(),
            standard_input=standard_input,
        )
        try:
            await writer.call(store.begin, described.space, settings, options.keep)
            await self._stream(chunk_reader, reader=reader, writer=writer, space=described.space)
            await _uncancelled(writer.call(self._commit))
        except BaseException as error:
            if isinstance(error, EmbedwayError) and await is_stored(self._embedder, self._tally.last_text, options):
                note_progress(error, self._tally.computed, chunk_reader.total)
            chunk_reader.stop()
            # In this order, because the store removes the folder that it created only if the folder is empty.
            await writer.call(self._rejects.abort)
            await writer.call(store.abort)
            closed = reader.call(chunk_reader.close)
            if not isinstance(error, asyncio.CancelledError) and all(file.size_bytes is not None for file in files):
                # A reader of a pipe may wait forever, so it is not awaited. Nor is any reader after a cancellation,
                # because it may parse a document for long. Readers leave nothing behind.
                await closed
            raise
        await reader.call(chunk_reader.close)
        await writer.call(self._rejects.remove_outdated)
        return self._summary(described)

    async def _stream(self, chunk_reader: ChunkReader, *, reader: Worker, writer: Worker, space: Space) -> None:
        """Embed and write all chunks."""
        sizes = batch_sizes()
        pending = reader.call(chunk_reader.next_batch, next(sizes))
        writing: asyncio.Future[None] | None = None
        while (batch := await pending) is not None:
            pending = reader.call(chunk_reader.next_batch, next(sizes))
            self._tally.begin(self._clock())
            chunks, result = await self._embed(batch, space)
            ended = self._clock()
            if writing is not None:
                await writing
            if not chunks:
                continue
            writing = writer.call(self._store.write, chunks, result.vectors)
            self._tally.add(batch, result, ended)
            if self._progress is not None:
                self._progress.update(self._tally.status(batch))
        if writing is None:
            first = self._rejects.first
            rejected = f"; {rows_were(self._rejects.count)} rejected, the first: {first}" if first else ""
            raise SourceError(f"there is nothing to embed{rejected}", path="sources")
        await writing

    def _commit(self) -> None:
        """Commit the rejects, then the destination."""
        with unfinished.commit():
            self._rejects.commit()
            self._store.commit()

    async def _embed(self, batch: ChunkBatch, space: Space) -> tuple[tuple[Chunk, ...], EmbedResult]:
        """Embed a batch; return its chunks without rejected ones, and their vectors."""
        texts = [chunk.embedded_text for chunk in batch.chunks]
        result = await self._embedder.embed(
            texts,
            input_type="document",
            model=self._options.model,
            dimensions=self._options.dimensions,
            on_overflow=self._options.on_overflow,
            partial=True,
            **self._call_options(),
        )
        self._tally.note_computed(texts, result)
        if not comparable(result.space, space):
            raise SpaceMismatchError(
                collection=self._store.destination, collection_space=space.id, asked_space=result.space.id
            )
        if result.vectors.shape != (len(texts), space.dimensions):
            reason = f"returned vectors of shape {result.vectors.shape} for {len(texts)} texts"
            raise BadVectorsError(reason, route=result.receipt.route)
        return self._without_rejects(batch, result)

    def _call_options(self) -> dict[str, Any]:
        """Return the given options for costs and collections."""
        options: dict[str, Any] = {"collection": self._options.collection} if self._options.collection else {}
        most = self._options.most_nanousd
        if most is not None:
            options["max_cost"] = usd(max(0, most - (self._tally.cost_nanousd or 0)))
        return options

    def _without_rejects(self, batch: ChunkBatch, result: EmbedResult) -> tuple[tuple[Chunk, ...], EmbedResult]:
        """Return the chunks that have vectors. Errors of single rows reject them; any other error ends the job."""
        if not result.errors:
            return batch.chunks, result
        is_none_good = len(batch.chunks) == len(result.errors)
        for error in result.errors.values():
            if isinstance(error, InputError):
                continue
            # If no row succeeds, the service is the cause, and not one row.
            is_refused = isinstance(error, RefusedInputError)
            is_certain = not is_none_good or (len(batch.chunks) == 1 and (is_refused or self._tally.chunks > 0))
            if not is_certain or (error.row is None and not is_refused):
                stopped = of_row(error, None)
                if is_none_good and len(batch.chunks) > 1 and self._options.on_error == "skip":
                    stopped.add_note(
                        f"none of the {len(batch.chunks):,} texts was answered, so the service is taken to be at fault "
                        "and no row is skipped"
                    )
                raise stopped
        for row, error in sorted(result.errors.items()):
            chunk = batch.chunks[row]
            fault = SourceError(without_row(error), path=chunk.source, line=chunk.start_line)
            fault.id, fault.kind = chunk.document_id, type(error).__name__
            self._on_bad_row(fault)
        good = [row for row in range(len(batch.chunks)) if row not in result.errors]
        return tuple(batch.chunks[row] for row in good), replace(result, vectors=result.vectors[good])

    def _on_bad_row(self, fault: SourceError) -> None:
        if self._options.on_error == "stop":
            raise fault
        self._rejects.add(fault)

    def _summary(self, described: ModelDescription) -> RunSummary:
        tally = self._tally
        return RunSummary(
            documents=tally.documents,
            chunks=tally.chunks,
            rejected=self._rejects.count,
            truncated=tally.truncated,
            cached=tally.cached,
            lossy=tally.lossy,
            tokens=tally.tokens,
            seconds=self._clock() - self._started,
            texts_per_s=tally.rate(tally.chunks),
            tokens_per_s=tally.rate(tally.tokens),
            destination=self._store.destination,
            space_id=described.space.id,
            model=described.space.model,
            runtime=tally.runtime,
            rejects_path=str(self._rejects.path) if self._rejects.count else None,
            billed_tokens=tally.billed_tokens,
            cost_nanousd=tally.cost_nanousd,
            links_skipped=len(self._links),
            notes=tally.notes,
            attempts=tally.attempts,
            routes=tally.routes,
            unsure_nanousd=tally.unsure_nanousd,
            estimated=tally.estimated,
        )


async def _uncancelled(future: asyncio.Future[None]) -> None:
    """Wait for a commit, and ignore cancellations, because the destination may already exist."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
    future.result()


def open_chunker(
    described: ModelDescription, options: RunOptions
) -> tuple[Chunker | None, dict[str, str | int | bool | None]]:
    """Return the chunker, or None, and the settings that the collection records."""
    settings: dict[str, str | int | bool | None] = {
        "max_tokens": described.max_tokens,
        "runtime": described.runtime,
        "chunk": options.chunk,
        "chunk_tokens": None,
        "overlap_tokens": None,
    }
    if not options.chunk:
        return None, settings
    prompt = described.space.document_prompt
    limits = chunk_limits(
        max_tokens=described.max_tokens,
        special_tokens=described.special_tokens,
        prompt_tokens=count_prompt_tokens(described.tokenizer, prompt),
        prompt=prompt,
        chunk_tokens=options.chunk_tokens,
        overlap_tokens=options.overlap_tokens,
    )
    settings |= {"chunk_tokens": limits.chunk_tokens, "overlap_tokens": limits.overlap_tokens}
    return Chunker(described.tokenizer, limits), settings


def _refuse_own_source(files: Sequence[SourceFile], written: Sequence[str]) -> None:
    """Raise `UsageError` if a path that will be written is one of the sources."""
    sources = {os.path.realpath(file.path) for file in files}
    for path in written:
        if os.path.realpath(path) in sources:
            raise UsageError(f"{path} is a source and would be overwritten; choose another destination")
