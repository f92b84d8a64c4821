"""Rate limiter of a route: token buckets for requests and tokens.

The limits are the user's, and those of the service, learned from its answers. A limit that is used up blocks the route
until the service's reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.providers.http_headers import LONGEST_WAIT_S
from embedway.types import RateLimit
from embedway.urgency import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from embedway.types import RateState
    from embedway.urgency import Urgency

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0
_PERIODS = {1.0: "second", _MINUTE_S: "minute", _HOUR_S: "hour", _DAY_S: "day"}
#: Share of a period by which a reset may exceed it: clocks differ.
_TOLERANCE = 0.1
#: Maximum number of limits of different kinds and periods that are kept for a route.
_MOST_BUCKETS = 16


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Reason why a route accepts no request now, and the seconds until it does."""

    reason: str
    wait_s: float

    def __str__(self) -> str:
        return f"{self.reason} until {utc_in(self.wait_s)} (in {shown_s(self.wait_s)})"


@dataclass(slots=True)
class TokenBucket:
    """Token bucket of `limit` per `window_s`, refilled evenly, and completely when the service resets it.

    `limit` is None if only the time is known at which a used-up limit is reset.
    """

    kind: Literal["requests", "tokens"]
    limit: int | None
    level: float
    filled_at: float
    window_s: float = _MINUTE_S
    #: Name of the period; empty if the service does not name it.
    period: str = "minute"
    is_own: bool = False
    #: Time at which the service resets it, and the level then; None if unknown.
    reset_at: float | None = None
    level_at_reset: float = 0.0
    #: Whether the service says that nothing is left until the reset.
    is_used_up: bool = False

    def refill(self, now: float) -> None:
        """Add the amount refilled since the last call."""
        if self.reset_at is not None and now >= self.reset_at:
            self.level = max(self.level, self.level_at_reset)
            self.filled_at, self.reset_at, self.is_used_up = max(self.filled_at, self.reset_at), None, False
        if self.limit is not None:
            self.level = min(float(self.limit), self.level + (now - self.filled_at) * self.limit / self.window_s)
        self.filled_at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until an amount is available. An amount over the limit needs a full bucket."""
        self.refill(now)
        if self.is_used_up and self.reset_at is not None:
            return self.reset_at - now
        if self.limit is None:
            return 0.0
        wait = max(0.0, (min(amount, float(self.limit)) - self.level) * self.window_s / self.limit)
        return wait if self.reset_at is None else min(wait, self.reset_at - now)

    def learn(self, said: RateLimit, now: float) -> None:
        """Learn the state that a service reports."""
        self.refill(now)
        if said.limit is not None:
            # A service that lowers its limit has counted its users' requests by the new one.
            self.level = float(said.limit) if self.limit is None else min(self.level, float(said.limit))
            self.limit = said.limit
        if said.remaining is None:
            return
        # The service knows other users of the key, but not the requests under way. So the level is only lowered. If the
        # period is unknown, only the service knows when it is refilled.
        self.level = min(self.level, float(said.remaining)) if self.period else float(said.remaining)
        if said.reset_s is None or (self.is_used_up and said.remaining > 0):
            return
        self.reset_at = max(now + said.reset_s, (self.is_used_up and self.reset_at) or 0.0)
        self.is_used_up = said.remaining == 0
        self.level_at_reset = 1.0 if self.limit is None else float(self.limit)
        if self.is_used_up and self.limit is not None and self.kind == "requests" and self.window_s <= _MINUTE_S:
            # Afterwards, one request is sent, then more at an even rate: other users of the key have waited too.
            self.level_at_reset = 1.0
            self.level = min(self.level, 1.0 - said.reset_s * self.limit / self.window_s)

    @property
    def reason(self) -> str:
        """The limit, in words: its number, its period, and who set it."""
        number = "the limit of" if self.limit is None else f"the limit of {self.limit}"
        period = f" per {self.period}" if self.period else ""
        setter = f"set as {self.kind}_per_minute of the route" if self.is_own else "announced by the service"
        return f"{number} {self.kind}{period}, {setter}, is used up"


class RateLimiter:
    """Rate limiter of one route. Callers pass by urgency, then in order of arrival.

    The user's limits are per minute; None means no limit, and no wait until the service reports one. `clock` returns
    seconds, `sleep` waits for seconds, and actual waits are inside `on_wait`.
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
        own: tuple[tuple[Literal["requests", "tokens"], int | None], ...] = (
            ("requests", requests_per_minute),
            ("tokens", tokens_per_minute),
        )
        self._own = tuple(
            TokenBucket(kind, limit, float(limit), now, is_own=True) for kind, limit in own if limit is not None
        )
        #: Limits of the service by kind and period.
        self._learned: dict[tuple[str, float | None], TokenBucket] = {}
        self._closed_until = 0.0
        self._closed_because = ""
        self._queue = PrioritySemaphore(1, express=False, clock=clock)

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of one request: the lowest limit on tokens, of any period."""
        limits = (bucket.limit for bucket in self._buckets() if bucket.kind == "tokens" and bucket.limit is not None)
        return min(limits, default=None)

    async def acquire(
        self, tokens: int, urgency: Urgency = DOCUMENTS, *, longest_s: Callable[[], float] | None = None
    ) -> Obstacle | None:
        """Wait until a request of `tokens` tokens may be sent.

        Returns the obstacle at once, and sends nothing, if it does not end within `longest_s()`.
        """
        if self.is_unlimited:
            return None
        obstacle = self.obstacle(tokens)
        if obstacle is not None and longest_s is not None and obstacle.wait_s >= longest_s():
            return obstacle
        with self._on_wait() if self._queue.is_busy or obstacle is not None else contextlib.nullcontext():
            async with self._queue.hold(urgency):
                while (obstacle := self.obstacle(tokens)) is not None:
                    if longest_s is not None and obstacle.wait_s >= longest_s():
                        return obstacle
                    await self._sleep(obstacle.wait_s)
                # Levels may become negative: an amount over the limit is paid back afterwards.
                for bucket in self._buckets():
                    bucket.level -= tokens if bucket.kind == "tokens" else 1
        return None

    def obstacle(self, tokens: int) -> Obstacle | None:
        """Return the obstacle to a request of `tokens` tokens that lasts longest, without other callers."""
        now = self._clock()
        waits = [(bucket.wait_s(tokens if bucket.kind == "tokens" else 1, now), bucket) for bucket in self._buckets()]
        longest, bucket = max(waits, key=lambda pair: pair[0], default=(0.0, None))
        closed_s = self._closed_until - now
        # A service that asks for a wait may name the limit too, with a slightly different time.
        if closed_s > longest * (1 + _TOLERANCE):
            longest, bucket = closed_s, None
        # Ignore waits below a millisecond: sums of floats are not exact.
        if longest <= 1e-3:
            return None
        return Obstacle(self._closed_because if bucket is None else bucket.reason, max(longest, closed_s))

    def wait_s(self, tokens: int) -> float:
        """Return the seconds until a request of `tokens` tokens may be sent, without other callers."""
        obstacle = self.obstacle(tokens)
        return 0.0 if obstacle is None else obstacle.wait_s

    def learn(self, rates: RateState, tokens: int = 0) -> None:
        """Learn the limits from the headers of a response to a request of `tokens` tokens.

        A limit below these tokens is ignored: the service has just processed more.
        """
        self.is_unlimited = False
        first = (
            RateLimit("requests", rates.requests_limit, rates.requests_remaining, rates.requests_reset_s),
            RateLimit("tokens", rates.tokens_limit, rates.tokens_remaining, rates.tokens_reset_s),
        )
        for said in first:
            self._learn(said, tokens, period_s=_period_of(said.reset_s))
        for said in rates.more:
            self._learn(said, tokens, period_s=said.window_s)

    def _learn(self, said: RateLimit, tokens: int, *, period_s: float | None) -> None:
        """Learn one limit; `period_s` is None if its period is unknown."""
        now = self._clock()
        if said.limit is not None and (said.limit < 1 or (said.kind == "tokens" and said.limit < tokens)):
            return
        reset_s = said.reset_s if said.reset_s is not None and said.reset_s <= LONGEST_WAIT_S else None
        said = RateLimit(said.kind, said.limit, said.remaining, reset_s)
        bucket = self._learned.get((said.kind, period_s))
        if bucket is None:
            if said.limit is None:
                # Without a limit, only the end of a used-up one is known; or the user's own limit bounds the rate.
                own = next((own for own in self._own if own.kind == said.kind), None)
                if said.remaining != 0 or reset_s is None:
                    if own is not None and said.remaining is not None:
                        own.refill(now)
                        own.level = min(own.level, float(said.remaining))
                    return
            elif period_s is None and reset_s is None:
                return  # its rate is unknown: per second, or per day
            if len(self._learned) == _MOST_BUCKETS:
                return
            period = ""
            if period_s is not None and said.limit is not None:
                period = _PERIODS.get(period_s, shown_s(period_s))
            bucket = TokenBucket(said.kind, said.limit, float(said.limit or 0), now, period_s or _MINUTE_S, period)
            self._learned[said.kind, period_s] = bucket
        bucket.learn(said, now)

    def close_for(self, seconds: float, reason: str = "the service asks to wait") -> None:
        """Block all requests for `seconds`, as the service requested."""
        self.is_unlimited = False
        until = self._clock() + min(seconds, LONGEST_WAIT_S)
        if until > self._closed_until:
            self._closed_until, self._closed_because = until, reason

    def _buckets(self) -> Iterator[TokenBucket]:
        yield from self._own
        yield from self._learned.values()


def _period_of(reset_s: float | None) -> float | None:
    """Return the period of a limit without a named one: per minute, or the shortest that its reset fits into."""
    reset_s = 0.0 if reset_s is None or reset_s > LONGEST_WAIT_S else reset_s
    return next((period for period in (_MINUTE_S, _HOUR_S) if reset_s <= period * (1 + _TOLERANCE)), _DAY_S)


def shown_s(seconds: float) -> str:
    """Return seconds for a message, with a decimal below 100."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def utc_in(seconds: float) -> str:
    """Return the time in some seconds, UTC, for a message."""
    when = dt.datetime.fromtimestamp(time.time() + min(seconds, 1e9), dt.UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
