"""Cohere's API of embeddings and reranking, versions 1 and 2.

Sources: https://docs.cohere.com/reference/embed, https://docs.cohere.com/v1/reference/embed,
https://docs.cohere.com/reference/rerank, and the package `cohere` 7.3.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from embedway.server.bodies import Body, parse
from embedway.server.calls import EmbedCall
from embedway.server.dialects import rerank as common
from embedway.server.dialects.additions import Additions, RerankAdditions
from embedway.server.dialects.fields import CoherePriority, Count, Dimensions, Model, Text, Texts, placed, warnings_of
from embedway.server.endpoint import Endpoint
from embedway.server.model_cards import model_card
from embedway.server.problems import BodyError
from embedway.server.replies import Reply, base64_rows, encoded, float_array, float_rows, json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem
    from embedway.types import EmbedResult, InputType, Overflow

InputTypeName = Literal["search_document", "search_query"]
_INPUT_TYPES: dict[InputTypeName | None, InputType] = {
    "search_document": "document",
    "search_query": "query",
    None: "document",
}
#: With START, long texts are refused: the gateway truncates only at the end.
_OVERFLOWS: dict[str | None, Overflow] = {"NONE": "error", "START": "error", "END": "truncate", None: "truncate"}
EmbeddingTypes = Annotated[list[Literal["float", "base64"]], Field(min_length=1, max_length=2)]


class EmbedV1Body(Additions):
    """Body of `POST /v1/embed`."""

    expected: ClassVar[dict[str, str]] = {
        "texts": "a list of texts",
        "input_type": "search_document or search_query; models have no other prompts here",
        "embedding_types": "a list of float and base64; vectors are not quantized here",
        "truncate": "NONE, END or START, which refuses texts over the limit, because only ends are truncated here",
    }

    texts: Texts
    model: Model | None = None
    input_type: InputTypeName | None = None
    embedding_types: EmbeddingTypes | None = None
    truncate: Literal["NONE", "START", "END"] | None = None

    def call(self, dimensions: int | None = None) -> EmbedCall:
        """Return the call of this body."""
        return EmbedCall(
            self.texts,
            self.model or "",
            _INPUT_TYPES[self.input_type],
            dimensions,
            _OVERFLOWS[self.truncate],
            self.collection or "",
            max_cost=self.max_dollars,
            deadline_s=self.deadline,
        )


class EmbedV2Body(EmbedV1Body):
    """Body of `POST /v2/embed`."""

    model: Model
    input_type: InputTypeName
    output_dimension: Dimensions | None = None
    #: No effect: it only moves a request behind those of Cohere's default, which is the lowest priority here.
    priority: CoherePriority | None = None


class RerankV2Body(RerankAdditions):
    """Body of `POST /v2/rerank`."""

    query: Text
    documents: Texts
    model: Model
    top_n: Count | None = None
    max_tokens_per_doc: Count | None = None
    priority: CoherePriority | None = None


async def embed_v1(exchange: Exchange) -> Reply:
    """Answer `POST /v1/embed`: lists of numbers, unless types are asked for."""
    body = parse(EmbedV1Body, exchange.body)
    return await _embed(exchange, body, body.call(), "1")


async def embed_v2(exchange: Exchange) -> Reply:
    """Answer `POST /v2/embed`."""
    body = parse(EmbedV2Body, exchange.body)
    return await _embed(exchange, body, body.call(body.output_dimension), "2")


async def _embed(exchange: Exchange, body: EmbedV1Body, call: EmbedCall, version: str) -> Reply:
    result = await exchange.embed(call)
    types = body.embedding_types or (["float"] if version == "2" else None)
    kind = "embeddings_floats" if types is None else "embeddings_by_type"
    answer = b'{"id":%b,"response_type":"%b","embeddings":%b,"texts":%b,"meta":%b}' % (
        orjson.dumps(exchange.request_id),
        kind.encode(),
        await encoded(result.vectors, _vectors, result, types),
        orjson.dumps(body.texts),
        orjson.dumps(_meta(result, version)),
    )
    return Reply(answer, headers=receipt_headers(result.receipt))


def _vectors(result: EmbedResult, types: list[Literal["float", "base64"]] | None) -> bytes:
    if types is None:
        return float_array(result.vectors)
    by_type = {"float": float_rows, "base64": base64_rows}
    rows = (b'"%b":[%b]' % (kind.encode(), b",".join(by_type[kind](result.vectors))) for kind in dict.fromkeys(types))
    return b"{%b}" % b",".join(rows)


def _meta(result: EmbedResult, version: str) -> dict[str, Any]:
    tokens = result.receipt.input_tokens
    found: dict[str, Any] = {"api_version": {"version": version}, "billed_units": {"input_tokens": tokens}}
    warnings = warnings_of(result.receipt)
    return {**found, "warnings": warnings} if warnings else found


async def rerank_v2(exchange: Exchange) -> Reply:
    """Answer `POST /v2/rerank`. Documents over the model's limit are truncated, as Cohere does."""
    body = parse(RerankV2Body, exchange.body)
    if body.max_tokens_per_doc is not None:
        await _check_document_limit(exchange, body.model, body.max_tokens_per_doc)
    call = body.score_call(body.query, body.documents, body.model, body.top_n, "truncate")
    result = await exchange.rerank(call)
    found = {
        "id": exchange.request_id,
        "results": common.results_of(result, None),
        "meta": common.meta_of(result, version="2"),
    }
    return json_reply(found, headers=receipt_headers(result.receipt))


