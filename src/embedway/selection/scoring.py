"""Scoring of the models that meet every requirement, and selection of the best.

The score: accuracy is the quality score divided by 100, speed is 1 / (1 + latency in ms / 100), cost is
1 / (1 + dollars per million tokens). Their weighted sum is multiplied by 1.2 for multilingual models if the texts are
multilingual, and by 1.1 for models with the strength code if the texts contain code. It is not clamped. It is rounded
to twelve significant digits. This is much coarser than the error of floats, so scores that are equal in exact
arithmetic are equal here. Ties are broken by lower price, then lower latency, higher quality, and name.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway.money import usd
from embedway.selection.criteria import DEFAULT_MIN_ACCURACY
from embedway.selection.relaxations import no_model
from embedway.selection.requirements import find_reasons

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.candidate import Candidate
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.requirements import Reason

MULTILINGUAL_BONUS = 1.2
CODE_BONUS = 1.1
#: Significant digits of a score. Floats have sixteen, and a score's few operations cost less than two of them.
SCORE_DIGITS = 12
#: Warning of a selection in which no model reaches the default `min_accuracy`, before the model and its accuracy.
_BELOW_MINIMUM = (
    f"no model that meets the other requirements reaches the default min_accuracy of {DEFAULT_MIN_ACCURACY}; the best "
    "below it is selected"
)


@public
@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A row of the table: a model with the parts of its score, and all reasons that exclude it."""

    model: str
    candidate: Candidate
    #: Rank from 1; None for excluded models.
    rank: int | None
    score: float | None
    accuracy: float | None
    speed: float
    #: None if no price is known; the cost part of the score is then 0.
    cost: float | None
    multilingual_bonus: float
    code_bonus: float
    reasons: tuple[Reason, ...] = ()
    #: Whether no other included model is at least as good in accuracy, latency and cost, and better in one.
    pareto: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON types."""
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
            "quality_scale": None if benchmark.quality_score is None else benchmark.quality_scale,
            "licence": self.candidate.licence or None,
            "non_commercial": self.candidate.non_commercial,
            "avg_latency_ms": benchmark.avg_latency_ms,
            "speed_source": benchmark.speed_source,
            "measured_on": None if benchmark.measured_on is None else benchmark.measured_on.isoformat(),
            "strengths": list(benchmark.strengths),
            "strengths_source": benchmark.strengths_source or None,
            "cost_per_million_tokens": None if price is None else str(price),
            "max_context_length": self.candidate.context,
            "lacks": self.candidate.lacks or None,
            "tokens": None if tokens is None else asdict(tokens),
            "cost_usd": None if self.candidate.cost_nanousd is None else usd(self.candidate.cost_nanousd),
            "out": [{"requirement": one.requirement, "reason": one.message} for one in self.reasons],
        }


@public
@dataclass(frozen=True, slots=True, repr=False)
class Selection:
    """The selected model, with the criteria, the analysis of the texts, and the table of all models, best first."""

    model: str
    criteria: ModelSelectionCriteria
    analysis: TextAnalysis | None
    table: tuple[ScoredModel, ...]
    #: Notes on criteria that the selected model does not meet; empty if it meets all.
    warnings: tuple[str, ...] = ()
    #: Whether models that cannot run here now were selected from too.
    anywhere: bool = False

    def __repr__(self) -> str:
        return (
            f"<Selection {self.model!r}, the best of {len(self.ranked)}; {len(self.table) - len(self.ranked)} excluded>"
        )

    def below_minimum(self) -> Selection | None:
        """Return the selection without the default `min_accuracy`, for a caller to whom this one is too expensive.

        None if this one is below it already, the criteria have another minimum, or no model remains.
        """
        if self.warnings:
            return None
        candidates = (row.candidate for row in self.table)
        return select_below_minimum(candidates, self.criteria, self.analysis, anywhere=self.anywhere)

    def warnings_of(self, model: str) -> tuple[str, ...]:
        """Return the warnings if this ranked model is used, such as because the best one is too expensive."""
        return tuple(_below_minimum(row) for row in self.ranked if self.warnings and row.model == model)

    @property
    def ranked(self) -> tuple[ScoredModel, ...]:
        """Included models, best first."""
        return tuple(row for row in self.table if row.rank is not None)

    @property
    def pareto(self) -> tuple[str, ...]:
        """Models on the Pareto front of accuracy, latency and cost."""
        return tuple(row.model for row in self.table if row.pareto)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return {
            "model": self.model,
            "criteria": self.criteria.to_json(),
            "analysis": None if self.analysis is None else self.analysis.to_json(),
            "warnings": list(self.warnings),
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

    With `anywhere`, models that cannot run here now may be selected too. If only the default `min_accuracy` excludes
    all, the best of those below it is selected, with a warning. If no model remains, raises NoModelError with the
    complete table and the requirements to relax.
    """
    candidates = tuple(candidates)
    table = score(candidates, criteria, analysis, anywhere=anywhere)
    if table and table[0].rank is not None:
        return Selection(table[0].model, criteria, analysis, table, anywhere=anywhere)
    below = select_below_minimum(candidates, criteria, analysis, anywhere=anywhere)
    if below is None:
        raise no_model(table)
    return below


