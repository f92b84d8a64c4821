"""Jina's API, which has no official client, by requests of its reference and our own provider."""

import httpx
import pytest

from served_models import FAKE, MODEL, TEXTS, embed_far, same


def post(gateway, path, **body):
    return httpx.post(f"{gateway.url}/jina/v1/{path}", json=body, timeout=60)


def test_texts_and_objects_with_texts(gateway, expected):
    for texts in (TEXTS, [{"text": text} for text in TEXTS]):
        answer = post(gateway, "embeddings", model=MODEL, input=texts, task="retrieval.passage", normalized=True).json()
        assert same([one["embedding"] for one in answer["data"]], expected)
        assert answer["usage"]["total_tokens"] > 0


def test_the_task_of_queries(gateway, library):
    answer = post(gateway, "embeddings", model=FAKE, input=TEXTS, task="retrieval.query", dimensions=8).json()
    expected = library.embed(TEXTS, model=FAKE, input_type="query", dimensions=8).vectors
    assert same([one["embedding"] for one in answer["data"]], expected)


def test_long_texts_are_refused_unless_they_may_be_truncated(gateway):
    long = ["short", "word " * 2000]
    refused = post(gateway, "embeddings", model=MODEL, input=long)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("input[1]: has ")
    assert post(gateway, "embeddings", model=MODEL, input=long, truncate=True).headers["x-embedway-truncated"][0] == "1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"late_chunking": True}, "neighbouring texts"),
        ({"task": "text-matching"}, "retrieval.query or retrieval.passage"),
        ({"embedding_type": "ubinary"}, "not quantized"),
        ({"input": [{"image": "https://example.com/a.png"}]}, "input must be a text"),
    ],
)
def test_what_is_not_supported_is_told(gateway, fields, message):
    answer = post(gateway, "embeddings", **{"model": MODEL, "input": TEXTS, **fields})
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_reranking_returns_the_documents(gateway, gateway_settings, library):
    body = {"model": gateway_settings["rerank.default_model"], "query": "cats", "documents": TEXTS}
    expected = library.rerank("cats", TEXTS)
    found = post(gateway, "rerank", **body).json()
    assert [one["index"] for one in found["results"]] == list(expected.order)
    assert [one["document"]["text"] for one in found["results"]] == [TEXTS[row] for row in expected.order]
    without = post(gateway, "rerank", **body, return_documents=False, top_n=1).json()["results"]
    assert [set(one) for one in without] == [{"index", "relevance_score"}]


def test_our_own_provider(gateway, expected):
    route = {"provider": "jina", "base_url": f"{gateway.url}/jina/v1", "api_key": "none"}
    assert same(embed_far(TEXTS, upstream_model=MODEL, **route), expected)
