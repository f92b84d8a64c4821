"""Details of OpenAI's provider: limits in headers, ada, URLs. The contract suite covers the rest."""

import asyncio
import dataclasses

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer
from embedway.errors import ConfigError, UnavailableError
from embedway.providers.base import Endpoint
from embedway.providers.fake import vector_of
from embedway.providers.openai import openai, openai_compatible

TEXTS = ["the first text", "the second", "and a third one"]


def ask(server, *, make=openai, **endpoint):
    given = {"route": "r", "model": "text-embedding-3-small", "secret": KEY, "timeout_s": 20.0, **endpoint}

    async def main():
        async with server.running():
            provider = make(Endpoint(base_url=f"{server.url}/v1", **given))
            try:
                return await provider.embed(TEXTS, input_type="document", dimensions=None)
            finally:
                await provider.aclose()

    return asyncio.run(main())


@pytest.fixture
def server():
    return OpenAIServer()


@pytest.mark.parametrize(
    ("make", "options"),
    [(openai, {}), (openai_compatible, {}), (openai_compatible, {"encoding": "base64", "max_inputs": "8"})],
)
def test_vectors_usage_and_limits(server, make, options):
    answer = ask(server, make=make, options=options)
    np.testing.assert_allclose(answer.vectors, np.stack([vector_of(text, 16) for text in TEXTS]), atol=1e-6)
    assert answer.tokens == 9
    assert (answer.rates.requests_limit, answer.rates.requests_reset_s) == (3000, 0.02)
    assert (answer.rates.tokens_remaining, answer.rates.tokens_reset_s) == (999_000, 60.06)


def test_ada_is_never_asked_for_dimensions():
    assert not openai(Endpoint("r", "text-embedding-ada-002", secret=KEY)).declared.dimensions
    assert openai(Endpoint("r", "text-embedding-3-large", secret=KEY)).declared.dimensions


def test_an_answer_that_never_ends_is_given_up(server):
    server.misdeeds = ["slow"]
    with pytest.raises(UnavailableError, match="no answer in time") as caught:
        ask(server, timeout_s=0.5)
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

    with pytest.raises(UnavailableError, match="the service is unreachable") as caught:
        asyncio.run(main())
    assert not caught.value.billed


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://api.example.com/v1", "must be https"),
        ("https://user:pass@api.example.com", "must not contain a user"),
        ("api.example.com", "must be a URL"),
        ("ftp://api.example.com", "must be a URL"),
        ("https://api.example.com/?key=1", "must be a URL"),
        ("https://[", "must be a URL"),
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