def select_below_minimum(
    candidates: Iterable[Candidate],
    criteria: ModelSelectionCriteria,
    analysis: TextAnalysis | None,
    *,
    anywhere: bool = False,
) -> Selection | None:
    """Select without the default `min_accuracy`, with a warning. None for another minimum, and if no model remains."""
    if criteria.min_accuracy != DEFAULT_MIN_ACCURACY:
        return None
    table = score(candidates, replace(criteria, min_accuracy=0), analysis, anywhere=anywhere)
    if not table or table[0].rank is None:
        return None
    return Selection(table[0].model, criteria, analysis, table, (_below_minimum(table[0]),), anywhere)


def _below_minimum(row: ScoredModel) -> str:
    return f"{_BELOW_MINIMUM}: {row.model} ({row.accuracy or 0:.3f})"


def score(
    candidates: Iterable[Candidate],
    criteria: ModelSelectionCriteria,
    analysis: TextAnalysis | None = None,
    *,
    anywhere: bool = False,
) -> tuple[ScoredModel, ...]:
    """Score and sort all models: included models by rank, then the others by their number of reasons."""
    inside: list[ScoredModel] = []
    outside: list[ScoredModel] = []
    for candidate in candidates:
        row = _score_one(candidate, criteria, analysis)
        reasons = tuple(find_reasons(candidate, criteria, analysis, anywhere=anywhere))
        if reasons:
            outside.append(replace(row, score=None, reasons=reasons))
        else:
            inside.append(row)
    inside.sort(key=_rank_key)
    outside.sort(key=lambda row: (len(row.reasons), row.model))
    front = _pareto([row.candidate for row in inside])
    ranked = [
        replace(row, rank=rank, pareto=on_front)
        for rank, (row, on_front) in enumerate(zip(inside, front, strict=True), 1)
    ]
    return (*ranked, *outside)


def _score_one(candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None) -> ScoredModel:
    benchmark, accuracy, price = candidate.benchmark, candidate.accuracy, candidate.benchmark.cost_per_million_tokens
    speed = 1 / (1 + benchmark.avg_latency_ms / 100)
    cost = None if price is None else 1 / (1 + float(price))
    total = (
        criteria.accuracy_weight * (accuracy or 0.0)
        + criteria.speed_weight * speed
        + criteria.cost_weight * (cost or 0.0)
    )
    multilingual = analysis is not None and analysis.multilingual and benchmark.multilingual
    code = analysis is not None and analysis.contains_code and "code" in benchmark.strengths
    multilingual_bonus = MULTILINGUAL_BONUS if multilingual else 1.0
    code_bonus = CODE_BONUS if code else 1.0
    return ScoredModel(
        model=benchmark.model_name,
        candidate=candidate,
        rank=None,
        score=float(f"{total * multilingual_bonus * code_bonus:.{SCORE_DIGITS}g}"),
        accuracy=accuracy,
        speed=speed,
        cost=cost,
        multilingual_bonus=multilingual_bonus,
        code_bonus=code_bonus,
    )


def _rank_key(row: ScoredModel) -> tuple[Any, ...]:
    """Return the sort key: score, then lower price, lower latency, higher quality, and name."""
    benchmark = row.candidate.benchmark
    price = benchmark.cost_per_million_tokens
    return (
        -(row.score or 0.0),
        price is None,
        price or 0,
        benchmark.avg_latency_ms,
        -(benchmark.quality_score or 0),
        benchmark.model_name,
    )


def _pareto(candidates: Sequence[Candidate]) -> list[bool]:
    """Return for each whether it is on the Pareto front of accuracy, latency and cost; unknown prices are infinite."""
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
