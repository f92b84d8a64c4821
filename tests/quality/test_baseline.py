"""Documents of baselines: anything that no version writes is one error, and what is read can be used."""

import copy
import json
import random
from dataclasses import asdict

import numpy as np
import pytest

from embedway import LedgerError, Pair, Space
from embedway.ledger.records import UnreadableRecordError
from embedway.quality.baseline import Baseline, PairSet, RouteBaseline
from embedway.quality.baseline_reports import summary_of
from embedway.quality.canaries import CANARIES, CANARY_VERSION
from embedway.quality.drift import Observation, compare
from embedway.quality.noise import Noise
from embedway.quality.pairs import digest_of
from embedway.quality.retrieval import QueryResult
from embedway.space import INPUT_TYPES

SPACE = Space("m", "1", dimensions=4, pooling="service", normalized=True)
PAIRS = tuple(Pair(str(n), "" if n else "shop", f"query {n}", f"passage {n}") for n in range(3))
VALUES = [None, 5, -1, 0, 1.5, True, 10**400, float("nan"), float("inf")]
VALUES += ["x", "", "\ud800", [], {}, [[]], ["x"], {"a": 1}]


def baseline():
    rows = np.random.default_rng(3).normal(size=(len(CANARIES), 4)).astype(np.float32)
    noise = Noise({"repeat": 0.0}, 1e-7, 1e-8, 1e-8)
    results = {name: {pair.id: QueryResult("shop", 1, ("0", "1")) for pair in PAIRS} for name in ("built-in", "own")}
    routes = {
        name: RouteBaseline(
            name, 5.0, price, dict.fromkeys(INPUT_TYPES, rows), dict.fromkeys(INPUT_TYPES, noise), results
        )
        for name, price in (("routes.r0", 20), ("routes.r1", None))
    }
    sets = (PairSet("built-in", 1, "abc", ()), PairSet("own", 1, digest_of(PAIRS), PAIRS))
    return Baseline("acme/m", SPACE, 5.0, "1.0", CANARY_VERSION, sets, routes)


def places_in(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, one in items:
        yield from places_in(one, (*place, key))


def use(found):
    """Use a baseline as `list` and `check` do."""
    json.dumps(asdict(summary_of(found)), allow_nan=False)
    for one in found.routes.values():
        answers = Observation({kind: [one.vectors[kind], one.vectors[kind]] for kind in INPUT_TYPES}, one.results)
        assert compare(one, answers, min_accuracy_ratio=0.9).verdict == "passed"
    Baseline.from_json(found.to_json())


def test_a_baseline_is_read_as_it_was_written():
    written, read = baseline(), Baseline.from_json(baseline().to_json())
    use(read)
    assert read.to_json() == written.to_json()
    assert read.sets[1].pairs == PAIRS


def test_each_changed_value_is_one_error_or_still_usable():
    document = json.loads(baseline().to_json())
    places = [place for place in places_in(document) if place]
    assert len(places) > 100
    refused = 0
    for place in places:
        for value in VALUES:
            changed = copy.deepcopy(document)
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
            try:
                found = Baseline.from_json(json.dumps(changed))
            except UnreadableRecordError:
                refused += 1
            else:
                use(found)
    assert refused > len(places) * len(VALUES) // 2


def test_cut_and_mixed_documents_are_one_error():
    text, chance = baseline().to_json(), random.Random(7)
    for _ in range(300):
        start, end = sorted(chance.sample(range(len(text)), 2))
        with pytest.raises(UnreadableRecordError):
            Baseline.from_json(text[:start] + text[end:][: chance.randrange(1, len(text))] + "]")


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 10_000, '{"version": 1e999}'])
def test_documents_beyond_the_limits_of_the_reader_are_one_error(text):
    with pytest.raises(LedgerError, match="--replace"):
        Baseline.from_json(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["vectors"].pop("query"),
        lambda one: one["vectors"]["query"].update(shape=[4, len(CANARIES)]),
        lambda one: one["vectors"].update(query=one["vectors"]["query"] | {"shape": [-1, 4]}),
        lambda one: one["noise"].pop("document"),
        lambda one: one["noise"]["query"].update(largest=3),
        lambda one: one.update(route="routes.r1"),
        lambda one: one.update(created=1e12),
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    document = json.loads(baseline().to_json())
    change(document["routes"][0])
    with pytest.raises(UnreadableRecordError, match="damaged"):
        Baseline.from_json(json.dumps(document))


def test_a_newer_version_names_both_ways_out():
    document = json.loads(baseline().to_json())
    with pytest.raises(UnreadableRecordError, match="newer embedway that wrote it, or replace the baseline with"):
        Baseline.from_json(json.dumps({**document, "version": 2}))
