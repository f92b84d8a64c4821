"""Rate limiter of a route: token buckets for requests and tokens per minute, with limits learned from responses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.urgency import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from embedway.types import RateState
    from embedway.urgency import Urgency

_MINUTE_S = 60.0
#: Maximum time until a limit is reset, in seconds: limits per day are the longest. A larger number is a mistake, such
#: as a Unix time.
_LONGEST_RESET_S = 2 * 86_400.0


@dataclass(slots=True)
class TokenBucket:
    """Token bucket of `limit` per minute, refilled evenly. None is no limit; a learned limit is at most `most`."""

    limit: int | None
    level: float = 0.0
    filled_at: float = 0.0
    #: The user's own limit: a service that allows more does not raise it.
    most: int | None = None

    def refill(self, now: float) -> None:
        """Add the amount refilled since the last call."""
        if self.limit is not None:
            self.level = min(float(self.limit), self.level + (now - self.filled_at) * self.limit / _MINUTE_S)
        self.filled_at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until an amount is available. An amount over the limit needs a full bucket."""
        self.refill(now)
        if self.limit is None:
            return 0.0
        missing = min(amount, float(self.limit)) - self.level
        return max(0.0, missing * _MINUTE_S / self.limit)

    def learn(self, limit: int | None, remaining: int | None, reset_s: float | None, now: float) -> None:
        """Learn the limit that a service reports."""
        self.refill(now)
        if limit is not None and self.most is not None:
            limit = min(limit, self.most)
        if limit is not None and limit > 0 and limit != self.limit:
            if self.limit is None:
                self.level = float(limit)
            self.limit = limit
        if self.limit is None or remaining is None:
            return
        # The service knows other users of the key, but not the requests under way. So the level is only lowered.
        self.level = min(self.level, float(remaining))
        if remaining == 0 and reset_s is not None and reset_s <= _LONGEST_RESET_S:
            self.level = min(self.level, 1.0 - reset_s * self.limit / _MINUTE_S)


class RateLimiter:
    """Rate limiter of one route. Callers pass by urgency, then in order of arrival.

    Limits are per minute. None means unknown: no wait until the service reports a limit. `clock` returns seconds,
    `sleep` waits for seconds, and actual waits are inside `on_wait`.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        on_wait: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._on_wait = on_wait
        now = clock()
        #: Whether neither the user nor the service has set a limit.
        self.is_unlimited = requests_per_minute is None and tokens_per_minute is None
        self.requests = TokenBucket(requests_per_minute, float(requests_per_minute or 0), now, requests_per_minute)
        self.tokens = TokenBucket(tokens_per_minute, float(tokens_per_minute or 0), now, tokens_per_minute)
        self._closed_until = 0.0
        self._queue = PrioritySemaphore(1, express=False, clock=clock)

    def closed_s(self) -> float:
        """Return the seconds until the service accepts requests again; 0 if it reported no such wait."""
        return max(0.0, self._closed_until - self._clock())

    async def acquire(self, tokens: int, urgency: Urgency = DOCUMENTS) -> None:
        """Wait until a request of `tokens` tokens may be sent."""
        if self.is_unlimited:
            return
        waits = self._queue.is_busy or self.wait_s(tokens) > 0
        with self._on_wait() if waits else contextlib.nullcontext():
            async with self._queue.hold(urgency):
                while (wait := self.wait_s(tokens)) > 0:
                    await self._sleep(wait)
                # Levels may become negative: an amount over the limit is paid back afterwards.
                self.requests.level -= 1
                self.tokens.level -= tokens

    def wait_s(self, tokens: int) -> float:
        """Return the seconds until a request of `tokens` tokens may be sent, without other callers."""
        now = self._clock()
        longest = max(self._closed_until - now, self.requests.wait_s(1, now), self.tokens.wait_s(tokens, now))
        # Ignore waits below a millisecond: sums of floats are not exact.
        return longest if longest > 1e-3 else 0.0

    def learn(self, rates: RateState, tokens: int = 0) -> None:
        """Learn the limits from the headers of a response to a request of `tokens` tokens.

        A limit below these tokens is ignored: the service has just processed more.
        """
        now = self._clock()
        self.is_unlimited = False
        self.requests.learn(rates.requests_limit, rates.requests_remaining, rates.requests_reset_s, now)
        limit = rates.tokens_limit
        if limit is None or limit >= tokens:
            self.tokens.learn(limit, rates.tokens_remaining, rates.tokens_reset_s, now)

    def close_for(self, seconds: float) -> None:
        """Block all requests for `seconds`, as the service requested."""
        self.is_unlimited = False
        self._closed_until = max(self._closed_until, self._clock() + seconds)
