"""Tokenizers small enough to build here, and an embedder whose vectors depend on the text alone."""

import pytest

from fake_embedder import FakeEmbedder, build_byte_level, build_wordpiece, vectors_of


@pytest.fixture(scope="session")
def wordpiece():
    return build_wordpiece()


@pytest.fixture(scope="session", params=[build_wordpiece, build_byte_level], ids=["wordpiece", "byte-level"])
def any_tokenizer(request):
    return request.param()


@pytest.fixture
def fake_embedder():
    return FakeEmbedder


@pytest.fixture
def vectors_for():
    return vectors_of
