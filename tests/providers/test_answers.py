"""Answers of third-party providers: wrong objects, usage and limits, and errors of any class."""

import asyncio
import traceback

import numpy as np
import pytest

from embedway import Config, Embedder
from embedway.errors import BadVectorsError, ConfigError, EmbedwayError, ProtocolError, UpstreamError
from embedway.models import opening
from embedway.providers import registry
from embedway.providers.answers import checked_answer
from embedway.providers.base import Answer, Declared
from embedway.types import NO_RATES, RateState

VECTORS = np.eye(2, 16, dtype=np.float32)


class PanicException(BaseException):
    """Error like that of a panic in a library in Rust."""


class Provider:
    declared = Declared(max_inputs=32)

    def __init__(self, answer):
        self._answer = answer

    async def embed(self, texts, *, input_type, dimensions):
        return self._answer()

    async def aclose(self):
        pass


@pytest.fixture
def embedder():
    overrides = {
        "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 64, "tokenizer": "estimate"},
        "routes.r": {"model": "acme/m", "provider": "mine", "base_url": "http://127.0.0.1:9", "api_key": "sk-secret"},
        "upstream.max_attempts": 1,
        "cache.backend": "none",
    }
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as made:
        yield made


def checked(**fields):
    return checked_answer(Answer(VECTORS, **fields), route="r")


@pytest.mark.parametrize("answer", [None, VECTORS, (VECTORS, 5), {"vectors": VECTORS}, Answer])
def test_another_object_is_not_an_answer(answer):
    with pytest.raises(ProtocolError, match=r"r: its provider returned a \w+, not an Answer"):
        checked_answer(answer, route="r")


@pytest.mark.parametrize("vectors", [None, VECTORS.tolist(), VECTORS[0], VECTORS[None], "a", np.float32(1)])
def test_vectors_are_an_array_of_rows(vectors):
    with pytest.raises(BadVectorsError, match="not an array of one row per text"):
        checked_answer(Answer(vectors), route="r")


@pytest.mark.parametrize("field", ["tokens", "searches"])
@pytest.mark.parametrize("count", ["5", -1, 1.5, 10**400, float("nan"), True, [5]])
def test_usage_is_a_count(field, count):
    with pytest.raises(ProtocolError, match="invalid number of tokens or searches"):
        checked(**{field: count})


def test_counts_of_numpy_are_plain_counts():
    answer = checked(tokens=np.int64(5), searches=np.uint8(1))
    assert (type(answer.tokens), answer.tokens, type(answer.searches)) == (int, 5, int)


@pytest.mark.parametrize("number", ["5", -1, float("inf"), float("nan"), 10**400, None, object()])
def test_implausible_limits_are_ignored(number):
    assert checked(rates=RateState(*[number] * 6)).rates == NO_RATES
    assert checked(rates=number).rates == NO_RATES


ERRORS = [ValueError, SystemExit, KeyboardInterrupt, PanicException, asyncio.CancelledError, BaseException]


@pytest.mark.parametrize("kind", ERRORS)
def test_any_error_of_a_provider_is_an_upstream_error_without_its_message(embedder, monkeypatch, kind):
    def failing():
        raise kind("a text of the user")

    monkeypatch.setattr(opening, "make_provider", lambda name, endpoint: Provider(failing))
    for _ in range(2):  # the event loop goes on
        with pytest.raises(UpstreamError, match=f"its provider failed \\({kind.__name__} at test_answers") as caught:
            embedder.embed(["a", "b"], model="acme/m")
        assert "user" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", [*ERRORS, OSError, TimeoutError, ImportError])
def test_any_error_of_a_provider_s_factory_names_the_provider(embedder, monkeypatch, kind):
    def failing(endpoint):
        raise kind(f"the key is {endpoint.secret}")

    monkeypatch.setattr(registry, "load_entry", lambda group, name, endpoint: failing)
    with pytest.raises(ConfigError, match=f"'mine' cannot be loaded \\({kind.__name__} at test_answers") as caught:
        embedder.embed(["a"], model="acme/m")
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_answer_is_an_error_of_our_own(embedder, monkeypatch):
    for answer in (None, Answer(None), Answer(VECTORS, tokens="5"), Answer(VECTORS.astype(object))):
        monkeypatch.setattr(opening, "make_provider", lambda name, endpoint, a=answer: Provider(lambda: a))
        with pytest.raises(EmbedwayError):
            embedder.embed(["a", "b"], model="acme/m")
