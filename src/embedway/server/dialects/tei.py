"""API of Text Embeddings Inference (TEI): it serves one model, here the gateway's default unless `model` names one.

Source: https://github.com/huggingface/text-embeddings-inference, `router/src/http/types.rs` and `server.rs`, read
2026-11-27.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import orjson
from pydantic import Field

from embedway._version import __version__
from embedway.server.bodies import Body, parse
from embedway.server.dialects.additions import EmbedAdditions, RerankAdditions
from embedway.server.dialects.fields import (
    Dimensions,
    False_,
    Model,
    Text,
    Texts,
    TokenIds,
    overflow_of,
    placed,
    texts_of,
)
from embedway.server.endpoint import Endpoint
from embedway.server.model_cards import default_card
from embedway.server.problems import BodyError
from embedway.server.replies import Reply, encoded, float_array, json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem
    from embedway.types import InputType, Overflow

Prompt = Literal["query", "document", "passage"]
Direction = Literal["right", "left", "Right", "Left"]
_INPUT_TYPES: dict[Prompt | None, InputType] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    None: "document",
}
_EXPECTED = {
    "inputs": "a text, a list of texts, a list of token ids, or a list of such lists",
    "prompt_name": "query, document or passage; models have no other prompts here",
    "truncation_direction": "right, or left, which refuses texts over the limit, because only ends are truncated here",
    "raw_scores": "false: scores are those that the model's maker defines",
}


class TeiEmbedBody(EmbedAdditions):
    """Body of TEI's `POST /embed`."""

    expected: ClassVar[dict[str, str]] = _EXPECTED

    inputs: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(json_schema_extra={"minItems": 1})]
    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    prompt_name: Prompt | None = None
    normalize: bool = True
    dimensions: Dimensions | None = None
    #: TEI serves one model; this addition names another one.
    model: Model | None = None


class Sentences(Body):
    """Inputs of `POST /similarity`."""

    source_sentence: Text
    sentences: Texts


class Parameters(Body):
    """Parameters of `POST /similarity`."""

    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    prompt_name: Prompt | None = None


class TeiSimilarityBody(EmbedAdditions):
    """Body of TEI's `POST /similarity`."""

    inputs: Sentences
    parameters: Parameters | None = None
    model: Model | None = None


class TeiRerankBody(RerankAdditions):
    """Body of TEI's `POST /rerank`."""

    expected: ClassVar[dict[str, str]] = {**_EXPECTED, "texts": "a list of texts"}

    query: Text
    texts: Texts
    truncate: bool | None = None
    truncation_direction: Direction | None = "right"
    raw_scores: False_ = False
    return_text: bool = False
    model: Model | None = None


def _overflow(truncate: bool | None, direction: Direction | None) -> Overflow | None:
    """Return the handling of long texts; with `left`, they are refused, because only ends are truncated."""
    if direction in {"left", "Left"}:
        return "error"
    return overflow_of(truncate)


async def embed(exchange: Exchange) -> Reply:
    """Answer `POST /embed`, and `POST /` as TEI does."""
    body = parse(TeiEmbedBody, exchange.body)
    call = body.embed_call(
        texts_of(body.inputs),
        body.model,
        _INPUT_TYPES[body.prompt_name],
        body.dimensions,
        _overflow(body.truncate, body.truncation_direction),
        normalize=body.normalize,
    )
    result = await exchange.embed(call)
    written = await encoded(result.vectors, float_array, result.vectors)
    return Reply(written, headers=receipt_headers(result.receipt))


async def similarity(exchange: Exchange) -> Reply:
    """Answer `POST /similarity`: cosines of a text and others."""
    body = parse(TeiSimilarityBody, exchange.body)
    asked = body.parameters or Parameters()
    if not body.inputs.sentences:
        raise BodyError("inputs.sentences is empty; send at least one", param="inputs", code="invalid_input")
    call = body.embed_call(
        [body.inputs.source_sentence, *body.inputs.sentences],
        body.model,
        _INPUT_TYPES[asked.prompt_name],
        on_overflow=_overflow(asked.truncate, asked.truncation_direction),
        normalize=True,
    )
    result = await exchange.embed(call)
    cosines = np.clip(result.vectors[1:] @ result.vectors[0], -1, 1)
    body_bytes = orjson.dumps(np.ascontiguousarray(cosines), option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body_bytes, headers=receipt_headers(result.receipt))


