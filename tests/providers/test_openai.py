"""The OpenAI provider against a strict server that misbehaves: right vectors, or the right error, and no secret."""

import asyncio
import base64
import dataclasses

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    ConfigError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Endpoint
from embedway.providers.fake import vector_of
from embedway.providers.openai import openai, openai_compatible

TEXTS = ["the first text", "the second", "and a third one"]


def ask(server, texts=TEXTS, *, make=openai, dimensions=None, **endpoint):
    given = {"route": "r", "model": "text-embedding-3-small", "secret": KEY, "timeout_s": 20.0, **endpoint}

    async def main():
        async with server.running():
            provider = make(Endpoint(base_url=f"{server.url}/v1", **given))
            try:
                return await provider.embed(texts, input_type="document", dimensions=dimensions)
            finally:
                await provider.aclose()

    return asyncio.run(main())


@pytest.fixture
def server():
    return OpenAIServer()


def assert_right(answer, texts=TEXTS, width=16):
    wanted = np.stack([vector_of(text, 16)[:width] for text in texts])
    np.testing.assert_allclose(answer.vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert answer.vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("make", "options"),
    [(openai, {}), (openai_compatible, {}), (openai_compatible, {"encoding": "base64", "max_inputs": "8"})],
)
def test_vectors_usage_and_limits(server, make, options):
    answer = ask(server, make=make, options=options)
    assert_right(answer)
    assert answer.tokens == 9
    assert (answer.rates.requests_limit, answer.rates.requests_reset_s) == (3000, 0.02)
    assert (answer.rates.tokens_remaining, answer.rates.tokens_reset_s) == (999_000, 60.06)


def test_dimensions_are_asked_for(server):
    assert_right(ask(server, dimensions=8), width=8)
    assert server.bodies[0]["dimensions"] == 8


def test_ada_is_never_asked_for_dimensions():
    assert not openai(Endpoint("r", "text-embedding-ada-002", secret=KEY)).declared.dimensions
    assert openai(Endpoint("r", "text-embedding-3-large", secret=KEY)).declared.dimensions


def test_texts_go_as_they_are(server):
    texts = [" Polish ", "polish", "a\x00b", "漢字 😀", "\ttab\nline"]
    assert_right(ask(server, texts), texts)
    assert server.bodies[0]["input"] == texts


def rows(change):
    return lambda answer: {**answer, "data": change(answer["data"])}


def of_first(change):
    return rows(lambda data: [{**data[0], **change(data[0])}, *data[1:]])


@pytest.mark.parametrize(
    "misdeed",
    [rows(lambda data: data[::-1]), rows(lambda data: [*data[1:], data[0]])],
    ids=["reversed", "turned"],
)
def test_an_answer_in_another_order_is_put_right(server, misdeed):
    server.misdeeds = [misdeed]
    assert_right(ask(server))


@pytest.mark.parametrize(
    "misdeed",
    [
        rows(lambda data: data[:-1]),
        rows(lambda data: [*data, data[0]]),
        rows(lambda data: []),
        of_first(lambda row: {"index": None}),
        of_first(lambda row: {"index": 1}),
        of_first(lambda row: {"index": 7}),
        of_first(lambda row: {"index": -1}),
        of_first(lambda row: {"index": True}),
        of_first(lambda row: {"index": "0"}),
        rows(lambda data: [{"embedding": row["embedding"]} for row in data]),
        of_first(lambda row: {"embedding": None}),
        of_first(lambda row: {"embedding": []}),
        of_first(lambda row: {"embedding": [None] * 16}),
        of_first(lambda row: {"embedding": [[0.1] * 16]}),
        of_first(lambda row: {"embedding": ["0.1"] * 3 + ["x"]}),
        of_first(lambda row: {"embedding": [0.25] * 15}),
        of_first(lambda row: {"embedding": base64.b64encode(b"\x00" * 7).decode()}),
        of_first(lambda row: {"embedding": "not base64!"}),
    ],
    ids=range(18),
)
@pytest.mark.parametrize("make", [openai, openai_compatible])
def test_a_wrong_answer_is_an_error_of_the_route(server, misdeed, make):
    server.misdeeds = [misdeed]
    with pytest.raises(BadVectorsError, match=r"^r: "):
        ask(server, make=make)


@pytest.mark.parametrize(
    ("misdeed", "kind"),
    [
        ("400", RefusedInputError),
        ("413", RefusedInputError),
        ("401", AuthenticationError),
        ("403", AuthenticationError),
        ("404", ProtocolError),
        ("408", UnavailableError),
        ("409", UnavailableError),
        ("500", UnavailableError),
        ("503", UnavailableError),
        ("429", RateLimitedError),
        ("429 quota", QuotaExceededError),
        ("html", ProtocolError),
        ("html error", UnavailableError),
        ("half json", ProtocolError),
        ("redirect", ProtocolError),
        ("reset", UnavailableError),
        ("hang up", UnavailableError),
    ],
)
def test_each_failure_is_its_own_error_and_tells_no_secret(server, misdeed, kind):
    server.misdeeds = [misdeed]
    with pytest.raises(kind) as caught:
        ask(server, ["a secret text"])
    assert type(caught.value) is kind
    chain, shown = caught.value, ""
    while chain is not None:
        shown += f"{chain!s} {chain!r}"
        chain = chain.__cause__ or chain.__context__
    assert KEY not in shown
    assert "secret text" not in shown
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("misdeed", "seconds"), [("429 later", 17.0), ("429", None), ("503", 4.0)])
def test_what_the_service_asks_for_is_told(server, misdeed, seconds):
    server.misdeeds = [misdeed]
    with pytest.raises((RateLimitedError, UnavailableError)) as caught:
        ask(server)
    assert caught.value.retry_after_s == seconds


def test_an_answer_that_never_ends_is_given_up(server):
    server.misdeeds = ["slow"]
    with pytest.raises(UnavailableError, match="no answer in time") as caught:
        ask(server, timeout_s=0.3)
    assert caught.value.billed


def test_a_service_that_is_not_there(server):
    async def main():
        async with server.running():
            gone = f"{server.url}/v1"
        provider = openai(Endpoint("r", "text-embedding-3-small", base_url=gone, secret=KEY))
        try:
            await provider.embed(["a"], input_type="document", dimensions=None)
        finally:
            await provider.aclose()

    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        asyncio.run(main())
    assert not caught.value.billed


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://api.example.com/v1", "must be https"),
        ("https://user:pass@api.example.com", "must not hold a user"),
        ("api.example.com", "must be an address"),
        ("ftp://api.example.com", "must be an address"),
        ("https://api.example.com/?key=1", "must be an address"),
        ("https://[", "must be an address"),
    ],
)
def test_addresses_that_are_refused(url, rule):
    with pytest.raises(ConfigError, match=rule) as caught:
        openai(Endpoint("my-route", "m", base_url=url, secret=KEY))
    assert "my-route" in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_plain_http_by_permission():
    openai(Endpoint("r", "m", base_url="http://api.example.com/v1", secret=KEY, options={"allow_http": "true"}))


def test_an_endpoint_never_shows_its_key():
    endpoint = Endpoint("r", "m", secret=KEY)
    assert KEY not in repr(endpoint)
    assert KEY not in str(dataclasses.replace(endpoint, model="other"))
