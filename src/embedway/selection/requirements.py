"""Requirements of the criteria: the reasons that exclude a model, and the changes that would include it."""

from __future__ import annotations

import decimal
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway.catalog.benchmarks import MTEB_EN
from embedway.money import to_nanousd, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embedway.config import ModelBenchmark
    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.candidate import Candidate
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import ScoredModel

#: Share of the texts from which the model must support their language.
_LANGUAGE_MATTERS = 0.2
#: Maximum models that advice names; it counts the others.
_NAMED_MODELS = 3


@public
@dataclass(frozen=True, slots=True)
class Reason:
    """A reason that excludes a model: the requirement, the model's value, and a value that would include it."""

    requirement: str
    message: str
    #: Value of the requirement that the model would meet; None if only dropping the requirement helps.
    would_pass: Any = None


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Changes of requirements that include models: each requirement with its new value, or None to drop it."""

    changes: tuple[tuple[str, Any], ...]
    models: tuple[str, ...]

    def __str__(self) -> str:
        """Return the change as advice."""
        others = len(self.models) - _NAMED_MODELS
        names = ", ".join(self.models[:_NAMED_MODELS]) + (f" and {others} more" if others > 0 else "")
        return f"{' and '.join(_advice(requirement, to) for requirement, to in self.changes)}: {names}"


def _advice(requirement: str, to: Any) -> str:
    if requirement == "runs here":
        return "make one of these run here"
    if requirement == "quality_score":
        return "set a quality_score for one of these"
    if to is None or to is False:
        return f"without {requirement}"
    return f"with {requirement} = {'true' if to is True else to}"


def find_relaxations(table: Sequence[ScoredModel]) -> tuple[Relaxation, ...]:
    """Find the smallest change of each requirement that alone excludes models, with the models that it includes.

    The change that includes most models is first. If every model fails several requirements, the changes are for the
    models that fail the fewest.
    """
    out = [row for row in table if row.reasons]
    fewest = min((len(row.reasons) for row in out), default=0)
    lacking: dict[tuple[str, ...], list[ScoredModel]] = {}
    for row in out:
        if len(row.reasons) == fewest:
            lacking.setdefault(tuple(reason.requirement for reason in row.reasons), []).append(row)
    found = []
    for requirements, rows in lacking.items():
        nearest = min(rows, key=lambda row: [_change(reason) for reason in row.reasons])
        least = [_change(reason) for reason in nearest.reasons]
        admitted = [row for row in rows if all(map(operator.le, map(_change, row.reasons), least))]
        changes = zip(requirements, (reason.would_pass for reason in nearest.reasons), strict=True)
        found.append(Relaxation(tuple(changes), tuple(row.model for row in admitted)))
    return tuple(sorted(found, key=lambda one: (-len(one.models), [requirement for requirement, _ in one.changes])))


def _change(reason: Reason) -> tuple[bool, Any]:
    """Return the size of the change that a model needs, as a sort key. Dropping a requirement is the largest."""
    value = reason.would_pass
    if value is None:
        return True, 0
    return False, -value if reason.requirement.startswith("min_") else value


def find_reasons(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None, *, anywhere: bool
) -> Iterable[Reason]:
    """Find all reasons that exclude a model. With `anywhere`, it does not have to run here now."""
    benchmark = candidate.benchmark
    if candidate.lacks and not anywhere:
        yield Reason("runs here", f"cannot run here now: {candidate.lacks}")
    accuracy = candidate.accuracy
    if accuracy is None:
        yield Reason("quality_score", "its quality is unknown; set quality_score in model_benchmarks")
    else:
        yield from _accuracy_reasons(benchmark, accuracy, criteria)
    if criteria.require_multilingual and not benchmark.multilingual:
        yield Reason("require_multilingual", "it is not multilingual")
    if criteria.require_local and candidate.leaves_machine:
        yield Reason("require_local", candidate.leaves_machine)
    if criteria.max_latency_ms is not None and benchmark.avg_latency_ms > criteria.max_latency_ms:
        latency = benchmark.avg_latency_ms
        yield Reason("max_latency_ms", f"latency {latency:g} ms is above {criteria.max_latency_ms:g}", latency)
    if criteria.min_context is not None and candidate.context < criteria.min_context:
        reads = candidate.context
        yield Reason("min_context", f"it accepts {reads:,} tokens, not {criteria.min_context:,}", reads)
    sizes = candidate.sizes or (benchmark.embedding_dimensions,)
    if criteria.dimensions is not None and criteria.dimensions not in sizes:
        yield Reason("dimensions", f"it supports {', '.join(map(str, sizes))} dimensions, not {criteria.dimensions}")
    if criteria.licences and benchmark.licence.casefold() not in map(str.casefold, criteria.licences):
        yield Reason("licences", f"its licence is {benchmark.licence or 'unknown'}")
    yield from _money_reasons(candidate, criteria)
    yield from _text_reasons(candidate, criteria, analysis)


def _accuracy_reasons(benchmark: ModelBenchmark, accuracy: float, criteria: ModelSelectionCriteria) -> Iterable[Reason]:
    scale = benchmark.quality_scale
    if not criteria.any_scale and not benchmark.is_compared:
        yield Reason(
            "any_scale", f"accuracy {accuracy:g}* is of another scale ({scale}), not compared with {MTEB_EN}", True
        )
    if accuracy < criteria.min_accuracy:
        mark = "" if scale == MTEB_EN else "*"
        yield Reason("min_accuracy", f"accuracy {accuracy:g}{mark} is below {criteria.min_accuracy:g}", accuracy)


def _money_reasons(candidate: Candidate, criteria: ModelSelectionCriteria) -> Iterable[Reason]:
    price = candidate.benchmark.cost_per_million_tokens
    if criteria.max_cost_per_million is not None:
        # From text, which is exact in any decimal context of the caller.
        written = usd(to_nanousd(criteria.max_cost_per_million, name="max_cost_per_million"))
        most = decimal.Decimal(written)
        if price is None:
            yield Reason("max_cost_per_million", "its price is unknown")
        elif price > most:
            message = f"${price} per million tokens is above ${written.rstrip('0').rstrip('.')}"
            yield Reason("max_cost_per_million", message, price)
    if criteria.max_total_cost is not None:
        most_nano = to_nanousd(criteria.max_total_cost, name="max_total_cost")
        cost = candidate.cost_nanousd
        if price is None:
            yield Reason("max_total_cost", "its price is unknown")
        elif cost is None:
            yield Reason("max_total_cost", "the texts' tokens were not counted")
        elif cost > most_nano:
            message = f"the texts cost ${usd(cost)}, above ${usd(most_nano)}"
            yield Reason("max_total_cost", message, decimal.Decimal(usd(cost)))


def _text_reasons(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None
) -> Iterable[Reason]:
    known = candidate.benchmark.languages
    if known and known != ("mul",):
        own = {language.split("-")[0].casefold() for language in known}
        lacking = [language for language in criteria.languages if language.split("-")[0].casefold() not in own]
        if lacking:
            yield Reason("languages", f"it does not support {', '.join(lacking)}")
        shares = analysis.languages if analysis is not None and criteria.match_languages else ()
        foreign = [(language, share) for language, share in shares if language not in own]
        if any(share >= _LANGUAGE_MATTERS for _, share in foreign):
            shares_of = ", ".join(f"{language} ({share:.0%} of the texts)" for language, share in foreign)
            yield Reason("match_languages", f"it does not support {shares_of}", False)
    elif not known and criteria.languages:
        yield Reason("languages", "its languages are unknown")
    tokens = candidate.tokens
    if criteria.require_fit and tokens is not None and tokens.longest > candidate.context:
        reads = candidate.context
        yield Reason("require_fit", f"the longest text has {tokens.longest:,} tokens; it accepts {reads:,}", False)