async def rerank(exchange: Exchange) -> Reply:
    """Answer `POST /rerank`."""
    body = parse(TeiRerankBody, exchange.body)
    overflow = _overflow(body.truncate, body.truncation_direction)
    call = body.score_call(body.query, body.texts, body.model, on_overflow=overflow)
    result = await exchange.rerank(call)
    scores = result.scores.tolist()
    ranks: list[dict[str, Any]] = [{"index": row, "score": scores[row]} for row in result.order]
    if body.return_text:
        ranks = [{**one, "text": body.texts[one["index"]]} for one in ranks]
    return json_reply(ranks, headers=receipt_headers(result.receipt))


async def info(exchange: Exchange) -> Reply:
    """Answer `GET /info`: facts of the default model."""
    gateway = exchange.gateway
    settings = gateway.config.server
    card = await default_card(gateway, exchange.caller)
    return json_reply(
        {
            "model_id": card.name,
            "model_sha": card.sha256 or None,
            "model_dtype": "float32",
            "served_model_name": card.name,
            "model_type": {"embedding": {"pooling": card.pooling}},
            "max_concurrent_requests": settings.max_running + settings.max_waiting,
            "max_input_length": card.max_tokens or 0,
            "max_batch_tokens": settings.max_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": settings.max_inputs,
            "auto_truncate": gateway.config.embedding.on_overflow == "truncate",
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )


async def health(exchange: Exchange) -> Reply:
    """Answer `GET /health`: an empty body if the default model answers."""
    if await exchange.gateway.readiness.reason():
        raise BodyError("unhealthy", status=503, code="unhealthy")
    return Reply(b"", media=b"text/plain; charset=utf-8")


#: Kinds of TEI's errors by our status, from `ErrorType` of its router; others are `validation`.
_TYPES = {429: "overloaded", 424: "backend", 500: "backend", 502: "backend", 503: "unhealthy", 504: "backend"}
#: TEI's statuses of problems: 422 for texts and fields, 413 for a batch, 424 for the model behind it.
_STATUSES = {
    "context_length_exceeded": 422,
    "invalid_input": 422,
    "invalid_request_error": 422,
    "unsupported_dimensions": 422,
    "overloaded": 429,
    "too_many_inputs": 413,
    "too_many_tokens": 413,
    "upstream_error": 424,
    "upstream_quota_exceeded": 424,
    "upstream_authentication_failed": 424,
    "invalid_vectors": 424,
}


def error(problem: Problem, texts: str = "inputs") -> bytes:
    """Return an error in TEI's form."""
    kind = _TYPES.get(_STATUSES.get(problem.code, problem.status), "validation")
    return orjson.dumps({"error": placed(problem, texts), "error_type": kind})


_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {
        "error": {"type": "string"},
        "error_type": {"enum": ["unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty"]},
    },
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_RANKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": {"type": "integer"}, "score": {"type": "number"}, "text": {"type": "string"}},
    },
}
_INFO = {
    "type": "object",
    "required": ["model_id", "model_type", "max_input_length", "max_client_batch_size", "auto_truncate", "version"],
    "properties": {
        "model_id": {"type": "string"},
        "model_type": {"type": "object"},
        "max_input_length": {"type": "integer"},
        "max_client_batch_size": {"type": "integer"},
        "auto_truncate": {"type": "boolean"},
        "version": {"type": "string"},
    },
}


def _post(path: str, handler: Any, summary: str, body: type[Body], answer: Any) -> Endpoint:
    form = partial(error, texts="texts") if body is TeiRerankBody else error
    return Endpoint(
        "POST", path, handler, summary, form, "tei", body, answer, error_schema=_ERROR_SCHEMA, statuses=_STATUSES
    )


def _get(path: str, handler: Any, summary: str, **more: Any) -> Endpoint:
    return Endpoint("GET", path, handler, summary, error, "tei", error_schema=_ERROR_SCHEMA, **more)


_ROWS = {"type": "array", "items": _NUMBERS}
_OWN = (
    _post("/embed", embed, "Vectors of texts, as TEI", TeiEmbedBody, _ROWS),
    _post("/", embed, "Vectors of texts, as TEI at its root", TeiEmbedBody, _ROWS),
    _post("/similarity", similarity, "Cosines of a text and others, as TEI", TeiSimilarityBody, _NUMBERS),
    _post("/rerank", rerank, "Scores of texts for a query, as TEI", TeiRerankBody, _RANKS),
    _get("/info", info, "Facts of the default model, as TEI", answer=_INFO),
    _get("/health", health, "Whether the default model answers, as TEI", access="open", media="text/plain"),
)
ENDPOINTS = (*_OWN, *(one.under("/tei") for one in _OWN))
