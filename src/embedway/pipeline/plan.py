"""Plan of a call: estimated work and cost, before anything is computed or spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.pipeline.receipt import cuts_by_row
from embedway.types import Plan

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedway.batching.work import Work
    from embedway.config import ModelBenchmark
    from embedway.models.base import Estimate, Model
    from embedway.types import EmbedRequest, Space


def make_plan(
    request: EmbedRequest,
    model: Model,
    space: Space,
    *,
    positions: npt.NDArray[np.int64],
    work: Work,
    rest: Work,
    estimate: Estimate,
    benchmark: ModelBenchmark | None,
) -> Plan:
    """Return the plan of a request; `work` is all its texts, `rest` are the cache misses."""
    truncations, averaged = cuts_by_row(work.metas, positions)
    seconds = None
    if benchmark is not None:
        seconds = estimate.tokens / benchmark.tokens_per_second
        seconds += benchmark.avg_latency_ms / 1000 if estimate.tokens else 0
    unique = len(work.positions)
    return Plan(
        model=model.name,
        route=model.profile.route,
        space=space,
        input_type=request.input_type,
        texts=len(request.texts),
        unique_texts=unique,
        tokens=work.tokenized.tokens,
        padded_tokens=sum(batch.padded_tokens for batch in rest.batches),
        batches=len(rest.batches),
        truncations=truncations,
        cost_nanousd=estimate.cost_nanousd,
        estimated=not model.profile.exact,
        averaged=averaged,
        cached_texts=unique - len(rest.positions),
        billed_tokens=estimate.tokens,
        requests=estimate.requests,
        batch_cost_nanousd=estimate.batch_cost_nanousd,
        seconds=seconds,
    )
