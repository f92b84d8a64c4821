"""Noise of a route: how much the vectors of one text differ between requests, without any drift.

A distance is 1 - cosine. For a relative error e of a vector, it is about e**2 / 2. The limit of a canary's distance is

    limit = min(CEILING, max(FLOOR, 4 * q90, 2 * largest))

- `q90` is the 90th percentile, over the canaries, of a canary's largest distance to the reference, in all measured
  variants. Noise of twice the measured size has 4 times the distance, so `4 * q90` allows it for all canaries.
- `largest` is the largest distance of any canary. A heavy tail was measured, so twice it is no surprise.
- FLOOR is for rounding of float32, and for half-precision numbers in answers: their distances are below 1e-7. The
  quantization of a model, or bf16 arithmetic, is above 1e-6.
- CEILING is the distance from which vectors are of another space, whatever the noise. Other models and prompts are
  above it. A route that reaches it by noise alone can have no baseline.

The mean distance of a check has its own limit. It varies less than a single distance, so it shows a small drift of all
canaries that noise hides in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedway.vectors import unit_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from embedway.types import Vectors

FLOOR = 1e-6
CEILING = 0.05
_Q90_FACTOR, _LARGEST_FACTOR, _MEAN_FACTOR = 4.0, 2.0, 2.0
#: Pairs of variants whose difference is one kind of noise. `alone`: a request for each canary; `together`: one request
#: for all; `again`: the same request; `reversed`: in reversed order; `parts`: in small requests; `neighbours`: beside
#: other texts.
SOURCES: Mapping[str, tuple[str, str]] = {
    "repeat": ("together", "again"),
    "batch_size": ("alone", "together"),
    "small_batch": ("parts", "together"),
    "neighbours": ("neighbours", "together"),
    "order": ("reversed", "together"),
}


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of one route and input type. All values are distances, 1 - cosine."""

    #: Largest distance between two variants, by source.
    sources: Mapping[str, float]
    #: Largest distance to the reference, and its 90th percentile over the canaries.
    largest: float
    q90: float
    #: Largest mean distance of a variant.
    mean: float

    @property
    def limit(self) -> float:
        """Limit of the distance of one canary."""
        return min(CEILING, max(FLOOR, _Q90_FACTOR * self.q90, _LARGEST_FACTOR * self.largest))

    @property
    def mean_limit(self) -> float:
        """Limit of the mean distance of all canaries."""
        return min(CEILING, max(FLOOR, _MEAN_FACTOR * self.mean))


def distances(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Return 1 - cosine for each row, in double precision; NaN rows have distance 2."""
    one, other = unit_vectors(left), unit_vectors(right)
    # Half the squared difference of unit vectors: exact for small distances, where 1 - cosine loses all digits.
    found: npt.NDArray[np.float64] = ((one - other) ** 2).sum(axis=1) / 2
    return np.nan_to_num(found, nan=2.0)


def measure_noise(variants: Mapping[str, Vectors]) -> tuple[Vectors, Noise]:
    """Return the reference, float32 (n, d), and the noise of variants of the same texts in the same order.

    The reference is the mean direction over all variants, so that it has less noise than one answer.
    """
    mean = np.mean([unit_vectors(vectors) for vectors in variants.values()], axis=0)
    reference = unit_vectors(mean).astype(np.float32)
    found = np.stack([distances(vectors, reference) for vectors in variants.values()])
    worst = found.max(axis=0)
    sources = {
        name: float(distances(variants[one], variants[other]).max())
        for name, (one, other) in SOURCES.items()
        if one in variants and other in variants
    }
    noise = Noise(sources, float(worst.max()), float(np.quantile(worst, 0.9)), float(found.mean(axis=1).max()))
    return reference, noise
