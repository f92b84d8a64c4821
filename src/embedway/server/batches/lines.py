"""Lines of input files and of results, as JSON.

Input: `{"custom_id": ..., "method": "POST", "url": "/v1/embeddings", "body": {...}}`. Empty lines are ignored.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from embedway.server.batches.values import ENDPOINT, LineError

if TYPE_CHECKING:
    from embedway.server.batches.values import BatchLimits

#: Errors of an input file that are reported.
_MOST_ERRORS = 100
#: Maximum length of a custom ID, in characters.
_LONGEST_ID = 512
_NO_VALUE = object()


class Line(NamedTuple):
    """A line of an input file that can be computed."""

    custom_id: str
    body: dict[str, Any]

    @property
    def inputs(self) -> int:
        """Number of its texts, or lists of token IDs."""
        given = self.body.get("input")
        return len(given) if isinstance(given, list) and not (given and isinstance(given[0], int)) else 1


class InvalidLineError(ValueError):
    """A line of an input file is invalid."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code = code
        self.param = param
        super().__init__(message)


def parse_line(data: bytes) -> Line:
    """Return a line. Raises InvalidLineError, which repeats nothing of it."""
    try:
        line = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise InvalidLineError("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(line, dict):
        raise InvalidLineError("invalid_json_line", "This line is not a JSON object.")
    for name in ("custom_id", "method", "url", "body"):
        if line.get(name) is None:
            raise InvalidLineError("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    custom_id, body = line["custom_id"], line["body"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _LONGEST_ID:
        message = f"'custom_id' must be a string of 1 to {_LONGEST_ID} characters."
        raise InvalidLineError("invalid_type", message, "custom_id")
    if line["method"] != "POST":
        raise InvalidLineError("invalid_method", "'method' must be 'POST'.", "method")
    if line["url"] != ENDPOINT:
        message = f"The URL provided for this request does not match the batch endpoint '{ENDPOINT}'."
        raise InvalidLineError("url_mismatch", message, "url")
    if not isinstance(body, dict):
        raise InvalidLineError("invalid_type", "'body' must be an object.", "body")
    return Line(custom_id, body)


class InputCheck:
    """Checks an input file as its bytes arrive: its lines, their IDs, that they name one model, and the limits."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._rest = bytearray()
        self._number = 0
        self._ids: set[bytes] = set()
        self._model: object = _NO_VALUE
        self._inputs = 0
        #: Lines with content.
        self.total = 0
        self.errors: list[LineError] = []
        #: Whether the rest of the file does not matter.
        self.is_done = False

    @property
    def model(self) -> str:
        """Name of the model of all lines; empty if they name none."""
        return self._model if isinstance(self._model, str) else ""

    def feed(self, data: bytes) -> None:
        """Check the next bytes."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            if not self.is_done:
                self._check(bytes(line))
        # The line does not have to be complete to be too long.
        if not self.is_done and len(self._rest) > self._limits.line_bytes:
            self._check(bytes(self._rest))

    def finish(self) -> None:
        """Check the last line, and whether there was any."""
        if not self.is_done and self._rest:
            self._check(bytes(self._rest))
        if not self.total and not self.errors:
            self._fail("empty_file", "The batch input file is empty. Please ensure that it contains requests.", None)

    def _check(self, data: bytes) -> None:
        self._number += 1
        if len(data) > self._limits.line_bytes:
            # The rest is not looked at: it may not even have arrived.
            self._stop("line_too_long", f"This line is longer than {self._limits.line_bytes} bytes.", self._number)
            return
        if not data.strip():
            return
        self.total += 1
        if self.total > self._limits.lines:
            message = f"The batch input file contains too many requests; the maximum is {self._limits.lines}."
            self._stop("too_many_tasks", message)
        else:
            try:
                self._compare(parse_line(data))
            except InvalidLineError as failure:
                self._fail(failure.code, str(failure), failure.param, self._number)

    def _compare(self, line: Line) -> None:
        """Compare a line with those before it."""
        digest = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            message = "The 'custom_id' of this line is that of an earlier line; it must be unique in the file."
            raise InvalidLineError("duplicate_custom_id", message, "custom_id")
        self._ids.add(digest)
        model = line.body.get("model", "")
        if self._model is _NO_VALUE:
            self._model = model
        elif type(model) is not type(self._model) or model != self._model:
            message = "The model of this line is not that of the first line; a batch has one model."
            raise InvalidLineError("model_mismatch", message, "model")
        self._inputs += line.inputs
        if self._inputs > self._limits.inputs:
            message = f"The batch input file contains more than {self._limits.inputs} embedding inputs."
            self._stop("too_many_tasks", message)

    def _stop(self, code: str, message: str, line: int | None = None) -> None:
        self._fail(code, message, None, line)
        self.is_done = True

    def _fail(self, code: str, message: str, param: str | None, line: int | None = None) -> None:
        self.errors.append(LineError(code, message, line, param))
        self.is_done = self.is_done or len(self.errors) >= _MOST_ERRORS


def cut(data: bytes, *, is_end: bool, most_lines: int, most_inputs: int) -> tuple[int, int]:
    """Return the size and the number of lines of the next part of an input file, from its next bytes.

    The part ends with a line. Lines without content count as lines. The size is 0 if `data` does not contain a whole
    line. One line may have more inputs than `most_inputs`.
    """
    size = lines = inputs = 0
    while lines < most_lines and size < len(data):
        end = data.find(b"\n", size) + 1
        if not end:
            if not is_end:
                break
            end = len(data)
        inputs += _inputs_of(data[size:end])
        if lines and inputs > most_inputs:
            break
        size, lines = end, lines + 1
    return size, lines


def _inputs_of(data: bytes) -> int:
    try:
        return parse_line(data).inputs
    except InvalidLineError:
        return 0


def split(data: bytes) -> list[bytes]:
    """Return the lines of a part."""
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def answer_line(custom_id: str, status: int, body: bytes) -> bytes:
    """Return the line of a request that was answered. `body` is JSON, and is not changed."""
    if b"\n" in body:
        body = orjson.dumps(orjson.loads(body))
    response = {"status_code": status, "request_id": secrets.token_hex(16), "body": orjson.Fragment(body)}
    return _result_line(custom_id, response, None)


def failure_line(custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that was not answered."""
    return _result_line(custom_id, None, {"code": code, "message": message})


def _result_line(custom_id: str, response: object, error: object) -> bytes:
    line = {
        "id": f"batch_req_{secrets.token_hex(16)}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
