"""All endpoints of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.server import health
from embedway.server.dialects import cohere, jina, models, ollama, openai, planning, rerank, tei, voyage
from embedway.server.openapi import openapi_endpoint
from embedway.server.pages import overview, page

if TYPE_CHECKING:
    from embedway.server.endpoint import Endpoint

_DESCRIBED: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *models.ENDPOINTS,
    *rerank.ENDPOINTS,
    *planning.ENDPOINTS,
    *cohere.ENDPOINTS,
    *voyage.ENDPOINTS,
    *jina.ENDPOINTS,
    *tei.ENDPOINTS,
    *ollama.ENDPOINTS,
    *health.ENDPOINTS,
    *page.ENDPOINTS,
    *overview.ENDPOINTS,
)
ENDPOINTS = (*_DESCRIBED, openapi_endpoint(_DESCRIBED))
