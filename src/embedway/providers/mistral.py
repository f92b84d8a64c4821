"""Mistral's embeddings: `POST /v1/embeddings`.

Request and answer: mistralai/platform-docs-public, public/openapi.yaml (read 2026-11-23). The limits are from its error
messages: 256 texts and 16,384 tokens per request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.providers.base import Declared
from embedway.providers.http import make_http_with_key
from embedway.providers.openai import Dialect, EmbeddingsApi

if TYPE_CHECKING:
    from embedway.providers.base import Endpoint

MISTRAL_URL = "https://api.mistral.ai/v1"
#: The reference says that vectors can be truncated, as they are by default, but not whether they are normalized then.
_DIALECT = Dialect({"encoding_format": "base64"}, dimensions="output_dimension", normalize=True)


def mistral(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider, an entry of `embedway.providers`. Raises ConfigError without a key."""
    sized = endpoint.model.startswith("codestral-embed")
    declared = Declared(max_inputs=256, max_request_tokens=16_384, dimensions=sized)
    return EmbeddingsApi(
        endpoint, make_http_with_key(endpoint, MISTRAL_URL, variable="MISTRAL_API_KEY"), declared, _DIALECT
    )
