"""Order of models by score: equal to that of exact fractions, within the documented precision."""

import dataclasses
import decimal
import itertools
import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway import Config, ModelBenchmark
from embedway.config.types import replace_unchecked
from embedway.errors import UsageError
from embedway.selection.analysis import analyze
from embedway.selection.candidate import Candidate, TokenEstimate
from embedway.selection.candidates import Candidates
from embedway.selection.criteria import PRESETS, ModelSelectionCriteria
from embedway.selection.scoring import SCORE_DIGITS, score, select

#: Two scores that are equal after rounding differ by less than one unit of the last digit, if the leading digit is 1.
PRECISION = Fraction(10) ** (1 - SCORE_DIGITS)
PLAIN = analyze(["A vector belongs to one space."])
#: Texts in one or several languages, with or without code.
ANALYSES = [
    dataclasses.replace(PLAIN, languages=(), multilingual=multilingual, contains_code=code)
    for multilingual, code in itertools.product((False, True), repeat=2)
]


def fraction(number):
    """Return the decimal number that the float's text shows."""
    return Fraction(str(number))


def exact_score(row, criteria, analysis):
    benchmark = row.candidate.benchmark
    total = fraction(criteria.accuracy_weight) * fraction(benchmark.quality_score or 0) / 100
    total += fraction(criteria.speed_weight) / (1 + fraction(benchmark.avg_latency_ms) / 100)
    if benchmark.cost_per_million_tokens is not None:
        total += fraction(criteria.cost_weight) / (1 + Fraction(benchmark.cost_per_million_tokens))
    if analysis.multilingual and benchmark.multilingual:
        total *= Fraction(6, 5)
    if analysis.contains_code and "code" in benchmark.strengths:
        total *= Fraction(11, 10)
    return total


def in_exact_order(rows, exact):
    """Return the models in the order of exact scores, with ties as documented."""

    def key(row):
        benchmark = row.candidate.benchmark
        price = benchmark.cost_per_million_tokens
        tie = price is None, price or 0, benchmark.avg_latency_ms, -(benchmark.quality_score or 0), row.model
        return (-exact[row.model], *tie)

    return [row.model for row in sorted(rows, key=key)]


def check_order(candidates, criteria, analysis):
    """Compare the order with the exact one; return the pairs that differ only because of the precision."""
    rows = [row for row in score(candidates, criteria, analysis, anywhere=True) if row.rank]
    exact = {row.model: exact_score(row, criteria, analysis) for row in rows}
    for row in rows:
        assert row.score == pytest.approx(float(exact[row.model]), rel=1e-11, abs=0)
    pairs = [
        (one.model, model) for one, model in zip(rows, in_exact_order(rows, exact), strict=True) if one.model != model
    ]
    for one, other in pairs:
        assert abs(exact[one] - exact[other]) <= PRECISION * exact[one]
    return pairs


@pytest.fixture(scope="module")
def shipped():
    return Candidates(Config.load(environ={})).all()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("analysis", ANALYSES)
def test_presets_order_the_shipped_benchmarks_as_exact_fractions_do(shipped, preset, analysis):
    assert not check_order(shipped, ModelSelectionCriteria.preset(preset, min_accuracy=0), analysis)


def test_random_criteria_order_the_shipped_benchmarks_as_exact_fractions_do(shipped):
    chance = random.Random(13)
    measured = [one for one in shipped if one.accuracy is not None]
    assert len(measured) > 30
    for _ in range(2000):
        digits = chance.choice([0, 1, 2, 4, 17])
        weights = [round(chance.random() * chance.choice([1, 1, 10]), digits) for _ in range(3)]
        if any(weights):
            some = chance.sample(measured, 16)
            assert not check_order(some, ModelSelectionCriteria(*weights, min_accuracy=0), chance.choice(ANALYSES))


def model(name, quality, latency, price, **more):
    return Candidate(
        ModelBenchmark(
            model_name=name,
            provider="x",
            quality_score=quality,
            avg_latency_ms=latency,
            cost_per_million_tokens=price,
            tokens_per_second=1,
            quality_confirmed=True,
            speed_confirmed=True,
            max_context_length=512,
            embedding_dimensions=8,
            **more,
        )
    )


