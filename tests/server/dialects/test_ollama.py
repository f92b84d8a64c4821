"""Ollama's API with its official client, synchronous and asynchronous."""

import asyncio
import json

import httpx
import numpy as np
import ollama
import pytest

from embedway import __version__
from embedway.server.bodies import parse
from embedway.server.dialects.ollama import OllamaEmbedBody, seconds_of
from embedway.server.problems import BodyError
from served_models import FAKE, MODEL, TEXTS, same


@pytest.fixture(params=["", "/ollama/"])
def client(gateway, request):
    with ollama.Client(gateway.url + request.param) as made:
        yield made


@pytest.mark.parametrize("name", ["all-minilm", "all-minilm:latest", MODEL])
def test_the_client_at_its_defaults(client, expected, name):
    answer = client.embed(model=name, input=TEXTS)
    assert same(answer.embeddings, expected)
    assert answer.model == name
    assert answer.prompt_eval_count > 0


def test_the_older_address(client, expected):
    assert same([client.embeddings(model=MODEL, prompt=TEXTS[0]).embedding], expected[:1])
    assert client.embeddings(model=MODEL, prompt="").embedding == []


def test_the_asynchronous_client(gateway, expected):
    async def embed():
        async with ollama.AsyncClient(gateway.url) as client:
            return await client.embed(model=MODEL, input=TEXTS[0])

    answer = asyncio.run(embed())
    assert same(answer.embeddings, expected[:1])


def test_options_and_sizes(client, library):
    answer = client.embed(
        model=FAKE, input=TEXTS, dimensions=8, keep_alive="5m", options={"temperature": 0, "num_ctx": 4096}
    )
    assert same(answer.embeddings, library.embed(TEXTS, model=FAKE, dimensions=8).vectors)
    assert np.linalg.norm(answer.embeddings, axis=1) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ollama.ResponseError, match="at least the model's limit"):
        client.embed(model=MODEL, input=TEXTS, options={"num_ctx": 16})


def test_long_texts_are_truncated_unless_it_is_switched_off(client):
    long = ["short", "word " * 2000]
    assert len(client.embed(model=MODEL, input=long).embeddings) == 2
    with pytest.raises(ollama.ResponseError, match=r"input\[1\]: has .*the model accepts 256"):
        client.embed(model=MODEL, input=long, truncate=False)


def test_no_text_has_no_vector(client):
    assert client.embed(model=MODEL, input="").embeddings == []
    assert client.embed(model=MODEL, input=[]).embeddings == []
    with pytest.raises(ollama.ResponseError, match=r"input\[0\]: it is empty"):
        client.embed(model=MODEL, input=["", "a"])


def test_models(client, gateway):
    client.embed(model=MODEL, input="a")
    assert {f"{MODEL}:latest", f"{FAKE}:latest"} <= {one.model for one in client.list().models}
    assert f"{MODEL}:latest" in {one.model for one in client.ps().models}
    shown = client.show("all-minilm:latest")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["bert.embedding_length"] == 384
    assert httpx.get(f"{gateway.url}/api/version").json() == {"version": __version__}


def test_errors_have_the_form_of_ollama(client):
    with pytest.raises(ollama.ResponseError, match="not served") as unknown:
        client.embed(model="unknown", input="")
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"^there is no such address") as pulled:
        client.pull("all-minilm")
    assert pulled.value.status_code == 404


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(5, 5), ("5m", 300), ("1h30m", 5400), ("0", 0), ("-1s", None), (-1, None), ("1.5s", 1.5), (1e12, None)],
)
def test_times_are_those_of_go(asked, seconds):
    assert seconds_of(asked) == seconds


@pytest.mark.parametrize("asked", ["", "5", "m", "5 m", "5x", "9" * 50 + "s", True])
def test_a_text_that_is_no_time_is_refused(asked):
    body = json.dumps({"model": MODEL, "input": "a", "keep_alive": asked}).encode()
    with pytest.raises(BodyError, match="keep_alive must be a number of seconds"):
        parse(OllamaEmbedBody, body)
