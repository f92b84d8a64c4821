"""Proof that stored vectors belong to a space: recompute some of them and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.errors import SpaceMismatchError
from embedway.vectors import SAME_COSINE, cosines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.space import Space
    from embedway.types import Vectors


def check_same(
    stored: Vectors, computed: Vectors, *, name: str, recorded: Space, asked: Space, facts: Sequence[str]
) -> float:
    """Return the lowest cosine of stored and computed rows, float32 (n, d). The record of `name` lacks `facts`.

    Raises SpaceMismatchError if a row differs.
    """
    lowest = float(cosines(stored, computed).min())
    if not lowest >= SAME_COSINE:
        raise SpaceMismatchError(
            collection=name,
            collection_space=recorded.id,
            asked="the model's vectors",
            asked_space=f"{asked.id} (a recomputed row has cosine {lowest:.3f} to the stored one, so the "
            f"{' or '.join(facts)} is different, or the stored vector is damaged)",
        )
    return lowest
