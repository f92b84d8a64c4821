"""Which model: hard requirements first, then a weighted score, and every reason told.

The score: accuracy is the quality score over 100, speed is 1 / (1 + latency in ms / 100), cost
is 1 / (1 + dollars per million tokens); their weighted sum is multiplied by 1.2 for multilingual models where the texts
are multilingual, and by 1.1 for models strong in code where they hold code. Scores are exact fractions and not clamped,
so that no order is decided by rounding. Ties go to the cheaper model, then to the faster, the better, and by name.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from embedway.errors import NoModelError
from embedway.money import usd
from embedway.selection.candidate import exact
from embedway.selection.requirements import reasons_against, relaxations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.candidate import Candidate
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.requirements import Reason

MULTILINGUAL_BONUS = Fraction(6, 5)
CODE_BONUS = Fraction(11, 10)


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A row of the table: a model with its score by part, or every reason why it is out."""

    model: str
    candidate: Candidate
    #: From 1; None for models that are out.
    rank: int | None
    score: float | None
    accuracy: float | None
    speed: float
    #: None where no price is known; it then counts nothing.
    cost: float | None
    multilingual_bonus: float
    code_bonus: float
    reasons: tuple[Reason, ...] = ()
    #: Whether no other model that is in is at least as good in accuracy, latency and cost, and better in one.
    pareto: bool = False

    def to_json(self) -> dict[str, Any]:
        """The row as JSON's types."""
        benchmark = self.candidate.benchmark
        tokens = self.candidate.tokens
        price = benchmark.cost_per_million_tokens
        return {
            "model": self.model,
            "provider": benchmark.provider,
            "rank": self.rank,
            "score": self.score,
            "parts": {
                "accuracy": self.accuracy,
                "speed": self.speed,
                "cost": self.cost,
                "multilingual_bonus": self.multilingual_bonus,
                "code_bonus": self.code_bonus,
            },
            "pareto": self.pareto,
            "quality_score": benchmark.quality_score,
            "quality_source": benchmark.quality_source,
            "quality_comparable": benchmark.quality_comparable,
            "avg_latency_ms": benchmark.avg_latency_ms,
            "speed_source": benchmark.speed_source,
            "cost_per_million_tokens": None if price is None else str(price),
            "max_context_length": self.candidate.context,
            "lacks": self.candidate.lacks or None,
            "tokens": None if tokens is None else asdict(tokens),
            "cost_usd": None if self.candidate.nanousd is None else usd(self.candidate.nanousd),
            "out": [{"requirement": one.requirement, "reason": one.message} for one in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """Which model was selected, from which table, for which texts, by which criteria. `table` has the best first."""

    model: str
    criteria: ModelSelectionCriteria
    analysis: TextAnalysis | None
    table: tuple[ScoredModel, ...]

    @property
    def ranked(self) -> tuple[ScoredModel, ...]:
        """The models that are in, best first."""
        return tuple(row for row in self.table if row.rank is not None)

    @property
    def pareto(self) -> tuple[str, ...]:
        """The models that no other one is better than in everything."""
        return tuple(row.model for row in self.table if row.pareto)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON's types."""
        return {
            "model": self.model,
            "criteria": self.criteria.to_json(),
            "analysis": None if self.analysis is None else self.analysis.to_json(),
            "pareto": list(self.pareto),
            "table": [row.to_json() for row in self.table],
        }


def select(
    candidates: Iterable[Candidate],
    criteria: ModelSelectionCriteria,
    analysis: TextAnalysis | None = None,
    *,
    anywhere: bool = False,
) -> Selection:
    """Select the model with the best score among those that meet every requirement.

    With `anywhere`, models that cannot run here now may be selected too. Raises NoModelError, with the whole table and
    which requirement to relax, when none is left.
    """
    table = score(candidates, criteria, analysis, anywhere=anywhere)
    if not table or table[0].rank is None:
        raise NoModelError([str(one) for one in relaxations(table)], table=table)
    return Selection(table[0].model, criteria, analysis, table)


def score(
    candidates: Iterable[Candidate],
    criteria: ModelSelectionCriteria,
    analysis: TextAnalysis | None = None,
    *,
    anywhere: bool = False,
) -> tuple[ScoredModel, ...]:
    """The table: models that are in by rank, then the others by how little they lack."""
    inside: list[tuple[Fraction, ScoredModel]] = []
    outside: list[ScoredModel] = []
    for candidate in candidates:
        exact, row = _scored(candidate, criteria, analysis)
        reasons = tuple(reasons_against(candidate, criteria, analysis, anywhere=anywhere))
        if reasons:
            outside.append(replace(row, score=None, reasons=reasons))
        else:
            inside.append((exact, row))
    inside.sort(key=lambda pair: (-pair[0], *_tie(pair[1].candidate)))
    front = _pareto([row.candidate for _, row in inside])
    ranked = [
        replace(row, rank=rank, pareto=on_front)
        for rank, ((_, row), on_front) in enumerate(zip(inside, front, strict=True), 1)
    ]
    outside.sort(key=lambda row: (len(row.reasons), row.model))
    return (*ranked, *outside)


def _scored(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None
) -> tuple[Fraction, ScoredModel]:
    benchmark = candidate.benchmark
    accuracy = Fraction(0) if benchmark.quality_score is None else exact(benchmark.quality_score) / 100
    speed = 1 / (1 + exact(benchmark.avg_latency_ms) / 100)
    price = benchmark.cost_per_million_tokens
    cost = Fraction(0) if price is None else 1 / (1 + Fraction(price))
    total = (
        exact(criteria.accuracy_weight) * accuracy
        + exact(criteria.speed_weight) * speed
        + exact(criteria.cost_weight) * cost
    )
    multilingual = code = Fraction(1)
    if analysis is not None and analysis.multilingual and benchmark.multilingual:
        multilingual = MULTILINGUAL_BONUS
    if analysis is not None and analysis.contains_code and "code" in benchmark.strengths:
        code = CODE_BONUS
    total *= multilingual * code
    return total, ScoredModel(
        model=benchmark.model_name,
        candidate=candidate,
        rank=None,
        score=float(total),
        accuracy=None if benchmark.quality_score is None else float(accuracy),
        speed=float(speed),
        cost=None if price is None else float(cost),
        multilingual_bonus=float(multilingual),
        code_bonus=float(code),
    )


def _tie(candidate: Candidate) -> tuple[Any, ...]:
    benchmark = candidate.benchmark
    price = benchmark.cost_per_million_tokens
    return (
        price is None,
        price or 0,
        benchmark.avg_latency_ms,
        -(benchmark.quality_score or 0),
        benchmark.model_name,
    )


def _pareto(candidates: Sequence[Candidate]) -> list[bool]:
    """Whether each is on the front of accuracy, latency and cost; an unknown price is above every other."""
    points = [
        (
            -(one.benchmark.quality_score or 0),
            one.benchmark.avg_latency_ms,
            math.inf if one.benchmark.cost_per_million_tokens is None else float(one.benchmark.cost_per_million_tokens),
        )
        for one in candidates
    ]
    return [
        not any(
            other != point and all(theirs <= own for theirs, own in zip(other, point, strict=True)) for other in points
        )
        for point in points
    ]
