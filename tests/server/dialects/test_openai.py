"""OpenAI's API with its official client, LangChain, LlamaIndex and curl, at their defaults."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path

import httpx
import llama_index.core
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

from served_models import FAKE, FAKE_OF_OPENAI, MODEL, TEXTS, embed_far, running, same


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_client_at_its_defaults(client, expected):
    answer = client.embeddings.create(input=TEXTS, model=MODEL)
    assert same([one.embedding for one in answer.data], expected)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    assert answer.model == MODEL


def test_usage_counts_repeated_texts(client):
    once = client.embeddings.create(input="A cat", model=MODEL).usage
    twice = client.embeddings.create(input=["A cat", "A cat"], model=MODEL).usage
    assert twice.prompt_tokens == twice.total_tokens == 2 * once.prompt_tokens > 0


def test_the_asynchronous_client(gateway, expected):
    async def embed():
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(input=[text], model="all-MiniLM-L6-v2") for text in TEXTS)
            )
            return [answer.data[0].embedding for answer in answers]

    assert same(asyncio.run(embed()), expected)


def test_floats_and_base64_are_the_same_numbers(client):
    floats = client.embeddings.create(input="a text", model=MODEL, encoding_format="float").data[0].embedding
    packed = client.embeddings.create(input="a text", model=MODEL, encoding_format="base64").data[0].embedding
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == np.asarray(floats, np.float32).tolist()


def test_errors_have_the_classes_of_the_client(client):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(input="a", model="text-unknown")
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError, match=r"input\[1\]: it is empty") as empty:
        client.embeddings.create(input=["a", ""], model=MODEL)
    assert empty.value.param == "input.1"
    with pytest.raises(openai.BadRequestError) as sizes:
        client.embeddings.create(input="a", model=MODEL, dimensions=100)
    assert sizes.value.param == "dimensions"


def test_a_long_text_is_refused_or_its_truncation_told(client):
    long = "word " * 2000
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(input=["a", long], model=MODEL, extra_body={"on_overflow": "error"})
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input.1")
    assert refused.value.body["message"].endswith('the model accepts 256. Split it, or send "on_overflow": "truncate"')
    raw = client.embeddings.with_raw_response.create(input=["a", long], model=MODEL)
    assert raw.headers["x-embedway-truncated"] == "1; rows=1"


def test_models_are_listed_with_facts_and_prices(client):
    listed = {one.id: one for one in client.models.list()}
    assert {MODEL, FAKE} <= set(listed)
    assert listed[FAKE].price_usd_per_million_tokens == "1"
    found = client.models.retrieve(MODEL)
    assert found.id == MODEL
    assert (found.task, found.dimensions, found.sizes, found.max_tokens) == ("embed", 384, [384], 256)
    assert (found.local, found.price_usd_per_million_tokens) == (True, "0")
    assert client.models.retrieve("all-minilm").id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/unknown")


def test_a_listed_model_tells_whether_it_is_loaded(gateway_settings):
    with running(gateway_settings) as url:
        address = f"{url}/v1/models/{FAKE}"
        assert httpx.get(address).json()["loaded"] is False
        httpx.post(f"{url}/v1/embeddings", json={"input": "a", "model": FAKE})
        assert httpx.get(address).json()["loaded"] is True


@pytest.fixture
def vocabularies(monkeypatch):
    """Let tiktoken find the vocabulary of OpenAI's models without a network."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(llama_index.core.__file__).parent / "_static/tiktoken_cache"))


def langchain(gateway, model, **options):
    return OpenAIEmbeddings(model=model, base_url=f"{gateway.url}/v1", api_key="none", **options)


def test_langchain_sends_token_ids_and_is_told_how_to_send_texts(gateway, vocabularies, expected):
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        langchain(gateway, MODEL).embed_documents(TEXTS)
    embeddings = langchain(gateway, MODEL, check_embedding_ctx_length=False)
    assert same(embeddings.embed_documents(TEXTS), expected)
    assert same([embeddings.embed_query(TEXTS[0])], expected[:1])


def test_token_ids_of_langchain_are_decoded_for_a_model_of_openai(gateway, vocabularies, library):
    embeddings = langchain(gateway, FAKE_OF_OPENAI)
    assert same(embeddings.embed_documents(TEXTS), library.embed(TEXTS, model=FAKE_OF_OPENAI).vectors)


def test_llama_index(gateway, expected):
    embedding = OpenAIEmbedding(model_name=MODEL, api_base=f"{gateway.url}/v1", api_key="none")
    assert same(embedding.get_text_embedding_batch(TEXTS), expected)
    assert same([embedding.get_query_embedding(TEXTS[1])], expected[1:2])


@pytest.mark.parametrize("header", [(), ("-H", "content-type: application/json"), ("-H", "content-type:")])
def test_curl_with_and_without_a_content_type(gateway, expected, header):
    body = json.dumps({"input": TEXTS, "model": MODEL})
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *header, "-d", body, f"{gateway.url}/v1/embeddings"],
        capture_output=True,
        check=True,
    )
    assert same([one["embedding"] for one in json.loads(done.stdout)["data"]], expected)


def test_our_own_provider(gateway, expected):
    route = {"provider": "openai-compatible", "base_url": f"{gateway.url}/v1", "auth": "none"}
    assert same(embed_far(TEXTS, upstream_model=MODEL, **route), expected)


def post(gateway, **body):
    return httpx.post(f"{gateway.url}/v1/embeddings", json=body, timeout=60)


def test_fields_of_voyage_and_jina_mean_the_same(gateway):
    base = {"input": "a", "model": FAKE}
    query = post(gateway, **base, input_type="query").json()
    assert post(gateway, **base, task="retrieval.query").json() == query
    assert post(gateway, **base).json() == post(gateway, **base, task="retrieval.passage").json() != query
    assert post(gateway, **base, dimensions=8).json() == post(gateway, **base, output_dimension=8).json()
    assert post(gateway, input=[{"text": "a"}], model=FAKE).json() == post(gateway, **base).json()
    assert isinstance(post(gateway, **base, embedding_type="base64").json()["data"][0]["embedding"], str)
    long = {"input": "word " * 2000, "model": MODEL}
    assert post(gateway, **long, truncation=False).status_code == 400
    assert post(gateway, **long, truncate=True).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input_type": "query", "task": "retrieval.passage"}, "task", "input_type and task differ"),
        ({"dimensions": 8, "output_dimension": 4}, "output_dimension", "differ"),
        ({"truncate": True, "on_overflow": "error"}, "truncate", "differ"),
        ({"late_chunking": True}, "late_chunking", "neighbouring texts"),
        ({"task": "classification"}, "task", "retrieval.query or retrieval.passage"),
        ({"output_dtype": "int8"}, "output_dtype", "float"),
        ({"dimension": 8}, "dimension", "did you mean 'dimensions'?"),
        ({"dimensions": "8"}, "dimensions", "integer"),
        ({"input": ["a", 3]}, "input", "item 1 is not"),
    ],
)
def test_fields_that_contradict_or_are_unknown_are_named(gateway, fields, param, message):
    answer = post(gateway, **{"input": "a", "model": FAKE, **fields})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


def test_an_unknown_address_and_method(gateway):
    assert httpx.get(f"{gateway.url}/v1/unknown").status_code == 404
    wrong = httpx.put(f"{gateway.url}/v1/embeddings", json={})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert httpx.delete(f"{gateway.url}/v1/models/a/b").headers["allow"] == "GET"
