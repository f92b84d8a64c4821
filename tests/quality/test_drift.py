"""Faults of a route with real vectors: which are noticed, and that an unchanged route raises no alarm."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from drift_faults import FAULTS, PROMPT, SETS, WIDTH, Route, bf16, drifted, int8, permuted, real_vectors, unchanged
from embedway import LedgerError
from embedway.quality.baseline import Baseline
from embedway.quality.canaries import CANARIES, orders
from embedway.quality.noise import CEILING, FLOOR, distances, measure_noise
from embedway.quality.retrieval import accuracy, overlap, retrieve

NOISES = {"exact": unchanged, "bf16": bf16, "int8": int8}


@pytest.fixture(scope="module")
def vectors(default_model_directory):
    return real_vectors(default_model_directory)


def check(vectors, *faults, noise=unchanged, prompt="", seed=0):
    baseline = asyncio.run(Route(vectors, noise).baseline())
    return asyncio.run(Route(vectors, *faults, noise, prompt=prompt).check(baseline, seed))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    "fault",
    ["another model", "half of the dimensions", "int4", "rows permuted", "rows sorted by length", "drift of 5 %"],
)
def test_a_fault_is_noticed_on_an_exact_and_on_noisy_routes(vectors, noise, fault):
    assert check(vectors, FAULTS[fault], noise=NOISES[noise]).verdict == "drifted"


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_another_prompt_is_noticed(vectors, noise):
    found = check(vectors, noise=noise, prompt=PROMPT)
    assert found.verdict == "drifted"
    assert len(found.differing) == len(CANARIES)


def test_a_loss_of_precision_names_the_number_of_canaries(vectors):
    found = check(vectors, int8)
    assert found.verdict == "drifted"
    assert f"{len(found.differing)} of {len(CANARIES)} canaries (query) differ" in found.reasons[0]
    assert found.accuracy_ratio == 1


def test_permuted_rows_are_named(vectors):
    assert "rows of answers are permuted" in check(vectors, permuted).reasons[0]


@pytest.mark.parametrize("seed", range(20))
def test_two_swapped_rows_are_noticed_in_any_order(vectors, seed):
    assert "rows of answers are permuted" in check(vectors, FAULTS["two rows swapped"], seed=seed).reasons[0]


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_an_unchanged_route_passes_200_checks(vectors, noise):
    baseline = asyncio.run(Route(vectors, noise).baseline())

    async def checks():
        return [await Route(vectors, noise).check(baseline, seed, sets=()) for seed in range(200)]

    assert {found.verdict for found in asyncio.run(checks())} == {"passed"}


def test_a_slow_drift_is_measured_against_the_baseline(vectors):
    baseline = asyncio.run(Route(vectors, bf16).baseline())
    shares = [0.0005 * step for step in range(1, 21)]
    verdicts = [asyncio.run(Route(vectors, drifted(share), bf16).check(baseline)).verdict for share in shares]
    first = verdicts.index("drifted")
    assert set(verdicts[first:]) == {"drifted"}
    assert shares[first] <= 0.005
    # The same steps are not noticed from one check to the next.
    last = asyncio.run(Route(vectors, drifted(shares[-2]), bf16).baseline())
    assert asyncio.run(Route(vectors, drifted(shares[-1]), bf16).check(last)).verdict == "passed"


def test_a_small_drift_that_noise_hides_is_in_the_mean(vectors):
    found = check(vectors, drifted(0.01), noise=int8)
    assert not found.differing
    assert "all canaries (query) differ a little" in found.reasons[0]


def test_the_limit_follows_the_noise(vectors):
    limits = {
        name: asyncio.run(Route(vectors, noise).baseline()).noise["document"].limit for name, noise in NOISES.items()
    }
    assert limits["exact"] == FLOOR < limits["bf16"] < limits["int8"] < CEILING


def test_sources_of_noise_are_measured(vectors):
    noise = asyncio.run(Route(vectors, int8).baseline()).noise["document"]
    assert noise.sources["repeat"] == noise.sources["order"] == 0
    assert noise.sources["batch_size"] > FLOOR


def test_vectors_of_another_size_are_a_drift(vectors):
    found = check(vectors, lambda rows, _texts: rows[:, :100])
    assert found.verdict == "drifted"
    assert "have 100 dimensions" in found.reasons[0]


def test_a_lower_accuracy_is_a_drift_by_group_and_in_all(vectors):
    baseline = asyncio.run(Route(vectors).baseline())
    rng = np.random.default_rng(0)
    passages = {pair.passage for pair in SETS[0].pairs if pair.group == "code"}
    worse = {**vectors, **{text: rng.standard_normal(WIDTH).astype(np.float32) for text in passages}}
    found = asyncio.run(Route(worse).check(baseline))
    assert found.groups["code"].accuracy < found.groups["code"].baseline
    assert any("accuracy of group 'code'" in reason for reason in found.reasons)
    assert not found.differing


def test_a_distance_keeps_the_digits_of_a_small_difference():
    left = np.array([[1.0, 0.0]], np.float32)
    right = np.array([[1.0, 1e-5]], np.float32)
    assert distances(left, right)[0] == pytest.approx(5e-11, rel=1e-3)


def test_a_missing_number_has_the_largest_distance():
    assert distances(np.array([[np.nan, 1.0]], np.float32), np.ones((1, 2), np.float32))[0] == 2


def test_the_reference_has_less_noise_than_one_answer(vectors):
    rows = np.stack([vectors[text] for text in CANARIES])
    rng = np.random.default_rng(0)
    variants = {str(n): rows + 0.01 * rng.standard_normal(rows.shape).astype(np.float32) for n in range(6)}
    reference, _ = measure_noise(variants)
    assert distances(reference, rows).max() < min(distances(one, rows).min() for one in variants.values())


def test_both_orders_of_a_check_are_opposite():
    one, other = orders(len(CANARIES), seed=3)
    assert one == other[::-1] != orders(len(CANARIES), seed=4)[0]
    assert sorted(one) == list(range(len(CANARIES)))


def test_ranks_and_top_results():
    corner = np.eye(3, dtype=np.float32)
    found = retrieve(["a", "b", "c"], ["g", "g", "h"], corner[[0, 2, 2]], corner)
    assert [found[name].rank for name in "abc"] == [1, 3, 1]
    assert found["b"].top[0] == "c"
    assert accuracy(found.values()) == pytest.approx(2 / 3)
    assert overlap(found, found) == 1
    assert overlap(found, {}) is accuracy([]) is None


def test_a_baseline_is_read_as_it_was_written(vectors):
    route = asyncio.run(Route(vectors, bf16).baseline())
    written = Baseline("m", Route.space, 5.0, "1", 1, SETS, {"r": route})
    read = Baseline.from_json(written.to_json())
    assert read.routes["r"].noise == route.noise
    assert read.routes["r"].results == route.results
    assert all(np.array_equal(read.routes["r"].vectors[kind], route.vectors[kind]) for kind in route.vectors)
    assert read.sets[0].pairs == ()  # built-in ones are part of the package
    assert SETS[0].pairs[0].query not in written.to_json()
    own = replace(written, sets=(replace(SETS[0], name="own"),))
    assert Baseline.from_json(own.to_json()).sets[0].pairs == SETS[0].pairs


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": "x"}', "null"])
def test_a_damaged_baseline_is_an_error_that_names_the_command(text):
    with pytest.raises(LedgerError, match="--replace"):
        Baseline.from_json(text)


def test_a_newer_baseline_is_refused():
    with pytest.raises(LedgerError, match="newer embedway"):
        Baseline.from_json(json.dumps({"version": 2}))
