"""Computation of a part of a batch: its lines, several at once, and their results as lines of JSON."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson

from embedway.server.batches.lines import InvalidLineError, answer_line, failure_line, parse_line, split
from embedway.server.batches.progress import PartResult
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.server.batches.lines import Line
    from embedway.server.batches.values import Part, Stop
    from embedway.server.caller import Caller

#: Statuses of failures that may pass.
_TEMPORARY = frozenset({429, 503, 504})
#: Statuses of failures that may be due to the line or to the settings, so their tries are few.
_UNCLEAR, _UNCLEAR_TRIES = frozenset({500, 502}), 3
#: Codes of errors with such a status that do not pass by waiting.
_LASTING = frozenset({"max_cost_exceeded", "insufficient_quota", "upstream_quota_exceeded"})
#: Larger bodies are not those of errors.
_LARGEST_ERROR = 2**16
#: Codes and messages of lines that were not computed, as those of the API.
_STOPPED: Mapping[Stop, tuple[str, str]] = {
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "storage": (
        "storage_limit_exceeded",
        "This request was not executed because your files have reached their maximum size; delete some of them.",
    ),
}
_REVOKED = orjson.dumps(
    {
        "error": {
            "message": "The API key that created this batch is no longer valid.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
)
_INTERNAL_BODY = orjson.dumps(
    {"error": {"message": "The gateway failed to compute this request.", "type": "server_error", "code": None}}
)

_log = logging.getLogger("embedway.batches")


class Answer(NamedTuple):
    """Answer of the online API to the body of a line."""

    status: int
    body: bytes
    #: Time after which to try again, in seconds, as in the header Retry-After.
    retry_after_s: float | None = None
    #: Tokens of the answer, for the usage of the batch.
    tokens: int = 0


class Compute(Protocol):
    """Computes the body of a line as the online API does, with low priority.

    Returns an `Answer`, or a tuple of its first items.
    """

    async def __call__(self, caller: Caller, body: dict[str, Any]) -> tuple[Any, ...]:
        """Return the answer to a body."""


@dataclass(slots=True)
class PartLines:
    """Results of a part: lines of the output and of the errors, and their counts."""

    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    tokens: int = 0
    is_paused: bool = False
    wait_s: float = 0.0

    def result(self) -> PartResult:
        """Return the counts."""
        counts = (len(self.output), len(self.errors), self.tokens)
        return PartResult(frozenset(self.done), *counts, is_paused=self.is_paused, wait_s=self.wait_s)


def read_part(data: bytes, part: Part) -> tuple[dict[int, Line], PartLines]:
    """Return the lines of a part to compute, by their number, and the results of those that need no computation.

    Lines without content have no result. An invalid line was valid when the file was checked; it is an error.
    """
    lines: dict[int, Line] = {}
    results = PartLines()
    found = split(data)
    for number in part.todo:
        line = found[number] if number < len(found) else b""
        if not line.strip():
            results.done.add(number)
            continue
        try:
            lines[number] = parse_line(line)
        except InvalidLineError as failure:
            results.done.add(number)
            results.errors.append(failure_line("", failure.code, str(failure)))
    return lines, results


def fail_stopped(lines: Mapping[int, Line], results: PartLines, stop: Stop) -> None:
    """Add the errors of lines that are not computed any more."""
    results.errors += [failure_line(line.custom_id, *_STOPPED[stop]) for line in lines.values()]
    results.done.update(lines)


def fail_revoked(lines: Mapping[int, Line], results: PartLines) -> None:
    """Add the errors of lines whose key was revoked."""
    results.errors += [answer_line(line.custom_id, 401, _REVOKED) for line in lines.values()]
    results.done.update(lines)


async def compute_lines(
    compute: Compute, caller: Caller, lines: Mapping[int, Line], stopped: asyncio.Event
) -> dict[int, Answer]:
    """Return the answers to lines, computed at once. After `stopped`, the others are cancelled and missing."""
    tasks = {number: asyncio.ensure_future(_compute_line(compute, caller, line)) for number, line in lines.items()}
    stopping = asyncio.ensure_future(stopped.wait())
    waiting: set[asyncio.Future[Any]] = set(tasks.values())
    try:
        while waiting and not stopped.is_set():
            await asyncio.wait({stopping, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting = {task for task in waiting if not task.done()}
    finally:
        stopping.cancel()
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), stopping, return_exceptions=True)
    return {number: task.result() for number, task in tasks.items() if not task.cancelled()}


async def _compute_line(compute: Compute, caller: Caller, line: Line) -> Answer:
    try:
        return Answer(*await compute(caller, line.body))
    except BaseException as error:
        if must_pass(error):
            raise
        _log.warning("a line of a batch failed with %s", place_of(error))
        return Answer(500, _INTERNAL_BODY)


def add_answers(lines: Mapping[int, Line], answers: Mapping[int, Answer], results: PartLines, tries: int) -> None:
    """Add the answers to their lines; those that failed temporarily stay to be computed again."""
    for number, answer in answers.items():
        if answer.status >= 400 and _is_temporary(answer, tries):
            results.is_paused = True
            results.wait_s = max(results.wait_s, answer.retry_after_s or 0.0)
            continue
        try:
            written = answer_line(lines[number].custom_id, answer.status, answer.body)
        except orjson.JSONDecodeError:
            answer = Answer(500, _INTERNAL_BODY)  # noqa: PLW2901
            written = answer_line(lines[number].custom_id, answer.status, answer.body)
        (results.output if answer.status < 400 else results.errors).append(written)
        results.done.add(number)
        results.tokens += answer.tokens


def _is_temporary(answer: Answer, tries: int) -> bool:
    may_pass = answer.status in _TEMPORARY or (answer.status in _UNCLEAR and tries < _UNCLEAR_TRIES - 1)
    return may_pass and _code(answer.body) not in _LASTING


def _code(body: bytes) -> object:
    if len(body) > _LARGEST_ERROR:
        return None
    try:
        code: object = orjson.loads(body)["error"]["code"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return code if isinstance(code, str) else None


def joined(lines: Sequence[bytes]) -> bytes:
    """Return lines as the bytes of a file."""
    return b"".join(lines)
