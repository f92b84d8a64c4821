"""OpenAPI document of the gateway, from its endpoints: `GET /openapi.json`."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import orjson
from pydantic.json_schema import models_json_schema

from embedway._version import __version__
from embedway.server.access import needs_keys
from embedway.server.batches.description import batch_operations
from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.problems import STATUSES
from embedway.server.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from embedway.server.endpoint import Exchange

#: Codes and statuses of the body and the address of a request.
_OF_REQUESTS = {"foreign_host": 403, "foreign_origin": 403}
_OF_BODIES = {"request_too_large": 413, "unsupported_encoding": 415}
_MEANINGS = {
    400: "The request is invalid.",
    401: "The API key is missing or invalid.",
    403: "The key or the page may not do this.",
    404: "The model or the object is not known here.",
    409: "The collection has vectors of another space.",
    413: "The body or the batch is too large.",
    415: "The encoding of the body is not supported.",
    422: "The texts or fields are invalid.",
    424: "The service behind the model failed.",
    429: "A limit or a budget is reached.",
    500: "The gateway failed; its log contains the reason.",
    502: "The service behind the model failed.",
    503: "The gateway or the model cannot answer now.",
    504: "The deadline passed.",
}
_BATCH_ERRORS = (400, 401, 403, 404, 409, 413, 429, 500, 503)
_BATCH_MEANINGS = {409: "The batch has ended.", 503: "The store of files and batches cannot be used now."}
_SECURITY: list[dict[str, list[str]]] = [{"key": []}, {"header": []}]
_RETRY_AFTER = {"description": "Seconds after which the request may succeed.", "schema": {"type": "integer"}}
_TEXT = {"type": "string"}
_SHOULD_RETRY = {"description": "Whether the same request may succeed later.", "schema": {"enum": ["true", "false"]}}
_REQUEST_ID = {"description": "Name of the request in the gateway's log.", "schema": _TEXT, "required": True}
#: Headers of answers with vectors or scores.
_RECEIPT = {
    "x-embedway-model": {"description": "Model that answered.", "schema": _TEXT},
    "x-embedway-space": {"description": "Vector space of the vectors.", "schema": _TEXT},
    "x-embedway-cache": {"description": "Cache hits and unique texts.", "schema": _TEXT},
    "x-embedway-cost-usd": {"description": "Cost in dollars, or `unknown`.", "schema": _TEXT},
    "x-embedway-truncated": {"description": "Number of truncated texts, and their rows.", "schema": _TEXT},
    "x-embedway-averaged": {"description": "Number of texts averaged over windows, and their rows.", "schema": _TEXT},
    "x-embedway-notes": {"description": "Number of notes about the call.", "schema": _TEXT},
}


def openapi_endpoint(endpoints: Sequence[Endpoint]) -> Endpoint:
    """Return the endpoint that describes these endpoints and itself."""

    @functools.cache
    def write(*, keys: bool, max_deadline_s: float) -> bytes:
        return orjson.dumps(document([*endpoints, own], keys=keys, max_deadline_s=max_deadline_s))

    async def handler(exchange: Exchange) -> Reply:
        """Answer `GET /openapi.json`."""
        settings = exchange.gateway.config.server
        asked = functools.partial(write, keys=needs_keys(settings), max_deadline_s=settings.max_deadline_s)
        return Reply(await asyncio.to_thread(asked))

    own = Endpoint(
        "GET",
        "/openapi.json",
        handler,
        "This document",
        openai.error,
        "health",
        answer={"type": "object"},
        access="open",
        error_schema=openai.ERROR_SCHEMA,
    )
    return own


def document(endpoints: Sequence[Endpoint], *, keys: bool, max_deadline_s: float) -> dict[str, Any]:
    """Return the OpenAPI document of endpoints. `keys` says whether requests need an API key."""
    bodies = list(dict.fromkeys(one.body for one in endpoints if one.body is not None))
    schemas = _schemas(bodies, max_deadline_s)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, keys=keys)
    _add_batches(paths, keys=keys)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "embedway",
            "version": __version__,
            "description": "Embeddings and reranking, as OpenAI's API and those of other services.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "responses": {**_errors(endpoints), **_batch_errors()}},
    }
    if keys:
        found["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return found


def _add_batches(paths: dict[str, dict[str, Any]], *, keys: bool) -> None:
    """Add the operations of files and batches, which are another application."""
    for path, operations in batch_operations().items():
        for method, operation in operations.items():
            errors = {str(status): {"$ref": f"#/components/responses/batches-{status}"} for status in _BATCH_ERRORS}
            answers = {**operation["responses"], **errors}
            named = {"operationId": f"{method}{path.translate(_SEPARATORS)}", **operation, "responses": answers}
            paths.setdefault(path, {})[method] = {**named, **({"security": _SECURITY} if keys else {})}


def _batch_errors() -> dict[str, Any]:
    return {
        f"batches-{status}": {
            "description": _BATCH_MEANINGS.get(status) or _MEANINGS[status],
            "content": {"application/json": {"schema": openai.ERROR_SCHEMA}},
        }
        for status in _BATCH_ERRORS
    }


def _schemas(bodies: Sequence[type[BaseModel]], max_deadline_s: float) -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = definitions["$defs"]
    for schema in schemas.values():
        for branch in schema.get("properties", {}).get("deadline", {}).get("anyOf", ()):
            if branch.get("type") == "number":
                branch["maximum"] = max_deadline_s
    return schemas


def _operation(endpoint: Endpoint, *, keys: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}{endpoint.path.translate(_SEPARATORS)}",
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        schema = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    _, brace, rest = endpoint.path.partition("{")
    if brace:
        name = rest.partition("}")[0]
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}]
    if keys:
        found["security"] = [] if endpoint.access == "open" else _SECURITY
    return found


_SEPARATORS = str.maketrans({"/": "_", "{": None, "}": None, ".": "_"})


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    headers: dict[str, Any] = {"x-embedway-request-id": _REQUEST_ID}
    answered: dict[str, Any] = {"description": endpoint.summary, "headers": headers}
    if endpoint.body is not None:
        answered["headers"] = {**headers, **_RECEIPT}
    answered["content"] = {endpoint.media: {} if endpoint.answer is None else {"schema": endpoint.answer}}
    found = {str(status): answered for status in endpoint.answered}
    for status in sorted(_statuses(endpoint) - set(endpoint.answered)):
        found[str(status)] = {"$ref": f"#/components/responses/{_error_name(endpoint, status)}"}
    return found


def _error_name(endpoint: Endpoint, status: int) -> str:
    return f"{endpoint.tag}-{status}"


def _errors(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the errors of all endpoints; those with one tag have one form."""
    found = {}
    for endpoint in endpoints:
        content = {"application/json": {"schema": endpoint.error_schema or openai.ERROR_SCHEMA}}
        for status in _statuses(endpoint):
            more = {"retry-after": _RETRY_AFTER} if status in {429, 503} else {}
            found[_error_name(endpoint, status)] = {
                "description": _MEANINGS[status],
                "headers": {"x-embedway-request-id": _REQUEST_ID, "x-should-retry": _SHOULD_RETRY, **more},
                "content": content,
            }
    return found


def _statuses(endpoint: Endpoint) -> set[int]:
    """Return the statuses of all errors of an endpoint."""
    if endpoint.access == "open":
        return {500, 503}
    codes = {**STATUSES, **_OF_REQUESTS, **(_OF_BODIES if endpoint.method == "POST" else {})}
    return {endpoint.statuses.get(code, status) for code, status in codes.items()}
