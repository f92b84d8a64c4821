"""Backends of the batch scheduler: local models and services."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedway.batching.batches import ALONE_TOKENS, EVENNESS, SMALL_TOKENS
from embedway.batching.run import BatchRunner
from embedway.batching.scheduler import BatchBackend
from embedway.dispatch.billing import split_by_weight
from embedway.dispatch.request import UpstreamResponse
from embedway.errors import BadVectorsError, with_row
from embedway.providers.base import sum_of
from embedway.telemetry.hooks import Hooks, current_operation
from embedway.telemetry.operations import BatchDetails
from embedway.text import redact
from embedway.types import Batch, TokenizedTexts, Vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from embedway.batching.scheduler import BatchScheduler
    from embedway.dispatch.recovery import UpstreamClient
    from embedway.dispatch.request import CallDeadline, Rows, ServiceRoute, UpstreamRequest
    from embedway.errors import EmbedwayError
    from embedway.telemetry.operations import Outcome
    from embedway.urgency import Urgency

_log = logging.getLogger("embedway.batching")

#: Speed assumed for the due times of later batches of a large request, in padded tokens per second, so that small
#: requests need not wait until it ends.
_TOKENS_A_SECOND = 20_000
#: Maximum texts and tokens of a request to a service for several callers, because each waits until it is answered. A
#: service computes 100 short texts about as fast as one; with 1,000, a query would take as long as bulk of another.
_SHARED_TEXTS, _SHARED_TOKENS = 128, 16_384


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One batch of one caller's texts, for a local model."""

    tokenized: TokenizedTexts
    batch: Batch
    count: int = field(init=False)
    #: Tokens of its shortest row.
    shortest: int = field(init=False)
    #: Whether its caller is waiting.
    query: bool = False
    #: Operation of its caller, for hooks.
    operation: int | None = field(default_factory=current_operation.get)

    def __post_init__(self) -> None:
        """Inspect the rows once: a waiting item is checked many times."""
        rows = self.batch.rows
        shortest = self.batch.width if len(rows) == 1 else int(self.tokenized.lengths[rows].min())
        object.__setattr__(self, "count", len(rows))
        object.__setattr__(self, "shortest", shortest)


class BatchModel(BatchRunner, Protocol):
    """Local model: its full name, its number of concurrent batches, and the maximum padded tokens of each."""

    model: str
    streams: int
    token_budget: int


class UrgentRunner(BatchModel, Protocol):
    """Local model that may pass the urgency of a batch on to the process that computes it."""

    async def run(
        self, tokenized: TokenizedTexts, batch: Batch, urgency: Urgency = ..., behind_s: float = ...
    ) -> Vectors:
        """Compute one batch; see `RemoteModel.run`."""


