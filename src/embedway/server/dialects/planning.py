"""Addresses of our own: which model fits texts, and what embedding them would cost. They compute and spend nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from embedway.collections.plan import ModelPlan
from embedway.pipeline.request import Call, inspect
from embedway.selection.criteria import PRESETS
from embedway.server.bodies import Body, parse
from embedway.server.calls import EmbedCall
from embedway.server.dialects.fields import Text, Texts, texts_of
from embedway.server.dialects.openai import ERROR_SCHEMA, EmbeddingsBody, error
from embedway.server.endpoint import Endpoint
from embedway.server.replies import json_reply

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.replies import Reply


class SelectBody(Body):
    """Body of `POST /v1/select`."""

    expected: ClassVar[dict[str, str]] = {
        "input": "a text or a list of texts",
        "preset": f"one of {', '.join(PRESETS)}",
    }

    input: Text | Texts
    #: Preset of the criteria; by default, that of the settings.
    preset: Literal["fast", "balanced", "best", "cheap", "private"] | None = None
    #: Maximum time in seconds.
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


async def select(exchange: Exchange) -> Reply:
    """Answer `POST /v1/select` with the fields of `embedway select --json`."""
    body = parse(SelectBody, exchange.body)
    texts = texts_of(body.input)
    inspect(Call(texts), "truncate")
    call = EmbedCall(texts, deadline_s=body.deadline)
    selection = await exchange.gateway.select(exchange.caller, call, body.preset)
    return json_reply(selection.to_json())


async def plan(exchange: Exchange) -> Reply:
    """Answer `POST /v1/plan` with the fields of a model in `embedway plan --json`."""
    body = parse(EmbeddingsBody, exchange.body)
    planned = await exchange.gateway.plan(exchange.caller, body.call())
    found = ModelPlan(planned.model, planned.space.id, texts=planned.texts)
    found.add(planned)
    return json_reply({**found.to_json(), "notes": list(planned.notes)})


_NUMBER, _COUNT, _MONEY = {"type": ["number", "null"]}, {"type": "integer"}, {"type": ["string", "null"]}
_PLAN = {
    "type": "object",
    "required": ["model", "space_id", "texts", "unique_texts", "tokens", "billed_tokens", "requests", "cost_usd"],
    "properties": {
        "model": {"type": "string"},
        "space_id": {"type": "string"},
        **dict.fromkeys(
            ("texts", "unique_texts", "tokens", "cached_texts", "truncated", "billed_tokens", "requests"), _COUNT
        ),
        "tokens_estimated": {"type": "boolean"},
        "cost_usd": _MONEY,
        "batch_cost_usd": _MONEY,
        "seconds": _NUMBER,
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
_SELECTION = {
    "type": "object",
    "required": ["model", "criteria", "analysis", "warnings", "pareto", "table"],
    "properties": {
        "model": {"type": "string"},
        "criteria": {"type": "object"},
        "analysis": {"type": ["object", "null"]},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "pareto": {"type": "array", "items": {"type": "string"}},
        "table": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["model", "rank", "score", "out"],
                "properties": {
                    "model": {"type": "string"},
                    "rank": {"type": ["integer", "null"]},
                    "score": _NUMBER,
                    "out": {"type": "array", "items": {"type": "object"}},
                },
            },
        },
    },
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/select",
        select,
        "Which model fits the texts best, with the score of each",
        error,
        "planning",
        SelectBody,
        _SELECTION,
        error_schema=ERROR_SCHEMA,
    ),
    Endpoint(
        "POST",
        "/v1/plan",
        plan,
        "Tokens, requests, cost and time of embedding the texts",
        error,
        "planning",
        EmbeddingsBody,
        _PLAN,
        error_schema=ERROR_SCHEMA,
    ),
)
