"""Requirements of the criteria: the reasons that exclude a model."""

from __future__ import annotations

import decimal
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway.catalog.benchmarks import MTEB_EN
from embedway.catalog.licences import fold, is_allowed
from embedway.money import to_nanousd, usd
from embedway.selection.criteria import ANY_LICENCE, DEFAULT_MIN_ACCURACY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedway.config import ModelBenchmark
    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.candidate import Candidate
    from embedway.selection.criteria import ModelSelectionCriteria

#: Share of the texts from which the model must support their language.
_LANGUAGE_MATTERS = 0.2
#: Requirements that are not criteria, so that advice changes the model instead.
RUNS_HERE, QUALITY_SCORE = "runs here", "quality_score"
#: Lowest quality score that advice gives as an example.
_EXAMPLE_SCORE = 60


@public
@dataclass(frozen=True, slots=True)
class Reason:
    """A reason that excludes a model: the requirement, the model's value, and a value that would include it."""

    requirement: str
    message: str
    #: Value of the requirement that the model would meet; None if only dropping the requirement helps.
    would_pass: Any = None
    #: The message without the model's own values, by which models are grouped; empty if it is the message.
    kind: str = ""
    #: Whether the requirement is waived if no model that meets the others meets it: the default `min_accuracy`.
    soft: bool = False


def find_reasons(
    candidate: Candidate, criteria: ModelSelectionCriteria, analysis: TextAnalysis | None, *, anywhere: bool
) -> Iterable[Reason]:
    """Find all reasons that exclude a model. With `anywhere`, it does not have to run here now."""
    benchmark = candidate.benchmark
    if candidate.lacks and not anywhere:
        kind = candidate.lacks.replace(benchmark.model_name, "NAME")
        yield Reason(RUNS_HERE, f"cannot run here now: {candidate.lacks}", kind=kind)
    accuracy = candidate.accuracy
    if accuracy is None:
        table = quality_table(benchmark.model_name)
        remedy = f"set {table}.quality_score" if candidate.has_benchmark else f"add [{table}]"
        # In exact arithmetic, because 0.57 * 100 is below 57.
        enough = max(_EXAMPLE_SCORE, math.ceil(Fraction(str(criteria.min_accuracy)) * 100))
        yield Reason(QUALITY_SCORE, f"its quality is unknown: {remedy}", enough, "its quality is unknown")
    else:
        yield from _accuracy_reasons(benchmark, accuracy, criteria)
    if criteria.require_multilingual and not benchmark.multilingual:
        yield Reason("require_multilingual", "it is not multilingual", False)
    if criteria.require_local and candidate.leaves_machine:
        yield Reason("require_local", candidate.leaves_machine, False, "texts leave this machine")
    if criteria.max_latency_ms is not None and benchmark.avg_latency_ms > criteria.max_latency_ms:
        latency = benchmark.avg_latency_ms
        above = f"is above {criteria.max_latency_ms:g}"
        yield Reason("max_latency_ms", f"latency {latency:g} ms {above}", latency, f"its latency in ms {above}")
    if criteria.min_context is not None and candidate.context < criteria.min_context:
        reads = candidate.context
        kind = f"it accepts fewer than {criteria.min_context:,} tokens"
        yield Reason("min_context", f"it accepts {reads:,} tokens, not {criteria.min_context:,}", reads, kind)
    sizes = candidate.supported_sizes
    if criteria.dimensions is not None and criteria.dimensions not in sizes:
        message = f"it supports {sizes} dimensions, not {criteria.dimensions}"
        yield Reason("dimensions", message, kind=f"it does not support {criteria.dimensions} dimensions")
    yield from _licence_reasons(candidate, criteria)
    yield from _money_reasons(candidate, criteria)
    yield from _text_reasons(candidate, criteria, analysis)


def _accuracy_reasons(benchmark: ModelBenchmark, accuracy: float, criteria: ModelSelectionCriteria) -> Iterable[Reason]:
    scale = benchmark.quality_scale
    if not criteria.any_scale and not benchmark.is_compared:
        message = f"accuracy {accuracy:.3f}* is of another scale ({scale}), not compared with {MTEB_EN}"
        yield Reason("any_scale", message, True, f"its accuracy is of another scale than {MTEB_EN}")
    if accuracy < criteria.min_accuracy:
        mark, below = "" if scale == MTEB_EN else "*", f"is below {criteria.min_accuracy:g}"
        soft = criteria.min_accuracy == DEFAULT_MIN_ACCURACY
        shown = f"{accuracy:.3f}"
        if float(shown) >= criteria.min_accuracy:  # rounded up to the limit
            shown = str(accuracy)
        yield Reason("min_accuracy", f"accuracy {shown}{mark} {below}", accuracy, f"its accuracy {below}", soft)


def quality_table(model: str) -> str:
    """Return the name of the settings table of a model's benchmark."""
    return f"embedding.model_benchmarks.{json.dumps(model, ensure_ascii=False)}"


def _licence_reasons(candidate: Candidate, criteria: ModelSelectionCriteria) -> Iterable[Reason]:
    allowed = set(map(fold, criteria.licences))
    licence = candidate.licence
    if not allowed and candidate.non_commercial:
        yield Reason("licences", f"its licence, {licence}, forbids commercial use", (ANY_LICENCE,))
    elif allowed and not (
        ANY_LICENCE in allowed or is_allowed(licence, allowed) or is_allowed(candidate.benchmark.licence, allowed)
    ):
        terms = "it has the terms of a service" if licence == "service" else f"its licence is {licence or 'unknown'}"
        yield Reason("licences", terms, (ANY_LICENCE,))


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
            kind = f"its price is above {message.rpartition(' ')[2]} per million tokens"
            yield Reason("max_cost_per_million", message, price, kind)
    if criteria.max_total_cost is not None:
        most_nano = to_nanousd(criteria.max_total_cost, name="max_total_cost")
        cost = candidate.cost_nanousd
        if price is None:
            yield Reason("max_total_cost", "its price is unknown")
        elif cost is None:
            yield Reason("max_total_cost", "the texts' tokens were not counted")
        elif cost > most_nano:
            message = f"the texts cost ${usd(cost)}, above ${usd(most_nano)}"
            kind = f"the texts cost more than ${usd(most_nano)}"
            yield Reason("max_total_cost", message, decimal.Decimal(usd(cost)), kind)


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
        about = "about " if tokens.about or not tokens.own else ""
        message = f"the longest text has {about}{tokens.longest:,} tokens; it accepts {reads:,}"
        yield Reason("require_fit", message, False, "the longest text has more tokens than it accepts")