async def _check_document_limit(exchange: Exchange, model: str, asked: int) -> None:
    """Raise BodyError if documents would have to be truncated below the model's own limit."""
    most = (await model_card(exchange.gateway, exchange.caller, model)).max_tokens
    if most is not None and asked < most:
        raise BodyError(
            f"max_tokens_per_doc is {asked}; documents are truncated only at the model's limit of {most} tokens; "
            "leave the field out, or send shorter documents",
            param="max_tokens_per_doc",
        )


def error(problem: Problem, texts: str = "texts") -> bytes:
    """Return an error in Cohere's form."""
    return orjson.dumps({"message": placed(problem, texts), "code": problem.code})


ERROR_SCHEMA = {
    "type": "object",
    "required": ["message"],
    "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
}
_ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_BY_TYPE = {
    "type": "object",
    "properties": {"float": _ROWS, "base64": {"type": "array", "items": {"type": "string"}}},
}


def _embed_schema(embeddings: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id", "response_type", "embeddings", "texts", "meta"],
        "properties": {
            "id": {"type": "string"},
            "response_type": {"enum": ["embeddings_floats", "embeddings_by_type"]},
            "embeddings": embeddings,
            "texts": {"type": "array", "items": {"type": "string"}},
            "meta": common.META_SCHEMA,
        },
    }


_RERANKED = {
    "type": "object",
    "required": ["id", "results", "meta"],
    "properties": {"id": {"type": "string"}, "results": common.RESULTS_SCHEMA, "meta": common.META_SCHEMA},
}


def _post(path: str, handler: Any, summary: str, body: type[Body], answer: Any) -> Endpoint:
    form = error if "embed" in path else partial(error, texts="documents")
    return Endpoint("POST", path, handler, summary, form, "cohere", body, answer, error_schema=ERROR_SCHEMA)


_EMBEDDED_V1 = _embed_schema({"oneOf": [_ROWS, _BY_TYPE]})
_OWN = (
    _post("/v1/embed", embed_v1, "Vectors of texts, as Cohere's first version", EmbedV1Body, _EMBEDDED_V1),
    _post("/v2/embed", embed_v2, "Vectors of texts, as Cohere's API", EmbedV2Body, _embed_schema(_BY_TYPE)),
    _post("/v2/rerank", rerank_v2, "Scores of documents, as Cohere's API", RerankV2Body, _RERANKED),
)
_RERANK_V1 = _post(
    "/v1/rerank", common.rerank, "Scores of documents, as Cohere's first version", common.RerankBody, common.ANSWER
)
ENDPOINTS = (*_OWN, *(one.under("/cohere") for one in (*_OWN, _RERANK_V1)))
