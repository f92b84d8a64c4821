"""Reranking at `/v1/rerank`, with our own providers for compatible servers, and errors."""

import httpx
import pytest

from served_models import rerank_far

QUERY, DOCUMENTS = "Where does the cat sleep?", ["Taxes are due.", "The cat sleeps on the sofa.", "A dog", "A dog"]


@pytest.fixture(scope="module")
def expected(library):
    return library.rerank(QUERY, DOCUMENTS)


def post(gateway, **body):
    return httpx.post(f"{gateway.url}/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, **body}, timeout=60)


def test_results_are_those_of_the_library(gateway, expected):
    answer = post(gateway).json()
    assert [one["index"] for one in answer["results"]] == list(expected.order)
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == pytest.approx([float(expected.scores[row]) for row in expected.order], abs=1e-5)
    assert all("document" not in one for one in answer["results"])
    assert answer["usage"]["total_tokens"] == expected.receipt.input_tokens


def test_the_best_documents_with_their_texts(gateway, expected):
    objects = [{"text": one} for one in DOCUMENTS]
    answer = post(gateway, documents=[DOCUMENTS[0], *objects[1:]], top_n=2, return_documents=True).json()
    best = [DOCUMENTS[row] for row in expected.order[:2]]
    assert [one["document"]["text"] for one in answer["results"]] == best
    assert post(gateway, top_k=2).json()["results"] == post(gateway, top_n=2).json()["results"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"documents": []}, "input", "no text"),
        ({"documents": ["a", " "]}, "documents.1", "empty"),
        ({"documents": [{"title": "a"}]}, "documents", "text"),
        ({"query": " "}, "query", "empty"),
        ({"top_n": 0}, "top_n", "greater"),
        ({"top_n": 1, "top_k": 2}, "top_k", "differ"),
        ({"rank_fields": ["title"]}, "rank_fields", "text"),
        ({"doc": []}, "doc", "unknown field"),
        ({"model": "sentence-transformers/all-MiniLM-L6-v2"}, "model", "/v1/embeddings"),
        ({"max_cost": -1}, "max_cost", "greater than or equal to 0"),
    ],
)
def test_errors_name_the_field(gateway, fields, param, message):
    answer = post(gateway, **fields)
    assert answer.status_code in {400, 404}
    error = answer.json()["error"]
    assert error["param"] == (param if param != "input" else "documents")
    assert message in error["message"]


def test_our_own_provider_of_compatible_servers(gateway, gateway_settings, expected):
    route = {"provider": "openai-compatible", "base_url": f"{gateway.url}/v1", "auth": "none"}
    found = rerank_far(QUERY, DOCUMENTS, upstream_model=gateway_settings["rerank.default_model"], **route)
    assert found.order == expected.order
    assert found.scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-5)
