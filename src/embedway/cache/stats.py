"""Cache counts of each model, saved in the store, and the statistics computed from them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from embedway._public import public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from embedway.cache.base import CacheStore

#: The counts of the store itself are saved under this name instead of a model's.
STORE_COUNTS = ""


@public
@dataclass(frozen=True, slots=True)
class ModelStats:
    """Counts of one model since the cache was created: texts, and the tokens and nano-dollars saved."""

    hits: int = 0
    misses: int = 0
    #: Misses that another caller or process was already computing.
    shared: int = 0
    stored: int = 0
    #: Entries with a wrong checksum. Each is a miss too.
    damaged: int = 0
    #: Entries with a correct checksum and an invalid vector: NaN, zeros, or not of length 1. Each is a miss too.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0
    #: Entries in the store now; bytes as counted by the store.
    entries: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of hits among all lookups; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@public
@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts of all models and of store failures; `set_aside` counts damaged files that were renamed."""

    models: Mapping[str, ModelStats]
    evictions: int = 0
    failed_reads: int = 0
    failed_writes: int = 0
    set_aside: int = 0

    @property
    def total(self) -> ModelStats:
        """Sum over all models."""
        return _sum(self.models.values())


@public
@dataclass(frozen=True, slots=True)
class ClearResult:
    """Number of entries that a filter selects, before and after clearing."""

    before: int
    after: int


@public
@dataclass(frozen=True, slots=True)
class CacheCheck:
    """Result of comparing entries with recomputed vectors.

    `damaged` counts entries with a wrong checksum or an invalid vector. `lowest_cosine` is the cosine of the worst
    entry, None if no text was found. `row` is the position of its text.
    """

    texts: int
    found: int
    damaged: int
    recomputed: int
    lowest_cosine: float | None
    row: int | None
    cost_nanousd: int | None


async def read_stats(cache: CacheStore, unsaved: Mapping[str, Mapping[str, int]]) -> CacheStats:
    """Return the statistics of a store, plus the counts of this process that are not saved yet."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for model, numbers in (*(await cache.counts()).items(), *unsaved.items()):
        counted[model].update(numbers)
    for size in await cache.group_sizes():
        counted[size.group.model].update(entries=size.entries, bytes=size.bytes)
    of_store = counted.pop(STORE_COUNTS, Counter[str]())
    # Another version may have counts that this version does not use.
    known = {field.name for field in fields(ModelStats)}
    models = {
        model: ModelStats(**{name: number for name, number in counted[model].items() if name in known})
        for model in sorted(counted)
    }
    names = ("evictions", "failed_reads", "failed_writes", "set_aside")
    return CacheStats(models, **{name: of_store[name] for name in names})


def _sum(models: Iterable[ModelStats]) -> ModelStats:
    numbers = [asdict(model) for model in models]
    return ModelStats(**{field.name: sum(one[field.name] for one in numbers) for field in fields(ModelStats)})


#: Interval between saves to the store, in seconds. A killed process loses the counts since the last save.
_SAVE_S = 60.0


@dataclass(slots=True)
class Counts:
    """Counts of one model since the process started."""

    hits: int = 0
    misses: int = 0
    #: Texts that another caller was already computing.
    shared: int = 0
    stored: int = 0
    damaged: int = 0
    #: Entries with a correct checksum and an invalid vector.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0


class Counters:
    """Counts of all models, with periodic saves to the store."""

    def __init__(self, store: CacheStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self.by_model: dict[str, Counts] = {}
        #: Counts that are already saved in the store.
        self._known: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._saving = asyncio.Lock()
        self._saved_at = clock()

    def of(self, model: str) -> Counts:
        """Return the counts of one model."""
        return self.by_model.setdefault(model, Counts())

    def is_due(self) -> bool:
        """Return whether a save is due. The next one is due a minute later."""
        now = self._clock()
        if now - self._saved_at <= _SAVE_S:
            return False
        self._saved_at = now
        return True

    async def save(self) -> None:
        """Save the counts since the last save to the store."""
        async with self._saving:
            fresh = self._fresh()
            self._saved_at = self._clock()
            if not await self._store.add_counts(fresh):
                return  # retried at the next save
            for model, numbers in fresh.items():
                self._known[model].update(numbers)

    async def stats(self) -> CacheStats:
        """Return the counts in the store, plus those that are not saved yet."""
        async with self._saving:
            return await read_stats(self._store, self._fresh())

    def _fresh(self) -> dict[str, Counter[str]]:
        now = {
            STORE_COUNTS: self._store.errors.counts(),
            **{model: asdict(counts) for model, counts in self.by_model.items()},
        }
        return {model: more for model, numbers in now.items() if (more := Counter(numbers) - self._known[model])}
