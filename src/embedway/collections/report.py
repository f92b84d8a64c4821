"""Progress and summary of a job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from embedway.arguments import attribute, is_a
from embedway.errors import EmbedwayError, UsageError
from embedway.remedies import by_place
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunk_reader import ChunkBatch
    from embedway.collections.options import RunOptions
    from embedway.types import EmbedResult


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Status of a running job. Rates count from the time when the first text went to the model.

    `bytes_read` counts the source bytes that finished chunks come from; `bytes_total` and `seconds_left` are None if
    the sources' size is unknown (standard input).
    """

    documents: int
    chunks_done: int
    tokens: int
    texts_per_s: float
    tokens_per_s: float
    seconds_left: float | None
    bytes_read: int
    bytes_total: int | None


@dataclass(frozen=True, slots=True)
class CalledProgress:
    """Receiver that calls a function with the status."""

    function: Callable[[RunStatus], object]

    def update(self, status: RunStatus) -> None:
        """Call the function."""
        self.function(status)


class RunProgress(Protocol):
    """Receiver of the status of a job, on the event loop, after every batch of chunks."""

    def update(self, status: RunStatus) -> None:
        """Show the status. Must not block."""


def as_progress(given: object) -> RunProgress | None:
    """Return a receiver: an object with `update`, or a function. Raises UsageError for anything else."""
    if given is None or (callable(attribute(given, "update")) and not is_a(given, (Mapping, AbstractSet))):
        return cast("RunProgress | None", given)
    if callable(given):
        return CalledProgress(given)
    raise UsageError(
        f"progress is of type {type(given).__name__}; "
        "it must be a function of the status, or an object with a method `update`"
    )


@dataclass(frozen=True, slots=True)
class RunSummary:  # a field for each fact of the summary's JSON
    """Result of a job.

    `truncated` counts chunks that were truncated at the model's limit, `cached` unique texts with cache hits,
    `rejected` unusable rows, and `tokens` the tokens of all texts. `seconds` is the total time of the job; the rates
    exclude the time before the first text went to the model.
    """

    documents: int
    chunks: int
    rejected: int
    truncated: int
    cached: int
    tokens: int
    seconds: float
    texts_per_s: float
    tokens_per_s: float
    destination: str
    space_id: str
    model: str
    runtime: str
    rejects_path: str | None
    #: Billed tokens, and their cost in nano-dollars; None if no price is known.
    billed_tokens: int = 0
    cost_nanousd: int | None = 0
    #: Vectors from the cache that a lossy codec stored.
    lossy: int = 0
    #: Symbolic links in folders that were not followed.
    links_skipped: int = 0
    #: Files and folders that were not read, by reason; see `SkippedFiles.to_json`.
    skipped: dict[str, Any] = field(default_factory=dict)
    #: Notes of all receipts; see `Receipt.notes`.
    notes: tuple[str, ...] = ()
    #: Batches computed or requests sent, and the routes that answered.
    attempts: int = 0
    routes: tuple[str, ...] = ()
    #: Part of the cost, in nano-dollars, for failed requests that may be billed and implausible usage.
    unsure_nanousd: int = 0
    #: Whether a part of the billed tokens and the cost is our own count.
    estimated: bool = False
    #: Chunks whose vectors an interrupted job had computed.
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return all fields, for `--json`."""
        return asdict(self)


async def is_stored(embedder: AsyncEmbedder, text: str | None, options: RunOptions) -> bool:
    """Return whether the vector of a text that was computed is in a cache that outlasts the process."""
    if text is None or embedder.config.cache.backend == "memory":
        return False
    more: dict[str, Any] = {"dimensions": options.dimensions, "on_overflow": options.on_overflow}
    try:
        plan = await embedder.plan([text], model=options.model, collection=options.collection, **more)
    except EmbedwayError:
        return False
    return plan.cached_texts == 1


def note_progress(error: EmbedwayError, done: int, total: int | None) -> None:
    """Add to the error that stops a job how many texts are kept, and how to continue."""
    wait_s = getattr(error, "retry_after_s", None)
    when = f" in {math.ceil(wait_s):,} s" if wait_s else ""
    # Kept texts may be of documents that were changed since.
    texts = (
        count_of(done, "text is", "texts are")
        if total is None or done > total
        else f"{done:,} of {count_of(total, 'text')} are"
    )
    again = by_place(command="run the same command again", python="make the same call again")
    error.add_note(f"{texts} computed and kept; {again}{when}")


@dataclass(slots=True)
class Tally:
    """Sums over the finished batches."""

    documents: int = 0
    chunks: int = 0
    tokens: int = 0
    truncated: int = 0
    cached: int = 0
    billed_tokens: int = 0
    cost_nanousd: int | None = 0
    lossy: int = 0
    runtime: str = ""
    notes: tuple[str, ...] = ()
    attempts: int = 0
    routes: tuple[str, ...] = ()
    unsure_nanousd: int = 0
    estimated: bool = False
    #: Chunks whose vectors an interrupted job had computed.
    resumed: int = 0
    #: Texts with a vector, those of unfinished batches included, and the last of them.
    computed: int = 0
    last_text: str | None = field(default=None, repr=False)
    began: float | None = None
    ended: float = 0.0

    def begin(self, now: float) -> None:
        """Record when the first text goes to the model."""
        if self.began is None:
            self.began = now

    def note_computed(self, texts: Sequence[str], result: EmbedResult) -> None:
        """Count the texts with a vector."""
        self.computed += len(texts) - len(result.errors)
        good = (text for row, text in enumerate(texts) if row not in result.errors)
        self.last_text = next(good, self.last_text)

    def add(self, documents: int, chunks: int, result: EmbedResult | None, now: float) -> None:
        """Add an embedded batch: documents so far, its chunks, and what was computed for it."""
        self.documents = documents
        self.chunks += chunks
        self.ended = now
        if result is None:
            return
        self.tokens += result.receipt.tokens
        self.truncated += len(result.receipt.truncations)
        self.cached += result.receipt.cache_hits
        self.lossy += result.receipt.lossy_hits
        self.billed_tokens += result.receipt.billed_tokens
        cost = result.receipt.cost_nanousd
        self.cost_nanousd = None if cost is None or self.cost_nanousd is None else self.cost_nanousd + cost
        self.runtime = result.receipt.runtime
        self.notes = tuple(dict.fromkeys((*self.notes, *result.receipt.notes)))
        self.attempts += result.receipt.attempts
        self.routes = tuple(dict.fromkeys((*self.routes, *result.receipt.routes)))
        self.unsure_nanousd += result.receipt.unsure_nanousd
        self.estimated |= result.receipt.estimated

    @property
    def seconds(self) -> float:
        """Seconds from the first text to the end of the last batch."""
        return 0.0 if self.began is None else self.ended - self.began

    def rate(self, count: int) -> float:
        """Return a rate per second; 0 if no time has passed."""
        return count / self.seconds if self.seconds > 0 else 0.0

    def status(self, batch: ChunkBatch) -> RunStatus:
        """Return the status of the job after this batch."""
        left = None
        if batch.bytes_total is not None and batch.bytes_read > 0:
            left = max(batch.bytes_total - batch.bytes_read, 0) * self.seconds / batch.bytes_read
        return RunStatus(
            documents=self.documents,
            chunks_done=self.chunks,
            tokens=self.tokens,
            texts_per_s=self.rate(self.chunks),
            tokens_per_s=self.rate(self.tokens),
            seconds_left=left,
            bytes_read=batch.bytes_read,
            bytes_total=batch.bytes_total,
        )
