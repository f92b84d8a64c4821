"""Values of a request to a service: the request, the response, a route and the retry policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.providers.base import split_requests
from embedway.urgency import DOCUMENTS
from embedway.vectors import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError
    from embedway.ledger.account import Account
    from embedway.providers.base import Provider
    from embedway.types import InputType, Space, Vectors
    from embedway.urgency import Urgency

    #: Positions of texts in a request.
    Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried.

    `max_attempts` bounds the upstream requests that any one text is part of, over all routes. Refusals of a batch that
    is then halved are not counted: there are at most log2 of its size. Waits double from `first_wait_s` to
    `longest_wait_s`. Each is shortened by up to a half at random, and is never shorter than the service asks for.
    """

    max_attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    deadline_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """A provider with its rate limiter, circuit breaker and semaphore, which live on between requests."""

    name: str
    provider: Provider
    limiter: RateLimiter = field(default_factory=RateLimiter)
    circuit: CircuitBreaker = field(default_factory=CircuitBreaker)
    semaphore: PrioritySemaphore = field(default_factory=lambda: PrioritySemaphore(8))

    def split(self, rows: Rows, lengths: npt.NDArray[np.int32]) -> list[Rows]:
        """Rows in their order, in parts that keep the service's limits on inputs and tokens of a request."""
        return split_requests(rows, lengths, self.provider.declared, tokens_per_minute=self.limiter.tokens.limit)


@dataclass(slots=True)
class UpstreamResponse:
    """The result of a request: float32 vectors (n, d), NaN in the rows that `errors` names, and the usage."""

    vectors: Vectors
    errors: dict[int, EmbedwayError] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    attempts: int = 0
    #: Tokens that services reported as billed; `unreported_tokens` are our count for answers that did not say.
    billed_tokens: int = 0
    unreported_tokens: int = 0
    searches: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request: texts, their token counts, and the space that all routes must answer in."""

    texts: Sequence[str]
    lengths: npt.NDArray[np.int32]
    input_type: InputType
    space: Space
    #: The width of services that cannot be asked for another.
    full_width: int
    #: Return errors by row instead of raising the first.
    partial: bool = False
    #: Raises BadVectorsError for a bad answer.
    check: Callable[..., None] = validate
    #: The caller of each text (n,), ascending, in a request merged of several callers'; None for one caller.
    callers: Rows | None = None
    #: The account of each caller; empty where nothing is billed.
    accounts: tuple[Account, ...] = ()
    #: The width that services answer in where they are not asked for one; None for the full width.
    default_width: int | None = None
    #: Called with each part as soon as it is answered and checked: positions of its texts, and their vectors.
    on_ready: Callable[[Rows, Vectors], None] | None = None
    #: How its parts wait for a route that other requests use too.
    urgency: Urgency = DOCUMENTS
    #: Whether a route whose answers depend on the rest of the request must answer it in one: scores of two answers
    #: cannot be compared.
    one_answer: bool = False
    #: Whether it may be billed by the search, as reranking is.
    by_search: bool = False
    #: Put before each text for a service that does not honour the input type.
    prompt: str = ""
    #: The full name of the model, and the operations of the callers, for hooks.
    model: str = ""
    operations: tuple[int | None, ...] = ()

    def has_several_callers(self, rows: Rows) -> bool:
        """Whether rows belong to more than one caller."""
        return self.callers is not None and bool(self.callers[rows[0]] != self.callers[rows[-1]])

    def by_caller(self, rows: Rows) -> list[tuple[int, Rows]]:
        """Each caller of some rows, with the caller's rows."""
        if self.callers is None:
            return [(0, rows)]
        parts = np.split(rows, np.flatnonzero(np.diff(self.callers[rows])) + 1)
        return [(int(self.callers[part[0]]), part) for part in parts]

    def middle(self, rows: Rows) -> int:
        """Where to halve rows that were refused.

        It is between two callers where there are several, so that none of them pays for another's texts.
        """
        middle = len(rows) // 2
        if self.callers is None or not self.has_several_callers(rows):
            return middle
        starts = np.flatnonzero(np.diff(self.callers[rows])) + 1
        return int(starts[np.abs(starts - middle).argmin()])
