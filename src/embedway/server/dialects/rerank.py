"""Reranking in the form that Cohere's first version, Jina, vLLM and others share: `POST /v1/rerank`.

Sources: https://docs.cohere.com/v1/reference/rerank, https://api.jina.ai/openapi.json (both list the documents as
texts or objects with the field `text`), and the package `cohere` 7.3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from embedway.server.bodies import parse
from embedway.server.dialects import openai
from embedway.server.dialects.additions import RerankAdditions
from embedway.server.dialects.fields import Count, Model, Text, TextItem, first_given, overflow_of, placed, warnings_of
from embedway.server.endpoint import Endpoint
from embedway.server.replies import json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.calls import ScoreCall
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem
    from embedway.server.replies import Reply
    from embedway.types import RerankResult


#: Documents as texts or objects.
Documents = Annotated[list[Text | TextItem], Field(json_schema_extra={"minItems": 1})]


def texts_of(documents: list[str | TextItem]) -> list[str]:
    """Return the texts of documents."""
    return [one if isinstance(one, str) else one.text for one in documents]


class RerankBody(RerankAdditions):
    """Body of `POST /v1/rerank`."""

    expected: ClassVar[dict[str, str]] = {
        "documents": 'a list of texts, or of objects such as {"text": "..."}',
        "rank_fields": '["text"]; documents have no other fields here',
    }

    query: Text
    documents: Documents
    #: Name or alias of a reranker; by default, that of the gateway.
    model: Model | None = None
    #: Number of best documents to return; by default, all.
    top_n: Count | None = None
    #: As `top_n`, in Voyage's API.
    top_k: Count | None = None
    #: Whether results contain the documents.
    return_documents: bool | None = None
    rank_fields: list[Literal["text"]] | None = None
    #: Whether long documents are truncated, in Voyage's API, or refused.
    truncation: bool | None = None
    #: As `truncation`, in Jina's API.
    truncate: bool | None = None
    user: Annotated[str, Field(max_length=10_000)] | None = None

    def call(self) -> ScoreCall:
        """Return the call of this body. Raises BodyError for fields that contradict one another."""
        overflow = first_given(
            ("on_overflow", self.on_overflow),
            ("truncation", overflow_of(self.truncation)),
            ("truncate", overflow_of(self.truncate)),
        )
        top_n = first_given(("top_n", self.top_n), ("top_k", self.top_k))
        return self.score_call(self.query, texts_of(self.documents), self.model, top_n, overflow)


async def rerank(exchange: Exchange) -> Reply:
    """Answer `POST /v1/rerank`."""
    body = parse(RerankBody, exchange.body)
    call = body.call()
    result = await exchange.rerank(call)
    found = {
        "id": exchange.request_id,
        "object": "list",
        "model": result.receipt.model,
        "results": results_of(result, call.documents if body.return_documents else None),
        "usage": usage_of(result),
        "meta": meta_of(result, version="1"),
    }
    return json_reply(found, headers=receipt_headers(result.receipt))


def results_of(result: RerankResult, documents: Any) -> list[dict[str, Any]]:
    """Return the best documents, best first, with their texts if `documents` is not None."""
    scores = result.scores.tolist()
    found = [{"index": row, "relevance_score": scores[row]} for row in result.order]
    if documents is not None:
        for one in found:
            one["document"] = {"text": documents[one["index"]]}
    return found


def usage_of(result: RerankResult) -> dict[str, int]:
    """Return the tokens of all documents."""
    tokens = result.receipt.input_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def meta_of(result: RerankResult, version: str) -> dict[str, Any]:
    """Return Cohere's facts of an answer: billed units and warnings."""
    receipt = result.receipt
    found: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": receipt.billed_searches}
        if receipt.billed_searches
        else {"input_tokens": receipt.billed_tokens},
        "tokens": {"input_tokens": receipt.input_tokens},
    }
    warnings = warnings_of(receipt)
    return {**found, "warnings": warnings} if warnings else found


def error(problem: Problem) -> bytes:
    """Return an error in OpenAI's form; the field of the texts is `documents`."""
    param = problem.param or ""
    if param == "input" or param.startswith("input."):
        message = placed(problem, "documents")
        problem = replace(problem, message=message, param="documents" + param.removeprefix("input"))
    return openai.error(problem)


META_SCHEMA = {
    "type": "object",
    "properties": {
        "api_version": {"type": "object", "properties": {"version": {"type": "string"}}},
        "billed_units": {
            "type": "object",
            "properties": {"search_units": {"type": "integer"}, "input_tokens": {"type": "integer"}},
        },
        "tokens": {"type": "object", "properties": {"input_tokens": {"type": "integer"}}},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
RESULTS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "relevance_score"],
        "properties": {
            "index": {"type": "integer"},
            "relevance_score": {"type": "number"},
            "document": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        },
    },
}
ANSWER = {
    "type": "object",
    "required": ["id", "object", "model", "results", "usage", "meta"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "list"},
        "model": {"type": "string"},
        "results": RESULTS_SCHEMA,
        "usage": openai.USAGE_SCHEMA,
        "meta": META_SCHEMA,
    },
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/rerank",
        rerank,
        "Scores of documents for a query, as Cohere's first version and Jina",
        error,
        "rerank",
        RerankBody,
        ANSWER,
        error_schema=openai.ERROR_SCHEMA,
    ),
)
