"""Voyage's API of embeddings and reranking, below `/voyage`: its scores and errors have a form of their own.

Sources: https://docs.voyageai.com/reference/embeddings-api, https://docs.voyageai.com/reference/reranker-api, and the
package `voyageai` 0.5.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import orjson

from embedway.server.bodies import parse
from embedway.server.dialects import openai
from embedway.server.dialects import rerank as common
from embedway.server.dialects.additions import EmbedAdditions, RerankAdditions
from embedway.server.dialects.fields import Count, Dimensions, Model, Text, Texts, overflow_of, placed, texts_of
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply, encoded, json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem


class VoyageEmbedBody(EmbedAdditions):
    """Body of Voyage's `POST /v1/embeddings`."""

    expected: ClassVar[dict[str, str]] = {
        "input": "a text or a list of texts",
        "output_dtype": "float; vectors are not quantized here",
    }

    input: Text | Texts
    model: Model
    input_type: Literal["query", "document"] | None = None
    #: Whether long texts are truncated, or refused.
    truncation: bool | None = True
    output_dimension: Dimensions | None = None
    output_dtype: Literal["float"] | None = None
    encoding_format: Literal["base64"] | None = None


class VoyageRerankBody(RerankAdditions):
    """Body of Voyage's `POST /v1/rerank`."""

    query: Text
    documents: Texts
    model: Model
    top_k: Count | None = None
    return_documents: bool | None = False
    #: Whether long documents are truncated, or refused.
    truncation: bool | None = True


async def embeddings(exchange: Exchange) -> Reply:
    """Answer `POST /voyage/v1/embeddings`."""
    body = parse(VoyageEmbedBody, exchange.body)
    overflow = overflow_of(body.truncation)
    call = body.embed_call(texts_of(body.input), body.model, body.input_type, body.output_dimension, overflow)
    result = await exchange.embed(call)
    written = await encoded(result.vectors, openai.answer, result, body.encoding_format or "float")
    return Reply(written, headers=receipt_headers(result.receipt))


async def rerank(exchange: Exchange) -> Reply:
    """Answer `POST /voyage/v1/rerank`."""
    body = parse(VoyageRerankBody, exchange.body)
    call = body.score_call(body.query, body.documents, body.model, body.top_k, overflow_of(body.truncation))
    result = await exchange.rerank(call)
    data = common.results_of(result, None)
    if body.return_documents:
        data = [{**one, "document": body.documents[one["index"]]} for one in data]
    found = {
        "object": "list",
        "data": data,
        "model": result.receipt.model,
        "usage": {"total_tokens": result.receipt.input_tokens},
    }
    return json_reply(found, headers=receipt_headers(result.receipt))


def error(problem: Problem, texts: str = "input") -> bytes:
    """Return an error in the form of Voyage and Jina."""
    return orjson.dumps({"detail": placed(problem, texts)})


ERROR_SCHEMA = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_RERANKED = {
    "type": "object",
    "required": ["object", "data", "model", "usage"],
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "relevance_score"],
                "properties": {
                    "index": {"type": "integer"},
                    "relevance_score": {"type": "number"},
                    "document": {"type": "string"},
                },
            },
        },
        "model": {"type": "string"},
        "usage": {"type": "object", "properties": {"total_tokens": {"type": "integer"}}},
    },
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/voyage/v1/embeddings",
        embeddings,
        "Vectors of texts, as Voyage's API",
        error,
        "voyage",
        VoyageEmbedBody,
        openai.ANSWER,
        error_schema=ERROR_SCHEMA,
    ),
    Endpoint(
        "POST",
        "/voyage/v1/rerank",
        rerank,
        "Scores of documents, as Voyage's API",
        partial(error, texts="documents"),
        "voyage",
        VoyageRerankBody,
        _RERANKED,
        error_schema=ERROR_SCHEMA,
    ),
)
