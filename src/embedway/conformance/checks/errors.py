"""Checks of invalid requests: each is refused with 4xx and OpenAI's error shape, never with 5xx, and nothing hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.conformance.rows import read_list
from embedway.conformance.verdicts import CheckFailedError, NoAnswerError, Verdict, passed, warned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

#: Levels of a nested list; parsers that recurse end with a stack overflow.
_LEVELS = 100_000
_UNKNOWN_MODEL = "no-such-model-of-any-server"
#: Fields of OpenAI's errors besides the message.
_ERROR_FIELDS = ("type", "param", "code")


async def _refusals(server: Server, cases: Mapping[str, Any]) -> str:
    """Send invalid bodies, and return the statuses. Raises CheckFailedError unless each is refused."""
    wrong, statuses = [], []
    for name, body in cases.items():
        try:
            answer = await server.client.post(server.url, body)
        except NoAnswerError as error:
            wrong.append(f"{name}: {error}")
            continue
        statuses.append(answer.status)
        if not answer.is_refusal:
            wrong.append(f"{name}: {answer.shown}")
    if wrong:
        raise CheckFailedError("; ".join(wrong[:4]))
    return "refused with " + ", ".join(map(str, dict.fromkeys(statuses)))


async def empty_text(server: Server) -> Verdict:
    """Send an empty text, alone and in a batch."""
    statuses = []
    for texts, rows in (("", 1), ([server.texts.known[0], ""], 2)):
        answer = await server.post(texts, rows=rows)
        statuses.append(answer.status)
        if not answer.is_refusal:
            read_list(answer, rows)
    if all(status == 200 for status in statuses):
        return warned("embedded; OpenAI refuses an empty text with 400")
    if statuses[0] != statuses[1]:
        return warned(f"alone {statuses[0]}, in a batch {statuses[1]}")
    return passed(f"refused with {statuses[0]}")


async def empty_batch(server: Server) -> Verdict:
    """Send an empty list."""
    answer = await server.post([])
    if answer.is_refusal:
        return passed(f"refused with {answer.shown}")
    read_list(answer, 0)
    return warned("answered with no rows; OpenAI refuses an empty list with 400")


async def wrong_types(server: Server) -> Verdict:
    """Send inputs that are neither texts nor tokens."""
    inputs: dict[str, Any] = {"null": None, "a number": 1.5, "an object": {"a": "b"}, "a list with null": [None]}
    inputs |= {"texts and numbers": ["text", 1], "true": True, "negative tokens": [-1, -2]}
    cases = {name: server.body(value) for name, value in inputs.items()}
    cases["a number as model"] = {"model": 5, "input": "text"}
    return passed(await _refusals(server, cases))


async def missing_input(server: Server) -> Verdict:
    """Send a request without a field."""
    return passed(await _refusals(server, {"no input": {"model": server.target.model}, "no fields": {}}))


async def invalid_json(server: Server) -> Verdict:
    """Send bodies that are no JSON object."""
    cases = {
        "cut JSON": b'{"model": "m", "input": ["a',
        "an empty body": b"",
        "a list": b'["a"]',
        "bytes that are not UTF-8": b'{"input": "\xff\xfe"}',
    }
    return passed(await _refusals(server, cases))


async def deep_nesting(server: Server) -> Verdict:
    """Send a list in lists, and look whether the server still answers."""
    body = b'{"model": "m", "input": ' + b"[" * _LEVELS + b"]" * _LEVELS + b"}"
    seen = await _refusals(server, {f"{_LEVELS:,} levels": body})
    await server.embed_one(server.texts.known[0])
    return passed(f"{_LEVELS:,} levels are {seen}")


async def unknown_model(server: Server) -> Verdict:
    """Ask for a model that the server does not have."""
    answer = await server.client.post(server.url, {"model": _UNKNOWN_MODEL, "input": "text"})
    if answer.status in {400, 404}:
        return passed(f"refused with {answer.shown}")
    if answer.is_ok:
        raise CheckFailedError("an unknown model is answered with vectors, of another model")
    raise CheckFailedError(f"an unknown model is answered with {answer.shown}, not with 404 or 400")


async def unknown_encoding(server: Server) -> Verdict:
    """Ask for an encoding that does not exist."""
    case = server.body(server.texts.known[0], encoding_format="no-such-encoding")
    return passed(await _refusals(server, {"an unknown encoding": case}))


async def error_shape(server: Server) -> Verdict:
    """Look at the bodies of several errors."""
    bodies = {
        "an empty list": server.body([]),
        "a wrong type": server.body({"a": 1}),
        "an unknown model": {"model": _UNKNOWN_MODEL, "input": "text"},
        "invalid JSON": b'{"model": ',
        "no input": {"model": server.target.model},
    }
    wrong, incomplete, seen = [], [], 0
    for name, body in bodies.items():
        try:
            answer = await server.client.post(server.url, body)
        except NoAnswerError:
            continue  # other checks judge that no error is answered
        if answer.is_ok:
            continue
        seen += 1
        problem, lacks = shape_problem(answer)
        if problem:
            wrong.append(f"{name}: {problem}")
        elif lacks:
            incomplete.append(lacks)
    if wrong:
        raise CheckFailedError("; ".join(wrong[:3]))
    if incomplete:
        return warned(f"errors have a message, but lack {incomplete[0]}")
    return passed(f"{seen} errors have message, type, param and code")


def shape_problem(answer: Answer) -> tuple[str, str]:
    """Return how an error's body differs from OpenAI's, and which fields it lacks; both empty if it is the same."""
    error = answer.value.get("error") if isinstance(answer.value, dict) else None
    if not isinstance(error, dict):
        found = "is no JSON" if answer.problem else "has no object error"
        return f"the body of {answer.status} {found}", ""
    if not isinstance(error.get("message"), str) or not error["message"]:
        return f"the error of {answer.status} has no message", ""
    return "", ", ".join(name for name in _ERROR_FIELDS if name not in error)
