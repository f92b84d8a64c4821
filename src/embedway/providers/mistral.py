"""Mistral's embeddings: `POST /v1/embeddings`.

Request and answer: mistralai/platform-docs-public, public/openapi.yaml (read 2026-11-23). Limits are those that its
error messages named: 256 texts and 16,384 tokens a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.providers.base import Answer, Declared
from embedway.providers.http import keyed
from embedway.providers.vectors import count_of, normalized, read_indexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.http import JsonHttp
    from embedway.types import InputType

MISTRAL_URL = "https://api.mistral.ai/v1"


class Mistral:
    """One of Mistral's models."""

    def __init__(self, endpoint: Endpoint, http: JsonHttp) -> None:
        self._endpoint = endpoint
        self._http = http
        self.declared = Declared(
            max_inputs=256, max_request_tokens=16_384, dimensions=endpoint.model.startswith("codestral-embed")
        )

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        del input_type  # its models make no difference
        body: dict[str, Any] = {"model": self._endpoint.model, "input": list(texts), "encoding_format": "base64"}
        if dimensions is not None:
            body["output_dimension"] = dimensions
        reply = await self._http.post("/embeddings", body)
        vectors = await reply.read(read_indexed, reply.body, count=len(texts), route=self._endpoint.route)
        if dimensions is not None:
            # The reference says that its first numbers can be taken alone, and nothing of their length.
            vectors = normalized(vectors)
        return Answer(vectors, tokens=count_of(reply.body, "usage", "total_tokens"), rates=reply.rates)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()


def mistral(endpoint: Endpoint) -> Mistral:
    """An entry of `embedway.providers`. Raises ConfigError without a key."""
    return Mistral(endpoint, keyed(endpoint, MISTRAL_URL, variable="MISTRAL_API_KEY"))
