"""Counts of what the cache does for each model; the store is told of them from time to time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embedway.cache.stats import STORE_COUNTS, CacheStats, read_stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.cache.base import CacheStore

#: How often the store is told: a process that is killed loses what was counted since.
_TELL_S = 60.0


@dataclass(slots=True)
class Counts:
    """Counts for one model, since the process began."""

    hits: int = 0
    misses: int = 0
    #: Texts that another caller was computing already.
    shared: int = 0
    stored: int = 0
    damaged: int = 0
    #: Entries with a right checksum and a vector that cannot be right.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0


class Counters:
    """The counts of all models."""

    def __init__(self, store: CacheStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self.by_model: dict[str, Counts] = {}
        #: The numbers that the store knows.
        self._known: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._telling = asyncio.Lock()
        self._told_at = clock()

    def of(self, model: str) -> Counts:
        """The counts of one model."""
        return self.by_model.setdefault(model, Counts())

    def is_due(self) -> bool:
        """Whether the store is to be told now; then not again for a minute."""
        now = self._clock()
        if now - self._told_at <= _TELL_S:
            return False
        self._told_at = now
        return True

    async def tell(self) -> None:
        """Add to the store's numbers what was counted since it was last told."""
        async with self._telling:
            fresh = self._fresh()
            self._told_at = self._clock()
            if not await self._store.add_counts(fresh):
                return  # it is told the next time
            for model, numbers in fresh.items():
                self._known[model].update(numbers)

    async def stats(self) -> CacheStats:
        """The store's numbers, with those that it does not know yet."""
        async with self._telling:
            return await read_stats(self._store, self._fresh())

    def _fresh(self) -> dict[str, Counter[str]]:
        errors = asdict(self._store.errors)
        del errors["last"]
        now = {STORE_COUNTS: errors, **{model: asdict(counts) for model, counts in self.by_model.items()}}
        return {model: more for model, numbers in now.items() if (more := Counter(numbers) - self._known[model])}
