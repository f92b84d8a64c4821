"""Settings of small services, and batches that are held."""

import threading

import pytest

from embedway.local.encoder import Encoder
from inference_service import settings_of
from tiny_models import tiny_encoder


@pytest.fixture
def plain(config, tmp_path):
    """Return settings without a cache, for the workers and for the process."""
    return settings_of(config, tmp_path)


@pytest.fixture
def tiny(tmp_path, tokenizer):
    return str(tiny_encoder(tmp_path / "tiny", tokenizer))


@pytest.fixture
def small(config, tmp_path, tiny):
    """Return settings with a tiny model, which is loaded at once, as the default."""
    return settings_of(config, tmp_path, **{"embedding.default_model": tiny, "local.backend": "onnxruntime"})


class Held:
    """Holds all batches until it is set, and records the texts of each."""

    def __init__(self, monkeypatch):
        self.open, self.sizes, self.failing = threading.Event(), [], None
        compute = Encoder.compute

        def held(encoder, options, rows, width, types=None):
            self.sizes.append(len(rows))
            assert self.open.wait(60)
            if self.failing is not None:
                raise self.failing
            return compute(encoder, options, rows, width, types)

        self.hold = lambda: monkeypatch.setattr(Encoder, "compute", held)


@pytest.fixture
def held(monkeypatch):
    found = Held(monkeypatch)
    yield found
    found.open.set()
