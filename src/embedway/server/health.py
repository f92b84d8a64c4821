"""Health of a worker: live while it answers, ready while its default model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.replies import json_reply

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.replies import Reply


async def live(exchange: Exchange) -> Reply:
    """Answer `GET /health/live`."""
    del exchange
    return json_reply({"status": "live"})


async def ready(exchange: Exchange) -> Reply:
    """Answer `GET /health/ready`."""
    del exchange
    return json_reply({"status": "ready"})


_ANSWER = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}

ENDPOINTS = (
    Endpoint("GET", "/health/live", live, "Whether the process answers", openai.error, "health", None, _ANSWER, "open"),
    Endpoint(
        "GET",
        "/health/ready",
        ready,
        "Whether the default model answers",
        openai.error,
        "health",
        None,
        _ANSWER,
        "open",
    ),
)
