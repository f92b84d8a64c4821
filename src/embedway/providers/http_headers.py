"""Headers of a service's answer: the wait that it requests, and its rate limits."""

from __future__ import annotations

import email.utils
import re
import time
from typing import TYPE_CHECKING

from embedway.types import NO_RATES, RateState

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATES = "x-ratelimit-"
#: Maximum digits of a number in a header. Python refuses to convert some thousands, and a float overflows earlier.
_MOST_DIGITS = 30
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3), or None."""
    exact = headers.get("retry-after-ms", "")
    if _is_number(exact):
        return float(exact) / 1000
    value = headers.get("Retry-After", "").strip()
    if _is_number(value):
        return float(value)
    until = _date_s(value)
    if until is None:
        return None
    # Relative to the service's own clock, because this machine's may be wrong by days.
    now = _date_s(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _date_s(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def read_rates(headers: Mapping[str, str]) -> RateState:
    """Parse the `x-ratelimit-*` headers in OpenAI's form (platform.openai.com/docs/guides/rate-limits)."""
    if not any(name.lower().startswith(_RATES) for name in headers):
        return NO_RATES

    def count(name: str) -> int | None:
        value = headers.get(name, "")
        return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None

    return RateState(
        requests_limit=count("x-ratelimit-limit-requests"),
        requests_remaining=count("x-ratelimit-remaining-requests"),
        requests_reset_s=duration_s(headers.get("x-ratelimit-reset-requests", "")),
        tokens_limit=count("x-ratelimit-limit-tokens"),
        tokens_remaining=count("x-ratelimit-remaining-tokens"),
        tokens_reset_s=duration_s(headers.get("x-ratelimit-reset-tokens", "")),
    )


def duration_s(text: str) -> float | None:
    """Return the seconds of a duration such as `1m30s`, `6ms`, `0.5s` or `12`; None for anything else."""
    if _is_number(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if not text or found is None or len(text) > _MOST_DIGITS:
        return None
    try:
        days, hours, minutes, seconds, thousandths = (float(part or 0) for part in found.groups())
    except ValueError:
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + thousandths / 1000


def _is_number(text: str) -> bool:
    return len(text) <= _MOST_DIGITS and re.fullmatch(r"\d+(\.\d+)?", text) is not None
