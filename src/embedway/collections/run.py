"""The job: sources to documents to chunks to vectors to a destination, as a stream.

Three things go on at once, one batch of chunks each: the next is read and cut in one thread, one is
embedded, and the last is written in another thread. So three batches are the most that is held, however large
the corpus.
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

from embedway.collections.chunk_reader import MAX_BATCH_CHUNKS, ChunkReader, batch_sizes
from embedway.collections.chunking import Chunker, chunk_limits, count_prompt_tokens
from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_files
from embedway.collections.rejects import RejectsFile
from embedway.collections.report import RunSummary, Tally
from embedway.collections.stores import store_for
from embedway.errors import BadVectorsError, InputError, RefusedInputError, SourceError, SpaceMismatchError, UsageError
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
    """How a job is done.

    `chunk_tokens` counts special tokens and prompt, None is 256 or what the model takes; `overlap_tokens`
    None is 32 or what goes with smaller chunks. With `chunk` false each document is one row, cut at the
    model's limit unless `on_overflow` says otherwise. `on_error` decides on a row that cannot be used: `stop` ends the
    job, `skip` records it and goes on.
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
    #: The collection whose budget is charged, and whose space the vectors must be of.
    collection: str = ""
    #: Nano-dollars that the whole job may cost.
    most_nanousd: int | None = None

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if not self.chunk and (self.chunk_tokens is not None or self.overlap_tokens is not None):
            raise UsageError("chunk size and overlap mean nothing where documents are not cut")

    def read_options(self) -> ReadOptions:
        """The part that readers need. Raises `UsageError`."""
        return ReadOptions(self.text_field, self.id_field, self.keep, self.format)


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
    """Embed sources into a destination, which shows nothing until all is done.

    `clock` gives seconds. Raises `UsageError` and `SinkError` before anything is embedded, `SourceError` for
    what cannot be read or when there is nothing to embed, and what the embedder raises. Whatever ends the
    job, also cancellation and SIGTERM, leaves nothing behind; after SIGTERM it ends as `SystemExit(143)`.
    """
    with _sigterm_cancels() as terminated:
        try:
            job = _Job(embedder, destination, options, progress, clock)
            return await job.run(sources, standard_input)
        except asyncio.CancelledError:
            if terminated:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise


@contextmanager
def _sigterm_cancels() -> Iterator[list[int]]:
    """Let SIGTERM cancel the current task, so that it can clean up; the list is not empty after that.

    Only where nobody else handles the signal, and where a handler can be set at all (the main thread).
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
    """The texts that `run_job` would embed, in its order. Raises `SourceError` for what cannot be used."""

    def refuse(fault: SourceError) -> None:
        raise fault

    with closing(Worker("embedway-reader")) as reader:
        files = await reader.call(find_files, sources, options.read_options())
        chunker, _ = open_chunker(await embedder.models.describe(options.model, options.dimensions), options)
        chunk_reader = ChunkReader(files, options.read_options(), chunker, on_bad_row=refuse, counter=ByteCounter())
        texts: list[str] = []
        while (batch := await reader.call(chunk_reader.next_batch, MAX_BATCH_CHUNKS)) is not None:
            texts += [chunk.text for chunk in batch.chunks]
    return texts


class _Job:
    """One run. The workers live as long as it does."""

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
        self._tally = Tally()
        self._started = clock()

    async def run(self, sources: Sequence[str], standard_input: IO[bytes] | None) -> RunSummary:
        with closing(Worker("embedway-reader")) as reader, closing(Worker("embedway-writer")) as writer:
            return await self._run(sources, standard_input, reader, writer)

    async def _run(
        self, sources: Sequence[str], standard_input: IO[bytes] | None, reader: Worker, writer: Worker
    ) -> RunSummary:
        options, store = self._options, self._store
        read_options = options.read_options()
        files = await reader.call(find_files, sources, read_options)
        await writer.call(store.prepare, overwrite=options.overwrite)
        _refuse_own_source(files, (store.destination, *map(str, (self._rejects.path, *store.sidecars))))
        if not options.overwrite:
            await writer.call(self._rejects.refuse_existing)
        described = await self._embedder.models.describe(options.model, options.dimensions)
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
            await writer.call(self._rejects.commit)
            await writer.call(store.commit)
        except BaseException:
            chunk_reader.stop()
            # In this order: the store removes the folder it made, if nothing else is in it.
            await writer.call(self._rejects.abort)
            await writer.call(store.abort)
            if all(file.size_bytes is not None for file in files):
                # What reads from a pipe may wait there for ever, and nothing of it is left behind.
                await reader.call(chunk_reader.close)
            raise
        await reader.call(chunk_reader.close)
        await writer.call(self._rejects.remove_outdated)
        return self._summary(described)

    async def _stream(self, chunk_reader: ChunkReader, *, reader: Worker, writer: Worker, space: Space) -> None:
        """Embed and write all chunk_reader."""
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
            rejected = f"; {self._rejects.count} rows were rejected" if self._rejects.count else ""
            raise SourceError(f"there is nothing to embed{rejected}", path="sources")
        await writing

    async def _embed(self, batch: ChunkBatch, space: Space) -> tuple[tuple[Chunk, ...], EmbedResult]:
        """The vectors of a batch, and the chunks that they are of: all but those that were rejected."""
        texts = [chunk.text for chunk in batch.chunks]
        result = await self._embedder.embed(
            texts,
            input_type="document",
            model=self._options.model,
            dimensions=self._options.dimensions,
            on_overflow=self._options.on_overflow,
            partial=True,
            **self._call_options(),
        )
        if not comparable(result.space, space):
            raise SpaceMismatchError(
                collection=self._store.destination, collection_space=space.id, asked_space=result.space.id
            )
        if result.vectors.shape != (len(texts), space.dimensions):
            reason = f"gave vectors of shape {result.vectors.shape} for {len(texts)} texts"
            raise BadVectorsError(reason, route=result.receipt.route)
        return self._without_rejects(batch, result)

    def _call_options(self) -> dict[str, Any]:
        """The options for money and collections that were given."""
        options: dict[str, Any] = {"collection": self._options.collection} if self._options.collection else {}
        most = self._options.most_nanousd
        if most is not None:
            options["max_cost"] = usd(max(0, most - (self._tally.cost_nanousd or 0)))
        return options

    def _without_rejects(self, batch: ChunkBatch, result: EmbedResult) -> tuple[tuple[Chunk, ...], EmbedResult]:
        """Chunks that have vectors. A row that is refused for itself is bad; any other error ends the job."""
        if not result.errors:
            return batch.chunks, result
        for error in result.errors.values():
            # What is refused without exception is no single row's fault.
            if not isinstance(error, (InputError, RefusedInputError)) or (
                isinstance(error, RefusedInputError) and 1 < len(batch.chunks) == len(result.errors)
            ):
                raise error
        for row, error in sorted(result.errors.items()):
            chunk = batch.chunks[row]
            reason = str(error).removeprefix(f"text {row}: ")
            self._on_bad_row(SourceError(reason, path=chunk.source, line=chunk.start_line))
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
        )


def open_chunker(
    described: ModelDescription, options: RunOptions
) -> tuple[Chunker | None, dict[str, str | int | bool | None]]:
    """The chunker, or None, and the settings that the collection records."""
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
    """Raise `UsageError` where a path that will be written is one of the sources."""
    sources = {os.path.realpath(file.path) for file in files}
    for path in written:
        if os.path.realpath(path) in sources:
            raise UsageError(f"{path} is a source and would be written; name another destination")
