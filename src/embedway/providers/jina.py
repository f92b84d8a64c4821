"""Jina AI's embeddings: `POST /v1/embeddings`.

Request and answer: https://api.jina.ai/openapi.json (its copy in tryAGI/Jina, read 2026-11-23). At most 512 texts,
according to the service's error message. Late chunking is never requested: such vectors depend on their neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.providers.base import Declared
from embedway.providers.http import make_http_with_key
from embedway.providers.openai import Dialect, EmbeddingsApi

if TYPE_CHECKING:
    from embedway.providers.base import Endpoint

JINA_URL = "https://api.jina.ai/v1"
_DIALECT = Dialect(
    {"embedding_type": "base64", "truncate": False},
    input_type="task",
    query="retrieval.query",
    document="retrieval.passage",
    # v4 has no parameter `normalized`, and its reference does not say whether its vectors are normalized.
    normalize=True,
)


def jina(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider, an entry of `embedway.providers`. Raises ConfigError without a key."""
    http = make_http_with_key(endpoint, JINA_URL, variable="JINA_API_KEY")
    return EmbeddingsApi(endpoint, http, Declared(max_inputs=512, dimensions=True, input_type=True), _DIALECT)
