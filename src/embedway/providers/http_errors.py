"""Errors of services: an HTTP status and a body become one of embedway's errors.

The body's message is not shown, because it may repeat the request: only a short error code is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.http_headers import duration_s, read_rates, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Identifiers that services use for "no money left" with status 429.
_EXHAUSTED = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "quota_exceeded",
        "AUTHZ_INSUFFICIENT_BALANCE",
        "AUTHZ_RESOURCE_LIMIT_EXCEEDED",
    }
)
#: Gemini's error codes for an invalid key, which it answers with status 400.
_NO_KEY = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})
#: Transient statuses below 500, and permanent ones above: not implemented, version not supported.
_PASSING = frozenset({408, 409, 425})
#: Transient refusals, which are not billed. LiteLLM answers 408 if the service behind it takes too long.
_UNREAD = frozenset({409, 425})
_LASTING = frozenset({501, 505})
_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def error_of(status: int, headers: Mapping[str, str], content: bytes, *, route: str) -> UpstreamError:
    """Return the error for a status and a body, with the rate limits from the headers.

    The body's message is not shown: it may repeat the request.
    """
    error = _error_of(status, headers, content, route=route)
    error.rates = read_rates(headers)
    return error


def _error_of(status: int, headers: Mapping[str, str], content: bytes, *, route: str) -> UpstreamError:
    code = _error_code(content)
    said = f": {code}" if code else ""
    if status == 402 or code in _EXHAUSTED:
        return QuotaExceededError(f"the account's quota is used up{said}", route=route, status=status)
    if status in {401, 403} or code in _NO_KEY:
        return AuthenticationError(f"the key was refused{said}; check api_key", route=route, status=status)
    wait = retry_after_s(headers)
    if wait is None:
        wait = _retry_delay_s(content)
    if status == 429:
        return RateLimitedError(f"too many requests{said}", route=route, status=status, retry_after_s=wait)
    if status in _PASSING or (status >= 500 and status not in _LASTING):
        return UnavailableError(
            f"the service failed{said}", route=route, status=status, billed=status not in _UNREAD, retry_after_s=wait
        )
    if status in {400, 413, 422}:
        return RefusedInputError(f"the service refused the request{said}", route=route, status=status)
    advice = "; check model and base_url" if status == 404 else ""
    return ProtocolError(f"unexpected answer{said}{advice}", route=route, status=status)


def _error_body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content[:65536])
    except orjson.JSONDecodeError:
        return {}
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return Google's typed details of an error (google.rpc.ErrorInfo, RetryInfo)."""
    details = error.get("details")
    return [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _retry_delay_s(content: bytes) -> float | None:
    for detail in _details(_error_body(content)):
        if isinstance(detail.get("retryDelay"), str):
            return duration_s(detail["retryDelay"])
    return None


def _error_code(content: bytes) -> str:
    """Return the short identifier in an error body, if any; never its message."""
    error = _error_body(content)
    for detail in _details(error):
        if detail.get("reason") in _NO_KEY:
            return str(detail["reason"])
    for key in ("code", "type", "error_type", "status"):
        value = error.get(key)
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""
