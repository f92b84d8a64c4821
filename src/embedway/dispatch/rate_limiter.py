"""Rate limiter of a route: token buckets for requests and tokens a minute, with limits learned from answers."""

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


@dataclass(slots=True)
class TokenBucket:
    """Token bucket of `limit` a minute, refilled evenly; no limit while `limit` is None, and never more than `most`."""

    limit: int | None
    level: float = 0.0
    filled_at: float = 0.0
    #: The user's own limit: a service that allows more does not lift it.
    most: int | None = None

    def refill(self, now: float) -> None:
        """Add what has run in since the last time."""
        if self.limit is not None:
            self.level = min(float(self.limit), self.level + (now - self.filled_at) * self.limit / _MINUTE_S)
        self.filled_at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until an amount may be taken; one over the limit itself goes when the bucket is full."""
        self.refill(now)
        if self.limit is None:
            return 0.0
        missing = min(amount, float(self.limit)) - self.level
        return max(0.0, missing * _MINUTE_S / self.limit)

    def learn(self, limit: int | None, remaining: int | None, reset_s: float | None, now: float) -> None:
        """Take over what a service says of its limit."""
        self.refill(now)
        if limit is not None and self.most is not None:
            limit = min(limit, self.most)
        if limit is not None and limit > 0 and limit != self.limit:
            if self.limit is None:
                self.level = float(limit)
            self.limit = limit
        if self.limit is None or remaining is None:
            return
        # The service knows of other users of the key; it does not know of what is on its way. So: never more.
        self.level = min(self.level, float(remaining))
        if remaining == 0 and reset_s is not None:
            self.level = min(self.level, 1.0 - reset_s * self.limit / _MINUTE_S)


class RateLimiter:
    """Limits of one route. Callers are let through by urgency, then in the order they came.

    Limits are a minute's; None is unknown and holds nobody up until the service names one.
    `clock` gives seconds, `sleep` waits them, and a real wait is inside `on_wait`.
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
        #: Whether the service never named a limit, and nobody else did.
        self.is_unlimited = requests_per_minute is None and tokens_per_minute is None
        self.requests = TokenBucket(requests_per_minute, float(requests_per_minute or 0), now, requests_per_minute)
        self.tokens = TokenBucket(tokens_per_minute, float(tokens_per_minute or 0), now, tokens_per_minute)
        self._closed_until = 0.0
        self._queue = PrioritySemaphore(1, express=False, clock=clock)

    def closed_s(self) -> float:
        """Seconds until the service wants to be asked again; 0 where it said nothing of the kind."""
        return max(0.0, self._closed_until - self._clock())

    async def acquire(self, tokens: int, urgency: Urgency = DOCUMENTS) -> None:
        """Wait until a request of so many tokens may go out."""
        if self.is_unlimited:
            return
        waits = self._queue.is_busy or self.wait_s(tokens) > 0
        with self._on_wait() if waits else contextlib.nullcontext():
            async with self._queue.hold(urgency):
                while (wait := self.wait_s(tokens)) > 0:
                    await self._sleep(wait)
                # Levels may go below zero: an amount over the limit is paid for afterwards.
                self.requests.level -= 1
                self.tokens.level -= tokens

    def wait_s(self, tokens: int) -> float:
        """Seconds until a request of so many tokens may go out, if nobody else asks."""
        now = self._clock()
        longest = max(self._closed_until - now, self.requests.wait_s(1, now), self.tokens.wait_s(tokens, now))
        # A thousandth less is no reason to wait: sums of fractions are not exact.
        return longest if longest > 1e-3 else 0.0

    def learn(self, rates: RateState) -> None:
        """Learn the limits that an answer's headers tell."""
        now = self._clock()
        self.is_unlimited = False
        self.requests.learn(rates.requests_limit, rates.requests_remaining, rates.requests_reset_s, now)
        self.tokens.learn(rates.tokens_limit, rates.tokens_remaining, rates.tokens_reset_s, now)

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so long: the service asked for it."""
        self.is_unlimited = False
        self._closed_until = max(self._closed_until, self._clock() + seconds)
