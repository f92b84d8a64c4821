"""Values that `embedder.quality` returns about baselines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from embedway._public import public
from embedway.money import usd
from embedway.quality.retrieval import accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.quality.baseline import Baseline
    from embedway.quality.drift import RouteCheck


@public
@dataclass(frozen=True, slots=True)
class QualityPlan:
    """Estimated work of a baseline or a check, over all routes of a model; the cost is None if it is unknown."""

    model: str
    routes: tuple[str, ...]
    texts: int
    requests: int
    tokens: int
    cost_nanousd: int | None

    @property
    def summary(self) -> str:
        """The plan as one line of text."""
        cost = "at an unknown price" if self.cost_nanousd is None else f"for ${usd(self.cost_nanousd)}"
        work = f"{self.texts:,} texts, {self.tokens:,} tokens and {self.requests:,} requests"
        return f"about {work} {cost} ({self.model}: {', '.join(self.routes)})"


@public
@dataclass(frozen=True, slots=True)
class LastCheck:
    """Result of the last check of a route that could compare it. Times are in seconds since 1970.

    `last_passed` is the last check that it passed, or the time of its baseline.
    """

    verdict: Literal["passed", "drifted"]
    quarantined: bool
    checked: float
    last_passed: float
    reasons: tuple[str, ...] = ()


@public
@dataclass(frozen=True, slots=True)
class RouteNoise:
    """Measured noise of a route, as distances 1 - cosine, by source; and the lowest cosine that a canary may have."""

    sources: Mapping[str, float]
    min_cosine: float


@public
@dataclass(frozen=True, slots=True)
class BaselineSummary:
    """A stored baseline of a space. `created` is in seconds since 1970.

    `pairs` contains the number of pairs by set, with its version and digest in `digests`. `noise` and `accuracy`, the
    share of queries whose own passage is first, are by route; noise is also by input type. `prices_nanousd` are for a
    million tokens.
    """

    model: str
    space_id: str
    created: float
    embedway: str
    pairs: Mapping[str, int]
    digests: Mapping[str, str]
    noise: Mapping[str, Mapping[str, RouteNoise]]
    accuracy: Mapping[str, float | None]
    prices_nanousd: Mapping[str, int | None]
    #: Last check by route; without routes that were not checked since their baseline.
    checks: Mapping[str, LastCheck] = field(default_factory=dict)


@public
@dataclass(frozen=True, slots=True)
class BaselineReport:
    """A baseline that was created. `failed` pairs the routes that have none with the reason.

    `differences` are those of a replaced baseline, by route.
    """

    baseline: BaselineSummary
    texts: int
    tokens: int
    cost_nanousd: int | None
    failed: tuple[tuple[str, str], ...] = ()
    differences: tuple[RouteCheck, ...] = ()


@public
@dataclass(frozen=True, slots=True)
class SemanticCheck:
    """Accuracy of a model on the pairs of its baseline: the share of queries whose own passage is found first.

    It is valid if the accuracy is at least `quality.min_accuracy_ratio` of the baseline's, or if there is no baseline.
    `routes` are those that answered. Accuracies are None without a baseline, and the cost if it is unknown.
    """

    valid: bool
    message: str = ""
    accuracy: float | None = None
    baseline: float | None = None
    pairs: int = 0
    routes: tuple[str, ...] = ()
    cost_nanousd: int | None = 0


@public
@dataclass(frozen=True, slots=True)
class QualityCheck:
    """Comparison of a model's routes with the stored baseline of its space. `checked` is in seconds since 1970."""

    model: str
    space_id: str
    checked: float
    baseline_created: float
    routes: tuple[RouteCheck, ...]
    notes: tuple[str, ...]
    texts: int
    tokens: int
    cost_nanousd: int | None

    @property
    def passed(self) -> bool:
        """Whether every route was compared and passed."""
        return all(one.verdict == "passed" for one in self.routes)

    @property
    def drifted(self) -> bool:
        """Whether a route drifted."""
        return any(one.verdict == "drifted" for one in self.routes)


def summary_of(baseline: Baseline) -> BaselineSummary:
    """Return the public facts of a baseline."""
    routes = baseline.routes
    first = next(iter(routes.values()), None)
    counts = {} if first is None else {name: len(results) for name, results in first.results.items()}
    return BaselineSummary(
        baseline.model,
        baseline.space.id,
        baseline.created,
        baseline.embedway,
        counts,
        {one.name: f"{one.version}:{one.digest}" for one in baseline.sets},
        {
            name: {kind: RouteNoise(noise.sources, 1 - noise.limit) for kind, noise in route.noise.items()}
            for name, route in routes.items()
        },
        {
            name: accuracy([one for results in route.results.values() for one in results.values()])
            for name, route in routes.items()
        },
        {name: route.price_nanousd for name, route in routes.items()},
    )
