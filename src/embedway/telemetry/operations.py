"""Operations for hooks: their details, their place in the hierarchy, and their outcome.

Details and outcomes contain numbers and names of models, routes, collections and budgets. They never contain texts,
keys, URLs or vectors, so a hook may write all of them to a log, a metric's label or a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from embedway._public import public

if TYPE_CHECKING:
    from embedway.space import InputType
    from embedway.types import Receipt

Kind: TypeAlias = Literal[
    "request",
    "batch",
    "attempt",
    "wait",
    "cache",
    "circuit",
    "error_rate",
    "load",
    "reservation",
    "validation",
    "budget_warning",
    "budget_refusal",
    "budget_standing",
    "cost",
    "failover",
    "store_error",
    "vector_check",
    "drift",
]


@public
@dataclass(frozen=True, slots=True)
class RequestDetails:
    """One call of `embed` or `rerank`. `model` is the name in the call, which may be `auto`."""

    kind: ClassVar[Kind] = "request"
    task: Literal["embed", "rerank"]
    model: str
    texts: int
    input_type: InputType | None = None
    collection: str = ""


@public
@dataclass(frozen=True, slots=True)
class BatchDetails:
    """One batch of texts. `backend` is the local backend, or the route of a service.

    `tokens` are those of the texts. `padded_tokens` are computed on this machine, padding included; None for services.
    """

    kind: ClassVar[Kind] = "batch"
    model: str
    backend: str
    texts: int
    tokens: int
    padded_tokens: int | None = None


@public
@dataclass(frozen=True, slots=True)
class AttemptDetails:
    """One request to a service over one route.

    `number` counts from 1 for the same texts, over all routes, without refusals: an attempt with a higher number is a
    retry.
    """

    kind: ClassVar[Kind] = "attempt"
    model: str
    route: str
    number: int
    texts: int
    tokens: int


@public
@dataclass(frozen=True, slots=True)
class WaitDetails:
    """A wait, in which nothing is computed.

    `reason` is the semaphore of a route, its rate limit, the back-off before a retry, the lease on a text that another
    process computes, a text that another call of this process computes (`shared`), or the scheduler, which collects a
    batch from several callers.
    """

    kind: ClassVar[Kind] = "wait"
    reason: Literal["semaphore", "rate_limit", "retry", "lease", "shared", "scheduler"]
    route: str = ""


@public
@dataclass(frozen=True, slots=True)
class CacheDetails:
    """A cache lookup of a request's texts, whose outcome has `cache_hits`, or a store of computed vectors."""

    kind: ClassVar[Kind] = "cache"
    action: Literal["lookup", "store"]
    model: str
    texts: int


@public
@dataclass(frozen=True, slots=True)
class CircuitDetails:
    """A state change of a route's circuit breaker."""

    kind: ClassVar[Kind] = "circuit"
    route: str
    before: Literal["closed", "open", "half-open"]
    after: Literal["closed", "open", "half-open"]


@public
@dataclass(frozen=True, slots=True)
class ErrorRateDetails:
    """The error rate of a route exceeds `alerts.error_rate` (raised), or is below half of it again (cleared).

    `failed` of `requests` failed in the last `window_s` seconds. `errors` counts the failures by class name and HTTP
    status, such as `UnavailableError 503`, the most frequent first.
    """

    kind: ClassVar[Kind] = "error_rate"
    route: str
    level: Literal["raised", "cleared"]
    failed: int
    requests: int
    rate: float
    window_s: float
    errors: tuple[tuple[str, int], ...] = ()


@public
@dataclass(frozen=True, slots=True)
class LoadDetails:
    """Loading of a model, or opening of its service."""

    kind: ClassVar[Kind] = "load"
    model: str


@public
@dataclass(frozen=True, slots=True)
class ReservationDetails:
    """Reservation of money before a request; `nanousd` is None if no price is known.

    The outcome's error is BudgetExceededError for a refusal, and LedgerError for a failure of the ledger.
    """

    kind: ClassVar[Kind] = "reservation"
    model: str
    nanousd: int | None


@public
@dataclass(frozen=True, slots=True)
class ValidationDetails:
    """Validation of the vectors of a route's answer; the outcome has the error if they are invalid."""

    kind: ClassVar[Kind] = "validation"
    route: str
    texts: int


@public
@dataclass(frozen=True, slots=True)
class BudgetWarningDetails:
    """Warning that `level` percent of a budget are spent, once in each period."""

    kind: ClassVar[Kind] = "budget_warning"
    budget: str
    level: int
    spent_nanousd: int
    limit_nanousd: int
    scope: str
    period: str
    hard: bool


@public
@dataclass(frozen=True, slots=True)
class BudgetRefusalDetails:
    """Refusal of a call that would exceed a budget."""

    kind: ClassVar[Kind] = "budget_refusal"
    budget: str
    needed_nanousd: int | None
    left_nanousd: int