class LocalBackend(BatchBackend[WorkItem, Vectors]):
    """Runs the batches of all callers on a model's own threads.

    A full batch is started while all streams compute, so that no stream waits for the event loop.
    """

    def __init__(self, model: BatchModel, *, max_batch_size: int, hooks: Hooks | None = None) -> None:
        self._hooks = Hooks() if hooks is None else hooks
        self.eager = model.streams
        self.concurrency = model.streams + 1
        self.max_wait_s = float("inf")
        self.max_jobs = max_batch_size
        self.name = model.name
        self._model = model

    def select_jobs(self, waiting: Sequence[WorkItem], free: int) -> tuple[list[int], bool]:
        """Select items of similar lengths, as long as padding costs less than another call."""
        head, budget = waiting[0], self._model.token_budget
        rows, width, shortest = head.count, head.batch.width, head.shortest
        chosen = [0]
        if rows * width * 2 >= budget or width > ALONE_TOKENS:
            return chosen, True
        most = self.max_jobs
        if free > 1:  # one large batch is no faster than two on two streams
            most = min(most, -(-sum(item.count for item in waiting) // free))
        for position, item in enumerate(waiting[1:], 1):
            if rows >= most:
                break
            wider = max(width, item.batch.width)
            more, floor = rows + item.count, min(shortest, item.shortest)
            fits = more <= most and more * wider <= budget
            even = floor >= EVENNESS * wider or more * wider < SMALL_TOKENS
            if fits and even and wider <= ALONE_TOKENS:
                chosen.append(position)
                rows, width, shortest = more, wider, floor
        return chosen, rows * width * 2 >= budget

    def weight(self, job: WorkItem) -> float:
        """Return the weight of a job: half the budget is a full batch. Padding may add tokens to each row."""
        width = job.batch.width
        return 1.0 if width > ALONE_TOKENS else job.count * width * 2 / (EVENNESS * self._model.token_budget)

    async def run(self, job: WorkItem) -> Vectors:
        """Compute one batch."""
        with self.operation([job], job.tokenized, job.batch):
            return await self._model.run(job.tokenized, job.batch)

    async def run_merged(self, jobs: Sequence[WorkItem], *, is_half: bool = False) -> list[Vectors | Exception]:
        """Compute several jobs as one batch. On failure, halve it, so that no text fails another caller's."""
        pairs = [(job, row) for job in jobs for row in job.batch.rows.tolist()]
        tokenized = TokenizedTexts(
            tuple(job.tokenized.ids[row] for job, row in pairs),
            np.concatenate([job.tokenized.lengths[job.batch.rows] for job in jobs]),
            types=tuple(job.tokenized.types[row] for job, row in pairs if job.tokenized.types),
        )
        width, query = max(job.batch.width for job in jobs), all(job.query for job in jobs)
        batch = Batch(np.arange(len(pairs), dtype=np.int64), width, shared=True, query=query)
        try:
            with self.operation(jobs, tokenized, batch):
                vectors = await self._model.run(tokenized, batch)
        except Exception as error:  # noqa: BLE001  it recurs, in the end from each job alone
            vectors = None
            if not is_half:
                _log.info(
                    "model %s: a batch of %d texts of %d callers failed (%s), and is computed in halves",
                    redact(self._model.model),
                    len(pairs),
                    len(jobs),
                    type(error).__name__,
                )
        if vectors is None or len(vectors) != len(pairs):
            middle = len(jobs) // 2
            return [*await self._run_half(jobs[:middle]), *await self._run_half(jobs[middle:])]
        ends = np.cumsum([len(job.batch.rows) for job in jobs])[:-1]
        return list(np.split(vectors, ends))

    def operation(
        self, jobs: Sequence[WorkItem], tokenized: TokenizedTexts, batch: Batch
    ) -> AbstractContextManager[Outcome]:
        """Return the operation of a batch for hooks."""
        return self._hooks.merged_operation([job.operation for job in jobs], self._details, tokenized, batch)

    def _details(self, tokenized: TokenizedTexts, batch: Batch) -> BatchDetails:
        """Return the details for hooks. Only called if a hook needs them."""
        tokens = int(tokenized.lengths[batch.rows].sum(dtype=np.int64))
        return BatchDetails(self._model.model, self.name, len(batch.rows), tokens, batch.padded_tokens)

    async def _run_half(self, jobs: Sequence[WorkItem]) -> list[Vectors | Exception]:
        if len(jobs) > 1:
            return await self.run_merged(jobs, is_half=True)
        try:
            return [await self.run(jobs[0])]
        except Exception as error:  # noqa: BLE001  passed to the caller
            return [error]


class UnmergedJobs:
    """The interface of the scheduler for a model in another process, which merges the jobs of all its clients."""

    def __init__(self, backend: LocalBackend, model: UrgentRunner) -> None:
        self._backend = backend
        self._model = model

    async def run(self, job: WorkItem, urgency: Urgency, *, behind_s: float = 0.0) -> Vectors:
        """Send a job at once."""
        with self._backend.operation([job], job.tokenized, job.batch):
            return await self._model.run(job.tokenized, job.batch, urgency, behind_s)


class UrgentModel:
    """Local model for one request of a known urgency."""

    def __init__(self, model: UrgentRunner, urgency: Urgency) -> None:
        self.name = model.name
        self._model = model
        self._urgency = urgency

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        return await self._model.run(tokenized, batch, self._urgency)


class ScheduledModel:
    """Local model for one request, whose batches go through the scheduler if there is one."""

    def __init__(
        self,
        backend: LocalBackend,
        scheduler: BatchScheduler[WorkItem, Vectors] | UnmergedJobs | None,
        urgency: Urgency,
    ) -> None:
        self.name = backend.name
        self._backend = backend
        self._scheduler = scheduler
        self._urgency = urgency
        self._padded_tokens = 0

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        item = WorkItem(tokenized, batch, self._urgency.query)
        if self._scheduler is None:
            return await self._backend.run(item)
        behind_s = self._padded_tokens / _TOKENS_A_SECOND
        self._padded_tokens += batch.padded_tokens
        return await self._scheduler.run(item, self._urgency, behind_s=behind_s)


class UpstreamBackend(BatchBackend["UpstreamRequest", UpstreamResponse]):
    """Sends the requests of all callers to a model's services.

    Small requests share a request to the first route, of at most `_SHARED_TEXTS` and its limits.
    """

    eager = 1

    def __init__(
        self,
        client: UpstreamClient,
        routes: Sequence[ServiceRoute],
        *,
        concurrency: int,
        max_wait_s: float,
    ) -> None:
        self.concurrency = concurrency
        self.max_wait_s = max_wait_s
        self._client = client
        self._routes = routes
        self.max_jobs = self._max_inputs

    @property
    def _max_inputs(self) -> int:
        """Maximum inputs of a shared request. It is read each time, because the route learns limits from refusals."""
        return min(_SHARED_TEXTS, self._routes[0].declared.max_inputs)

    @property
    def _max_tokens(self) -> int:
        """Maximum tokens of a shared request."""
        most = self._routes[0].declared.max_request_tokens
        return _SHARED_TOKENS if most is None else min(_SHARED_TOKENS, most)

    def is_large(self, request: UpstreamRequest) -> bool:
        """Return whether a request fills half of a shared one, and gains nothing from other callers' texts."""
        return len(request.texts) * 2 > self._max_inputs or sum_of(request.lengths) * 2 > self._max_tokens

    def select_jobs(self, waiting: Sequence[UpstreamRequest], free: int) -> tuple[list[int], bool]:
        """Select requests of the same kind, in the order in which they are due."""
        del free
        head, most_inputs, most_tokens = waiting[0], self._max_inputs, self._max_tokens
        kind = head.input_type, head.space, head.full_width
        chosen, inputs, tokens, full = [0], len(head.texts), sum_of(head.lengths), False
        for position, one in enumerate(waiting[1:], 1):
            if inputs >= most_inputs:
                break
            if (one.input_type, one.space, one.full_width) != kind:
                continue
            more_inputs, more_tokens = inputs + len(one.texts), tokens + sum_of(one.lengths)
            if more_inputs > most_inputs or more_tokens > most_tokens:
                full = True
                continue
            chosen.append(position)
            inputs, tokens = more_inputs, more_tokens
        return chosen, full or inputs >= most_inputs

    def weight(self, job: UpstreamRequest) -> float:
        """Return the job's share of a service request, by inputs or by tokens, whichever is larger."""
        return max(len(job.texts) / self._max_inputs, sum_of(job.lengths) / self._max_tokens)

    async def run(self, job: UpstreamRequest) -> UpstreamResponse:
        """Send one request."""
        return await self._client.send(job, self._routes)

    async def run_merged(self, jobs: Sequence[UpstreamRequest]) -> list[UpstreamResponse | Exception]:
        """Send several jobs as one request, and return each caller's vectors, errors and share of the bill."""
        counts = [len(job.texts) for job in jobs]
        merged = replace(
            jobs[0],
            texts=tuple(text for job in jobs for text in job.texts),
            lengths=np.concatenate([job.lengths for job in jobs]),
            partial=True,
            callers=np.repeat(np.arange(len(jobs)), counts),
            accounts=tuple(account for job in jobs for account in job.accounts),
            on_ready=_on_ready_of(jobs, counts) if any(job.on_ready is not None for job in jobs) else None,
            urgency=min((job.urgency for job in jobs), key=lambda urgency: urgency.due(0.0)),
            operations=tuple(operation for job in jobs for operation in job.operations),
            deadline=_last_deadline(jobs),
        )
        response = await self._client.send(merged, self._routes)
        # Texts without an answer are not in the bill. An answer with invalid vectors is.
        taken = merged.lengths.astype(np.int64)
        taken[[row for row, error in response.errors.items() if not _is_answered(error)]] = 0
        weights = [int(part.sum()) for part in np.split(taken, np.cumsum(counts)[:-1])]
        billed = split_by_weight(response.billed_tokens, weights)
        unreported = split_by_weight(response.unreported_tokens, weights)
        results: list[UpstreamResponse | Exception] = []
        start = 0
        for job, count, billed_tokens, unreported_tokens in zip(jobs, counts, billed, unreported, strict=True):
            end = start + count
            failed = [row for row in range(start, end) if row in response.errors]
            own = {row - start: with_row(response.errors[row], row - start) for row in failed}
            if own and not job.partial:
                results.append(own[min(own)])
            else:
                vectors, routes = response.vectors[start:end], list(response.routes)
                results.append(
                    UpstreamResponse(
                        vectors,
                        own,
                        routes,
                        response.attempts,
                        billed_tokens,
                        unreported_tokens,
                        notes=response.notes,
                    )
                )
            start = end
        return results


def _is_answered(error: EmbedwayError) -> bool:
    """Return whether the text of an error was answered, with an invalid vector."""
    return isinstance(error, BadVectorsError) or isinstance(error.__cause__, BadVectorsError)


def _last_deadline(jobs: Sequence[UpstreamRequest]) -> CallDeadline | None:
    """Return the last deadline of several callers, or None if one of them has none."""
    deadlines = [job.deadline for job in jobs if job.deadline is not None]
    return max(deadlines, key=lambda deadline: deadline.end) if len(deadlines) == len(jobs) else None


def _on_ready_of(jobs: Sequence[UpstreamRequest], counts: Sequence[int]) -> Callable[[Rows, Vectors], None]:
    """Return a callback that passes each caller its own texts, by their positions in the caller's request."""
    starts = np.cumsum([0, *counts])

    def on_ready(rows: Rows, vectors: Vectors) -> None:
        callers = np.searchsorted(starts, rows, side="right") - 1
        for caller in np.unique(callers).tolist():
            job_on_ready = jobs[caller].on_ready
            if job_on_ready is not None:
                own = callers == caller
                job_on_ready(rows[own] - starts[caller], vectors[own])

    return on_ready
