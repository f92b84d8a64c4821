"""Data of the page: what the gateway serves and does now. No texts and no keys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from embedway._version import __version__
from embedway.config.local_models import AUTO
from embedway.errors import EmbedwayError
from embedway.money import usd
from embedway.providers.names import full_name, service_of
from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.inference.client import InferenceClient
from embedway.server.replies import json_reply
from embedway.server.snapshots import merged, read_snapshots, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._engine import Engine
    from embedway.catalog.types import Task
    from embedway.server.endpoint import Exchange
    from embedway.server.gateway import Gateway
    from embedway.server.replies import Reply

#: Time that the inference process has to answer, in seconds: the page shows the rest without it.
_INFERENCE_S = 1.0


async def overview(exchange: Exchange) -> Reply:
    """Answer `GET /overview.json`."""
    gateway = exchange.gateway
    async with gateway.engines.call() as engine:
        inference, money = await asyncio.gather(_inference(engine), _money(engine))
        in_worker = _opened_here(engine)
    names = await gateway.served.all(exchange.caller)
    served, counts = await asyncio.gather(asyncio.to_thread(_served, names, gateway), _counts(gateway))
    return json_reply(
        {
            "version": __version__,
            "time": time.time(),
            "not_ready": await gateway.readiness.reason(),
            "configured_workers": gateway.config.server.workers + gateway.config.server.bulk_workers,
            "served": served,
            "in_worker": in_worker,
            "inference": inference,
            **money,
            **counts,
        }
    )


def _served(names: Sequence[tuple[str, Task]], gateway: Gateway) -> list[dict[str, Any]]:
    """Return the models with their task, and whether this machine or a service computes them."""
    config = gateway.config
    default = config.embedding.default_model
    if default != AUTO:
        default = full_name(default, config)
    return [
        {
            "model": gateway.served.shown(name),
            "task": task,
            "kind": "local" if service_of(name, config) is None else "service",
            "default": name == default,
        }
        for name, task in names
    ]


def _opened_here(engine: Engine) -> list[str]:
    """Return the models in the memory of this worker; none if the inference process computes them."""
    if engine.environment.inference is not None:
        return []
    return [model.name for model in engine.models.open_embedding_models()]


async def _inference(engine: Engine) -> dict[str, Any] | None:
    """Return the state of the inference process: None without one, and a `fault` if it does not answer."""
    client = engine.environment.inference
    if not isinstance(client, InferenceClient):
        return None
    try:
        async with asyncio.timeout(_INFERENCE_S):
            return {"fault": "", **await client.state()}
    except (EmbedwayError, TimeoutError):
        return {"fault": "it does not answer", "models": []}


async def _counts(gateway: Gateway) -> dict[str, Any]:
    """Return the counts of all workers; those of this one are not older than the request."""
    own = snapshot_of(gateway)

    def read() -> dict[str, Any]:
        others = [one for one in read_snapshots(gateway.folder) if one["pid"] != own["pid"]]
        return merged([own, *others], now=time.time())

    return await asyncio.to_thread(read)


async def _money(engine: Engine) -> dict[str, Any]:
    """Return the budgets with their amounts and the sums of each period, and why they cannot be read."""
    ledger, limits = engine.budgets.ledger, engine.budgets.limits
    if ledger is None:
        return {"ledger": False, "budgets": [], "spending": [], "budgets_fault": ""}
    try:
        standings, totals = await ledger.standings(limits), await ledger.totals()
    except EmbedwayError as error:
        return {"ledger": True, "budgets": [], "spending": [], "budgets_fault": type(error).__name__}
    spending = [{"period": one.period, "spent_usd": usd(one.spent), "saved_usd": usd(one.saved)} for one in totals]
    budgets = [standing.to_json() for standing in standings]
    return {"ledger": True, "budgets": budgets, "spending": spending, "budgets_fault": ""}


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
