"""Errors of services: an HTTP status, a body and headers become one of embedway's errors.

The meanings are the rows of `error_table.py`. The body's message is compared with them and never shown, because it may
repeat the request; of a code, only known words are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    RateLimitedError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers import error_meanings as meanings
from embedway.providers.echoes import Message
from embedway.providers.error_body import ServerError, read_error, said_wait_s, shown_code
from embedway.providers.error_meanings import Meaning
from embedway.providers.error_table import RULES
from embedway.providers.http_body import is_page
from embedway.providers.http_headers import read_rates, retry_after_s
from embedway.providers.redirects import redirect_message
from embedway.types import ServiceLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Maximum of a limit in a message; larger numbers are not limits.
_MOST_LIMIT = 10**7
_PAGE = "a web page of a proxy, firewall or login answered, not the API"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """Facts of a request for its error: the URL of the settings, the path below it, the body, and the credential."""

    base_url: str = ""
    path: str = ""
    data: bytes = b""
    #: Source of the key, or of the headers in its place.
    credential: str = "api_key"


_NO_REQUEST = SentRequest()


def error_of(
    status: int, headers: Mapping[str, str], content: bytes, *, route: str, request: SentRequest = _NO_REQUEST
) -> UpstreamError:
    """Return the error for an answer whose status is not 2xx, with the rate limits from its headers."""
    if status in _REDIRECTS:
        return ProtocolError(
            redirect_message(headers.get("Location", ""), request.base_url, request.path), route=route, status=status
        )
    if is_page(content, headers.get("Content-Type", "").partition(";")[0].strip().lower()):
        error = _page_error(status, content, route=route, request=request)
        wait_s = None
    else:
        said = read_error(content, headers)
        message = Message(said.message, request.data)
        error, wait_s = _error(status, said, message, route=route, request=request), _wait_s(said, message)
    return _with_headers(error, headers, wait_s)


def error_in_success(
    said: ServerError, headers: Mapping[str, str], *, status: int, route: str, request: SentRequest
) -> UpstreamError:
    """Return the error for an error inside an answer with the status 2xx: the status that it names decides."""
    message = Message(said.message, request.data)
    error = _error(said.status or 200, said, message, route=route, request=request, shown=said.status or status)
    return _with_headers(error, headers, _wait_s(said, message))


def _wait_s(said: ServerError, message: Message) -> float | None:
    return said_wait_s(message) if said.wait_s is None else said.wait_s


def _with_headers(error: UpstreamError, headers: Mapping[str, str], wait_s: float | None) -> UpstreamError:
    if isinstance(error, (RateLimitedError, UnavailableError)):
        announced = retry_after_s(headers)
        error.retry_after_s = wait_s if announced is None else announced
    error.rates = read_rates(headers)
    return error


def _error(
    status: int, said: ServerError, message: Message, *, route: str, request: SentRequest, shown: int | None = None
) -> UpstreamError:
    """Return the error for an error body. `shown` is the status to show for an error inside HTTP 200."""
    meaning, code, limits = _meaning(status, said, message)
    code = code or shown_code(said.codes)
    where = "" if shown is None else "an error inside HTTP 200: "
    text = f"{where}{meaning.message}{f': {code}' if code else ''}"
    remedy = _with_credential(meaning, request)
    if meaning in {meanings.NO_PATH, meanings.NOT_FOUND}:
        remedy = "; ".join(part for part in (remedy, _path_remedy(request)) if part)
    billed = meaning.computed and (shown is not None or status >= 500 or meaning.error is UnavailableError)
    error = meaning.error(f"{text}; {remedy}" if remedy else text, route=route, status=shown or status, billed=billed)
    error.limits = limits
    if isinstance(error, UnavailableError):
        error.loading = meaning.loading
    return error


def _meaning(status: int, said: ServerError, message: Message) -> tuple[Meaning, str, ServiceLimits | None]:
    """Return the meaning of an error, the code that it is known by, and the limits that its message names."""
    codes = {code.lower(): code for code in reversed(said.codes)}
    for rule in RULES:
        if rule.statuses and status not in rule.statuses:
            continue
        by_code = next((codes[code] for code in codes if code in rule.codes), "")
        if by_code:
            return rule.meaning, shown_code((by_code,)), _limits_of(rule.meaning, message)
        found = message.search(rule.phrase) if rule.phrase else None
        if found is not None:
            return rule.meaning, "", _limits(found)
    if said.is_loading:
        return meanings.LOADING, "", None
    if status == 200:
        return meanings.UNKNOWN, "", None
    return meanings.BY_STATUS.get(status, meanings.FAILED if status >= 500 else meanings.UNEXPECTED), "", None


def _limits_of(meaning: Meaning, message: Message) -> ServiceLimits | None:
    """Return the limits in the message of an error that is known by its code."""
    rules = (rule for rule in RULES if rule.meaning is meaning and "(?P<" in rule.phrase)
    matches = (message.search(rule.phrase) for rule in rules)
    return next((limits for found in matches if found is not None and (limits := _limits(found))), None)


def _limits(found: re.Match[str]) -> ServiceLimits | None:
    numbers = {name: int(text.replace(",", "")) for name, text in found.groupdict().items() if text}
    if not numbers or not all(0 < number <= _MOST_LIMIT for number in numbers.values()):
        return None
    names = {"inputs": "max_inputs", "request_tokens": "max_request_tokens", "tokens": "max_tokens"}
    return replace(ServiceLimits(), **{names[name]: number for name, number in numbers.items()})


def _page_error(status: int, content: bytes, *, route: str, request: SentRequest) -> UpstreamError:
    """Return the error for HTML. A proxy or firewall wrote it, so it says nothing about the texts or the key."""
    if re.search(rb"plain http (?:request was sent to https|to an ssl-enabled)", content[:4096], re.IGNORECASE):
        meaning, place = meanings.HTTPS, ""
    else:
        meaning = meanings.BY_STATUS.get(status, meanings.FAILED if status >= 500 else meanings.UNEXPECTED)
        place = f": {_PAGE}"
        if meaning.error is AuthenticationError and status == 401:
            meaning = Meaning(AuthenticationError, "a login is required", "check base_url, proxies and api_key")
        elif status not in {413, 429} and meaning.error is not UnavailableError and status != 511:
            advice = f"{_path_remedy(request)}; check" if status == 404 else "check base_url,"
            meaning = Meaning(ProtocolError, "unexpected answer", f"{advice} proxies and firewalls")
    text = f"{meaning.message}{place}"
    remedy = f"; {_with_credential(meaning, request)}" if meaning.remedy else ""
    return meaning.error(f"{text}{remedy}", route=route, status=status, billed=meaning.computed)


def _with_credential(meaning: Meaning, request: SentRequest) -> str:
    """Return the remedy; that of a refused key names the key's source."""
    is_key = meaning.error is AuthenticationError
    return meaning.remedy.replace("api_key", request.credential) if is_key else meaning.remedy


def _path_remedy(request: SentRequest) -> str:
    """Return the advice for a wrong path, from the settings' URL alone."""
    path = urlsplit(request.base_url).path.rstrip("/")
    last = request.path.partition("?")[0]
    if last and path.endswith(last):
        return f"base_url must end before {last}, which is added to it"
    if not re.search(r"/v\d", path) and not re.match(r"/v\d|/openai", last):
        return f"check base_url, which usually ends in /v1, such as {request.base_url}/v1"
    return "check base_url"
