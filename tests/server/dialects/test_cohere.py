"""Cohere's API with both classes of its official client, and our own provider."""

import base64

import cohere
import httpx
import numpy as np
import pytest

from served_models import FAKE, MODEL, TEXTS, embed_far, same


@pytest.fixture(params=["", "/cohere"])
def address(gateway, request):
    return gateway.url + request.param


@pytest.fixture
def client(address):
    with httpx.Client(timeout=60) as connections:  # the client does not close its own
        yield cohere.ClientV2(api_key="none", base_url=address, httpx_client=connections)


def embed(client, texts=TEXTS, model=MODEL, **options):
    return client.embed(texts=texts, model=model, **{"input_type": "search_document", **options})


def test_the_client_of_version_2(client, expected):
    answer = embed(client)
    assert same(answer.embeddings.float_, expected)
    assert answer.texts == TEXTS
    assert answer.meta.billed_units.input_tokens > 0
    assert answer.meta.warnings is None


def test_types_of_vectors(client, expected):
    answer = embed(client, embedding_types=["float", "base64"])
    assert same(answer.embeddings.float_, expected)
    assert same([np.frombuffer(base64.b64decode(one), "<f4") for one in answer.embeddings.base64], expected)
    with pytest.raises(cohere.BadRequestError, match="not quantized"):
        embed(client, embedding_types=["int8"])


def test_queries_and_sizes(client, library):
    answer = embed(client, model=FAKE, input_type="search_query", output_dimension=8)
    expected = library.embed(TEXTS, model=FAKE, input_type="query", dimensions=8).vectors
    assert same(answer.embeddings.float_, expected)
    with pytest.raises(cohere.BadRequestError, match="search_document or search_query"):
        embed(client, input_type="classification")


def test_truncation_is_told_and_can_be_refused(client):
    long = ["short", "word " * 2000]
    assert "text 1 was truncated" in embed(client, long).meta.warnings[0]
    for truncate in ("NONE", "START"):
        with pytest.raises(cohere.BadRequestError, match=r"texts\[1\].*the model accepts 256"):
            embed(client, long, truncate=truncate)
        assert len(embed(client, long[:1], truncate=truncate).embeddings.float_) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_client_of_version_1(address, expected, library):
    with httpx.Client(timeout=60) as connections:
        check_version_1(cohere.Client(api_key="none", base_url=address, httpx_client=connections), expected, library)


def check_version_1(client, expected, library):
    assert same(client.embed(texts=TEXTS, model=MODEL, input_type="search_document").embeddings, expected)
    typed = client.embed(texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["float"])
    assert same(typed.embeddings.float_, expected)
    found = client.rerank(query="cats", documents=[TEXTS[1], {"text": TEXTS[0]}], top_n=1, return_documents=True)
    order = library.rerank("cats", TEXTS[1::-1]).order
    assert [one.index for one in found.results] == [order[0]]
    assert found.results[0].document.text == TEXTS[1::-1][order[0]]


def test_reranking(client, gateway_settings, library):
    found = client.rerank(model=gateway_settings["rerank.default_model"], query="cats", documents=TEXTS)
    expected = library.rerank("cats", TEXTS)
    assert [one.index for one in found.results] == list(expected.order)
    scores = [one.relevance_score for one in found.results]
    assert scores == pytest.approx([float(expected.scores[row]) for row in expected.order], abs=1e-5)


def test_errors_have_the_classes_of_the_client(client):
    with pytest.raises(cohere.NotFoundError) as unknown:
        embed(client, model="embed-unknown")
    assert "not served" in unknown.value.body["message"]
    with pytest.raises(cohere.BadRequestError, match=r"texts\[1\]: it is empty"):
        embed(client, ["a", ""])


def test_our_own_provider(gateway, expected):
    route = {"provider": "cohere", "base_url": gateway.url, "api_key": "none"}
    assert same(embed_far(TEXTS, upstream_model=MODEL, **route), expected)
