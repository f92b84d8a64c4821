"""The gate that a way of running must pass before its speed counts, and what tuning keeps."""

import asyncio

import numpy as np
import pytest

from embedway import AsyncEmbedder
from embedway.local import tune
from embedway.local.backend import SessionOptions
from embedway.local.choice import read_choice
from embedway.local.model import LocalModel

RNG = np.random.default_rng(5)


@pytest.fixture
def reference():
    vectors = RNG.standard_normal((200, 64)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def turned(vectors, cosine):
    """Vectors of length 1 at that cosine to the given ones."""
    other = RNG.standard_normal(vectors.shape)
    other -= np.einsum("ij,ij->i", other, vectors)[:, None] * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * other).astype(np.float32)


def test_equal_vectors_pass(reference):
    cosine, neighbours, identical, reason = tune._gate(reference, reference)
    assert (cosine, neighbours, identical, reason) == (pytest.approx(1), 1, 1, "")


def test_one_probe_that_is_off_is_enough(reference):
    vectors = reference.copy()
    vectors[7] = turned(reference[7:8], 0.9990)[0]
    cosine, *_, reason = tune._gate(vectors, reference)
    assert cosine == pytest.approx(0.9990, abs=1e-5)
    assert "lowest cosine" in reason


def test_neighbours_count_beside_the_cosine():
    # Probes so near to each other that turning them a little shuffles who is next to whom.
    center = RNG.standard_normal(64)
    vectors = center + 0.05 * RNG.standard_normal((200, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    near = turned(vectors, 0.99955)
    cosine, _, identical, reason = tune._gate(near, vectors)
    assert cosine >= tune.LOWEST_COSINE
    assert identical < tune.SAME_NEIGHBOURS
    strict = tune._same_neighbours(near, vectors, tie=0.0)
    assert strict == identical
    assert tune._same_neighbours(near, vectors, tie=2.0) == 1
    assert reason == "" or "neighbours" in reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_out(reference, bad):
    vectors = reference.copy()
    vectors[0, 0] = bad
    assert "not finite" in tune._gate(vectors, reference)[-1]


@pytest.fixture
def short(monkeypatch):
    """Few probes and runs: this is not about speed."""
    monkeypatch.setattr(tune, "probe_texts", lambda tokens: [f"probe {n} " * (n + 1) for n in range(12)])
    monkeypatch.setattr(tune, "_SINGLE_RUNS", 1)
    monkeypatch.setattr(tune, "_TOKEN_BUDGETS", (256,))


def test_what_is_measured_is_kept_and_used(config, short):
    async def main():
        async with AsyncEmbedder(config) as embedder:
            report = await embedder.tune()
        async with AsyncEmbedder(config) as embedder:
            return report, (await embedder.describe()).runtime

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
    compute = LocalModel._compute

    def faulty(self, options, rows, width):
        vectors = compute(self, options, rows, width)
        return vectors[:, ::-1].copy() if options == wrong else vectors

    monkeypatch.setattr(tune, "_ways", lambda threads: ways)
    monkeypatch.setattr(LocalModel, "_compute", faulty)

    async def main():
        async with AsyncEmbedder(config) as embedder:
            return await embedder.tune()

    report = asyncio.run(main())
    out = next(row for row in report.rows if row.options == wrong)
    assert not out.passed
    assert "lowest cosine" in out.reason
    assert report.bulk.options == report.single.options == ways[1]
