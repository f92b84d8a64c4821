"""Random and mutated bodies: each has an answer in JSON, none a fault, and no text leaves its own request."""

import asyncio

import pytest
from gateway_bodies import draw, valid_bodies

from gateway import fuzz
from served_models import FAKE, fake_settings, running

DIALECTS = list(valid_bodies("", ""))


@pytest.fixture(scope="module")
def url_and_bodies(default_model_directory, tmp_path_factory):
    settings = fake_settings(default_model_directory, tmp_path_factory.mktemp("gateway"))
    with running(settings) as url:
        yield url, valid_bodies(FAKE, settings["rerank.default_model"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_body_is_a_fault(url_and_bodies, dialect):
    url, bodies = url_and_bodies
    report = asyncio.run(fuzz(url, bodies[dialect], count=300, seed=7))
    assert report.faults == []
    assert report.statuses.total() == 300
    assert report.statuses[200] > 20
    assert sum(report.statuses[status] for status in (400, 404, 422)) > 50


def test_bodies_are_reproducible_and_varied(url_and_bodies):
    _, bodies = url_and_bodies
    first = [draw(1, number, bodies["openai"]) for number in range(50)]
    assert first == [draw(1, number, bodies["openai"]) for number in range(50)]
    assert len({body for _, body, _ in first}) > 45
