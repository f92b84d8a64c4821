"""Google's Gemini embeddings: `POST /v1beta/models/MODEL:batchEmbedContents`.

Request and answer: googleapis/googleapis, google/ai/generativelanguage/v1beta/generative_service.proto (read
2026-11-23); at most 100 texts. Only gemini-embedding-001 accepts a task type; later models read it from the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.providers.base import Answer, Declared
from embedway.providers.http import HttpModel, make_http_with_key
from embedway.providers.usage import read_tokens
from embedway.providers.vectors import normalize, read_listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.types import InputType

GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta"
_WITH_TASK_TYPE = "gemini-embedding-001"


class Gemini(HttpModel):
    """One of Google's models."""

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        model = f"models/{self._endpoint.model}"
        requests = [self._request(model, text, input_type, dimensions) for text in texts]
        reply = await self._http.post(f"/{model}:batchEmbedContents", {"requests": requests}, texts=len(texts))
        listed = reply.body.get("embeddings") if isinstance(reply.body, dict) else None
        if isinstance(listed, list):
            listed = [row.get("values") if isinstance(row, dict) else None for row in listed]
        vectors = await reply.read(read_listed, listed, count=len(texts), route=self._endpoint.route)
        # gemini-embedding-001 normalizes only vectors of full width.
        return Answer(normalize(vectors), tokens=read_tokens(reply.body), rates=reply.rates)

    def _request(self, model: str, text: str, input_type: InputType, dimensions: int | None) -> dict[str, Any]:
        request: dict[str, Any] = {"model": model}
        if self._endpoint.model == _WITH_TASK_TYPE:
            request["taskType"] = "RETRIEVAL_QUERY" if input_type == "query" else "RETRIEVAL_DOCUMENT"
        else:
            query = input_type == "query"
            text = f"task: search result | query: {text}" if query else f"title: none | text: {text}"
        request["content"] = {"parts": [{"text": text}]}
        if dimensions is not None:
            request["outputDimensionality"] = dimensions
        return request


def gemini(endpoint: Endpoint) -> Gemini:
    """Create the provider, an entry of `embedway.providers`. Raises ConfigError without a key."""
    http = make_http_with_key(endpoint, GEMINI_URL, variable="GEMINI_API_KEY", header="x-goog-api-key")
    return Gemini(endpoint, http, Declared(max_inputs=100, dimensions=True, input_type=True))
