"""Endpoints for operators: health and metrics. A worker is live while it answers, and ready while its model answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.replies import Reply, json_reply
from embedway.telemetry.exposition import CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange


async def live(exchange: Exchange) -> Reply:
    """Answer `GET /health/live`."""
    del exchange
    return json_reply({"status": "live"})


async def ready(exchange: Exchange) -> Reply:
    """Answer `GET /health/ready`."""
    reason = await exchange.gateway.readiness.reason()
    if reason:
        return json_reply({"status": "not ready", "reason": reason}, status=503)
    return json_reply({"status": "ready"})


async def metrics(exchange: Exchange) -> Reply:
    """Answer `GET /metrics`: the metrics of all workers."""
    exchange.gateway.report_queue()
    return Reply(await asyncio.to_thread(exposition), media=CONTENT_TYPE.encode())


_ANSWER = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
}
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
        answered=(200, 503),
    ),
    Endpoint(
        "GET",
        "/metrics",
        metrics,
        "Metrics, as Prometheus reads them",
        openai.error,
        "health",
        access="admin",
        media=CONTENT_TYPE,
    ),
)
