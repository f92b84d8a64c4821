"""Reports on given vectors: `embedder.quality.validate`."""

import numpy as np
import pytest

from embedway import Config, DimensionsError, Embedder

TEXTS = ["a harbour in winter", "prices of copper", "a short poem"]


@pytest.fixture
def embedder(tmp_path):
    settings = {"weights.directory": str(tmp_path), "weights.offline": True, "ledger.backend": "none"}
    with Embedder(config=Config.load(environ={}, overrides={**settings, "cache.backend": "memory"})) as made:
        yield made


def rows(count, size):
    found = np.random.default_rng(1).normal(size=(count, size)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_expected_size_is_the_default_one_or_the_given_one(embedder):
    model = "text-embedding-3-small"
    report = embedder.quality.validate(rows(3, 512), TEXTS, model=model)
    assert (report.valid, report.dimensions, report.expected_dimensions) == (False, 512, 1536)
    assert report.check("dimension").passed is False
    report = embedder.quality.validate(rows(3, 512), TEXTS, model=model, dimensions=512)
    assert (report.valid, report.dimensions, report.expected_dimensions) == (True, 512, 512)
    with pytest.raises(DimensionsError):
        embedder.quality.validate(rows(3, 5), TEXTS, model=model, dimensions=5000)


def test_repeated_texts_are_no_similarity(embedder):
    vectors = rows(3, 384)
    once = embedder.quality.validate(vectors, TEXTS)
    again = embedder.quality.validate(vectors.repeat(4, axis=0), [text for text in TEXTS for _ in range(4)])
    assert (again.mean_similarity, again.sample) == (pytest.approx(once.mean_similarity), 3)
    assert again.greatest_similarity < 0.9


@pytest.mark.parametrize("vectors", [rows(3, 100), rows(3, 384) * 2])
def test_a_report_on_vectors_says_nothing_about_a_service(embedder, vectors):
    report = embedder.quality.validate(vectors, TEXTS)
    assert not report.valid
    assert not [one.message for one in report.checks if "upstream_model" in one.message]
