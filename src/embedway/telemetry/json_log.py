"""Log lines as JSON: a `logging.Formatter` that writes one document a line.

Each document is ASCII without control characters, so that no name or message can break a line or reach a terminal as an
escape sequence.
"""

from __future__ import annotations

import json
import logging
import math
import time
from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

from embedway.telemetry.request_ids import current_requests, request_id

#: Attribute of a log record with fields for its document.
FIELDS = "embedway_fields"
#: Maximum levels of a document that json cannot represent as it is, and maximum bits of its integers.
_MOST_LEVELS = 20
_MOST_BITS = 10_000


def timestamp(seconds: float) -> str:
    """Return a time of `time.time` in ISO 8601, in UTC, in milliseconds."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def json_line(document: dict[str, Any]) -> str:
    """Return a JSON document on one line. NaN and infinities become null, and surrogates become `?`."""
    try:
        text = json.dumps(document, allow_nan=False)
    # Among others, a nested document has too many levels, or an integer too many digits.
    except Exception:  # noqa: BLE001  a log line must not fail its program
        text = json.dumps(_plain(document), allow_nan=False)
    else:
        if "\\ud" in text:  # perhaps half of a surrogate pair, which is no valid text
            text = json.dumps(_plain(document), allow_nan=False)
    # DEL is the only control character that json does not escape.
    return text.replace("\x7f", "\\u007f")


def _plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911  one return for each kind of value
    """Return a value that JSON can represent. Levels below `_MOST_LEVELS` are left out: they may have no end."""
    if isinstance(value, str):
        return str.encode(value, "utf-8", "replace").decode()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Python does not print integers with thousands of digits.
        return int(value) if int.bit_length(value) <= _MOST_BITS else type(value).__name__
    if depth < _MOST_LEVELS and isinstance(value, dict):
        return {_plain(_shown(key)): _plain(one, depth + 1) for key, one in dict.items(value)}
    if depth < _MOST_LEVELS and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one, depth + 1) for one in value]
    return type(value).__name__


def _shown(value: object) -> str:
    """Return the text of an object; its class if it has none."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  any object may be logged
        return type(value).__name__


class JsonFormatter(logging.Formatter):
    """Formatter that writes a log record as one JSON document on one line.

    Fields: `time` (ISO 8601, UTC), `level`, `logger` and `message`; `request_id` inside a call, or `request_ids` in a
    batch of several calls; and `error`, the class of a logged exception, without its message, which may repeat texts.
    Lines of `embedway.requests` have the fields of the call instead of a message.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
        }
        fields = getattr(record, FIELDS, None)
        if isinstance(fields, dict):
            return json_line({**document, **fields})
        document["message"] = _message(record)
        requests = current_requests.get()
        if len(requests) == 1:
            document["request_id"] = request_id(requests[0])
        elif requests:
            document["request_ids"] = [request_id(one) for one in requests]
        error = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
        if error is not None:
            document["error"] = error.__name__
        return json_line(document)


def _time_of(record: logging.LogRecord) -> str:
    try:
        return timestamp(record.created)
    except (ValueError, OverflowError, OSError):  # a time that a program made up
        return timestamp(time.time())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  wrong arguments of a line must not lose the line
        return f"{_shown(record.msg)} ({type(error).__name__} in its arguments)"
