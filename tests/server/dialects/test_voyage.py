"""Voyage's API with its official client and our own provider."""

import pytest
import voyageai

from served_models import FAKE, MODEL, TEXTS, embed_far, same


@pytest.fixture
def client(gateway):
    return voyageai.Client(api_key="none", base_url=f"{gateway.url}/voyage/v1")


def test_the_client_at_its_defaults(client, expected):
    answer = client.embed(TEXTS, model=MODEL)
    assert same(answer.embeddings, expected)
    assert answer.total_tokens > 0


def test_queries_and_sizes(client, library):
    answer = client.embed(TEXTS, model=FAKE, input_type="query", output_dimension=8)
    assert same(answer.embeddings, library.embed(TEXTS, model=FAKE, input_type="query", dimensions=8).vectors)


def test_long_texts_are_truncated_unless_it_is_switched_off(client):
    long = ["short", "word " * 2000]
    assert len(client.embed(long, model=MODEL).embeddings) == 2
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"input\[1\].*the model accepts 256"):
        client.embed(long, model=MODEL, truncation=False)


def test_reranking(client, gateway_settings, library):
    found = client.rerank("cats", TEXTS, model=gateway_settings["rerank.default_model"], top_k=2)
    expected = library.rerank("cats", TEXTS, top_n=2)
    assert [one.index for one in found.results] == list(expected.order)
    assert found.results[0].relevance_score == pytest.approx(float(expected.scores[expected.order[0]]), abs=1e-5)
    assert found.total_tokens == expected.receipt.input_tokens


def test_errors_have_the_classes_of_the_client(client):
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"input\[1\]: it is empty"):
        client.embed(["a", ""], model=MODEL)
    with pytest.raises(voyageai.error.InvalidRequestError, match="not quantized"):
        client.embed(["a"], model=MODEL, output_dtype="int8")


def test_our_own_provider(gateway, expected):
    route = {"provider": "voyage", "base_url": f"{gateway.url}/voyage/v1", "api_key": "none"}
    assert same(embed_far(TEXTS, upstream_model=MODEL, **route), expected)
