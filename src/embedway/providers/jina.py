"""Jina AI's embeddings: `POST /v1/embeddings`.

Request and answer: https://api.jina.ai/openapi.json (its copy in tryAGI/Jina, read 2026-11-23); at most 512 texts, by
the service's own error message. Late chunking is never asked for: such vectors depend on their neighbours.
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

JINA_URL = "https://api.jina.ai/v1"


class Jina:
    """One of Jina's models."""

    def __init__(self, endpoint: Endpoint, http: JsonHttp) -> None:
        self._endpoint = endpoint
        self._http = http
        self.declared = Declared(max_inputs=512, dimensions=True, input_type=True)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": list(texts),
            "task": "retrieval.query" if input_type == "query" else "retrieval.passage",
            "embedding_type": "base64",
            "truncate": False,
        }
        if dimensions is not None:
            body["dimensions"] = dimensions
        reply = await self._http.post("/embeddings", body)
        vectors = await reply.read(read_indexed, reply.body, count=len(texts), route=self._endpoint.route)
        # v4 has no `normalized`, and its reference says nothing of the length of its vectors.
        tokens = count_of(reply.body, "usage", "total_tokens")
        return Answer(normalized(vectors), tokens=tokens, rates=reply.rates)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()


def jina(endpoint: Endpoint) -> Jina:
    """An entry of `embedway.providers`. Raises ConfigError without a key."""
    return Jina(endpoint, keyed(endpoint, JINA_URL, variable="JINA_API_KEY"))
