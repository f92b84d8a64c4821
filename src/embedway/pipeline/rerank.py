"""A rerank request's way from texts to scores: inspect, plan, dispatch, order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedway.arguments import whole
from embedway.batching.batches import fill_batches
from embedway.errors import InputError, TextTooLongError
from embedway.pipeline.plan import by_row, unique_texts
from embedway.pipeline.request import inspect, reason_against

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError
    from embedway.models.reranker import AnyReranker
    from embedway.types import Batch, Overflow, TokenizedTexts, Truncation, Vectors


@dataclass(frozen=True, slots=True)
class RerankWork:
    """What is to be scored: unique documents, cut, with the tokens of each beside the query.

    `positions` (n,) maps each document of the request to its unique one, -1 for one that `refused` holds.
    """

    query: str
    documents: tuple[str, ...]
    tokenized: TokenizedTexts
    batches: tuple[Batch, ...]
    positions: npt.NDArray[np.int64]
    truncations: tuple[Truncation, ...]
    refused: Mapping[int, EmbedwayError]


def inspect_rerank(query: str, top_n: int | None) -> None:
    """Raise InputError for a query and UsageError for a `top_n` that cannot be."""
    reason = reason_against(query)
    if reason:
        raise InputError(f"the query: {reason}")
    whole(top_n, "top_n")


def plan_rerank(
    query: str, documents: Sequence[str], model: AnyReranker, *, on_overflow: Overflow, partial: bool
) -> RerankWork:
    """Tokenize the unique documents once, beside the query, and share them out into batches. Blocking.

    Raises InputError and TextTooLongError with the row; with `partial` these go into `refused`.
    """
    request = inspect(
        documents, model=model.model, input_type="document", dimensions=None, on_overflow=on_overflow, partial=partial
    )
    refused = dict(request.refused)
    while True:
        texts, positions = unique_texts(request.texts, refused)
        tokenized = model.pairs(query, texts)
        truncations = by_row(tokenized.truncations, positions)
        if not truncations or on_overflow != "error":
            break
        too_long = {
            cut.row: TextTooLongError(
                row=cut.row,
                max_tokens=model.max_tokens,
                tokens=None if cut.lost_tokens is None else cut.kept_tokens + cut.lost_tokens,
            )
            for cut in truncations
        }
        if not partial:
            raise too_long[truncations[0].row]
        refused |= too_long
    cuts = {cut.row: cut.kept_characters for cut in tokenized.truncations}
    texts = tuple(text[: cuts[row]] if row in cuts else text for row, text in enumerate(texts))
    # Pairs of like length side by side; a service's requests are filled by the limits of the route that takes them.
    budget = getattr(model, "token_budget", None)
    batches = tuple(fill_batches(tokenized.lengths, token_budget=budget)) if budget else ()
    return RerankWork(query, texts, tokenized, batches, positions, truncations, refused)


def by_document(
    scores: Vectors, work: RerankWork, errors: Mapping[int, EmbedwayError]
) -> tuple[Vectors, dict[int, EmbedwayError]]:
    """Scores, float32 (n,), and errors of the unique documents, given to every document."""
    failed = dict(work.refused)
    out = np.full(len(work.positions), np.nan, np.float32)
    for row, unique in enumerate(work.positions.tolist()):
        if unique < 0:
            continue
        if unique in errors:
            failed[row] = errors[unique]
        else:
            out[row] = scores[unique, 0]
    return out, failed


def best_first(scores: Vectors, top_n: int | None) -> tuple[int, ...]:
    """Positions of the greatest scores, greatest first, equal ones in their order; NaN is left out."""
    order = np.argsort(-scores, kind="stable")
    kept = order[np.isfinite(scores[order])]
    return tuple(kept[: len(kept) if top_n is None else top_n].tolist())
