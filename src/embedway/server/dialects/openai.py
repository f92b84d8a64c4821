"""OpenAI's API of embeddings: requests, answers and errors.

Source: https://platform.openai.com/docs/api-reference/embeddings, and the types of the package `openai` 3.54.
"""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003  pydantic evaluates the annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from embedway.server.bodies import Body, Name, parse
from embedway.server.calls import EmbedCall
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply, base64_rows, float_rows, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem
    from embedway.types import EmbedResult, InputType, Overflow

TokenIds = list[Annotated[int, Field(ge=0, lt=2**31)]]


class EmbeddingsBody(Body):
    """Body of `POST /v1/embeddings`; fields after `user` are additions."""

    expected: ClassVar[dict[str, str]] = {
        "input": "a text, a list of texts, a list of token ids, or a list of such lists",
        "max_cost": "a number of dollars",
    }

    input: str | list[str] | TokenIds | list[TokenIds]
    #: Name or alias of a model; `auto` selects one by the texts and the settings.
    model: Name
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    user: Annotated[str, Field(max_length=10_000)] | None = None
    input_type: Literal["query", "document"] | None = None
    #: Name of a set of vectors, which keeps the model and space of its first write.
    collection: Name | None = None
    #: 0 to 9; higher priorities are computed sooner.
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    #: Maximum cost in dollars.
    max_cost: Annotated[Decimal, Field(ge=0, allow_inf_nan=False, strict=False)] | None = None
    #: Handling of a text over the model's limit.
    on_overflow: Literal["truncate", "error", "mean"] | None = None
    #: Maximum time in seconds.
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = None
    #: Whether vectors have length 1; by default, as the model returns them.
    normalize: bool | None = None

    def call(self) -> EmbedCall:
        """Return the call of this body."""
        given = self.input
        texts: Any = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
        input_type: InputType = self.input_type or "document"
        overflow: Overflow | None = self.on_overflow
        return EmbedCall(
            texts,
            self.model,
            input_type,
            self.dimensions,
            overflow,
            self.collection or "",
            self.priority,
            self.max_cost,
            self.deadline,
            self.normalize,
        )


async def embeddings(exchange: Exchange) -> Reply:
    """Answer `POST /v1/embeddings`."""
    body = parse(EmbeddingsBody, exchange.body)
    result = await exchange.gateway.embed(exchange.caller, body.call())
    exchange.note(result.receipt)
    return Reply(answer(result, body.encoding_format or "float"), headers=receipt_headers(result.receipt))


def answer(result: EmbedResult, encoding: Literal["float", "base64"]) -> bytes:
    """Return the vectors in the order of the texts, with the tokens of all texts as usage."""
    rows = base64_rows(result.vectors) if encoding == "base64" else float_rows(result.vectors)
    data = b",".join(
        [b'{"object":"embedding","index":%d,"embedding":%b}' % (index, row) for index, row in enumerate(rows)]
    )
    receipt = result.receipt
    tokens = receipt.input_tokens
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        data,
        orjson.dumps(receipt.model),
        tokens,
        tokens,
    )


def error(problem: Problem) -> bytes:
    """Return an error in OpenAI's form."""
    kind = (
        "invalid_request_error"
        if problem.status < 500 and problem.status not in {401, 403, 429}
        else {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            problem.status, "server_error"
        )
    )
    if problem.code == "insufficient_quota":
        kind = "insufficient_quota"
    found = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    return orjson.dumps({"error": found})


ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
USAGE_SCHEMA = {
    "type": "object",
    "required": ["prompt_tokens", "total_tokens"],
    "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
}
_ANSWER = {
    "type": "object",
    "required": ["object", "data", "model", "usage"],
    "properties": {
        "object": {"const": "list"},
        "model": {"type": "string"},
        "usage": USAGE_SCHEMA,
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["object", "index", "embedding"],
                "properties": {
                    "object": {"const": "embedding"},
                    "index": {"type": "integer"},
                    "embedding": {"oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]},
                },
            },
        },
    },
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/embeddings",
        embeddings,
        "Vectors of texts, as OpenAI's API",
        error,
        "openai",
        EmbeddingsBody,
        _ANSWER,
        error_schema=ERROR_SCHEMA,
    ),
)
