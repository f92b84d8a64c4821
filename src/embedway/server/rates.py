"""Limits per minute of API keys: requests and tokens, by the generic cell rate algorithm (ITU-T I.371).

A key has a bucket for each limit, which holds one minute's worth and fills steadily. The store contains one number for
a bucket: the time at which it will be full again. A call takes its request and its estimated tokens before it runs, or
nothing, and afterwards the difference to the actual tokens, which may leave a debt that delays later calls.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedway.errors import KeyLimitError, LedgerError

if TYPE_CHECKING:
    from embedway.server.caller import Caller

_log = logging.getLogger("embedway.server")

#: Seconds in which an empty bucket fills.
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class MinuteLimits:
    """Maximum requests and tokens per minute; None for no limit."""

    requests: int | None
    tokens: int | None

    @property
    def intervals(self) -> tuple[float, float]:
        """Seconds in which a bucket fills by one request, and by one token; 0 for no limit."""
        return (
            MINUTE_S / self.requests if self.requests else 0.0,
            MINUTE_S / self.tokens if self.tokens else 0.0,
        )


class RateLimits(Protocol):
    """Store of the buckets of all keys. Every method raises LedgerError if the store fails."""

    async def take(self, key_name: str, requests: int, tokens: int, limits: MinuteLimits) -> float:
        """Take requests and tokens of a key: both or none. Return 0, or the seconds until they can be taken.

        Infinity if they are more than the limit of a minute.
        """

    async def correct(self, key_name: str, tokens: int, limits: MinuteLimits) -> None:
        """Take more tokens after a call, also without enough in the bucket, or give tokens back (below 0)."""

    async def aclose(self) -> None:
        """Close files and connections."""


def full_at(before: float, now: float, amount: int, interval_s: float) -> tuple[float, float]:
    """Return the time at which a bucket is full after an amount was taken, and the wait until it can be taken.

    `before` is the time at which it is full without that.
    """
    after = max(before, now) + amount * interval_s
    if amount * interval_s > MINUTE_S * (1 + 1e-9):
        return after, math.inf
    # Less than a microsecond is a rounding error.
    wait_s = after - MINUTE_S - now
    return after, wait_s if wait_s > 1e-6 else 0.0


async def take_tokens(rates: RateLimits, caller: Caller, tokens: int) -> None:
    """Take one request and its estimated tokens of a caller. Raises KeyLimitError and LedgerError."""
    limits = limits_of(caller)
    if limits is None:
        return
    wait_s = await rates.take(caller.key_name, 1, tokens, limits)
    if not wait_s:
        return
    if math.isinf(wait_s):
        raise KeyLimitError(
            f"this request has about {tokens:,} tokens, and its key allows {limits.tokens:,} in a minute; send fewer "
            "texts at once",
            retry_after_s=None,
        )
    named = [f"{count:,} {what}" for count, what in ((limits.requests, "requests"), (limits.tokens, "tokens")) if count]
    raise KeyLimitError(
        f"this key allows {' and '.join(named)} in a minute; try again in {math.ceil(wait_s)} s",
        retry_after_s=wait_s,
    )


async def correct_tokens(rates: RateLimits, caller: Caller, *, estimated: int, actual: int) -> None:
    """Replace the estimated tokens of a finished call by the actual ones; `actual` is 0 if it failed.

    Raises nothing if the store fails: the call is done and paid.
    """
    limits = limits_of(caller)
    if limits is None or limits.tokens is None or actual == estimated:
        return
    try:
        await rates.correct(caller.key_name, actual - estimated, limits)
    except LedgerError as error:
        _log.warning("the tokens of a call stay as estimated: %s", error)


def limits_of(caller: Caller) -> MinuteLimits | None:
    """Return the limits of a caller; None without any."""
    if caller.requests_per_minute is None and caller.tokens_per_minute is None:
        return None
    return MinuteLimits(caller.requests_per_minute, caller.tokens_per_minute)
