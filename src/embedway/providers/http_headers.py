"""Headers of a service's answer: the wait that it requests, and its rate limits."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
import time
from typing import TYPE_CHECKING, Literal

from embedway.types import NO_RATES, RateLimit, RateState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Maximum digits of a number in a header. Python refuses to convert some thousands, and a float overflows earlier.
_MOST_DIGITS = 30
#: Maximum wait that a service may request, and time until a limit is reset, in seconds: limits per day are the longest.
#: A larger number is a mistake, such as a Unix time, and ignored.
LONGEST_WAIT_S = 2 * 86_400.0
#: Maximum period of a limit, in seconds.
_LONGEST_WINDOW_S = 366 * 86_400.0
#: Maximum characters of a header with a list, and maximum limits of one answer besides the usual ones.
_MOST_CHARACTERS, MOST_LIMITS = 1000, 16
_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?(?:([\d.]+)(?:us|µs|μs))?(?:([\d.]+)ns)?"
)
_UNITS_S = (86_400.0, 3600.0, 60.0, 1.0, 1e-3, 1e-6, 1e-9)
#: Names of headers with one number. `x-ratelimit-limit-requests` (OpenAI, Azure, Groq, Voyage),
#: `anthropic-ratelimit-requests-limit` (Anthropic), `x-ratelimit-remaining-tokens-minute` (Mistral),
#: `x-ratelimit-limit-requests-day` (Cerebras), `x-ratelimit-remaining-minute` (Kong), `x-tokenlimit-limit` (Together),
#: `ratelimit-limit` (IETF drafts 0 to 6).
_NAME = re.compile(
    r"(?:x-|anthropic-)?(?P<family>ratelimit|ratelimitbysize|tokenlimit)-(?:"
    r"(?P<field>limit|remaining|reset)(?:-(?P<kind>requests|req|tokens))?(?:-(?P<window>second|minute|hour|day))?"
    r"|(?P<kind_first>requests|tokens|input-tokens)-(?P<field_last>limit|remaining|reset))"
)
_WINDOWS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}

_NONE = RateLimit("requests")

Kind = Literal["requests", "tokens"]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a service asks to wait, or None.

    It is read from `retry-after-ms`, `x-ms-retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3).
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        exact = headers.get(name, "").strip()
        if _is_number(exact) and float(exact) / 1000 <= LONGEST_WAIT_S:
            return float(exact) / 1000
    value = headers.get("Retry-After", "").strip()
    if _is_number(value):
        return float(value) if float(value) <= LONGEST_WAIT_S else None
    return _until_s(value, headers)


def _until_s(value: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a date, 0 if it is in the past, None for another value or a date years ahead.

    It counts from the service's own clock, because this machine's may be wrong by days; or from this machine's if that
    is sooner, because a cache may have stored the service's `Date`.
    """
    until = _date_s(value)
    if until is None:
        return None
    waits = [until - now for now in (_date_s(headers.get("Date", "")), time.time()) if now is not None]
    wait = min((wait for wait in waits if wait > 0), default=0.0)
    return wait if wait <= LONGEST_WAIT_S else None


def _date_s(value: str) -> float | None:
    """Return the Unix time of a date of HTTP or ISO 8601. A date without a time zone is UTC."""
    for parse in (email.utils.parsedate_to_datetime, dt.datetime.fromisoformat):
        try:
            date = parse(value)
            return (date if date.tzinfo is not None else date.replace(tzinfo=dt.UTC)).timestamp()
        except (ValueError, OverflowError, TypeError):
            continue
    return None


def read_rates(headers: Mapping[str, str]) -> RateState:
    """Return the rate limits in headers of OpenAI's form (platform.openai.com/docs/guides/rate-limits) and others.

    Also read: the IETF's drafts (draft-ietf-httpapi-ratelimit-headers, versions 0 to 10), and the forms at `_NAME`.
    Invalid numbers are ignored.
    """
    named = {name.lower(): value for name, value in headers.items() if "limit" in name.lower()}
    if not named:
        return NO_RATES
    policies = dict(_policies(named.get("ratelimit-policy", "")))
    limits = [*_named_limits(named, headers, policies), *_draft_limits(named.get("ratelimit", ""), policies)]
    known = {kind: limit for kind, limit in limits if kind in {"requests", "tokens"}}
    more = tuple(limit for kind, limit in limits if kind not in known)[:MOST_LIMITS]
    requests, tokens = known.get("requests", _NONE), known.get("tokens", _NONE)
    return RateState(
        requests_limit=requests.limit,
        requests_remaining=requests.remaining,
        requests_reset_s=requests.reset_s,
        tokens_limit=tokens.limit,
        tokens_remaining=tokens.remaining,
        tokens_reset_s=tokens.reset_s,
        more=more,
    )


