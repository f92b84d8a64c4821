"""Cohere's embeddings: `POST /v2/embed`.

Request, answer and the limit of 96 texts: https://docs.cohere.com/reference/embed (its OpenAPI file in
cohere-ai/cohere-developer-experience, read 2026-11-23). Texts that are too long are refused: `truncate` is NONE.
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

COHERE_URL = "https://api.cohere.com"


class Cohere(HttpModel):
    """One of Cohere's models."""

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "texts": list(texts),
            "input_type": "search_query" if input_type == "query" else "search_document",
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        if dimensions is not None:
            body["output_dimension"] = dimensions
        reply = await self._http.post("/v2/embed", body, texts=len(texts))
        by_type = reply.body.get("embeddings") if isinstance(reply.body, dict) else None
        values = by_type.get("float") if isinstance(by_type, dict) else None
        vectors = await reply.read(read_listed, values, count=len(texts), route=self._endpoint.route)
        # The documentation does not say whether vectors with reduced dimensions are normalized.
        return Answer(normalize(vectors), tokens=read_tokens(reply.body), rates=reply.rates)


def cohere(endpoint: Endpoint) -> Cohere:
    """Create the provider, an entry of `embedway.providers`. Raises ConfigError without a key."""
    # Models up to the third generation have vectors of one size.
    old = endpoint.model.endswith(("-v3.0", "-v2.0"))
    declared = Declared(max_inputs=96, dimensions=not old, input_type=True)
    return Cohere(endpoint, make_http_with_key(endpoint, COHERE_URL, variable="COHERE_API_KEY"), declared)
