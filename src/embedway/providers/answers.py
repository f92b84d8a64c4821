"""Check of a provider's answer. A provider may be third-party code, and its numbers decide costs and waits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from embedway.errors import BadVectorsError, ProtocolError
from embedway.money import as_number
from embedway.providers.base import Answer
from embedway.providers.http_headers import MOST_LIMITS
from embedway.providers.usage import MOST_COUNT
from embedway.types import NO_RATES, RateLimit, RateState

_RATES = tuple(name for name in RateState.__dataclass_fields__ if name != "more")
#: Maximum of a rate limit or wait; larger ones are ignored, far below the overflow of a float.
_MOST_RATE = 1e30


def checked_answer(answer: Any, *, route: str) -> Answer:
    """Return an answer with plain numbers and without implausible rate limits.

    Raises ProtocolError for another object and for invalid usage, and BadVectorsError unless the vectors are an array.
    """
    if type(answer) is not Answer:
        raise ProtocolError(f"its provider returned a {type(answer).__name__}, not an Answer", route=route, billed=True)
    if not issubclass(type(answer.vectors), np.ndarray) or answer.vectors.ndim != 2:
        raise BadVectorsError(
            "answered with something that is not an array of one row per text", route=route, check="type"
        )
    tokens, searches, rates = _count(answer.tokens, route), _count(answer.searches, route), checked_rates(answer.rates)
    if tokens is answer.tokens and searches is answer.searches and rates is answer.rates:
        return answer
    return replace(answer, tokens=tokens, searches=searches, rates=rates)


def _count(value: Any, route: str) -> int | None:
    if value is None or (type(value) is int and 0 <= value <= MOST_COUNT):
        return value
    number = as_number(value)
    if type(number) is int and 0 <= number <= MOST_COUNT:
        return number
    raise ProtocolError("answered with an invalid number of tokens or searches", route=route, billed=True)


def checked_rates(rates: object) -> RateState:
    """Return rate limits without implausible numbers; none for another object."""
    if rates is NO_RATES or type(rates) is not RateState:
        return NO_RATES
    more = rates.more if type(rates.more) is tuple else ()
    checked = (_checked_limit(limit) for limit in more[:MOST_LIMITS] if type(limit) is RateLimit)
    return RateState(
        **{name: _rate(getattr(rates, name), whole=not name.endswith("_s")) for name in _RATES},
        more=tuple(limit for limit in checked if limit is not None),
    )


def _checked_limit(limit: RateLimit) -> RateLimit | None:
    if limit.kind not in {"requests", "tokens"}:
        return None
    count, remaining = _rate(limit.limit, whole=True), _rate(limit.remaining, whole=True)
    return RateLimit(
        limit.kind, count, remaining, _rate(limit.reset_s, whole=False), _rate(limit.window_s, whole=False)
    )


def _rate(value: Any, *, whole: bool) -> Any:
    number = as_number(value)
    if number is None or not 0 <= number <= _MOST_RATE or not math.isfinite(number):
        return None
    return int(number) if whole else float(number)
