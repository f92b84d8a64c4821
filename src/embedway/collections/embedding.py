"""Vectors of batches of chunks: from the journal of an interrupted job, or computed; errors of rows reject them."""

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
from embedway.space import comparable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunk_reader import ChunkBatch
    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import OnBadRow
    from embedway.collections.options import RunOptions
    from embedway.collections.report import Tally
    from embedway.collections.saved_vectors import SavedVectors
    from embedway.space import Space
    from embedway.types import EmbedResult, Vectors


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Chunks with vectors, float32 (n, d), the result of those that were computed, and the rejected chunks."""

    chunks: tuple[Chunk, ...]
    vectors: Vectors = field(repr=False)
    result: EmbedResult | None
    failed: tuple[Chunk, ...] = ()


class BatchEmbedder:
    """Embedder of one job's batches."""

    def __init__(  # noqa: PLR0917  the parts of one job
        self,
        embedder: AsyncEmbedder,
        destination: str,
        options: RunOptions,
        saved: SavedVectors,
        tally: Tally,
        on_bad_row: OnBadRow,
    ) -> None:
        self._embedder = embedder
        self._destination = destination
        self._options = options
        self._saved = saved
        self._tally = tally
        self._on_bad_row = on_bad_row

    async def embed(self, batch: ChunkBatch, space: Space) -> EmbeddedBatch:
        """Return the vectors of a batch. Raises the errors that are not of single rows."""
        texts = [chunk.embedded_text for chunk in batch.chunks]
        known = self._saved.find(texts)
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
        work = self._compute_unsaved(texts, space)
        return await self._saved.compute(texts, work, lambda result: (result.vectors, result.errors))

    async def _compute_unsaved(self, texts: list[str], space: Space) -> EmbedResult:
        options = self._options
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
            # One failed text in a batch is the fault of the text. If all failed, the service may be at fault. Then only
            # a single text is rejected: one that the service refused, or one after earlier success.
            is_refused = isinstance(error, RefusedInputError)
            is_fault_of_text = not is_none_good or (len(chunks) == 1 and (is_refused or self._tally.chunks > 0))
            if not is_fault_of_text or (error.row is None and not is_refused):
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
