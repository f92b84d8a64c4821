"""Vectors of a collection's rows, computed again without the cache, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.chunks import join_context
from embedway.collections.journal import Journal, repair_journal_path, vector_facts
from embedway.collections.saved_vectors import SavedVectors
from embedway.errors import BudgetExceededError
from embedway.money import usd
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores.base import Store
    from embedway.types import Vectors


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """Estimate of a verification: `sampled` of `rows` rows are recomputed, or all rows if a repair finds a wrong one.

    The cost is in nano-dollars, None without a known price. Numbers of all rows are extrapolated from the sample.
    """

    destination: str
    model: str
    rows: int
    documents: int
    sampled: int
    tokens: int
    cost_nanousd: int | None
    all_tokens: int
    all_cost_nanousd: int | None

    @property
    def sentence(self) -> str:
        """Sentence about the rows that are recomputed, and about their price."""
        rest = ""
        if self.sampled < self.rows:
            rest = (
                f"; a repair of wrong rows recomputes all {self.rows:,}{_price(self.all_tokens, self.all_cost_nanousd)}"
            )
        price = _price(self.tokens, self.cost_nanousd)
        return f"{self.model} recomputes {count_of(self.sampled, 'row')}{price}{rest}"


class Recomputer:
    """Computes texts of rows again with the collection's model, within a maximum cost.

    Between `open_journal` and `close_journal`, vectors are saved as they are computed, and read from there.
    """

    def __init__(self, embedder: AsyncEmbedder, store: Store, model: str, most_nanousd: int | None = None) -> None:
        self._embedder = embedder
        self._record = store.record
        self.model = model
        self.most_nanousd = most_nanousd
        self._store = store
        self._saved: SavedVectors | None = None
        #: Vectors that an interrupted repair saved, rows that used one of them, and computed rows.
        self.resumed = self._reused = self._computed = 0
        self.tokens = 0
        #: None if a price is unknown.
        self.cost_nanousd: int | None = 0

    @property
    def _overflow(self) -> Any:
        return "mean" if self._record.chunking.on_overflow == "mean" else "truncate"

    async def open_journal(self) -> None:
        """Read the journal of an interrupted repair. Raises StateError."""
        space = self._record.space
        described = await self._embedder.models.describe(self.model, space.dimensions)
        journal = Journal(repair_journal_path(self._store), space, vector_facts(described, self._overflow))
        self._saved = SavedVectors(journal, space)
        await self._saved.open()
        self.resumed = self._saved.count

    async def close_journal(self, *, remove: bool) -> None:
        """Close the journal, or remove it after a repair."""
        if self._saved is not None:
            await self._saved.close(remove=remove)
            self._saved = None

    async def compute(self, rows: Sequence[Mapping[str, Any]]) -> Vectors:
        """Return vectors, float32 (n, d). Raises BudgetExceededError, and the errors of the embedder."""
        texts = _texts(rows)
        if self._saved is None:
            return await self._recompute(texts)
        vectors = np.empty((len(texts), self._record.space.dimensions), np.float32)
        known = self._saved.find(texts)
        self._reused += len(known)
        for place, vector in known.items():
            vectors[place] = vector
        missing = [place for place in range(len(texts)) if place not in known]
        if missing:
            rest = [texts[place] for place in missing]
            computed = await self._saved.compute(rest, self._recompute(rest), lambda result: (result, ()))
            vectors[missing] = computed
        return vectors

    async def _recompute(self, texts: list[str]) -> Vectors:
        options: dict[str, Any] = {}
        if self.most_nanousd is not None:
            options["max_cost"] = usd(max(0, self.most_nanousd - (self.cost_nanousd or 0)))
        vectors, bill = await self._embedder.cache.recompute(
            texts,
            model=self.model,
            dimensions=self._record.space.dimensions,
            on_overflow=self._overflow,
            **options,
        )
        self._computed += len(texts)
        self.tokens += bill.tokens
        self.cost_nanousd = _sum(self.cost_nanousd, bill.cost_nanousd)
        return vectors

    def without_saved(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows whose vectors an interrupted repair has not saved."""
        known = {} if self._saved is None else self._saved.find(_texts(rows))
        return [row for place, row in enumerate(rows) if place not in known]

    async def estimate(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int | None]:
        """Return the tokens and the cost of computing rows, in nano-dollars; None without a known price."""
        found = await self._embedder.cache.plan_recompute(_texts(rows), model=self.model, on_overflow=self._overflow)
        return found.tokens, found.cost_nanousd

    def check(self, plan: VerifyPlan) -> None:
        """Raise BudgetExceededError if a plan costs more than the maximum."""
        needed = plan.cost_nanousd
        if self.most_nanousd is not None and needed is not None and needed > self.most_nanousd:
            reason = f"{plan.sentence}; max_cost is ${usd(self.most_nanousd)}; nothing was computed"
            raise BudgetExceededError(reason, budget="max_cost", needed=needed, left=self.most_nanousd)

    def check_all(self, rows: int, done: int) -> int | None:
        """Return what the rows that are left may cost, from those that were computed; None if that is unknown.

        Raises BudgetExceededError if that is more than is left of the maximum cost.
        """
        if self.cost_nanousd is None or not self._computed:
            return None
        # Vectors of an interrupted repair that the sample did not use are of the other rows.
        to_compute = max(rows - done - max(self.resumed - self._reused, 0), 0)
        needed = self.cost_nanousd * to_compute // self._computed
        if self.most_nanousd is not None and needed > self.most_nanousd - self.cost_nanousd:
            left = max(0, self.most_nanousd - self.cost_nanousd)
            reason = (
                f"a row is wrong, so a repair recomputes the other {rows - done:,} rows, which may cost "
                f"${usd(needed)}; of max_cost ${usd(self.most_nanousd)}, ${usd(left)} is left; nothing was changed"
            )
            raise BudgetExceededError(reason, budget="max_cost", needed=needed, left=left)
        return needed


def _price(tokens: int, cost_nanousd: int | None) -> str:
    price = "no known price" if cost_nanousd is None else f"${usd(cost_nanousd)}"
    return f" (about {tokens:,} tokens, {price})"


def _texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [join_context(row.get("context"), row["text"]) for row in rows]


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right
