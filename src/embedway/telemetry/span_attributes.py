"""Names and attributes of spans: those of OpenTelemetry's conventions for embeddings, and our own (`embedway.…`)."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from embedway.telemetry.operations import CacheDetails, LoadDetails, ReservationDetails, WaitDetails
from embedway.telemetry.requests import is_name, provider_of, request_id, requested_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.telemetry.operations import Details, Operation, Outcome, RequestDetails
    from embedway.telemetry.requests import RouteFacts, Tried

#: Values of `gen_ai.provider.name` that the conventions define for our providers; others keep our name.
_WELL_KNOWN = {"azure-openai": "azure.ai.openai", "gemini": "gcp.gemini", "mistral": "mistral_ai"}
#: Provider of calls that no service answered: those from the cache, and those that failed before.
_OURSELVES = "embedway"
#: Fields whose attribute has another name. The others are `embedway.` and the name of the field.
_RENAMED = {
    "number": "embedway.attempt.number",
    "reason": "embedway.wait.reason",
    "action": "embedway.cache.action",
    "error": "error.type",
}
_OPERATIONS = {"embed": "embeddings", "rerank": "rerank"}
_LABELS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)


def at_begin(operation: Operation, details: RequestDetails, model: str | None) -> tuple[str, dict[str, Any]]:
    """Return name and attributes of a call's span at its begin, for samplers; `model` is None if it is not known."""
    task = _OPERATIONS[details.task]
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": task,
        "embedway.request.id": request_id(operation.id),
        "embedway.texts": details.texts,
    }
    if details.input_type is not None:
        attributes["embedway.input_type"] = details.input_type
    if model is None:
        return task, attributes
    attributes["gen_ai.request.model"] = model
    return f"{task} {model}", attributes


def at_end(
    details: RequestDetails, outcome: Outcome, tried: Tried, facts: Mapping[str, RouteFacts]
) -> tuple[str, dict[str, Any]]:
    """Return name and further attributes of a call's span at its end: model and route are decided during the call."""
    routes = outcome.routes or tuple(tried.routes)
    task, model = _OPERATIONS[details.task], requested_model(details, outcome.model or tried.model, frozenset())
    cost, saved = outcome.cost_nanousd, outcome.saved_nanousd
    known = {
        "gen_ai.provider.name": _provider(routes[0], facts) if routes else _OURSELVES,
        "gen_ai.request.model": model,
        "gen_ai.response.model": outcome.model,
        "gen_ai.embeddings.dimension.count": outcome.dimensions,
        "gen_ai.usage.input_tokens": _input_tokens(outcome),
        "embedway.routes": routes or None,
        "embedway.space.id": outcome.space_id,
        "embedway.tokens": outcome.tokens,
        "embedway.attempts": tried.attempts if outcome.attempts is None else outcome.attempts,
        "embedway.cache.hits": outcome.cache_hits,
        "embedway.cost_usd": None if cost is None else cost / 1e9,
        "embedway.saved_usd": None if saved is None else saved / 1e9,
        "embedway.unique_texts": outcome.unique_texts,
        "embedway.truncations": outcome.truncations,
        "embedway.failures": outcome.failures,
    }
    attributes = {name: value for name, value in known.items() if value is not None}
    if len(routes) == 1:
        attributes |= server_of(routes[0], facts)
    return task if model is None else f"{task} {model}", attributes


def server_of(route: str, facts: Mapping[str, RouteFacts]) -> dict[str, Any]:
    """Return the server of a route, if the settings name it."""
    known = facts.get(route)
    return {} if known is None or not known.address else {"server.address": known.address, "server.port": known.port}


def labels_of(attributes: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return the attributes of a call in metrics."""
    labels = {name: attributes[name] for name in _LABELS if name in attributes}
    if outcome.error is not None:
        labels["error.type"] = outcome.error
    return labels


def _provider(route: str, facts: Mapping[str, RouteFacts]) -> str:
    provider = provider_of(route, facts)
    return _OURSELVES if provider == "local" else _WELL_KNOWN.get(provider, provider)


def _input_tokens(outcome: Outcome) -> int | None:
    """Return the billed tokens, or those that were computed without a bill; None if these are not known."""
    if outcome.error is not None:
        return outcome.billed_tokens or None
    if outcome.billed_tokens or not outcome.routes:
        return outcome.billed_tokens
    return None if outcome.cache_hits else outcome.tokens


def attributes_of(details: Details) -> tuple[str, dict[str, Any]]:
    """Return name and attributes of the span of an operation below a call."""
    if isinstance(details, CacheDetails):
        name = f"embedway.cache.{details.action}"
    elif isinstance(details, WaitDetails):
        name = f"embedway.wait.{details.reason}"
    else:
        name = f"embedway.{details.kind}"
    if isinstance(details, LoadDetails):
        return name, {}  # a model that cannot be loaded may have any name
    if isinstance(details, ReservationDetails):
        cost = details.nanousd
        return name, {"embedway.model": details.model} | ({} if cost is None else {"embedway.reserved_usd": cost / 1e9})
    return name, _fields(details)


def outcome_attributes(details: Details, outcome: Outcome) -> dict[str, Any]:
    """Return the attributes that are known at the end of an operation below a call."""
    attributes: dict[str, Any] = {}
    if isinstance(details, LoadDetails) and outcome.error is None and is_name(details.model):
        attributes["embedway.model"] = details.model
    if outcome.cache_hits is not None:
        attributes["embedway.cache.hits"] = outcome.cache_hits
    if outcome.billed_tokens is not None:
        attributes["embedway.billed_tokens"] = outcome.billed_tokens
    return attributes


def event_of(details: Details) -> tuple[str, dict[str, Any]]:
    """Return name and attributes of an event."""
    return f"embedway.{details.kind}", _fields(details)


def _fields(details: Details) -> dict[str, Any]:
    """Return the fields that an attribute can have: names, numbers, and lists of names."""
    values = ((one.name, getattr(details, one.name)) for one in fields(details))
    return {
        _RENAMED.get(name, f"embedway.{name}"): value
        for name, value in values
        if isinstance(value, (str, bool, int, float))
        or (isinstance(value, tuple) and all(isinstance(one, str) for one in value))
    }
