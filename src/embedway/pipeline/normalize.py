"""The option `normalize` of a call: the space of its vectors, and vectors of length 1 from those of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.errors import UsageError
from embedway.providers.vectors import normalize as normalize_rows

if TYPE_CHECKING:
    from embedway.models.base import Model
    from embedway.types import Space, Vectors


def space_of(model: Model, dimensions: int | None, normalize: bool | None) -> Space:
    """Return the space of a model at a size. `normalize` is that of the call; None for the model's own vectors.

    Raises DimensionsError, and UsageError if `normalize` is False and the model returns only vectors of length 1.
    """
    space = model.space_of_size(dimensions)
    if normalize is None or normalize == space.normalized:
        return space
    if not normalize:
        if model.can_be_raw:  # a model for plans, whose weights are not here
            return replace(space, normalized=False)
        raise UsageError(
            f"normalize is False, but {model.name} returns only vectors of length 1 here (a service, a library, an "
            "exported graph or a model with routes to servers); leave normalize out, or name a model that this machine "
            "runs from safetensors"
        )
    return replace(space, normalized=True, digest="")


def in_space(vectors: Vectors, own: Space, space: Space) -> Vectors:
    """Return vectors of a model's own space with length 1 if `space` requires it."""
    return vectors if own.normalized == space.normalized else normalize_rows(vectors)