#: Numbers whose scores are often equal: accuracy, speed and cost are multiples of a tenth.
MODELS = st.lists(
    st.builds(
        lambda quality, latency, price, several, code: (quality, latency, price, several, ("code",) if code else ()),
        st.integers(0, 10).map(lambda tenths: tenths * 10),
        st.sampled_from([25, 100, 150, 300, 400]),
        st.sampled_from(["0", "0.25", "1", "1.5", "3", "4", None]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
).map(
    lambda rows: [
        model(f"m{number}", quality, latency, price, multilingual=several, strengths=strengths)
        for number, (quality, latency, price, several, strengths) in enumerate(rows)
    ]
)


@settings(deadline=None, max_examples=500)
@given(MODELS, st.tuples(*[st.integers(0, 10)] * 3).filter(any), st.sampled_from(ANALYSES))
def test_scores_that_are_equal_in_exact_arithmetic_are_ties(models, tenths, analysis):
    weights = [tenth / 10 for tenth in tenths]
    assert not check_order(models, ModelSelectionCriteria(*weights, min_accuracy=0), analysis)


def test_floats_that_differ_in_the_last_bit_are_a_tie():
    criteria = ModelSelectionCriteria(0.1, 0.2, 0.3, min_accuracy=0)
    # 0.1 * 0.2 + 0.2 / 2 + 0.3 and 0.1 * 0.2 + 0.2 / 1.25 + 0.3 / 1.25 are both 0.42; floats make the second larger.
    assert 0.1 * 0.2 + 0.2 / 2 + 0.3 < 0.1 * 0.2 + 0.2 * (1 / 1.25) + 0.3 * (1 / 1.25)
    cheaper, faster = model("b", 20.0, 100, "0"), model("a", 20.0, 25, "0.25")
    for rows in ([cheaper, faster], [faster, cheaper]):
        assert [(row.model, row.score) for row in score(rows, criteria)] == [("b", 0.42), ("a", 0.42)]


@given(st.just(0) | st.integers(10**4 + 1, 10**6), st.integers(0, 10**6))
def test_accuracy_is_the_float_of_the_written_number(hundredths, tenths):
    quality = hundredths / 10**4
    accuracy = model("m", quality, 1, "0").accuracy
    assert accuracy == float(fraction(quality) / 100)
    # A minimum equal to the model's own number includes the model, as with exact numbers.
    least = tenths / 10**6
    table = score([model("m", quality, 1, "0")], ModelSelectionCriteria(min_accuracy=least))
    assert bool(table[0].rank) == (fraction(quality) / 100 >= fraction(least))
    assert score([model("m", quality, 1, "0")], ModelSelectionCriteria(min_accuracy=accuracy))[0].rank == 1


def test_weights_whose_scores_would_overflow_are_refused():
    with pytest.raises(UsageError, match="are too large; divide all by one number"):
        ModelSelectionCriteria(1e308, 1e308, 1e308)
    large = ModelSelectionCriteria(3e299, 3e299, 3e299, min_accuracy=0)
    selection = select([model("m", 99, 0.001, "0", multilingual=True, strengths=("code",))], large, ANALYSES[-1])
    assert math.isfinite(json.loads(json.dumps(selection.to_json()))["table"][0]["score"])


PRICES = st.one_of(
    st.decimals(decimal.Decimal("0.000000001"), 10**9, allow_nan=False, places=9),
    st.integers(1, 10**40).map(lambda digits: decimal.Decimal(digits).scaleb(-40)),
).filter(lambda price: price >= decimal.Decimal("0.000000001"))


@given(PRICES, st.integers(0, 10**15), st.integers(3, 28))
def test_cost_is_exact_and_rounded_up_whatever_the_callers_decimal_context(price, tokens, digits):
    benchmark = replace_unchecked(model("m", 60, 1, None).benchmark, cost_per_million_tokens=price)
    candidate = Candidate(benchmark, tokens=TokenEstimate(1, tokens, own=True))
    with decimal.localcontext(prec=digits):
        assert candidate.cost_nanousd == math.ceil(Fraction(price) * 1000 * tokens)