@public
@dataclass(frozen=True, slots=True)
class BudgetStandingDetails:
    """Amounts of a budget in its current period, after a call changed them. Sent at most once a second."""

    kind: ClassVar[Kind] = "budget_standing"
    budget: str
    spent_nanousd: int
    held_nanousd: int
    limit_nanousd: int
    period: str


@public
@dataclass(frozen=True, slots=True)
class CostDetails:
    """Cost of one attempt for one caller, as it is booked. The sum of these events is what the calls cost.

    Costs of failed and cancelled calls are included, also if they are booked after the call has ended. `source` says
    whether the service reported the usage, it is our own count, or it is unsure whether the service bills it.
    """

    kind: ClassVar[Kind] = "cost"
    model: str
    nanousd: int
    source: Literal["reported", "estimated", "unsure"]


@public
@dataclass(frozen=True, slots=True)
class FailoverDetails:
    """Texts of a failed request go to another route. `error` is the class name of the failure."""

    kind: ClassVar[Kind] = "failover"
    model: str
    route: str
    next_route: str
    texts: int
    error: str


@public
@dataclass(frozen=True, slots=True)
class StoreErrorDetails:
    """A failure of the cache, the ledger or the pins.

    `action` is the use of the store that failed, such as `read`, `write` and `lease` of the cache, and `reserve`,
    `send` and `settle` of the ledger. `error` is the kind of failure of a cache, such as `memory`, or a class name.
    """

    kind: ClassVar[Kind] = "store_error"
    store: Literal["cache", "ledger", "pins"]
    action: str
    error: str


@public
@dataclass(frozen=True, slots=True)
class VectorCheckDetails:
    """A check of vectors that failed (`refused`), or that is suspicious (`warned`).

    `check` is the name of the check (`quality/names.py`). `texts` is the number of rows.
    """

    kind: ClassVar[Kind] = "vector_check"
    model: str
    route: str
    check: str
    level: Literal["warned", "refused"]
    texts: int


@public
@dataclass(frozen=True, slots=True)
class DriftDetails:
    """Comparison of a route with the stored baseline of its space.

    There is one for each comparison. `level` is `raised` if the route differs and did not before, `failed` if it still
    differs, `cleared` if it agrees again, and `passed` if it still agrees. `quarantined` says whether the route is not
    used any more. `cosine` is the lowest one of the canaries, `accuracy_ratio` the accuracy divided by the baseline's.
    """

    kind: ClassVar[Kind] = "drift"
    model: str
    space_id: str
    route: str
    level: Literal["passed", "failed", "raised", "cleared"]
    quarantined: bool
    cosine: float | None
    accuracy_ratio: float | None
    reasons: tuple[str, ...] = ()


Details: TypeAlias = (
    RequestDetails
    | BatchDetails
    | AttemptDetails
    | WaitDetails
    | CacheDetails
    | CircuitDetails
    | ErrorRateDetails
    | LoadDetails
    | ReservationDetails
    | ValidationDetails
    | BudgetWarningDetails
    | BudgetRefusalDetails
    | BudgetStandingDetails
    | CostDetails
    | FailoverDetails
    | StoreErrorDetails
    | VectorCheckDetails
    | DriftDetails
)


@public
@dataclass(frozen=True, slots=True)
class Operation:
    """One operation or event, with its parent and links.

    `id` is unique in this process. `parent` is the id of the enclosing operation. `links` are the ids of other callers'
    requests whose texts are computed or stored with the parent's.
    """

    id: int
    parent: int | None
    details: Details
    links: tuple[int, ...] = ()


@public
@dataclass(slots=True)
class Outcome:
    """Outcome of an operation. Fields that do not apply, or are unknown after an error, are None."""

    duration_s: float = 0.0
    #: Class name of the error that ended it, or None.
    error: str | None = None
    #: Canonical name of the model, id of the space, routes that answered, and dimensions of the vectors.
    model: str | None = None
    space_id: str | None = None
    routes: tuple[str, ...] = ()
    dimensions: int | None = None
    attempts: int | None = None
    tokens: int | None = None
    billed_tokens: int | None = None
    cost_nanousd: int | None = None
    cache_hits: int | None = None
    #: Failed texts of a partial request.
    failures: int | None = None
    #: Unique texts of the request; rows that were truncated; texts that another call or process computed meanwhile.
    unique_texts: int | None = None
    truncations: int | None = None
    shared: int | None = None
    #: Cost that cache hits saved.
    saved_nanousd: int | None = None

    def fill(self, receipt: Receipt) -> None:
        """Copy the facts of a request's receipt."""
        self.model, self.routes, self.attempts = receipt.model, receipt.routes, receipt.attempts
        self.space_id = receipt.space_id or None
        self.tokens, self.billed_tokens = receipt.tokens, receipt.billed_tokens
        self.cost_nanousd, self.cache_hits = receipt.cost_nanousd, receipt.cache_hits
        self.unique_texts, self.truncations = receipt.unique_texts, len(receipt.truncations)
        self.saved_nanousd = receipt.saved_nanousd
