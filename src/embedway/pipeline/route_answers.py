"""Answers of one route to canaries and pairs, in small requests of the lowest urgency that bypass the cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedway.compute import ComputeRequest
from embedway.quality.canaries import CANARIES, INPUT_TYPES, NEIGHBOURS, SMALL_BATCH, batches, orders
from embedway.quality.drift import Observation
from embedway.quality.noise import measure
from embedway.quality.retrieval import retrieve
from embedway.urgency import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedway.ledger.account import CallBudget
    from embedway.models.base import Model
    from embedway.quality.baseline import PairSet
    from embedway.quality.noise import Noise
    from embedway.quality.retrieval import Result
    from embedway.types import InputType, Vectors

_log = logging.getLogger("embedway.quality")
#: Texts of a request with pairs. Small, so that other work goes on between two requests.
_PAIRS_A_REQUEST = 32


@dataclass(slots=True)
class Usage:
    """Tokens and cost of the answers so far; the cost is None if a price is unknown."""

    texts: int = 0
    tokens: int = 0
    cost_nanousd: int | None = 0
    #: Routes that answered, in order.
    routes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteAnswers:
    """Requests to one route of a model, or with an empty name to any route, as in other calls."""

    model: Model
    route: str
    spending: CallBudget
    usage: Usage

    async def noise(self) -> dict[str, tuple[Vectors, Noise]]:
        """Return the reference of the canaries and the noise, by input type."""
        return {kind: measure(await self._variants(kind)) for kind in INPUT_TYPES}

    async def observe(self, sets: Sequence[PairSet], seed: int) -> Observation:
        """Return the answers of a check; `seed` decides the order of the canaries."""
        vectors: dict[str, list[Vectors]] = {}
        for kind in INPUT_TYPES:
            vectors[kind] = [await self._in_order(kind, order) for order in orders(len(CANARIES), seed)]
        return Observation(vectors, await self.results(sets))

    async def results(self, sets: Sequence[PairSet]) -> dict[str, dict[str, Result]]:
        """Return the retrieval results by set of pairs and id."""
        found = {}
        for one in sets:
            queries, passages = await self._pairs(one, "query"), await self._pairs(one, "document")
            ids, groups = [pair.id for pair in one.pairs], [pair.group for pair in one.pairs]
            found[one.name] = retrieve(ids, groups, queries, passages)
        return found

    async def _variants(self, kind: InputType) -> dict[str, Vectors]:
        plain = tuple(range(len(CANARIES)))
        beside = await self._embed(kind, (*CANARIES, *NEIGHBOURS))
        return {
            "alone": await self._in_order(kind, plain, size=1),
            "together": await self._in_order(kind, plain),
            "again": await self._in_order(kind, plain),
            "reversed": await self._in_order(kind, plain[::-1]),
            "parts": await self._in_order(kind, plain, size=SMALL_BATCH),
            "neighbours": beside[: len(CANARIES)],
        }

    async def _in_order(self, kind: InputType, order: Sequence[int], *, size: int | None = None) -> Vectors:
        """Return the vectors of the canaries, requested in this order, in the order of the baseline."""
        answers = [
            await self._embed(kind, [CANARIES[place] for place in batch])
            for batch in batches(order, size or len(order))
        ]
        return np.concatenate(answers)[np.argsort(order)]

    async def _pairs(self, one: PairSet, kind: InputType) -> Vectors:
        texts = texts_of(one, kind)
        parts = [texts[start : start + _PAIRS_A_REQUEST] for start in range(0, len(texts), _PAIRS_A_REQUEST)]
        return np.concatenate([await self._embed(kind, part) for part in parts])

    async def _embed(self, kind: InputType, texts: Sequence[str]) -> Vectors:
        request = request_of(self.model, kind, texts, self.spending, self.route)
        computed = await self.model.compute(request)
        usage, bill = self.usage, computed.bill
        usage.texts += len(texts)
        usage.routes.update(dict.fromkeys(bill.routes))
        usage.tokens += sum(meta.tokens for meta in computed.metas if meta is not None)
        if usage.cost_nanousd is not None:
            usage.cost_nanousd = None if bill.cost_nanousd is None else usage.cost_nanousd + bill.cost_nanousd
        return computed.blocks["dense"]


def request_of(model: Model, kind: InputType, texts: Sequence[str], spending: CallBudget, route: str) -> ComputeRequest:
    """Return a request to one route, at full width."""
    return ComputeRequest(tuple(texts), model.space, spending, input_type=kind, urgency=BACKGROUND, only_route=route)


def texts_of(one: PairSet, kind: InputType) -> list[str]:
    """Return the texts of pairs of an input type."""
    return [pair.query if kind == "query" else pair.passage for pair in one.pairs]


def planned_texts(sets: Sequence[PairSet], *, is_baseline: bool) -> Iterator[tuple[InputType, list[str], int, int]]:
    """Yield the texts of a baseline or check for one route: input type, texts, times they are sent, and requests."""
    count = len(CANARIES)
    for kind in INPUT_TYPES:
        if is_baseline:
            yield kind, list(CANARIES), 6, count + 4 + -(-count // SMALL_BATCH)
            yield kind, list(NEIGHBOURS), 1, 0
        else:
            yield kind, list(CANARIES), 2, 2
        for one in sets:
            yield kind, texts_of(one, kind), 1, -(-len(one.pairs) // _PAIRS_A_REQUEST)
