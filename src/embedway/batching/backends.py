"""How the work of several callers is done as one: batches of a model on this machine, and requests to a service."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.batches import ALONE_TOKENS, EVENNESS, SMALL_TOKENS
from embedway.batching.scheduler import BatchBackend
from embedway.dispatch.billing import shares
from embedway.dispatch.recovery import UpstreamResponse
from embedway.types import Batch, TokenizedTexts, Vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from embedway.batching.scheduler import BatchScheduler
    from embedway.dispatch.recovery import ServiceRoute, UpstreamClient, UpstreamRequest
    from embedway.providers.base import LocalRoute
    from embedway.urgency import Urgency

#: Later parts of a large request are due as if so many padded tokens were computed in a second: small requests that
#: come meanwhile need not wait for its end.
_TOKENS_A_SECOND = 20_000


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A batch of one caller's texts."""

    tokenized: TokenizedTexts
    batch: Batch
    count: int = field(init=False)
    #: Tokens of its shortest row.
    shortest: int = field(init=False)

    def __post_init__(self) -> None:
        """Look at the rows once: a piece that waits is looked at many times."""
        rows = self.batch.rows
        shortest = self.batch.width if len(rows) == 1 else int(self.tokenized.lengths[rows].min())
        object.__setattr__(self, "count", len(rows))
        object.__setattr__(self, "shortest", shortest)


