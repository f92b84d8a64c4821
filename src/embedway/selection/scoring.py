"""Which model: hard requirements first, then a weighted score, and every reason told.

The score: accuracy is the quality score over 100, speed is 1 / (1 + latency in ms / 100), cost
is 1 / (1 + dollars per million tokens); their weighted sum is multiplied by 1.2 for multilingual models where the texts
are multilingual, and by 1.1 for models strong in code where they hold code. Scores are exact fractions and not clamped,
so that no order is decided by rounding. Ties go to the cheaper model, then to the faster, the better, and by name.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from embedway.errors import NoModelError, UsageError
from embedway.money import to_nanousd, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embedway.config import ModelBenchmark
    from embedway.money import Amount
    from embedway.selection.analysis import TextAnalysis

Preset: TypeAlias = Literal["fast", "balanced", "best", "cheap", "private"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

MULTILINGUAL_BONUS = Fraction(6, 5)
CODE_BONUS = Fraction(11, 10)
#: A language that this share of the texts is in has to be known by the model.
_LANGUAGE_MATTERS = 0.2
_TOLD = 3


@dataclass(frozen=True, slots=True)
class ModelSelectionCriteria:
    """What a model must be, and how much accuracy, speed and cost weigh. None is no requirement."""

    accuracy_weight: float = 0.4
    speed_weight: float = 0.3
    cost_weight: float = 0.3
    #: Dollars per million tokens; 0 is for free models alone.
    max_cost_per_million: Amount | None = None
    require_multilingual: bool = False
    #: Only models that run on this machine, so that no text leaves it.
    require_local: bool = False
    #: Quality score over 100.
    min_accuracy: float = 0.6
    max_latency_ms: float | None = None
    #: Tokens of a text that the model has to read.
    min_context: int | None = None
    #: A size that the model gives, trained for it.
    dimensions: int | None = None
    #: BCP 47 tags that the model knows, all of them.
    languages: tuple[str, ...] = ()
    #: SPDX identifiers, in any case; the model's is one of them.
    licences: tuple[str, ...] = ()
    #: Dollars for embedding the texts, once each.
    max_total_cost: Amount | None = None
    #: The languages of the texts are the model's, as far as both are known.
    match_languages: bool = True
    #: The longest text fits the model; for texts that are not cut into chunks.
    require_fit: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no requirement. Raises UsageError, which names the field."""
        weights = (self.accuracy_weight, self.speed_weight, self.cost_weight)
        for name, weight in zip(("accuracy_weight", "speed_weight", "cost_weight"), weights, strict=True):
            if not _is_number(weight) or weight < 0:
                raise UsageError(f"{name} is {weight!r}; it must be a number, 0 or more")
        if not any(weights):
            raise UsageError("accuracy_weight, speed_weight and cost_weight are all 0; one must count")
        self._check_limits()
        for name in ("languages", "licences"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise UsageError(f"{name} is {value!r}; it must be a list")
            object.__setattr__(self, name, tuple(value))

    def _check_limits(self) -> None:
        if not _is_number(self.min_accuracy) or not 0 <= self.min_accuracy <= 1:
            raise UsageError(f"min_accuracy is {self.min_accuracy!r}; it must be from 0 to 1")
        if self.max_latency_ms is not None and (not _is_number(self.max_latency_ms) or self.max_latency_ms <= 0):
            raise UsageError(f"max_latency_ms is {self.max_latency_ms!r}; it must be more than 0")
        for name in ("min_context", "dimensions"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} is {value!r}; it must be a whole number, 1 or more")
        for name in ("max_cost_per_million", "max_total_cost"):
            if getattr(self, name) is not None:
                to_nanousd(getattr(self, name), name=name)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelSelectionCriteria:
        """The criteria of a preset, with changes. Raises UsageError for a name that is none."""
        if name not in PRESETS:
            raise UsageError(f"{name!r} is no preset; there are {', '.join(PRESETS)}")
        return cls(**{**_PRESETS[name], **changes})

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON's types."""
        found = asdict(self)
        for name in ("max_cost_per_million", "max_total_cost"):
            found[name] = None if found[name] is None else usd(to_nanousd(found[name], name=name))
        return {**found, "languages": list(self.languages), "licences": list(self.licences)}


#: Presets ask for less than the class's own default, so that the model that is always there is among the candidates.
_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"accuracy_weight": 0.2, "speed_weight": 0.7, "cost_weight": 0.1, "min_accuracy": 0.5},
    "balanced": {"accuracy_weight": 0.4, "speed_weight": 0.3, "cost_weight": 0.3, "min_accuracy": 0.5},
    "best": {"accuracy_weight": 1.0, "speed_weight": 0.0, "cost_weight": 0.0, "min_accuracy": 0.5},
    "cheap": {"accuracy_weight": 0.2, "speed_weight": 0.1, "cost_weight": 0.7, "min_accuracy": 0.5},
    "private": {
        "accuracy_weight": 0.6,
        "speed_weight": 0.4,
        "cost_weight": 0.0,
        "min_accuracy": 0.5,
        "require_local": True,
    },
}


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of the texts for one model: of the longest text, and of all of them together.

    `own` says whether the model's own tokenizer counted, `sampled` whether `total` is reckoned from a sample.
    """

    longest: int
    total: int
    own: bool
    sampled: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be selected, with what the catalog and this machine add to its benchmark."""

    benchmark: ModelBenchmark
    #: Every size that it gives; empty for its benchmark's alone.
    sizes: tuple[int, ...] = ()
    max_tokens: int | None = None
    #: What it lacks to run here and now; empty for nothing.
    lacks: str = ""
    tokens: TokenEstimate | None = None
    #: A route of its that leads to a server; empty for none, None where its benchmark's provider is all that is known.
    away: str | None = None

    @property
    def gets_texts(self) -> str:
        """Why texts leave this machine with it; empty where they stay."""
        if self.away is not None:
            return f"{self.away} leads to a server" if self.away else ""
        return "" if self.benchmark.runs_here else f"{self.benchmark.provider} gets the texts"

    @property
    def context(self) -> int:
        """Tokens of a text that it reads."""
        own = self.benchmark.max_context_length
        return own if self.max_tokens is None else min(own, self.max_tokens)

    @property
    def nanousd(self) -> int | None:
        """What embedding the texts costs; None where tokens or price are unknown."""
        price = self.benchmark.cost_per_million_tokens
        if price == 0:
            return 0
        if price is None or self.tokens is None:
            return None
        return math.ceil(Fraction(price) * 1000 * self.tokens.total)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a model is out: the requirement, what the model has, and what would let it in."""

    requirement: str
    message: str
    #: The value of the requirement that the model would keep; None where only dropping it helps.
    would_pass: Any = None


@dataclass(frozen=True, slots=True)
class Scored:
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
class Relaxation:
    """Requirements that together keep models out, for each the value that lets the named ones in, None for none."""

    changes: tuple[tuple[str, Any], ...]
    models: tuple[str, ...]

    def __str__(self) -> str:
        """As advice."""
        names = ", ".join(self.models[:_TOLD]) + (f" and {len(self.models) - _TOLD} more" * (len(self.models) > _TOLD))
        return f"{' and '.join(_advice(requirement, to) for requirement, to in self.changes)}: {names}"


def _advice(requirement: str, to: Any) -> str:
    if requirement == "runs here":
        return "make one of these run here"
    if requirement == "quality_score":
        return "give one of these a quality_score"
    return f"without {requirement}" if to is None or to is False else f"with {requirement} = {to}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which model was selected, from which table, for which texts, by which criteria. `table` has the best first."""

    model: str
    criteria: ModelSelectionCriteria
    analysis: TextAnalysis | None
    table: tuple[Scored, ...]

    @property
    def ranked(self) -> tuple[Scored, ...]:
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
) -> tuple[Scored, ...]:
    """The table: models that are in by rank, then the others by how little they lack."""
    inside: list[tuple[Fraction, Scored]] = []
    outside: list[Scored] = []
    for candidate in candidates:
        exact, row = _scored(candidate, criteria, analysis)
        reasons = tuple(_reasons(candidate, criteria, analysis, anywhere=anywhere))
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


