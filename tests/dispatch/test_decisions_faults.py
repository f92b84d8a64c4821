"""Refused vectors of single texts in the circuit of a route: a constant service is stopped, other texts are not."""

import contextlib

import numpy as np
import pytest

from drifting_server import DriftingServer, config_of
from embedway import Embedder
from embedway.errors import BadVectorsError, EmbedwayError
from embedway.providers.fake import vector_of


class OwnVectors(dict):
    def get(self, text, default=None):
        del default
        return vector_of("one" if text.startswith("odd") else text, 384)

    def __missing__(self, text):
        return self.get(text)


@pytest.fixture
def service():
    found = DriftingServer(OwnVectors())
    yield found
    found.close()


def test_one_callers_texts_with_one_vector_close_a_good_route_for_nobody(service, tmp_path):
    with Embedder(config=config_of([service], tmp_path)) as embedder:
        for number in range(8):
            embedder.embed([f"good text {number}"])
        embedder.embed(["odd word"])
        for word in range(20):
            with pytest.raises(BadVectorsError):
                embedder.embed([f"odd text about subject{word} and verb{word}"])
        assert embedder.embed(["another good text"]).vectors.shape == (1, 384)


def test_a_text_that_is_sent_again_and_again_opens_no_circuit(service, tmp_path):
    with Embedder(config=config_of([service], tmp_path)) as embedder:
        embedder.embed(["odd word"])
        for _ in range(40):
            with pytest.raises(BadVectorsError):
                embedder.embed(["odd text about a subject"])
        assert embedder.embed(["a good text"]).vectors.shape == (1, 384)


@pytest.mark.parametrize("good", [0, 8])
def test_a_service_with_one_vector_for_all_texts_is_stopped(service, tmp_path, good):
    with Embedder(config=config_of([service], tmp_path)) as embedder:
        for number in range(good):
            embedder.embed([f"good text {number}"])
        service.fault = lambda rows, _: np.stack([vector_of("one", 384)] * len(rows))
        service.requests.clear()
        for number in range(200):
            with contextlib.suppress(EmbedwayError):
                embedder.embed([f"subject{number} verb{number}"])
        with pytest.raises(EmbedwayError, match="skipped for another"):
            embedder.embed(["a last text"])
        assert len(service.requests) <= (17, 65)[good > 0]


def test_answers_with_several_texts_and_one_vector_stop_a_service_soon(service, tmp_path):
    service.fault = lambda rows, _: np.stack([vector_of("one", 384)] * len(rows))
    with Embedder(config=config_of([service], tmp_path)) as embedder:
        for call in range(20):
            with pytest.raises(EmbedwayError):
                embedder.embed([f"subject{call} verb{row}" for row in range(4)])
    assert len(service.requests) <= 8
