"""Vectors of batches of chunks: from the journal of an interrupted job, or computed; errors of rows reject them.

Vectors are added to the journal as soon as a request is answered or a batch of the model is computed. So a job that is
stopped, or that fails, keeps them, even those of an unfinished batch of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import (
    BadVectorsError,
    InputError,
    RefusedInputError,
    SourceError,
    SpaceMismatchError,
    of_row,
    without_row,
)
from embedway.money import usd
from embedway.pipeline.ready_texts import ready_texts_to
from embedway.space import comparable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunk_reader import ChunkBatch
    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import OnBadRow
    from embedway.collections.journal import Journal
    from embedway.collections.options import RunOptions
    from embedway.collections.report import Tally
    from embedway.space import Space
    from embedway.types import EmbedResult, Vectors
    from embedway.worker import Worker

#: Vectors of rows that are written at which a journal is emptied.
_MAX_WRITTEN = 8192


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Chunks with vectors, float32 (n, d), the result of those that were computed, and the rejected chunks."""

    chunks: tuple[Chunk, ...]
    vectors: Vectors = field(repr=False)
    result: EmbedResult | None
    failed: tuple[Chunk, ...] = ()


class BatchEmbedder:
    """Embedder of one job's batches. The journal's blocking calls are made in `journal_worker`."""

    def __init__(  # noqa: PLR0917  the parts of one job
        self,
        embedder: AsyncEmbedder,
        destination: str,
        options: RunOptions,
        journal: Journal,
        tally: Tally,
        on_bad_row: OnBadRow,
        journal_worker: Worker,
    ) -> None:
        self._embedder = embedder
        self._destination = destination
        self._options = options
        self._journal = journal
        self._tally = tally
        self._on_bad_row = on_bad_row
        self._journal_worker = journal_worker

    @property
    def saved(self) -> int:
        """Number of vectors in the journal."""
        return self._journal.count

    async def begin(self) -> None:
        """Read the journal. Raises StateError."""
        await self._journal_worker.call(self._journal.read)

    async def close(self, *, remove: bool = False) -> None:
        """Wait until all vectors are in the journal and close it, or remove it after a commit."""
        await self._journal_worker.call(self._journal.remove if remove else self._journal.close)

    def is_large(self) -> bool:
        """Return whether to write all rows and empty the journal, in a job whose rows are stored when written."""
        return self._journal.count >= _MAX_WRITTEN and self._tally.resumed >= self._journal.found

    async def clear(self) -> None:
        """Empty the journal, because all rows are written."""
        await self._journal_worker.call(self._journal.clear)

    async def embed(self, batch: ChunkBatch, space: Space) -> EmbeddedBatch:
        """Return the vectors of a batch. Raises the errors that are not of single rows."""
        texts = [chunk.embedded_text for chunk in batch.chunks]
        known = self._journal.find(texts)
        self._tally.resumed += len(known)
        # `missing` are positions in the batch; `result` has positions in `missing`.
        missing = [row for row in range(len(texts)) if row not in known]
        vectors = np.empty((len(texts), space.dimensions), np.float32)
        for row, vector in known.items():
            vectors[row] = vector
        if not missing:
            return EmbeddedBatch(batch.chunks, vectors, result=None)
        result = await self._compute([texts[row] for row in missing], space)
        chunks = [batch.chunks[row] for row in missing]
        self._reject(chunks, result)
        vectors[missing] = result.vectors
        if not result.errors:
            return EmbeddedBatch(batch.chunks, vectors, result)
        failed = {missing[place] for place in result.errors}
        good = [row for row in range(len(texts)) if row not in failed]
        return EmbeddedBatch(
            chunks=tuple(batch.chunks[row] for row in good),
            vectors=vectors[good],
            result=result,
            failed=tuple(batch.chunks[row] for row in sorted(failed)),
        )

    async def _compute(self, texts: list[str], space: Space) -> EmbedResult:
        options = self._options
        saved: set[str] = set()

        def save(ready: Sequence[str], vectors: Vectors, own: Space) -> None:
            if comparable(own, space):
                saved.update(ready)
                self._journal_worker.call(self._journal.add, ready, vectors)

        with ready_texts_to(save):
            result = await self._embedder.embed(
                texts,
                input_type="document",
                model=options.model,
                dimensions=options.dimensions,
                on_overflow=options.on_overflow,
                partial=True,
                **self._call_options(),
            )
        self._tally.note_computed(texts, result)
        if not comparable(result.space, space):
            raise SpaceMismatchError(
                collection=self._destination, collection_space=space.id, asked_space=result.space.id
            )
        if result.vectors.shape != (len(texts), space.dimensions):
            reason = f"returned vectors of shape {result.vectors.shape} for {len(texts)} texts"
            raise BadVectorsError(reason, route=result.receipt.route)
        rest = [row for row, text in enumerate(texts) if row not in result.errors and text not in saved]
        if rest:
            save([texts[row] for row in rest], result.vectors[rest], result.space)
        return result

    def _call_options(self) -> dict[str, Any]:
        """Return the given options for costs and collections."""
        options: dict[str, Any] = {"collection": self._options.collection} if self._options.collection else {}
        most = self._options.most_nanousd
        if most is not None:
            options["max_cost"] = usd(max(0, most - (self._tally.cost_nanousd or 0)))
        return options

    def _reject(self, chunks: Sequence[Chunk], result: EmbedResult) -> None:
        """Report the errors of single rows; any other error ends the job."""
        is_none_good = len(chunks) == len(result.errors)
        for error in result.errors.values():
            if isinstance(error, InputError):
                continue
            # If no row succeeds, the service is the cause, and not one row.
            is_refused = isinstance(error, RefusedInputError)
            is_certain = not is_none_good or (len(chunks) == 1 and (is_refused or self._tally.chunks > 0))
            if not is_certain or (error.row is None and not is_refused):
                stopped = of_row(error, None)
                if is_none_good and len(chunks) > 1 and self._options.on_error == "skip":
                    stopped.add_note(
                        f"none of the {len(chunks):,} texts was answered, so the service is taken to be at fault "
                        "and no row is skipped"
                    )
                raise stopped
        for row, error in sorted(result.errors.items()):
            chunk = chunks[row]
            fault = SourceError(without_row(error), path=chunk.source, line=chunk.start_line)
            fault.id, fault.kind = chunk.document_id, type(error).__name__
            self._on_bad_row(fault)
