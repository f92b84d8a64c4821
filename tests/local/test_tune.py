"""Quality gate that a configuration must pass before its speed counts, and the stored tuning result."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config
from embedway.batching.batches import fill_batches
from embedway.errors import EmbedwayError, RuntimeUnavailableError
from embedway.local import cpu, tune
from embedway.local.backend import SessionOptions
from embedway.local.encoder import Encoder
from embedway.local.runtime_choice import read_choice
from embedway.types import TokenizedTexts
from inside import candidate_options, check_quality, same_neighbours

RNG = np.random.default_rng(5)


@pytest.fixture
def reference():
    vectors = RNG.standard_normal((200, 64)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def turned(vectors, cosine):
    """Return vectors of length 1 with that cosine to the given ones."""
    other = RNG.standard_normal(vectors.shape)
    other -= np.einsum("ij,ij->i", other, vectors)[:, None] * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * other).astype(np.float32)


def test_equal_vectors_pass(reference):
    cosine, neighbours, identical, reason = check_quality(reference, reference)
    assert (cosine, neighbours, identical, reason) == (pytest.approx(1), 1, 1, "")


def test_one_probe_that_is_off_is_enough(reference):
    vectors = reference.copy()
    vectors[7] = turned(reference[7:8], 0.9990)[0]
    cosine, *_, reason = check_quality(vectors, reference)
    assert cosine == pytest.approx(0.9990, abs=1e-5)
    assert "lowest cosine" in reason


def test_neighbours_count_beside_the_cosine():
    # Probes so close to each other that a small rotation changes their nearest neighbours.
    center = RNG.standard_normal(64)
    vectors = center + 0.05 * RNG.standard_normal((200, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    near = turned(vectors, 0.99955)
    cosine, _, identical, reason = check_quality(near, vectors)
    assert cosine >= tune.LOWEST_COSINE
    assert identical < tune.SAME_NEIGHBOURS
    strict = same_neighbours(near, vectors, tie=0.0)
    assert strict == identical
    assert same_neighbours(near, vectors, tie=2.0) == 1
    assert reason == "" or "neighbours" in reason


def test_a_vector_of_zeros_is_out():
    vectors = RNG.standard_normal((128, 64)).astype(np.float32) + 3
    vectors[0] = -3
    zeroed = vectors.copy()
    zeroed[0] = 0
    assert "zeros" in check_quality(zeroed, vectors)[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_out(reference, bad):
    vectors = reference.copy()
    vectors[0, 0] = bad
    assert "NaN or infinite" in check_quality(vectors, reference)[-1]


@pytest.fixture
def short(monkeypatch):
    """Use few probes and runs: these tests do not measure speed."""
    monkeypatch.setattr(tune, "probe_texts", lambda tokens: [f"probe {n} " * (n + 1) for n in range(12)])
    monkeypatch.setattr(tune, "_SINGLE_RUNS", 1)
    monkeypatch.setattr(tune, "_TOKEN_BUDGETS", (256,))


def test_what_is_measured_is_kept_and_used(config, short):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            report = await embedder.models.tune()
        async with AsyncEmbedder(config=config) as embedder:
            return report, (await embedder.models.describe()).runtime

    report, runtime = asyncio.run(main())
    assert report.bulk.passed
    assert report.single.passed
    kept = read_choice(config.tune.directory, report_weights(report))
    assert (kept.bulk, kept.single) == (report.bulk.options, report.single.options)
    assert runtime == str(kept.bulk)


def report_weights(report):
    import json

    return json.loads(report.stored_at.read_text())["weights"]


def test_a_fast_way_that_is_wrong_is_thrown_out(config, short, monkeypatch):
    wrong = SessionOptions("onnxruntime", "f32", 1, 1)
    ways = [wrong, SessionOptions("onnxruntime", "f32", 1, 2)]
    compute = Encoder.compute

    def faulty(self, options, rows, width):
        vectors = compute(self, options, rows, width)
        return vectors[:, ::-1].copy() if options == wrong else vectors

    monkeypatch.setattr(tune, "_candidate_options", lambda threads: ways)
    monkeypatch.setattr(Encoder, "compute", faulty)

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            return await embedder.models.tune()

    report = asyncio.run(main())
    out = next(row for row in report.rows if row.options == wrong)
    assert not out.passed
    assert "lowest cosine" in out.reason
    assert report.bulk.options == report.single.options == ways[1]


def on_a_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_other_neighbours_are_out_however_high_the_cosine():
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    shuffled = on_a_circle(angles + 0.03 * np.random.default_rng(2).choice([-1, 1], 128))
    cosine, neighbours, _, reason = check_quality(shuffled, on_a_circle(angles))
    assert cosine >= tune.LOWEST_COSINE
    assert neighbours < tune.SAME_NEIGHBOURS
    assert "keep their neighbours" in reason


def test_neighbours_that_tie_in_float32_may_change_places():
    angles = np.random.default_rng(3).uniform(0, 2 * np.pi, 128)
    moved = on_a_circle(angles + 0.0015 * np.random.default_rng(4).choice([-1, 1], 128))
    _, neighbours, identical, reason = check_quality(moved, on_a_circle(angles))
    assert (neighbours, reason) == (1, "")
    assert identical < 1


@pytest.mark.parametrize("scale", [0.01, 100])
def test_the_gate_looks_at_directions_and_not_at_lengths(reference, scale):
    assert not check_quality(scale * reference, reference)[-1]


SLOW = SessionOptions("onnxruntime", "f32", 1, 2)
FAST = SessionOptions("openvino", "f32", 2, 2)
QUICK_QUERY = SessionOptions("openvino", "f32", 1, 2)
WRONG = SessionOptions("openvino", "bf16", 2, 2)
GONE = SessionOptions("openvino", "bf16", 1, 2)
#: Seconds per text for each configuration, in bulk and for a single text.
COSTS = {SLOW: (1.0, 1.0), FAST: (0.1, 0.5), QUICK_QUERY: (0.4, 0.2), WRONG: (0.01, 0.01)}


class FakeModel:
    """Model that computes nothing: each call advances a clock by the cost of its configuration."""

    model = "acme/tiny"
    max_tokens = 64
    space = SimpleNamespace(dimensions=16)
    recipe = SimpleNamespace(weights_sha256="ab" * 32)

    def __init__(self, turn):
        self.now, self.turn, self.dropped, self.lock = 0.0, turn, [], threading.Lock()

    def tokenize(self, texts, input_type):
        ids = tuple(np.arange(row, row + 3 + row % 5, dtype=np.int32) for row in range(len(texts)))
        return TokenizedTexts(ids, np.array([len(row) for row in ids], np.int32))

    def compute(self, options, rows, width):
        if options not in COSTS:
            raise RuntimeUnavailableError("not on this CPU")
        with self.lock:
            self.now += COSTS[options][len(rows) == 1] * len(rows)
        exact = [np.random.default_rng(int(row[0])).standard_normal(16) for row in rows]
        return self.turn(options, np.stack(exact).astype(np.float32))

    def drop(self, options):
        self.dropped.append(options)


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """Tune a fake model with its own clock; return the report, the model and the messages."""

    def run(ways, turn):
        model, said = FakeModel(turn), []
        monkeypatch.setattr(tune, "time", SimpleNamespace(perf_counter=lambda: model.now, sleep=lambda _: None))
        monkeypatch.setattr(tune, "_candidate_options", lambda threads: ways)
        config = Config.load(environ={}, overrides={"tune.directory": str(tmp_path), "local.threads": 2})
        return tune.tune_model(model, config, said.append, fill_batches), model, said

    return run


def reversed_if_wrong(options, vectors):
    return vectors[:, ::-1] if options == WRONG else vectors


def test_bulk_and_queries_each_take_the_fastest_way_that_is_right(tuned, tmp_path):
    report, _, said = tuned([SLOW, WRONG, FAST, QUICK_QUERY], reversed_if_wrong)
    assert (report.bulk.options, report.single.options) == (FAST, QUICK_QUERY)
    assert {row.options for row in report.rows if not row.passed} == {WRONG}
    assert max(report.rows, key=lambda row: row.texts_per_s).options == WRONG
    assert any("rejected: lowest cosine" in line for line in said)
    stored = read_choice(tmp_path, "ab" * 32)
    assert (stored.bulk, stored.single, stored.token_budget) == (FAST, QUICK_QUERY, report.bulk.token_budget)


def test_unavailable_options_are_reported_and_left_out(tuned):
    report, model, said = tuned([GONE, SLOW], reversed_if_wrong)
    assert {row.options for row in report.rows} == {SLOW}
    assert f"{GONE}: not on this CPU" in said
    assert {GONE, SLOW} <= set(model.dropped)


def test_when_nothing_passes_nothing_is_kept(tuned, tmp_path):
    with pytest.raises(EmbedwayError, match=r"acme/tiny: no session options passed the quality gate"):
        tuned([WRONG, GONE], reversed_if_wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "installed", "ways"),
    [
        ((), ("onnxruntime",), [("onnxruntime", "f32")]),
        ((), ("onnxruntime", "openvino"), [("onnxruntime", "f32"), ("openvino", "f32")]),
        (
            ("avx512_bf16",),
            ("onnxruntime", "openvino"),
            [("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16")],
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize(("threads", "streams"), [(1, [1]), (2, [1, 2]), (8, [1, 4, 8])])
def test_ways_are_those_that_this_cpu_has(monkeypatch, flags, installed, ways, threads, streams):
    monkeypatch.setattr(cpu, "facts", lambda: cpu.CpuFacts("x", frozenset(flags), cores=threads, schedulable=threads))
    monkeypatch.setattr(tune, "available", installed.__contains__)
    found = list(candidate_options(threads))
    assert {(way.backend, way.precision) for way in found} == set(ways)
    for way in ways:
        assert [item.streams for item in found if (item.backend, item.precision) == way] == streams
    assert {item.threads for item in found} == {threads}