def _named_limits(
    named: Mapping[str, str], headers: Mapping[str, str], policies: Mapping[str, RateLimit]
) -> Iterator[tuple[str, RateLimit]]:
    """Yield the limits whose numbers have a header each; with their kind if they are of OpenAI's form."""
    found: dict[tuple[str, Kind, str | None], dict[str, str]] = {}
    for name, value in named.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            said = match["kind"] or match["kind_first"] or ""
            kind: Kind = "tokens" if "tokens" in said or match["family"] != "ratelimit" else "requests"
            # Input tokens are a limit of their own, and so is a number without a kind.
            form = kind if said in {"requests", "tokens"} and not match["window"] else f"{match['family']} {said}"
            found.setdefault((form, kind, match["window"]), {})[match["field"] or match["field_last"]] = value
    for (form, kind, window), fields in found.items():
        count, reset = _count(fields.get("limit", "")), fields.get("reset", "").strip()
        reset_s = duration_s(reset)
        limit = RateLimit(
            kind,
            count,
            _count(fields.get("remaining", "")),
            _until_s(reset, headers) if reset_s is None else reset_s,
            _WINDOWS_S[window] if window else _window_of(count, fields.get("limit", ""), policies),
        )
        if any(value is not None for value in (limit.limit, limit.remaining, limit.reset_s)):
            yield form, limit


def _window_of(count: int | None, value: str, policies: Mapping[str, RateLimit]) -> float | None:
    """Return the period of a limit from the policies in its own header or in `RateLimit-Policy`."""
    for policy in (*dict(_policies(value)).values(), *policies.values()):
        if policy.limit == count and policy.window_s is not None:
            return policy.window_s
    return None


def _policies(value: str) -> Iterator[tuple[str, RateLimit]]:
    """Yield the named policies of `RateLimit-Policy`: `"day";q=1000;w=86400`, or `1000;w=86400` in older drafts."""
    for name, parameters in _items(value):
        unit = parameters.get("qu", "requests")
        window = duration_s(parameters.get("w", parameters.get("window", "")))
        if unit in {"requests", "tokens"} and (window is None or 0 < window <= _LONGEST_WINDOW_S):
            kind: Kind = "tokens" if unit == "tokens" else "requests"
            yield name, RateLimit(kind, _count(parameters.get("q", name)), window_s=window)


def _draft_limits(value: str, policies: Mapping[str, RateLimit]) -> Iterator[tuple[str, RateLimit]]:
    """Yield the limits of `RateLimit`: `"day";r=50;t=30`, or `limit=100, remaining=50, reset=30` in draft 7."""
    listed = {}
    for name, parameters in _items(value):
        key, is_pair, number = name.partition("=")
        if is_pair:
            listed[key] = number
        else:
            policy = policies.get(name, RateLimit("requests"))
            remaining, reset_s = _count(parameters.get("r", "")), duration_s(parameters.get("t", ""))
            yield f"policy {name}", RateLimit(policy.kind, policy.limit, remaining, reset_s, policy.window_s)
    if listed:
        count = _count(listed.get("limit", ""))
        remaining, reset_s = _count(listed.get("remaining", "")), duration_s(listed.get("reset", ""))
        yield "listed", RateLimit("requests", count, remaining, reset_s, _window_of(count, "", policies))


def _items(value: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the items of a list, each with its parameters (RFC 9651, simplified)."""
    for item in value.split(",") if len(value) <= _MOST_CHARACTERS else ():
        name, *rest = (part.strip() for part in item.split(";"))
        pairs = (part.partition("=") for part in rest)
        if name:
            yield name.strip('"'), {key.strip().lower(): number.strip().strip('"') for key, _, number in pairs}


def _count(value: str) -> int | None:
    """Return the first number of a header such as `100`, or `100, 100;w=60` of older drafts; None if it is invalid."""
    number = re.split("[,;]", value, maxsplit=1)[0].strip() if len(value) <= _MOST_CHARACTERS else ""
    return int(number) if number.isdecimal() and len(number) <= _MOST_DIGITS else None


def duration_s(text: str) -> float | None:
    """Return the seconds of a duration such as `1m30s`, `6ms`, `0.5s` or `12`; None for anything else."""
    if _is_number(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if not text or found is None or len(text) > _MOST_DIGITS:
        return None
    try:
        return sum(float(part or 0) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True))
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    return len(text) <= _MOST_DIGITS and re.fullmatch(r"\d+(\.\d+)?", text) is not None
