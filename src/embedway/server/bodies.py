"""Bodies of requests: read with a limit on their size, and checked by pydantic models."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from embedway.server.problems import BodyError
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.server.replies import Header

M = TypeVar("M", bound="Body")

#: Maximum characters of a field's name in a message.
_LONGEST_FIELD = 60


class Body(BaseModel):
    """Body of a request: strict types and no unknown fields, because an ignored option would be a silent change."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    #: What the field with the texts must contain, for errors of unions.
    expected: ClassVar[dict[str, str]] = {}


def parse(kind: type[M], body: bytes) -> M:
    """Return the body as a model. Raises BodyError, which names the field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    raise _body_error(kind, problems)


def _body_error(kind: type[Body], problems: Sequence[Any]) -> BodyError:
    first = problems[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    shown = printable(name)[:_LONGEST_FIELD]
    if first["type"] == "json_invalid":
        return BodyError(f"the body is not valid JSON: {printable(first['msg'].partition(': ')[2])}")
    if not name:
        return BodyError("the body must be a JSON object")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return BodyError(f"unknown field {shown!r}; {_fields(kind, name)}", param=shown)
    if first["type"] == "missing":
        return BodyError(f"field {shown!r} is missing", param=shown)
    if name in kind.expected:
        return BodyError(f"{shown} must be {kind.expected[name]}{_place(problems)}", param=shown)
    path = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
    return BodyError(f"{printable(path)[:_LONGEST_FIELD]}: {_reason(first)}", param=printable(path)[:_LONGEST_FIELD])


def _fields(kind: type[Body], name: str) -> str:
    """Return the nearest field of a body, or all fields."""
    near = difflib.get_close_matches(name[:_LONGEST_FIELD], kind.model_fields, 1)
    return f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(kind.model_fields)}"


def _place(problems: Sequence[Any]) -> str:
    """Return the first position in a list that is at fault, the furthest of all alternatives; empty if none is."""
    places = [part for one in problems for part in one["loc"][2:3] if isinstance(part, int)]
    return f"; item {max(places)} is not" if places else ""


def _is_branch(part: object) -> bool:
    """Return whether a part of a place is the name of an alternative of a union, not a field."""
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool", "decimal"})


def _reason(problem: Any) -> str:
    return printable(str(problem["msg"]))


async def read_body(receive: Callable[[], Awaitable[Any]], headers: Sequence[Header], *, most_bytes: int) -> bytes:
    """Read a complete body. Raises BodyError if it is too large or compressed, and ConnectionError if the client left.

    Slow clients are disconnected (`connections.py`).
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > most_bytes:
            raise _too_large(most_bytes)
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            message = "content-encoding is not supported; send the body uncompressed"
            raise BodyError(message, status=415, code="unsupported_encoding")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


def _too_large(most_bytes: int) -> BodyError:
    return BodyError(
        f"the body is larger than {most_bytes:,} bytes; split the texts into several requests",
        status=413,
        code="request_too_large",
    )
