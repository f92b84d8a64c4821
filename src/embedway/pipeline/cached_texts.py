"""Cached texts: recompute, compare and delete. The cache contains no texts, so the caller passes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from embedway.cache.stats import CacheCheck
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.pipeline.embed import compute_request
from embedway.pipeline.normalize import space_of
from embedway.pipeline.ready_texts import ready_callback
from embedway.pipeline.receipt import row_of
from embedway.pipeline.request import unique_texts
from embedway.types import InputType, Overflow
from embedway.vectors import cosines, to_size

if TYPE_CHECKING:
    from embedway.models.base import Estimate
    from embedway.pipeline.embed import EmbedPipeline
    from embedway.pipeline.request import Call
    from embedway.types import Bill, Vectors


async def check_cache(pipeline: EmbedPipeline, call: Call, sample: int) -> CacheCheck:
    """Recompute a sample of cached texts, and compare; see `AsyncEmbedder.cache.verify`."""
    assert pipeline.cache is not None  # noqa: S101  the caller has checked
    request, model = await pipeline.prepare(call, call.model, call.dimensions)
    texts, positions = unique_texts(request.texts, {})
    asked = compute_request(request, texts, model.space, CallBudget(Purpose(model.name)))
    stored, metas, damaged = await pipeline.cache.wrap(model).peek(asked)
    found = [number for number, meta in enumerate(metas) if meta is not None]
    # Evenly spaced over all hits, so that the sample covers a long list.
    chosen = [found[place] for place in np.linspace(0, len(found) - 1, min(sample, len(found))).round().astype(int)]
    if not chosen:
        return CacheCheck(len(texts), 0, damaged, 0, None, None, 0)
    computed = await model.compute(asked.only(chosen))
    vectors = computed.blocks["dense"]
    same = cosines(vectors, stored[chosen])
    worst = int(same.argmin())
    row = row_of(chosen[worst], positions)
    cost = computed.bill.cost_nanousd
    return CacheCheck(len(texts), len(found), damaged, len(chosen), float(same[worst]), row, cost)


async def recompute(pipeline: EmbedPipeline, call: Call, max_nanousd: int | None = None) -> tuple[Vectors, Bill]:
    """Compute vectors of texts, float32 (n, d), without the cache; return them with their bill."""
    request, model = await pipeline.prepare(call, call.model, None)
    texts, positions = unique_texts(request.texts, {})
    asked = compute_request(request, texts, model.space, CallBudget(Purpose(model.name), max_nanousd))
    space = model.space if call.dimensions is None else space_of(model, call.dimensions, None)
    computed = await model.compute(replace(asked, partial=False, on_ready=ready_callback(texts, space, space)))
    vectors = computed.blocks["dense"]
    if vectors.shape[1] != space.dimensions:
        vectors = to_size(vectors, space)
    return vectors[positions], computed.bill


async def plan_recompute(pipeline: EmbedPipeline, call: Call) -> Estimate:
    """Return the estimated tokens and cost of `recompute`. Nothing is computed."""
    request, model = await pipeline.prepare(call, call.model, None)
    texts, _ = unique_texts(request.texts, {})
    asked = compute_request(request, texts, model.space, CallBudget(Purpose(model.name)))
    return model.estimate(await model.work(asked), model.space.dimensions)


async def forget(pipeline: EmbedPipeline, call: Call) -> int:
    """Delete the cached vectors of texts, of every input type and overflow policy; return their number."""
    cache = pipeline.cache
    assert cache is not None  # noqa: S101  the caller has checked
    request, model = await pipeline.prepare(call, call.model, None)
    texts, _ = unique_texts(request.texts, {})
    asked = compute_request(request, texts, model.space, CallBudget(Purpose(model.name)))
    await cache.settle()
    gone = 0
    for input_type in get_args(InputType):
        for on_overflow in get_args(Overflow):
            wrapped = cache.wrap(model)
            gone += await wrapped.forget(replace(asked, input_type=input_type, on_overflow=on_overflow))
    return gone
