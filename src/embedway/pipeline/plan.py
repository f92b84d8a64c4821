"""What a request will take, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embedway.batching.batches import fill_batches
from embedway.catalog.services import tokens_nanousd
from embedway.errors import TextTooLongError
from embedway.models.service import ServiceModel
from embedway.pipeline.windows import TextWindows, split_windows
from embedway.providers.base import split_requests
from embedway.types import Averaged, Plan, Truncation
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError
    from embedway.providers.base import OpenModel
    from embedway.providers.names import AnyModel
    from embedway.types import Batch, EmbedRequest, Space, TokenizedTexts


@dataclass(frozen=True, slots=True)
class Work:
    """A plan with what it needs to be carried out.

    `texts` are what is computed: the unique texts, cut, or the windows of those that are averaged. `positions` (n,)
    maps each text of the request to its unique one, -1 for a row that `refused` holds.
    """

    plan: Plan
    texts: tuple[str, ...]
    tokenized: TokenizedTexts
    batches: tuple[Batch, ...]
    positions: npt.NDArray[np.int64]
    refused: Mapping[int, EmbedwayError]
    #: How the windows make up the unique texts; None where nothing is averaged.
    windows: TextWindows | None = None
    #: Errors go with their rows.
    partial: bool = False
    urgency: Urgency = field(default_factory=Urgency)


def make_plan(request: EmbedRequest, route: OpenModel, space: Space) -> Work:
    """Tokenize the unique texts once and share them out into batches. Blocking: run it off the event loop.

    Raises TextTooLongError for the first text over the limit when the request forbids cutting; in a partial request
    such texts are refused by row.
    """
    refused = request.refused
    texts, positions = unique_texts(request.texts, refused)
    tokenized = route.tokenize(texts, request.input_type)
    whole = texts
    if tokenized.truncations:
        cuts = {cut.row: cut.kept_characters for cut in tokenized.truncations}
        texts = tuple(text[: cuts[row]] if row in cuts else text for row, text in enumerate(texts))
    truncations = by_row(tokenized.truncations, positions)
    if truncations and request.on_overflow == "error":
        too_long = {cut.row: _too_long(cut, route) for cut in truncations}
        if not request.partial:
            raise too_long[truncations[0].row]
        return make_plan(replace(request, refused={**refused, **too_long}), route, space)
    unique, windows = len(texts), None
    averaged: tuple[Averaged, ...] = ()
    if truncations and request.on_overflow == "mean":
        texts, windows = split_windows(whole, {cut.row for cut in tokenized.truncations}, route, request.input_type)
        tokenized = route.tokenize(texts, request.input_type)
        averaged = tuple(windows.averaged(cut.row, int(positions[cut.row]), tokenized.lengths) for cut in truncations)
        windows, truncations = replace(windows, weights=windows.weigh(tokenized, route, request.input_type)), ()
    # A service's requests are filled when they are sent, by the limits of the route that takes them.
    batches = () if route.remote else tuple(fill_batches(tokenized.lengths, token_budget=route.token_budget))
    tokens = tokenized.tokens
    plan = Plan(
        model=route.model,
        route=route.name,
        space=space,
        input_type=request.input_type,
        texts=len(request.texts),
        unique_texts=unique,
        tokens=tokens,
        padded_tokens=sum(batch.padded_tokens for batch in batches),
        batches=len(batches),
        truncations=truncations,
        cost_nanousd=route.cost_nanousd(tokens, space.dimensions),
        estimated=not route.exact,
        averaged=averaged,
    )
    urgency = Urgency(request.priority, query=request.input_type == "query")
    return Work(plan, texts, tokenized, batches, positions, refused, windows, request.partial, urgency)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is sent to a service, and what that costs: at once, and through its batch API. None where nobody knows."""

    tokens: int
    requests: int
    cost_nanousd: int | None
    batch_cost_nanousd: int | None


def estimate_of(work: Work, model: AnyModel, dimensions: int) -> Estimate:
    """The bill of some work with a model, for vectors of a size: nothing on this machine.

    Requests are those that the first route is sent. Each is billed by itself, a fraction of a nano-dollar rounded up.
    """
    tokens = work.tokenized.tokens
    if not isinstance(model, ServiceModel):
        return Estimate(tokens, 0, model.cost_nanousd(tokens, dimensions), None)
    lengths = work.tokenized.lengths
    _, provider, (_, tokens_per_minute) = model.endpoints[0]
    rows = np.arange(len(work.texts), dtype=np.int64)
    parts = split_requests(rows, lengths, provider.declared, tokens_per_minute=tokens_per_minute)
    costs = [model.cost_nanousd(int(lengths[part].sum(dtype=np.int64)), dimensions) for part in parts]
    known = [cost for cost in costs if cost is not None]
    price = model.facts.price(dimensions=dimensions, batch=True)
    batch = None if price is None else tokens_nanousd(price, tokens)
    return Estimate(tokens, len(parts), sum(known) if len(known) == len(costs) else None, batch)


def unique_texts(
    texts: Sequence[str], refused: Mapping[int, EmbedwayError]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Each text once, in the order in which they come, and for each row its place among them; -1 for one refused."""
    if len(texts) == 1 and not refused:  # a query
        return (texts[0],), np.zeros(1, np.int64)
    first: dict[str, int] = {}
    places = (-1 if row in refused else first.setdefault(text, len(first)) for row, text in enumerate(texts))
    positions = np.fromiter(places, np.int64, len(texts))
    return tuple(first), positions


def _too_long(cut: Truncation, route: OpenModel) -> TextTooLongError:
    tokens = None if cut.lost_tokens is None else cut.kept_tokens + cut.lost_tokens
    return TextTooLongError(row=cut.row, max_tokens=route.max_tokens, tokens=tokens)


def by_row(truncations: tuple[Truncation, ...], positions: npt.NDArray[np.int64]) -> tuple[Truncation, ...]:
    """Truncations of unique texts, told for every row that holds one."""
    cut = {truncation.row: truncation for truncation in truncations}
    if not cut:
        return ()
    return tuple(replace(cut[unique], row=row) for row, unique in enumerate(positions.tolist()) if unique in cut)
