"""Voyage AI's embeddings: `POST /v1/embeddings`.

Request, answer and limits: https://docs.voyageai.com/reference/embeddings-api and the parameter tables of mongodb/docs
(content/voyageai), read 2026-11-23. Its default for `truncation` is true; here, texts that are too long are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.providers.base import Declared
from embedway.providers.http import make_http_with_key
from embedway.providers.openai import Dialect, EmbeddingsApi

if TYPE_CHECKING:
    from embedway.providers.base import Endpoint

VOYAGE_URL = "https://api.voyageai.com/v1"
#: Maximum tokens of a request by model; other models have the lowest limit.
_REQUEST_TOKENS = {
    "voyage-4-lite": 1_000_000,
    "voyage-3.5-lite": 1_000_000,
    "voyage-4": 320_000,
    "voyage-3.5": 320_000,
    "voyage-code-4": 320_000,
}
_LEAST_REQUEST_TOKENS = 120_000
_DIALECT = Dialect(
    # A quarter of the bytes of numbers as text; the API does not accept `float`.
    {"truncation": False, "encoding_format": "base64"},
    dimensions="output_dimension",
    document="document",
)


def voyage(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider, an entry of `embedway.providers`. Raises ConfigError without a key."""
    most = _REQUEST_TOKENS.get(endpoint.model, _LEAST_REQUEST_TOKENS)
    declared = Declared(max_inputs=1000, max_request_tokens=most, dimensions=True, input_type=True)
    return EmbeddingsApi(
        endpoint, make_http_with_key(endpoint, VOYAGE_URL, variable="VOYAGE_API_KEY"), declared, _DIALECT
    )
