"""List of the served models, as OpenAI's API, with their facts and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.server.dialects.openai import ERROR_SCHEMA, error
from embedway.server.endpoint import Endpoint
from embedway.server.model_cards import model_card, model_cards
from embedway.server.replies import json_reply

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.model_cards import ModelCard
    from embedway.server.replies import Reply


async def models(exchange: Exchange) -> Reply:
    """Answer `GET /v1/models`."""
    found = await model_cards(exchange.gateway, exchange.caller)
    return json_reply({"object": "list", "data": [_model(card) for card in found]})


async def model(exchange: Exchange) -> Reply:
    """Answer `GET /v1/models/{model}`."""
    return json_reply(_model(await model_card(exchange.gateway, exchange.caller, exchange.argument)))


def _model(card: ModelCard) -> dict[str, Any]:
    # The catalog has no dates of publication, and OpenAI's field is required.
    return {"id": card.name, "object": "model", "created": 0, "owned_by": card.owner, **card.to_json()}


_NAMES = {"type": "array", "items": {"type": "string"}}
_COUNT, _PRICE = {"type": ["integer", "null"]}, {"type": ["string", "null"]}
_MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "task", "local", "loaded"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer", "description": "Always 0: unknown."},
        "owned_by": {"type": "string"},
        "task": {"enum": ["embed", "rerank"]},
        "aliases": _NAMES,
        "local": {"type": "boolean", "description": "Whether the gateway's machine computes it."},
        "loaded": {"type": "boolean"},
        "dimensions": _COUNT,
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "min_dimensions": _COUNT,
        "max_tokens": _COUNT,
        "normalized": {"type": ["boolean", "null"]},
        "languages": _NAMES,
        "licence": {"type": ["string", "null"]},
        "price_usd_per_million_tokens": _PRICE,
        "price_usd_per_thousand_searches": _PRICE,
    },
}
_LIST = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}},
}

ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/models",
        models,
        "Served models with facts and prices",
        error,
        "openai",
        None,
        _LIST,
        error_schema=ERROR_SCHEMA,
    ),
    Endpoint(
        "GET",
        "/v1/models/{model}",
        model,
        "A served model, by name or alias",
        error,
        "openai",
        None,
        _MODEL,
        error_schema=ERROR_SCHEMA,
    ),
)
