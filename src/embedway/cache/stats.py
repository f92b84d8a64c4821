"""Counts of what the cache does for each model, which the store keeps, and the statistics made of them."""

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

#: The counts of the store itself are kept under this name in place of a model's.
STORE_COUNTS = ""


@public
@dataclass(frozen=True, slots=True)
class ModelStats:
    """The counts of one model since the cache began: texts, and tokens and nano-dollars that were not spent."""

    hits: int = 0
    misses: int = 0
    #: Misses that another caller, or another process, was computing already.
    shared: int = 0
    stored: int = 0
    #: Entries with a wrong checksum; each is a miss too.
    damaged: int = 0
    #: Entries with a right checksum and a vector that cannot be right: NaN, zeros, another length than 1; misses too.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0
    #: The present entries; bytes as the store counts them.
    entries: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of hits among all texts that were looked up; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@public
@dataclass(frozen=True, slots=True)
class CacheStats:
    """The counts of all models, and of the store's failures; `set_aside` counts damaged files that were renamed."""

    models: Mapping[str, ModelStats]
    evictions: int = 0
    failed_reads: int = 0
    failed_writes: int = 0
    set_aside: int = 0

    @property
    def total(self) -> ModelStats:
        """The sum over all models."""
        return _sum(self.models.values())


@public
@dataclass(frozen=True, slots=True)
class ClearResult:
    """The entries that a filter selects, before and after clearing."""

    before: int
    after: int


@public
@dataclass(frozen=True, slots=True)
class CacheCheck:
    """The result of comparing entries with vectors that were computed anew.

    `damaged` counts entries with a wrong checksum, and those whose vectors cannot be right. `lowest_cosine`
    is that of the worst, None where no text was found. `row` is its place among the texts.
    """

    texts: int
    found: int
    damaged: int
    recomputed: int
    lowest_cosine: float | None
    row: int | None
    cost_nanousd: int | None


async def read_stats(cache: CacheStore, unsaved: Mapping[str, Mapping[str, int]]) -> CacheStats:
    """The statistics of a store, with the counts of this process that it does not have yet."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for model, numbers in (*(await cache.counts()).items(), *unsaved.items()):
        counted[model].update(numbers)
    for size in await cache.group_sizes():
        counted[size.group.model].update(entries=size.entries, bytes=size.bytes)
    of_store = counted.pop(STORE_COUNTS, Counter[str]())
    # Another version may count what this one does not know.
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
