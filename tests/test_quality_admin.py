"""`embedder.quality.validate` with the accuracy on the pairs of a baseline."""

import numpy as np
import pytest

from async_tests import in_loop
from drift_faults import WIDTH, real_vectors, rotated
from drifting_server import DriftingServer, config_of
from embedway import AsyncEmbedder, BudgetExceededError, Embedder, UsageError
from embedway.providers.fake import vector_of
from inside import engine_of

TEXTS = ["harbour", "something else"]
VECTORS = np.stack([vector_of(text, WIDTH) for text in TEXTS])


def another_model(_rows, texts):
    return np.stack([vector_of(text, WIDTH) for text in texts])


@pytest.fixture(scope="module")
def vectors(default_model_directory):
    return real_vectors(default_model_directory)


@pytest.fixture
def servers(vectors):
    made = [DriftingServer(vectors), DriftingServer(vectors)]
    yield made
    for server in made:
        server.close()


@in_loop
async def test_the_accuracy_is_compared_only_on_request_and_is_booked(servers, tmp_path):
    server = servers[0]
    async with AsyncEmbedder(config=config_of([server], tmp_path)) as embedder:
        await embedder.quality.baseline()
        sent = server.texts
        assert (await embedder.quality.validate(VECTORS, TEXTS)).semantic is None
        assert server.texts == sent
        report = await embedder.quality.validate(VECTORS, TEXTS, semantic=True)
        found = report.semantic
        assert report.valid
        assert found.accuracy == found.baseline > 0.3
        assert (found.pairs, found.routes, found.message) == (67, ("routes.r0",), "")
        assert server.texts == sent + 2 * 67
        entries = await engine_of(embedder).budgets.ledger.entries()
        assert sum(one.texts for one in entries) == server.texts
        assert found.cost_nanousd > 0


@in_loop
async def test_a_lower_accuracy_is_not_valid(servers, tmp_path):
    async with AsyncEmbedder(config=config_of(servers[:1], tmp_path)) as embedder:
        await embedder.quality.baseline()
        servers[0].fault = rotated  # another space with the same accuracy
        assert (await embedder.quality.validate(VECTORS, TEXTS, semantic=True)).valid
        servers[0].fault = another_model
        report = await embedder.quality.validate(VECTORS, TEXTS, semantic=True)
    assert not report.valid
    assert report.semantic.accuracy < 0.9 * report.semantic.baseline
    assert "below 90% of the baseline's" in report.semantic.message


@pytest.mark.parametrize("backend", ["sqlite", "none"])
@in_loop
async def test_without_a_baseline_nothing_is_sent_and_the_vectors_are_valid(servers, tmp_path, backend):
    async with AsyncEmbedder(config=config_of(servers, tmp_path, **{"ledger.backend": backend})) as embedder:
        report = await embedder.quality.validate(VECTORS, TEXTS, semantic=True)
    assert report.valid
    assert report.semantic.message == "no baseline for comparison"
    assert servers[0].requests == []


@in_loop
async def test_the_baseline_of_the_route_that_answers_counts(servers, tmp_path):
    servers[1].fault = another_model
    attempts = {"max_attempts": 3, "first_wait_s": 0.01, "longest_wait_s": 0.02}
    async with AsyncEmbedder(config=config_of(servers, tmp_path, upstream=attempts)) as embedder:
        await embedder.quality.baseline()
        servers[0].status = 503
        found = (await embedder.quality.validate(VECTORS, TEXTS, semantic=True)).semantic
    assert found.routes == ("routes.r1",)
    assert found.accuracy == found.baseline < 0.3


def test_the_blocking_form_and_its_limit(servers, tmp_path):
    with Embedder(config=config_of(servers[:1], tmp_path)) as embedder:
        embedder.quality.baseline()
        with pytest.raises(BudgetExceededError):
            embedder.quality.validate(VECTORS, TEXTS, semantic=True, max_cost="0.000001")
        with pytest.raises(UsageError, match="semantic"):
            embedder.quality.validate(VECTORS, TEXTS, semantic="yes")
        assert embedder.quality.validate(VECTORS, TEXTS, semantic=True, max_cost=1).valid
