"""OpenAI's API of embeddings, with the fields of Voyage and Jina at the same path.

Source: https://platform.openai.com/docs/api-reference/embeddings, and the types of the package `openai` 3.54.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import orjson
from pydantic import Field

from embedway.errors import InputError, without_row
from embedway.server.bodies import parse
from embedway.server.dialects.additions import EmbedAdditions
from embedway.server.dialects.fields import (
    Dimensions,
    False_,
    Model,
    Text,
    TextItem,
    Texts,
    TokenIds,
    first_given,
    overflow_of,
    placed,
    texts_of,
)
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply, base64_rows, encoded, float_rows, receipt_headers

if TYPE_CHECKING:
    from embedway.server.calls import EmbedCall
    from embedway.server.endpoint import Exchange
    from embedway.server.problems import Problem
    from embedway.types import EmbedResult, InputType

Encoding = Literal["float", "base64"]
JinaTask = Literal["retrieval.query", "retrieval.passage"]
#: Input types by Jina's tasks.
TASKS: dict[JinaTask | None, InputType | None] = {
    "retrieval.query": "query",
    "retrieval.passage": "document",
    None: None,
}
NO_LATE_CHUNKING = "false: vectors of late chunking depend on neighbouring texts, and are not computed here"


Input = (
    Text
    | Texts
    | TokenIds
    | Annotated[list[TokenIds], Field(json_schema_extra={"minItems": 1})]
    | Annotated[list[TextItem], Field(json_schema_extra={"minItems": 1})]
)


class EmbeddingsBody(EmbedAdditions):
    """Body of `POST /v1/embeddings`: OpenAI's fields, those of Voyage and Jina that mean the same, and additions."""

    expected: ClassVar[dict[str, str]] = {
        "input": "a text, a list of texts, a list of token ids, or a list of such lists",
        "task": "retrieval.query or retrieval.passage; models have no other prompts here",
        "late_chunking": NO_LATE_CHUNKING,
    }

    input: Input
    #: Name or alias of a model; `auto` selects one by the texts and the settings.
    model: Model
    encoding_format: Encoding | None = "float"
    dimensions: Dimensions | None = None
    user: Annotated[str, Field(max_length=10_000)] | None = None
    #: Whether texts are queries or documents, for models that distinguish them.
    input_type: Literal["query", "document"] | None = None
    #: Whether vectors have length 1; by default, as the model returns them.
    normalize: bool | None = None
    #: As `dimensions`, in Voyage's API.
    output_dimension: Dimensions | None = None
    output_dtype: Literal["float"] | None = None
    #: Whether long texts are truncated, in Voyage's API, or refused.
    truncation: bool | None = None
    #: As `input_type`, in Jina's API.
    task: JinaTask | None = None
    #: As `encoding_format`, in Jina's API.
    embedding_type: Encoding | None = None
    #: As `normalize`, in Jina's API; false is no wish.
    normalized: bool | None = None
    #: As `truncation`, in Jina's API.
    truncate: bool | None = None
    late_chunking: False_ | None = None

    def call(self) -> EmbedCall:
        """Return the call of this body. Raises BodyError for fields that contradict one another."""
        return self.embed_call(
            texts_of(self.input),
            self.model,
            first_given(("input_type", self.input_type), ("task", TASKS[self.task])),
            first_given(("dimensions", self.dimensions), ("output_dimension", self.output_dimension)),
            first_given(
                ("on_overflow", self.on_overflow),
                ("truncation", overflow_of(self.truncation)),
                ("truncate", overflow_of(self.truncate)),
            ),
            normalize=first_given(("normalize", self.normalize), ("normalized", self.normalized or None)),
        )

    @property
    def encoding(self) -> Encoding:
        """Encoding of the vectors in the answer."""
        return self.embedding_type or self.encoding_format or "float"


async def embeddings(exchange: Exchange) -> Reply:
    """Answer `POST /v1/embeddings`."""
    body = parse(EmbeddingsBody, exchange.body)
    result = await _embed(exchange, body.call())
    written = await encoded(result.vectors, answer, result, body.encoding)
    return Reply(written, headers=receipt_headers(result.receipt))


async def _embed(exchange: Exchange, call: EmbedCall) -> EmbedResult:
    """Embed texts; an error about token ids tells how to send texts instead."""
    try:
        return await exchange.embed(call)
    except InputError as error:
        if error.row is None or isinstance(call.texts[error.row], str):
            raise
        hint = "with LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False"
        raise InputError(f"{without_row(error)}; {hint}", row=error.row) from None


def answer(result: EmbedResult, encoding: Encoding) -> bytes:
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
    # The client shows its user the message only.
    found = {"message": placed(problem, "input"), "type": kind, "param": problem.param, "code": problem.code}
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
ANSWER = {
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

EMBEDDINGS = Endpoint(
    "POST",
    "/v1/embeddings",
    embeddings,
    "Vectors of texts, as OpenAI's API; reads the fields of Voyage and Jina too",
    error,
    "openai",
    EmbeddingsBody,
    ANSWER,
    error_schema=ERROR_SCHEMA,
)
ENDPOINTS = (EMBEDDINGS,)
