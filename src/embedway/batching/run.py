"""Runs the batches of a request on a model, and puts each row in its position."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.concurrency import run_together
from embedway.errors import BadVectorsError, BatchError, ClosedError, EmbedwayError, UnavailableError
from embedway.types import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import numpy.typing as npt

    from embedway.types import TokenizedTexts, Vectors


class BatchRunner(Protocol):
    """Computes batches: a local model, directly or through the scheduler."""

    @property
    def name(self) -> str:
        """Name for errors."""

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        """Compute one batch; float32 (b, full width), in the batch's order."""


async def run_batches(
    tokenized: TokenizedTexts,
    batches: Sequence[Batch],
    model: BatchRunner,
    *,
    width: int,
    errors: dict[int, EmbedwayError] | None = None,
    on_ready: Callable[[npt.NDArray[np.int64], Vectors], None] | None = None,
) -> Vectors:
    """Compute all batches; float32 (unique texts, width), in the order of the unique texts.

    The first failing batch ends the request with its error, and batches not yet started are dropped, as they are when
    the caller is cancelled. With `errors`, a failing batch is halved until the texts at fault are alone. Their errors
    are added to it by unique text, and their rows are NaN.

    `on_ready` is called with each batch as soon as it is computed, whatever happens to the others: positions of its
    texts, and their vectors, of the right shape and otherwise unchecked.
    """
    vectors = np.empty((len(tokenized.ids), width), np.float32)

    async def run(batch: Batch) -> None:
        try:
            computed = await _run_batch(tokenized, model, batch, width)
        except EmbedwayError as error:
            # No text is at fault if the process that computes does not answer, or still loads the model.
            if errors is None or isinstance(error, (ClosedError, UnavailableError)):
                raise
            if len(batch.rows) == 1:
                errors[int(batch.rows[0])] = error
                vectors[batch.rows] = np.nan
                return
            middle = len(batch.rows) // 2
            for half in (batch.rows[:middle], batch.rows[middle:]):
                await run(Batch(half, int(tokenized.lengths[half].max())))
            return
        vectors[batch.rows] = computed
        if on_ready is not None:
            on_ready(batch.rows, computed)

    if len(batches) == 1:
        await run(batches[0])  # a query: no tasks to create and wait for
    else:
        await _run_concurrently([run(batch) for batch in batches])
    return vectors


async def _run_concurrently(runs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all concurrently. The first error cancels the others and is raised."""
    try:
        await run_together(runs)
    except* EmbedwayError as group_of_errors:
        first: BaseException = group_of_errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


async def _run_batch(tokenized: TokenizedTexts, model: BatchRunner, batch: Batch, width: int) -> Vectors:
    try:
        rows = await model.run(tokenized, batch)
    except (EmbedwayError, asyncio.CancelledError):
        raise
    except Exception as error:
        raise BatchError(
            f"a batch of {len(batch.rows)} texts of up to {batch.width} tokens failed ({type(error).__name__})",
            route=model.name,
        ) from error
    if rows.shape != (len(batch.rows), width):
        raise BadVectorsError(
            f"returned an array of shape {rows.shape}, not {(len(batch.rows), width)}",
            route=model.name,
            check="dimension",
        )
    return rows
