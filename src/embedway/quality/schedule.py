"""Schedule of checks in a long-running process.

Of all processes that share the records, one checks a baseline in each period: the one that takes its lease.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, TypeVar

from embedway.errors import EmbedwayError
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.ledger.records import Records

T = TypeVar("T")

_log = logging.getLogger("embedway.quality")
#: The wait before a try, as a share of the period: a random one between these. Without it, processes that start
#: together would all check, or ask the store, at the same moment.
_SHORTEST, _LONGEST = 1.0, 1.2
#: The first wait is shorter, so that a process that lives about one period also checks.
_FIRST = 0.5
#: Part of the period for which a lease holds. It is below the shortest wait, so that the next try can have it.
_LEASE = 0.95


class Schedule:
    """Runs `check(name)` for each name of `names()` about every `every_s` seconds, until it is cancelled.

    A name is checked at most once in `shortest_s(name)` seconds. It never raises. `sleep` and `chance` (from 0 to 1)
    are for tests.
    """

    def __init__(
        self,
        every_s: float,
        records: Records,
        names: Callable[[], Awaitable[list[str]]],
        check: Callable[[str], Awaitable[object]],
        *,
        shortest_s: Callable[[str], float] = lambda _: 0.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._every_s = every_s
        self._records = records
        self._names = names
        self._check = check
        self._shortest_s = shortest_s
        self._sleep = sleep
        self._chance = chance
        self._failed: set[str] = set()

    async def run(self) -> None:
        """Check until this task is cancelled."""
        factor = _FIRST
        while True:
            await self._sleep(self._every_s * factor * (_SHORTEST + (_LONGEST - _SHORTEST) * self._chance()))
            factor = 1.0
            await self.run_once()

    async def run_once(self) -> None:
        """Check each name whose lease this process takes. A failure is logged once for each name."""
        for name in await self._guarded("baselines", self._names()) or ():
            lease_s = max(self._every_s, self._shortest_s(name)) * _LEASE
            if await self._guarded(f"the lease of {name}", self._records.lease("baseline", name, lease_s)):
                await self._guarded(name, self._check(name))

    async def _guarded(self, what: str, work: Awaitable[T]) -> T | None:
        """Await some work; None after a failure, which never ends the schedule."""
        try:
            result = await work
        except BaseException as error:
            if must_pass(error):
                raise
            if what not in self._failed:
                self._failed.add(what)
                reason = str(error) if isinstance(error, EmbedwayError) else place_of(error)
                _log.warning("a scheduled check failed (%s), and is tried again later: %s", what, reason)
            return None
        self._failed.discard(what)
        return result
