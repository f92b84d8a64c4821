"""Jina's API of embeddings and reranking, below `/jina`; `/v1` reads its fields too.

Source: https://api.jina.ai/openapi.json. Its defaults differ from those at `/v1`: long texts are refused, and
reranking returns the documents.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from embedway.server.bodies import parse
from embedway.server.dialects import openai
from embedway.server.dialects import rerank as common
from embedway.server.dialects.additions import EmbedAdditions, RerankAdditions
from embedway.server.dialects.fields import (
    Count,
    Dimensions,
    False_,
    Model,
    Text,
    TextItem,
    Texts,
    overflow_of,
    texts_of,
)
from embedway.server.dialects.voyage import ERROR_SCHEMA, error
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply, encoded, json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange


class JinaEmbedBody(EmbedAdditions):
    """Body of Jina's `POST /v1/embeddings`."""

    expected: ClassVar[dict[str, str]] = {
        "input": 'a text, a list of texts, or a list of objects such as {"text": "..."}',
        "task": "retrieval.query or retrieval.passage; models have no other prompts here",
        "embedding_type": "float or base64; vectors are not quantized here",
        "late_chunking": openai.NO_LATE_CHUNKING,
    }

    input: Text | Texts | Annotated[list[TextItem], Field(json_schema_extra={"minItems": 1})]
    model: Model
    task: openai.JinaTask | None = None
    dimensions: Dimensions | None = None
    embedding_type: openai.Encoding | None = "float"
    #: Whether vectors have length 1; otherwise, as the model returns them.
    normalized: bool | None = None
    #: Whether long texts are truncated, or refused.
    truncate: bool | None = False
    late_chunking: False_ | None = None


class JinaRerankBody(RerankAdditions):
    """Body of Jina's `POST /v1/rerank`."""

    expected: ClassVar[dict[str, str]] = {
        "documents": 'a list of texts, or of objects such as {"text": "..."}',
    }

    query: Text
    documents: common.Documents
    model: Model
    top_n: Count | None = None
    return_documents: bool | None = True
    #: Whether long documents are truncated, or refused.
    truncate: bool | None = None


async def embeddings(exchange: Exchange) -> Reply:
    """Answer `POST /jina/v1/embeddings`."""
    body = parse(JinaEmbedBody, exchange.body)
    call = body.embed_call(
        texts_of(body.input),
        body.model,
        openai.TASKS[body.task],
        body.dimensions,
        overflow_of(body.truncate),
        normalize=body.normalized or None,
    )
    result = await exchange.embed(call)
    written = await encoded(result.vectors, openai.answer, result, body.embedding_type or "float")
    return Reply(written, headers=receipt_headers(result.receipt))


async def rerank(exchange: Exchange) -> Reply:
    """Answer `POST /jina/v1/rerank`."""
    body = parse(JinaRerankBody, exchange.body)
    documents = common.texts_of(body.documents)
    call = body.score_call(body.query, documents, body.model, body.top_n, overflow_of(body.truncate))
    result = await exchange.rerank(call)
    found = {
        "model": result.receipt.model,
        "object": "list",
        "usage": common.usage_of(result),
        "results": common.results_of(result, documents if body.return_documents else None),
    }
    return json_reply(found, headers=receipt_headers(result.receipt))


_RERANKED = {
    "type": "object",
    "required": ["model", "usage", "results"],
    "properties": {
        "model": {"type": "string"},
        "object": {"const": "list"},
        "usage": openai.USAGE_SCHEMA,
        "results": common.RESULTS_SCHEMA,
    },
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/jina/v1/embeddings",
        embeddings,
        "Vectors of texts, as Jina's API",
        error,
        "jina",
        JinaEmbedBody,
        openai.ANSWER,
        error_schema=ERROR_SCHEMA,
    ),
    Endpoint(
        "POST",
        "/jina/v1/rerank",
        rerank,
        "Scores of documents, as Jina's API",
        partial(error, texts="documents"),
        "jina",
        JinaRerankBody,
        _RERANKED,
        error_schema=ERROR_SCHEMA,
    ),
)
