"""Values of a request to a service: the request, the response, a route and the retry policy."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.limits import LearnedLimits
from embedway.dispatch.proofs import RouteProof
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.providers.base import RequestLimits, split_requests
from embedway.quality.checks import AnswerHistory
from embedway.urgency import DOCUMENTS
from embedway.vectors import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from embedway.dispatch.error_rate import ErrorRate
    from embedway.errors import EmbedwayError
    from embedway.ledger.account import Account
    from embedway.providers.base import Declared, Provider
    from embedway.quality.reading import TextComparison
    from embedway.types import InputType, Space, Vectors
    from embedway.urgency import Urgency

    #: Positions of texts in a request.
    Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits and waits of retries.

    `max_attempts` limits the upstream requests that contain any one text, over all routes. Refusals of a batch that is
    then halved are not counted: there are at most log2 of its size. Waits double from `first_wait_s` to
    `longest_wait_s`. Each is shortened by up to half at random, and is never shorter than the service requests.
    """

    max_attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    deadline_s: float = 120.0


@dataclass(frozen=True, slots=True)
class CallDeadline:
    """Deadline of a call: the seconds that its caller allows, and their end by `time.monotonic`."""

    seconds: float
    end: float


#: Deadline of the current call, if its caller set one.
current_deadline: ContextVar[CallDeadline | None] = ContextVar("current_deadline", default=None)


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """Provider with its rate limiter, circuit breaker, semaphore and proofs, which persist between requests."""

    name: str
    provider: Provider
    limiter: RateLimiter = field(default_factory=RateLimiter)
    circuit: CircuitBreaker = field(default_factory=CircuitBreaker)
    semaphore: PrioritySemaphore = field(default_factory=lambda: PrioritySemaphore(8))
    proof: RouteProof = field(default_factory=RouteProof)
    #: Limits of the user, from the route's options and `batching.max_batch_size`.
    limits: RequestLimits = field(default_factory=RequestLimits)
    #: Limits that the service named when it refused requests.
    learned: LearnedLimits = field(default_factory=LearnedLimits)
    #: None without alerts.
    error_rate: ErrorRate | None = None
    #: Checks of its answers, with the vectors of recent ones.
    checks: AnswerHistory = field(default_factory=AnswerHistory)
    #: Faults of its usage that were logged.
    logged: set[str] = field(default_factory=set)
    #: The provider's properties when they were read last, and the same within the user's limits.
    _limited: list[Declared] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def declared(self) -> Declared:
        """The provider's properties, within the user's and the learned limits."""
        declared, limited = self.provider.declared, self._limited
        if not limited or limited[0] is not declared:  # each request asks several times
            limited[:] = declared, self.limits.applied_to(declared)
        return self.learned.applied_to(limited[1])

    def note_outcome(self, error: EmbedwayError | None = None) -> None:
        """Count a request that was sent for alerts, with its error."""
        if self.error_rate is not None:
            self.error_rate.record(error)

    def split(self, rows: Rows, lengths: npt.NDArray[np.int32]) -> list[Rows]:
        """Split rows, in order, into parts within the limits on inputs and tokens per request."""
        return split_requests(rows, lengths, self.declared, tokens_per_minute=self.limiter.most_tokens)


@dataclass(slots=True)
class UpstreamResponse:
    """Result of a request: float32 vectors (n, d), with NaN in the rows of `errors`, and the usage."""

    vectors: Vectors
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    attempts: int = 0
    #: Tokens that services reported as billed; `unreported_tokens` is our count for answers without such a report.
    billed_tokens: int = 0
    unreported_tokens: int = 0
    searches: int = 0
    #: Notes for the receipt; see `Receipt.notes`.
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """Request to a service: texts, their token counts, and the space that all routes must answer in."""

    texts: Sequence[str]
    lengths: npt.NDArray[np.int32]
    input_type: InputType
    space: Space
    #: Output width of services that do not support another width.
    full_width: int
    #: Return errors by row instead of raising the first one.
    partial: bool = False
    #: Raises BadVectorsError for an invalid answer.
    check: Callable[..., None] = validate
    #: Compares texts as the services read them, if different texts must have different vectors; None for scores.
    reads: TextComparison[str] | None = None
    #: The caller of each text (n,), ascending, in a request merged from several callers; None for one caller.
    callers: Rows | None = None
    #: The account of each caller; empty if nothing is billed.
    accounts: tuple[Account, ...] = ()
    #: Output width of services when none is requested; None for the full width.
    default_width: int | None = None
    #: Called with each part as soon as it is answered and checked: positions of its texts, and their vectors.
    on_ready: Callable[[Rows, Vectors], None] | None = None
    #: Urgency of its parts when they wait for a route that other requests use too.
    urgency: Urgency = DOCUMENTS
    #: Whether a route whose answers depend on the rest of the request must answer it in one request: scores of two
    #: answers are not comparable.
    one_answer: bool = False
    #: Whether it may be billed by search, like reranking.
    by_search: bool = False
    #: Prefix of each text for a service that does not support the input type.
    prompt: str = ""
    #: Tokens of each text that a service may leave uncounted: of its own prompt, or of a reranker's query.
    uncounted: int = 0
    #: Full name of the model, and the operations of the callers, for hooks.
    model: str = ""
    operations: tuple[int | None, ...] = ()
    #: Reasons of routes in quarantine, by name.
    quarantined: Mapping[str, str] = field(default_factory=dict)
    #: Deadline of its caller; of several callers, the last one, and None if one of them has none.
    deadline: CallDeadline | None = field(default_factory=current_deadline.get)

    def has_several_callers(self, rows: Rows) -> bool:
        """Return whether rows belong to more than one caller."""
        return self.callers is not None and bool(self.callers[rows[0]] != self.callers[rows[-1]])

    def caller_of(self, row: int) -> int:
        """Return the caller of a row."""
        return 0 if self.callers is None else int(self.callers[row])

    def count_of(self, caller: int) -> int:
        """Return the number of texts of a caller."""
        return len(self.texts) if self.callers is None else int(np.count_nonzero(self.callers == caller))

    def by_caller(self, rows: Rows) -> list[tuple[int, Rows]]:
        """Return each caller of some rows, with the caller's rows."""
        if self.callers is None:
            return [(0, rows)]
        parts = np.split(rows, np.flatnonzero(np.diff(self.callers[rows])) + 1)
        return [(int(self.callers[part[0]]), part) for part in parts]

    def middle(self, rows: Rows) -> int:
        """Return the position at which to halve refused rows.

        It is between two callers if there are several, so that no caller pays for another's texts.
        """
        middle = len(rows) // 2
        if self.callers is None or not self.has_several_callers(rows):
            return middle
        starts = np.flatnonzero(np.diff(self.callers[rows])) + 1
        return int(starts[np.abs(starts - middle).argmin()])