def relaxations(table: Sequence[Scored]) -> tuple[Relaxation, ...]:
    """For each requirement that alone keeps models out, the least change that lets one in, and all whom it lets in.

    The one that lets most in is first. Where no single requirement does, the same for the models that lack least.
    """
    out = [row for row in table if row.reasons]
    fewest = min((len(row.reasons) for row in out), default=0)
    lacking: dict[tuple[str, ...], list[Scored]] = {}
    for row in out:
        if len(row.reasons) == fewest:
            lacking.setdefault(tuple(reason.requirement for reason in row.reasons), []).append(row)
    found = []
    for requirements, rows in lacking.items():
        nearest = min(rows, key=lambda row: [_change(reason) for reason in row.reasons])
        least = [_change(reason) for reason in nearest.reasons]
        admitted = [row for row in rows if all(map(_admits, least, map(_change, row.reasons)))]
        changes = zip(requirements, (reason.would_pass for reason in nearest.reasons), strict=True)
        found.append(Relaxation(tuple(changes), tuple(row.model for row in admitted)))
    return tuple(sorted(found, key=lambda one: (-len(one.models), [requirement for requirement, _ in one.changes])))


def _change(reason: Reason) -> tuple[bool, Fraction]:
    """How far a requirement has to give way for a model: the less the smaller, and dropping it is the most."""
    if reason.would_pass is None:
        return True, Fraction(0)
    value = Fraction(reason.would_pass) if not isinstance(reason.would_pass, float) else _exact(reason.would_pass)
    return False, -value if reason.requirement.startswith("min_") else value


def _admits(least: tuple[bool, Fraction], needed: tuple[bool, Fraction]) -> bool:
    return needed <= least


