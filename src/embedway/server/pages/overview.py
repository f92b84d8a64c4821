"""Data of the page: what the gateway serves and does now. No texts and no keys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from embedway._version import __version__
from embedway.errors import EmbedwayError
from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.replies import json_reply
from embedway.server.snapshots import merged, read_snapshots, snapshot_of

if TYPE_CHECKING:
    from embedway._engine import Engine
    from embedway.server.endpoint import Exchange
    from embedway.server.gateway import Gateway
    from embedway.server.replies import Reply


async def overview(exchange: Exchange) -> Reply:
    """Answer `GET /overview.json`."""
    gateway = exchange.gateway
    async with gateway.engines.call() as engine:
        budgets, fault = await _budgets(engine)
        routes = _routes(engine)
    served = await gateway.served.all(exchange.caller)
    return json_reply(
        {
            "version": __version__,
            "time": time.time(),
            "not_ready": await gateway.readiness.reason(),
            "served": [{"model": name, "task": task} for name, task in served],
            "routes": routes,
            "budgets": budgets,
            "budgets_fault": fault,
            **await _counts(gateway),
        }
    )


async def _counts(gateway: Gateway) -> dict[str, Any]:
    """Return the counts of all workers; those of this one are not older than the request."""
    queue = gateway.queue.state()
    own = snapshot_of(gateway.stats, number=-1, running=queue.running, waiting=queue.waiting)
    others = await asyncio.to_thread(read_snapshots, gateway.folder)
    return merged([own, *(one for one in others if one["pid"] != own["pid"])], now=time.time())


async def _budgets(engine: Engine) -> tuple[list[dict[str, Any]], str]:
    """Return the budgets with their amounts, and why they cannot be read."""
    budgets = engine.budgets
    if budgets.ledger is None:
        return [], ""
    try:
        standings = await budgets.ledger.standings(budgets.limits)
    except EmbedwayError as error:
        return [], type(error).__name__
    return [standing.to_json() for standing in standings], ""


def _routes(engine: Engine) -> list[dict[str, str]]:
    """Return the routes of the models that this worker has opened."""
    return [
        {"model": model.name, "route": route, "circuit": state, "blocked": "" if model.blocked is None else "no key"}
        for model in engine.models.open_embedding_models()
        for route, state in model.circuit_states.items()
    ]


ENDPOINTS = (
    Endpoint(
        "GET",
        "/overview.json",
        overview,
        "What the gateway serves and does now, as the page shows it",
        openai.error,
        "page",
        answer={"type": "object"},
        access="admin",
        error_schema=openai.ERROR_SCHEMA,
    ),
)
