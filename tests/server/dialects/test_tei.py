"""TEI's API with `huggingface_hub.InferenceClient`, its client, and our own reranker for TEI."""

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from served_models import FAKE, MODEL, TEXTS, rerank_far, same


def post(gateway, path, **body):
    return httpx.post(gateway.url + path, json=body, timeout=60)


@pytest.mark.parametrize("path", ["", "/embed", "/tei", "/tei/embed"])
def test_the_client_at_its_defaults(gateway, expected, path):
    client = InferenceClient(model=gateway.url + path)
    assert same(client.feature_extraction(TEXTS), expected)
    assert same(client.feature_extraction(TEXTS[0]), expected[:1])


def test_options_of_the_client(gateway, library):
    client = InferenceClient(model=f"{gateway.url}/embed")
    raw = client.feature_extraction(TEXTS[0], normalize=False)
    assert np.linalg.norm(raw) > 1.5
    query = client.feature_extraction(TEXTS[0], prompt_name="query", truncate=True, truncation_direction="right")
    assert same(query, library.embed(TEXTS[:1], model=MODEL, input_type="query").vectors)
    with pytest.raises(HfHubHTTPError):
        client.feature_extraction("word " * 2000, truncate=False)


def test_sentence_similarity(gateway, expected):
    client = InferenceClient(model=f"{gateway.url}/similarity")
    found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    assert found == pytest.approx((expected[1:] @ expected[0]).tolist(), abs=1e-5)


def test_an_addition_names_the_model(gateway, library):
    answer = post(gateway, "/embed", inputs=TEXTS, model=FAKE, dimensions=8).json()
    assert same(answer, library.embed(TEXTS, model=FAKE, dimensions=8).vectors)


def test_reranking(gateway, library):
    expected = library.rerank("cats", TEXTS)
    found = post(gateway, "/rerank", query="cats", texts=TEXTS, return_text=True).json()
    assert [one["index"] for one in found] == list(expected.order)
    assert [one["text"] for one in found] == [TEXTS[row] for row in expected.order]


def test_facts_and_health(gateway):
    found = httpx.get(f"{gateway.url}/info").json()
    assert (found["model_id"], found["max_input_length"]) == (MODEL, 256)
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    health = httpx.get(f"{gateway.url}/health")
    assert (health.status_code, health.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed", {"inputs": ["a", ""]}, 422, "inputs[1]: it is empty"),
        ("/embed", {"inputs": ["word " * 2000], "truncate": False}, 422, "inputs[0]: has "),
        ("/embed", {"inputs": ["word " * 2000], "truncation_direction": "left"}, 422, "the model accepts 256"),
        ("/embed", {"inputs": ["a"] * 20_001}, 413, "at most 20,000"),
        ("/embed", {"inputs": ["a"], "prompt_name": "sts"}, 422, "query, document or passage"),
        ("/embed", {"inputs": ["a"], "input": "a"}, 422, "did you mean 'inputs'?"),
        ("/embed", {"inputs": [[1, 2]]}, 422, "token ids"),
        ("/embed", {"inputs": "a", "model": "unknown"}, 404, "not served"),
        ("/rerank", {"query": "q", "texts": ["a"], "raw_scores": True}, 422, "raw_scores must be false"),
        ("/rerank", {"query": "q", "texts": ["a", " "]}, 422, "texts[1]: it is empty"),
    ],
)
def test_errors_have_the_form_of_tei(gateway, path, body, status, message):
    answer = post(gateway, path, **body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


def test_our_own_reranker_for_tei(gateway, library):
    route = {"provider": "openai-compatible", "base_url": gateway.url, "auth": "none", "options": {"dialect": "tei"}}
    found = rerank_far("cats", TEXTS, upstream_model="far", **route)
    assert found.order == library.rerank("cats", TEXTS).order