def _scored(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None
) -> tuple[Fraction, Scored]:
    benchmark = candidate.benchmark
    accuracy = Fraction(0) if benchmark.quality_score is None else _exact(benchmark.quality_score) / 100
    speed = 1 / (1 + _exact(benchmark.avg_latency_ms) / 100)
    price = benchmark.cost_per_million_tokens
    cost = Fraction(0) if price is None else 1 / (1 + Fraction(price))
    total = (
        _exact(criteria.accuracy_weight) * accuracy
        + _exact(criteria.speed_weight) * speed
        + _exact(criteria.cost_weight) * cost
    )
    multilingual = code = Fraction(1)
    if analysis is not None and analysis.multilingual and benchmark.multilingual:
        multilingual = MULTILINGUAL_BONUS
    if analysis is not None and analysis.contains_code and "code" in benchmark.strengths:
        code = CODE_BONUS
    total *= multilingual * code
    return total, Scored(
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


def _reasons(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None, *, anywhere: bool
) -> Iterable[Reason]:
    benchmark = candidate.benchmark
    if candidate.lacks and not anywhere:
        yield Reason("runs here", f"cannot run here now: {candidate.lacks}")
    if benchmark.quality_score is None:
        yield Reason("quality_score", "its quality is not known; give model_benchmarks a quality_score")
    elif _exact(benchmark.quality_score) / 100 < _exact(criteria.min_accuracy):
        accuracy = float(_exact(benchmark.quality_score) / 100)
        yield Reason("min_accuracy", f"accuracy {accuracy:g} is below {criteria.min_accuracy:g}", accuracy)
    if criteria.require_multilingual and not benchmark.multilingual:
        yield Reason("require_multilingual", "it is not multilingual")
    if criteria.require_local and candidate.gets_texts:
        yield Reason("require_local", candidate.gets_texts)
    if criteria.max_latency_ms is not None and benchmark.avg_latency_ms > criteria.max_latency_ms:
        latency = benchmark.avg_latency_ms
        yield Reason("max_latency_ms", f"latency {latency:g} ms is above {criteria.max_latency_ms:g}", latency)
    if criteria.min_context is not None and candidate.context < criteria.min_context:
        reads = candidate.context
        yield Reason("min_context", f"it reads {reads:,} tokens, not {criteria.min_context:,}", reads)
    sizes = candidate.sizes or (benchmark.embedding_dimensions,)
    if criteria.dimensions is not None and criteria.dimensions not in sizes:
        yield Reason("dimensions", f"it gives {', '.join(map(str, sizes))} dimensions, not {criteria.dimensions}")
    if criteria.licences and benchmark.licence.casefold() not in map(str.casefold, criteria.licences):
        yield Reason("licences", f"its licence is {benchmark.licence or 'not known'}")
    yield from _money_reasons(candidate, criteria)
    yield from _text_reasons(candidate, criteria, analysis)


def _money_reasons(candidate: Candidate, criteria: ModelSelectionCriteria) -> Iterable[Reason]:
    price = candidate.benchmark.cost_per_million_tokens
    if criteria.max_cost_per_million is not None:
        most = decimal.Decimal(to_nanousd(criteria.max_cost_per_million, name="max_cost_per_million")).scaleb(-9)
        if price is None:
            yield Reason("max_cost_per_million", "its price is not known")
        elif price > most:
            yield Reason("max_cost_per_million", f"${price} per million tokens is above ${most.normalize():f}", price)
    if criteria.max_total_cost is not None:
        most_nano = to_nanousd(criteria.max_total_cost, name="max_total_cost")
        cost = candidate.nanousd
        if price is None:
            yield Reason("max_total_cost", "its price is not known")
        elif cost is None:
            yield Reason("max_total_cost", "nobody has counted the texts' tokens")
        elif cost > most_nano:
            told = f"the texts cost ${usd(cost)}, above ${usd(most_nano)}"
            yield Reason("max_total_cost", told, decimal.Decimal(usd(cost)))


def _text_reasons(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None
) -> Iterable[Reason]:
    known = candidate.benchmark.languages
    if known and known != ("mul",):
        own = {language.split("-")[0].casefold() for language in known}
        lacking = [language for language in criteria.languages if language.split("-")[0].casefold() not in own]
        if lacking:
            yield Reason("languages", f"it does not know {', '.join(lacking)}")
        shares = analysis.languages if analysis is not None and criteria.match_languages else ()
        foreign = [(language, share) for language, share in shares if language not in own]
        if any(share >= _LANGUAGE_MATTERS for _, share in foreign):
            told = ", ".join(f"{language} ({share:.0%} of the texts)" for language, share in foreign)
            yield Reason("match_languages", f"it does not know {told}", False)
    elif not known and criteria.languages:
        yield Reason("languages", "its languages are not known")
    tokens = candidate.tokens
    if criteria.require_fit and tokens is not None and tokens.longest > candidate.context:
        reads = candidate.context
        yield Reason("require_fit", f"the longest text has {tokens.longest:,} tokens; it reads {reads:,}", False)


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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _exact(number: float) -> Fraction:
    """The decimal number that a float is written as, exactly."""
    return Fraction(str(number))
