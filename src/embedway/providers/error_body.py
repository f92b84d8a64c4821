"""Reading of error bodies: codes, messages, inner statuses and waits, in the shapes that services use.

OpenAI's `{"error": {...}}`, the same in a list (Gemini) or inside HTTP 200 (OpenRouter), `{"error": "..."}` (Ollama,
LM Studio), FastAPI's `detail`, Cloudflare's `errors`, Google's `details`, AWS's `__type`, MiniMax's `base_resp`.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from embedway.providers.error_words import WORDS
from embedway.providers.http_body import Body, parse
from embedway.providers.http_headers import LONGEST_WAIT_S, duration_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedway.providers.echoes import Message

#: Fields with a code, in the order in which codes are shown.
_CODE_KEYS = (
    "code",
    "type",
    "error_type",
    "errortype",
    "status",
    "reason",
    "error_code",
    "errorcode",
    "errcode",
    "__type",
    "statuscode",
    "status_code",
    "error",
)
_MESSAGE_KEYS = frozenset(
    {
        "error",
        "message",
        "msg",
        "detail",
        "details",
        "error_msg",
        "errormessage",
        "error_message",
        "error_description",
        "errors",
        "messages",
        "status_msg",
        "faultstring",
        "title",
        "description",
        "text",
    }
)
_WAIT_KEYS = {"estimated_time": 1.0, "retry_after": 1.0, "retryafter": 1.0, "retry_after_seconds": 1.0}
_WAIT_KEYS |= {"retry_after_ms": 0.001, "retryafterms": 0.001}
#: Fields in which services repeat the request.
_REPEATED = frozenset({"input", "inputs", "texts", "documents", "query", "request", "url"})
#: Fields that an error has besides a list of rows.
_NO_ROWS = _MESSAGE_KEYS | _REPEATED | {"loc", "metadata", "stack", "trace", "traceback", "warnings"}
#: Fields that only errors have.
_MARKS = frozenset(
    {
        "error",
        "errors",
        "errormessage",
        "errortype",
        "error_code",
        "error_msg",
        "error_message",
        "fault",
        "exception",
        "detail",
    }
)
#: Length above which a field is content, such as vectors in base64, and not a fact of an error.
_LONG = 200
#: Codes without information.
_EMPTY = frozenset({"error", "fail", "failed", "failure", "none", "null", "unknown"})
#: Maximum values of a body, characters of a message, and bytes of JSON that are read.
_MOST_NODES, _MOST_CHARACTERS, _MOST_JSON = 300, 2_000, 4_000_000
#: Fields above which an object is content.
_MOST_FIELDS = 1_000
_CODE = re.compile(r"[A-Za-z0-9_.\-#/]{1,80}")
_UNIT_S = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
}
_UNIT_S |= {"h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0}
_STEP = r"(\d{1,9}(?:\.\d{1,9})?) ?(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
#: "Please try again in 1m2s" (OpenAI), "Please retry after 54 seconds" (Azure), "Please retry in 36.6s" (Gemini).
_WAIT = (
    r"(?:try|trying|retry|retrying|available|resets?|wait)\b[a-z ]{0,30}? ?(?:(?:in|after|for|about|until) )*"
    rf"((?:{_STEP}(?:,? and |, | )?)+)"
)


@dataclass(frozen=True, slots=True)
class ServerError:
    """Facts of an error body. `message` is in lower case, and only compared: it may repeat the request."""

    codes: tuple[str, ...] = ()
    message: str = ""
    #: HTTP status that the body names.
    status: int | None = None
    #: Wait in a field of its own.
    wait_s: float | None = None
    #: Whether it estimates the time until the model is loaded.
    is_loading: bool = False


def read_error(content: bytes, headers: Mapping[str, str]) -> ServerError:
    """Read an error body: JSON, or plain text or XML as the message."""
    value = parse(Body(content)).value if len(content) <= _MOST_JSON else None
    if not isinstance(value, (dict, list)):
        text = content[: 2 * _MOST_CHARACTERS].decode("utf-8", "replace")
        code = re.search(r"<code>\s*(\w{1,64})\s*</code>", text, re.IGNORECASE)
        value = {"code": code.group(1) if code else "", "message": re.sub(r"<[^>]*>", "\n", text)}
    named = headers.get("x-amzn-errortype", "").partition(":")[0]
    return _read([value, {"code": named}] if named else value)


def error_inside(value: Any) -> ServerError | None:
    """Return the error that a parsed answer with HTTP 200 contains in place of rows, or None."""
    body = value[0] if isinstance(value, list) and value else value
    is_short = isinstance(body, dict) and len(body) <= _MOST_FIELDS
    return _read(value) if is_short and not _has_rows(body) and _is_marked(body) else None


def shown_code(codes: tuple[str, ...]) -> str:
    """Return the first code that consists only of known words, or an empty string."""
    return next((code for code in codes if len(code) <= 64 and code.lower() not in _EMPTY and _is_known(code)), "")


def _is_known(code: str) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", code)
    return bool(words) and not re.search(r"[0-9/#]", code) and all(word.lower() in WORDS for word in words)


def _is_marked(body: dict[Any, Any]) -> bool:
    """Return whether a body says that it is an error, has null for its rows, or has nothing but a message."""
    lower = {str(key).lower(): value for key, value in body.items()}
    if any(lower.get(key, "") is None for key in ("data", "embeddings", "results")):
        return True
    code, status = lower.get("code"), lower.get("status")
    if any(lower.get(key) for key in _MARKS) or lower.get("success") is False or lower.get("object") == "error":
        return True
    if str(status).lower() in {"error", "failed", "failure", "fail"} or any(map(_status, _numbers(lower))):
        return True
    base, response = lower.get("base_resp"), lower.get("response")
    if (isinstance(base, dict) and base.get("status_code")) or (isinstance(response, dict) and response.get("Error")):
        return True
    if str(code).lower() in {"0", "200", "ok", "success"} or any(
        isinstance(value, str) and len(value) > _LONG for key, value in lower.items() if key not in _NO_ROWS
    ):
        return False
    return bool(lower.get("message") or lower.get("msg"))


def _numbers(body: Mapping[str, Any]) -> Iterator[Any]:
    return (body.get(key) for key in ("code", "status", "statuscode", "status_code"))


def _has_rows(body: dict[Any, Any]) -> bool:
    """Return whether a field other than those of errors has a list, or an object with one (Cohere's `embeddings`)."""
    for key, value in body.items():
        if not isinstance(value, (list, dict)) or str(key).lower() in _NO_ROWS:
            continue
        values = value.values() if isinstance(value, dict) else (value,)
        if any(isinstance(one, list) and one for one in values):
            return True
    return False


def _read(value: Any) -> ServerError:
    codes: list[str] = []
    messages: list[str] = []
    statuses: list[int] = []
    waits: list[float] = []
    is_loading = False
    for key, item in _fields(value):
        if key in _CODE_KEYS:
            status = _status(item)
            statuses += [status] if status else []
            code = str(item) if type(item) is int else item
            if isinstance(code, str) and _CODE.fullmatch(code):
                codes.append(code.rpartition("#")[2])
        if key in _MESSAGE_KEYS and isinstance(item, str):
            messages.append(item[:_MOST_CHARACTERS])
        wait = _wait(key, item)
        waits += [] if wait is None else [wait]
        is_loading |= key == "estimated_time" and wait is not None
    message = "\n".join(messages)[: 2 * _MOST_CHARACTERS].lower()
    return ServerError(
        tuple(dict.fromkeys(codes)), message, next(iter(statuses), None), next(iter(waits), None), is_loading
    )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of nested objects, outer ones first, up to a number of values."""
    left, budget = deque([("", value)]), _MOST_NODES
    while left and budget:
        key, item = left.popleft()
        budget -= 1
        if isinstance(item, str) and item[:1] in {"{", "["} and len(item) <= 10 * _MOST_CHARACTERS:
            # Gateways put another service's error, as JSON, into a string.
            parsed = _json(item.encode("utf-8", "replace"))
            item = item if parsed is None else parsed
        if isinstance(item, dict):
            order = {name: number for number, name in enumerate(_CODE_KEYS)}
            named = [(str(name).lower(), inner) for name, inner in list(item.items())[:_MOST_NODES]]
            named.sort(key=lambda one: order.get(one[0], len(order)))
            left += [one for one in named if one[0] not in _REPEATED]
        elif isinstance(item, list):
            left += [(key, inner) for inner in item[:20]]
        else:
            yield key, item


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _status(value: Any) -> int | None:
    """Return an HTTP status of an error: a number, or a string of digits."""
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 400 <= value <= 599 else None


def _wait(key: str, value: Any) -> float | None:
    if key == "retrydelay" and isinstance(value, str):  # google.rpc.RetryInfo
        return _plausible(duration_s(value))
    if key in _WAIT_KEYS:
        number = duration_s(value) if isinstance(value, str) else value
        return None if number is None or type(number) not in {int, float} else _plausible(number * _WAIT_KEYS[key])
    return None


def said_wait_s(message: Message) -> float | None:
    """Return the wait in a message, such as `try again in 1m2s`, in seconds."""
    found = message.search(_WAIT)
    if found is None:
        return None
    steps = re.findall(_STEP, found.group(1))
    return _plausible(
        sum(float(number) * _UNIT_S.get(unit, _UNIT_S.get(unit.rstrip("s"), 0.0)) for number, unit in steps)
    )


def _plausible(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_WAIT_S:
        return None
    return float(seconds)