class LocalBackend(BatchBackend[WorkItem, Vectors]):
    """Batches of all callers on a model's own threads.

    One batch more than there are streams is begun where it is full, so that no stream waits for the event loop.
    """

    def __init__(self, route: LocalRoute, *, max_batch_size: int) -> None:
        self.eager = route.streams
        self.concurrency = route.streams + 1
        self.max_wait_s = float("inf")
        self.max_jobs = max_batch_size
        self._route = route

    def select_jobs(self, waiting: Sequence[WorkItem], free: int) -> tuple[list[int], bool]:
        """See `BatchBackend.choose`: pieces of like lengths, as long as padding costs less than another call."""
        head, budget = waiting[0], self._route.token_budget
        rows, width, shortest = head.count, head.batch.width, head.shortest
        chosen = [0]
        if rows * width * 2 >= budget or width > ALONE_TOKENS:
            return chosen, True
        most = self.max_jobs
        if free > 1:  # one large batch is no faster than two on two streams
            most = min(most, -(-sum(piece.count for piece in waiting) // free))
        for position, piece in enumerate(waiting[1:], 1):
            if rows >= most:
                break
            wider = max(width, piece.batch.width)
            more, floor = rows + piece.count, min(shortest, piece.shortest)
            fits = more <= most and more * wider <= budget
            even = floor >= EVENNESS * wider or more * wider < SMALL_TOKENS
            if fits and even and wider <= ALONE_TOKENS:
                chosen.append(position)
                rows, width, shortest = more, wider, floor
        return chosen, rows * width * 2 >= budget

    def weight(self, job: WorkItem) -> float:
        """See `BatchBackend.weight`: of half the budget, which is a full batch. Padding may add to each row."""
        width = job.batch.width
        return 1.0 if width > ALONE_TOKENS else job.count * width * 2 / (EVENNESS * self._route.token_budget)

    async def run(self, job: WorkItem) -> Vectors:
        """Compute one batch."""
        return await self._route.run(job.tokenized, job.batch)

    async def run_merged(self, jobs: Sequence[WorkItem]) -> list[Vectors | Exception]:
        """Compute several as one; where that fails, by halves, so that nobody's text fails another's."""
        pairs = [(job, row) for job in jobs for row in job.batch.rows.tolist()]
        tokenized = TokenizedTexts(
            tuple(job.tokenized.ids[row] for job, row in pairs),
            np.concatenate([job.tokenized.lengths[job.batch.rows] for job in jobs]),
            types=tuple(job.tokenized.types[row] for job, row in pairs if job.tokenized.types),
        )
        batch = Batch(np.arange(len(pairs), dtype=np.int64), max(job.batch.width for job in jobs))
        try:
            vectors = await self._route.run(tokenized, batch)
        except Exception:  # noqa: BLE001  it comes again, at last alone
            vectors = None
        if vectors is None or len(vectors) != len(pairs):
            middle = len(jobs) // 2
            return [*await self._half(jobs[:middle]), *await self._half(jobs[middle:])]
        ends = np.cumsum([len(job.batch.rows) for job in jobs])[:-1]
        return list(np.split(vectors, ends))

    async def _half(self, jobs: Sequence[WorkItem]) -> list[Vectors | Exception]:
        if len(jobs) > 1:
            return await self.run_merged(jobs)
        try:
            return [await self.run(jobs[0])]
        except Exception as error:  # noqa: BLE001  the caller's
            return [error]


class ScheduledModel:
    """A model on this machine for one request among others'."""

    def __init__(self, route: LocalRoute, scheduler: BatchScheduler[WorkItem, Vectors], urgency: Urgency) -> None:
        self.name = route.name
        self._scheduler = scheduler
        self._urgency = urgency
        self._asked = 0

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        """See `LocalRoute.run`."""
        behind = self._asked / _TOKENS_A_SECOND
        self._asked += batch.padded_tokens
        return await self._scheduler.run(WorkItem(tokenized, batch), self._urgency, behind_s=behind)


class UpstreamBackend(BatchBackend["UpstreamRequest", UpstreamResponse]):
    """Requests of all callers to a model's services, each of no more than the first route takes at once."""

    eager = 1

    def __init__(
        self,
        client: UpstreamClient,
        routes: Sequence[ServiceRoute],
        *,
        concurrency: int,
        max_wait_s: float,
        max_batch_size: int,
    ) -> None:
        self.concurrency = concurrency
        self.max_wait_s = max_wait_s
        self._client = client
        self._routes = routes
        declared = routes[0].provider.declared
        self.max_jobs = self._most_inputs = min(max_batch_size, declared.max_inputs)
        self._most_tokens = declared.max_request_tokens

    def is_large(self, request: UpstreamRequest) -> bool:
        """Whether a request fills one of the service's by half, and gains nothing from company."""
        return len(request.texts) * 2 > self._most_inputs or self._too_many(_tokens(request) * 2)

    def select_jobs(self, waiting: Sequence[UpstreamRequest], free: int) -> tuple[list[int], bool]:
        """See `BatchBackend.choose`: requests of one kind, in the order in which they are due."""
        del free
        head = waiting[0]
        kind = head.input_type, head.space, head.full_width
        chosen, inputs, tokens, full = [0], len(head.texts), _tokens(head), False
        for position, one in enumerate(waiting[1:], 1):
            if inputs == self._most_inputs:
                break
            if (one.input_type, one.space, one.full_width) != kind:
                continue
            more, larger = inputs + len(one.texts), tokens + _tokens(one)
            if more > self._most_inputs or self._too_many(larger):
                full = True
                continue
            chosen.append(position)
            inputs, tokens = more, larger
        return chosen, full or inputs == self._most_inputs

    def weight(self, job: UpstreamRequest) -> float:
        """See `BatchBackend.weight`: of the inputs and tokens of a request."""
        tokens = 0.0 if self._most_tokens is None else _tokens(job) / self._most_tokens
        return max(len(job.texts) / self._most_inputs, tokens)

    async def run(self, job: UpstreamRequest) -> UpstreamResponse:
        """Send one request."""
        return await self._client.send(job, self._routes)

    async def run_merged(self, jobs: Sequence[UpstreamRequest]) -> list[UpstreamResponse | Exception]:
        """Send several as one, and share out what came: each caller's vectors, errors and part of the bill."""
        counts = [len(job.texts) for job in jobs]
        merged = replace(
            jobs[0],
            texts=tuple(text for job in jobs for text in job.texts),
            lengths=np.concatenate([job.lengths for job in jobs]),
            partial=True,
            callers=np.repeat(np.arange(len(jobs)), counts),
            accounts=tuple(account for job in jobs for account in job.accounts),
            on_ready=_on_ready(jobs, counts) if any(job.on_ready is not None for job in jobs) else None,
            urgency=min((job.urgency for job in jobs), key=lambda urgency: urgency.due(0.0)),
        )
        whole = await self._client.send(merged, self._routes)
        # What was refused is on nobody's bill.
        taken = merged.lengths.astype(np.int64)
        taken[list(whole.errors)] = 0
        weights = [int(part.sum()) for part in np.split(taken, np.cumsum(counts)[:-1])]
        billed, unreported = shares(whole.billed_tokens, weights), shares(whole.unreported_tokens, weights)
        results: list[UpstreamResponse | Exception] = []
        start = 0
        for job, count, told, guessed in zip(jobs, counts, billed, unreported, strict=True):
            own = {row - start: whole.errors[row] for row in range(start, start + count) if row in whole.errors}
            response = UpstreamResponse(
                whole.vectors[start : start + count],
                errors=own,
                routes=list(whole.routes),
                attempts=whole.attempts,
                billed_tokens=told,
                unreported_tokens=guessed,
            )
            results.append(own[min(own)] if own and not job.partial else response)
            start += count
        return results

    def _too_many(self, tokens: int) -> bool:
        return self._most_tokens is not None and tokens > self._most_tokens


def _tokens(request: UpstreamRequest) -> int:
    return int(request.lengths.sum(dtype=np.int64))


def _on_ready(
    jobs: Sequence[UpstreamRequest], counts: Sequence[int]
) -> Callable[[npt.NDArray[np.int64], Vectors], None]:
    """Tells each caller of his own texts, by their positions in his request."""
    starts = np.cumsum([0, *counts])

    def on_ready(rows: npt.NDArray[np.int64], vectors: Vectors) -> None:
        callers = np.searchsorted(starts, rows, side="right") - 1
        for caller in np.unique(callers).tolist():
            tell = jobs[caller].on_ready
            if tell is not None:
                own = callers == caller
                tell(rows[own] - starts[caller], vectors[own])

    return on_ready
