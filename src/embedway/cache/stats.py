"""What a cache holds and what it was good for, by model and in total."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway.cache.base import CacheStore

#: Counts that belong to no model are kept under this name.
STORE_COUNTS = ""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model's part: texts, and tokens and nano-dollars that were not spent, since the cache began."""

    hits: int = 0
    misses: int = 0
    #: Misses that another caller, or another process, was computing already.
    shared: int = 0
    stored: int = 0
    #: Entries that were not as they were written; each is a miss too.
    damaged: int = 0
    #: Entries with a right checksum and a vector that cannot be right: NaN, zeros, another length than 1; misses too.
    invalid: int = 0
    tokens_saved: int = 0
    nanousd_saved: int = 0
    #: What there is now; bytes as the backend counts them.
    entries: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of all texts that were looked up; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """All models, and what went wrong: reads and writes that failed, and files that were damaged and set aside."""

    models: Mapping[str, ModelStats]
    evictions: int = 0
    failed_reads: int = 0
    failed_writes: int = 0
    set_aside: int = 0

    @property
    def total(self) -> ModelStats:
        """The sum over all models."""
        return _sum(self.models.values())


@dataclass(frozen=True, slots=True)
class ClearResult:
    """Entries that were meant, before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """What came of comparing entries with vectors that were computed anew.

    `damaged` counts entries that are not as they were written, and those whose vectors cannot be right. `lowest_cosine`
    is that of the worst, None where no text was found. `row` is its place among the texts.
    """

    texts: int
    found: int
    damaged: int
    recomputed: int
    lowest_cosine: float | None
    row: int | None
    cost_nanousd: int | None


async def read_stats(cache: CacheStore, fresh: Mapping[str, Mapping[str, int]]) -> CacheStats:
    """What the cache knows, and `fresh`, what was counted here and is not yet told to it."""
    counted = await cache.counts()
    for model, numbers in fresh.items():
        mine = counted.setdefault(model, {})
        for name, number in numbers.items():
            mine[name] = mine.get(name, 0) + number
    for held in await cache.group_sizes():
        mine = counted.setdefault(held.group.model, {})
        mine["entries"] = mine.get("entries", 0) + held.entries
        mine["bytes"] = mine.get("bytes", 0) + held.bytes
    others = counted.pop(STORE_COUNTS, {})
    # Another version may count what this one does not know.
    known = {field.name for field in fields(ModelStats)}
    models = {
        model: ModelStats(**{name: number for name, number in counted[model].items() if name in known})
        for model in sorted(counted)
    }
    troubles = ("evictions", "failed_reads", "failed_writes", "set_aside")
    return CacheStats(models, **{name: others.get(name, 0) for name in troubles})


def _sum(models: Iterable[ModelStats]) -> ModelStats:
    numbers = [asdict(model) for model in models]
    return ModelStats(**{field.name: sum(one[field.name] for one in numbers) for field in fields(ModelStats)})
