"""Description of the endpoints of files and batches for the OpenAPI document."""

from __future__ import annotations

from typing import Any, get_args

from embedway.server.batches.values import (
    ENDPOINT,
    KEY_LENGTH,
    LONGEST_S,
    MOST_BATCHES,
    MOST_FILES,
    MOST_PAIRS,
    SHORTEST_S,
    VALUE_LENGTH,
    Status,
)

_TEXT, _COUNT, _TIME = {"type": "string"}, {"type": "integer"}, {"type": ["integer", "null"]}
_MAYBE = {"type": ["string", "null"]}
_FILE = {
    "type": "object",
    "required": ["id", "object", "bytes", "created_at", "filename", "purpose"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "file"},
        "bytes": _COUNT,
        "created_at": _COUNT,
        "expires_at": _TIME,
        "filename": _TEXT,
        "purpose": _TEXT,
        "status": _TEXT,
    },
}
_BATCH = {
    "type": "object",
    "required": ["id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "batch"},
        "endpoint": {"const": ENDPOINT},
        "input_file_id": _TEXT,
        "completion_window": {"const": "24h"},
        "status": {"enum": list(get_args(Status))},
        "output_file_id": _MAYBE,
        "error_file_id": _MAYBE,
        "created_at": _COUNT,
        "expires_at": _TIME,
        "request_counts": {"type": "object", "properties": dict.fromkeys(("total", "completed", "failed"), _COUNT)},
        "metadata": {"type": ["object", "null"]},
    },
}
_DELETED = {
    "type": "object",
    "required": ["id", "object", "deleted"],
    "properties": {"id": _TEXT, "object": {"const": "file"}, "deleted": {"const": True}},
}
_SECONDS = {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"const": "batch"},
        "expires_after[anchor]": {"const": "created_at"},
        "expires_after[seconds]": _SECONDS,
    },
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
}
_CREATION = {
    "type": "object",
    "required": ["input_file_id", "endpoint", "completion_window"],
    "properties": {
        "input_file_id": _TEXT,
        "endpoint": {"const": ENDPOINT},
        "completion_window": {"const": "24h"},
        "metadata": {
            "type": ["object", "null"],
            "maxProperties": MOST_PAIRS,
            "propertyNames": {"maxLength": KEY_LENGTH},
            "additionalProperties": {"type": "string", "maxLength": VALUE_LENGTH},
        },
        "output_expires_after": {
            "type": ["object", "null"],
            "required": ["anchor", "seconds"],
            "properties": {"anchor": {"const": "created_at"}, "seconds": _SECONDS},
        },
    },
}


def batch_operations() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the operations by path and method, without the errors that all operations share."""
    after = _query("after", _TEXT, "Last object of the former page.")
    order = _query("order", {"enum": ["asc", "desc"]}, "Order by time of creation.")
    purpose = _query("purpose", _TEXT, "Only files of this purpose.")
    file, batch = _path("file_id"), _path("batch_id")
    return {
        "/v1/files": {
            "post": _operation("Upload a file of requests for a batch", _FILE, body=("multipart/form-data", _UPLOAD)),
            "get": _operation("List files", _list(_FILE), parameters=[_limit(MOST_FILES), after, order, purpose]),
        },
        "/v1/files/{file_id}": {
            "get": _operation("Describe a file", _FILE, parameters=[file]),
            "delete": _operation("Delete a file", _DELETED, parameters=[file]),
        },
        "/v1/files/{file_id}/content": {"get": _operation("Download a file", None, parameters=[file])},
        "/v1/batches": {
            "post": _operation("Create a batch", _BATCH, body=("application/json", _CREATION)),
            "get": _operation("List batches", _list(_BATCH), parameters=[_limit(MOST_BATCHES), after]),
        },
        "/v1/batches/{batch_id}": {"get": _operation("Describe a batch", _BATCH, parameters=[batch])},
        "/v1/batches/{batch_id}/cancel": {"post": _operation("Cancel a batch", _BATCH, parameters=[batch])},
    }


def _operation(
    summary: str, answer: Any, *, parameters: list[Any] | None = None, body: tuple[str, Any] | None = None
) -> dict[str, Any]:
    content = {"application/octet-stream": {}} if answer is None else {"application/json": {"schema": answer}}
    found: dict[str, Any] = {
        "summary": summary,
        "tags": ["batches"],
        "responses": {"200": {"description": summary, "content": content}},
    }
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        found["requestBody"] = {"required": True, "content": {body[0]: {"schema": body[1]}}}
    return found


def _list(item: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": item},
            "first_id": _MAYBE,
            "last_id": _MAYBE,
            "has_more": {"type": "boolean"},
        },
    }


def _query(name: str, schema: Any, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _limit(most: int) -> dict[str, Any]:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most}, "Maximum objects of a page.")


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
