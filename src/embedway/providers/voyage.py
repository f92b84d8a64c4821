"""Voyage AI's embeddings: `POST /v1/embeddings`.

Request, answer and limits: https://docs.voyageai.com/reference/embeddings-api and the parameter tables of mongodb/docs
(content/voyageai), read 2026-11-23. `truncation` is true by default there; here over-long texts are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.providers.base import Answer, Declared
from embedway.providers.http import keyed
from embedway.providers.vectors import count_of, read_indexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.http import JsonHttp
    from embedway.types import InputType

VOYAGE_URL = "https://api.voyageai.com/v1"
#: Tokens of a request by model; a model that is not named takes the least.
_REQUEST_TOKENS = {
    "voyage-4-lite": 1_000_000,
    "voyage-3.5-lite": 1_000_000,
    "voyage-4": 320_000,
    "voyage-3.5": 320_000,
    "voyage-code-4": 320_000,
}
_LEAST_REQUEST_TOKENS = 120_000


class Voyage:
    """One of Voyage's models."""

    def __init__(self, endpoint: Endpoint, http: JsonHttp) -> None:
        self._endpoint = endpoint
        self._http = http
        self.declared = Declared(
            max_inputs=1000,
            max_request_tokens=_REQUEST_TOKENS.get(endpoint.model, _LEAST_REQUEST_TOKENS),
            dimensions=True,
            input_type=True,
        )

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": list(texts),
            "input_type": input_type,
            "truncation": False,
            # A quarter of the bytes of numbers as text; `float` is not a value that it takes.
            "encoding_format": "base64",
        }
        if dimensions is not None:
            body["output_dimension"] = dimensions
        reply = await self._http.post("/embeddings", body)
        vectors = await reply.read(read_indexed, reply.body, count=len(texts), route=self._endpoint.route)
        return Answer(vectors, tokens=count_of(reply.body, "usage", "total_tokens"), rates=reply.rates)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()


def voyage(endpoint: Endpoint) -> Voyage:
    """An entry of `embedway.providers`. Raises ConfigError without a key."""
    return Voyage(endpoint, keyed(endpoint, VOYAGE_URL, variable="VOYAGE_API_KEY"))
