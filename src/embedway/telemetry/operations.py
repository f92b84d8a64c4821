"""The operations that hooks are told of: what each one is about, where it belongs, and how it ended.

Details and outcomes hold numbers and names of models, routes, collections and budgets. They never hold texts, keys,
addresses or vectors, so that a hook may write all of them to a log, a metric's label or a span.
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
    "load",
    "reservation",
    "validation",
    "budget_warning",
    "budget_refusal",
]


@public
@dataclass(frozen=True, slots=True)
class RequestDetails:
    """One call of `embed` or `rerank`. `model` is the name that the call gave, which may be `auto`."""

    kind: ClassVar[Kind] = "request"
    task: Literal["embed", "rerank"]
    model: str
    texts: int
    input_type: InputType | None = None
    collection: str = ""


@public
@dataclass(frozen=True, slots=True)
class BatchDetails:
    """Texts that are computed together: on this machine by `backend`, or by a service, then `backend` is its route."""

    kind: ClassVar[Kind] = "batch"
    model: str
    backend: str
    texts: int
    tokens: int


@public
@dataclass(frozen=True, slots=True)
class AttemptDetails:
    """One request to a service over one route. `number` counts from 1 for the same texts; refusals do not count."""

    kind: ClassVar[Kind] = "attempt"
    model: str
    route: str
    number: int
    texts: int
    tokens: int


@public
@dataclass(frozen=True, slots=True)
class WaitDetails:
    """Time in which nothing is computed.

    `reason` is a free place at a route, its rate limit, the pause before a retry, a text that another process computes,
    or a batch that is gathered from several callers.
    """

    kind: ClassVar[Kind] = "wait"
    reason: Literal["semaphore", "rate_limit", "retry", "lease", "scheduler"]
    route: str = ""


@public
@dataclass(frozen=True, slots=True)
class CacheDetails:
    """A lookup of a request's texts in the cache, whose outcome has `cache_hits`, or a store of computed vectors."""

    kind: ClassVar[Kind] = "cache"
    action: Literal["lookup", "store"]
    model: str
    texts: int


@public
@dataclass(frozen=True, slots=True)
class CircuitDetails:
    """A change of a route's circuit breaker."""

    kind: ClassVar[Kind] = "circuit"
    route: str
    before: Literal["closed", "open", "half-open"]
    after: Literal["closed", "open", "half-open"]


@public
@dataclass(frozen=True, slots=True)
class LoadDetails:
    """A model is loaded, or its service opened."""

    kind: ClassVar[Kind] = "load"
    model: str


@public
@dataclass(frozen=True, slots=True)
class ReservationDetails:
    """Money is reserved before a request is sent; None for a price that is not known."""

    kind: ClassVar[Kind] = "reservation"
    model: str
    nanousd: int | None


@public
@dataclass(frozen=True, slots=True)
class ValidationDetails:
    """The vectors of a route's answer are checked; the outcome has the error where they are refused."""

    kind: ClassVar[Kind] = "validation"
    route: str
    texts: int


@public
@dataclass(frozen=True, slots=True)
class BudgetWarningDetails:
    """`level` percent of a budget are spent, told once in each of its periods."""

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
    """A call was refused because it would pass a budget."""

    kind: ClassVar[Kind] = "budget_refusal"
    budget: str
    needed_nanousd: int | None
    left_nanousd: int


Details: TypeAlias = (
    RequestDetails
    | BatchDetails
    | AttemptDetails
    | WaitDetails
    | CacheDetails
    | CircuitDetails
    | LoadDetails
    | ReservationDetails
    | ValidationDetails
    | BudgetWarningDetails
    | BudgetRefusalDetails
)


@public
@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, or one event, and where it belongs.

    `id` is unique in this process. `parent` is the id of the operation in which it began. `links` are the ids of other
    callers' requests whose texts are computed or stored with the parent's.
    """

    id: int
    parent: int | None
    details: Details
    links: tuple[int, ...] = ()


@public
@dataclass(slots=True)
class Outcome:
    """How an operation ended. What does not apply to its kind, or is not known after an error, is None."""

    duration_s: float = 0.0
    #: The name of the class of the error that ended it; None where there was none.
    error: str | None = None
    #: The model by its full name, the routes that answered, and the width of the vectors.
    model: str | None = None
    routes: tuple[str, ...] = ()
    dimensions: int | None = None
    attempts: int | None = None
    tokens: int | None = None
    billed_tokens: int | None = None
    cost_nanousd: int | None = None
    cache_hits: int | None = None
    #: Texts of a request that failed, where the others did not.
    failures: int | None = None

    def fill(self, receipt: Receipt) -> None:
        """Take over the facts of a request's receipt."""
        self.model, self.routes, self.attempts = receipt.model, receipt.routes, receipt.attempts
        self.tokens, self.billed_tokens = receipt.tokens, receipt.billed_tokens
        self.cost_nanousd, self.cache_hits = receipt.cost_nanousd, receipt.cache_hits
