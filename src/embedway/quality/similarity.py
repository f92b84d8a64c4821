"""Similarity of the vectors of different texts, on a bounded sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.quality.reading import words
from embedway.types import VectorChecks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from embedway.types import Vectors

#: Maximum rows whose vectors are compared with one another.
SAMPLE = 64
#: Maximum share of common words of two clearly different texts.
MOST_SHARED = 0.5
#: Mean cosine of clearly different texts above which search finds little, and the minimum number of such texts. Raw
#: encoders stay below 0.95, and E5 models have 0.7 to 0.9.
_HIGH, _FEWEST = 0.98, 8
_HIGH_SIMILARITY = "high_similarity"


def sample_rows(count: int) -> npt.NDArray[np.int64]:
    """Return at most `SAMPLE` rows, evenly spaced; the same ones for the same count."""
    return np.arange(count) if count <= SAMPLE else np.linspace(0, count - 1, SAMPLE).round().astype(np.int64)


def check_similarity(texts: Sequence[str], vectors: Vectors, failed: Collection[int] = ()) -> VectorChecks:
    """Return the checks of the vectors of unique texts, float32 (n, d); rows in `failed` have none."""
    checked = len(texts) - len(failed)
    if checked < 2:
        return VectorChecks(checked)
    good = np.delete(np.arange(len(texts)), list(failed)) if failed else None
    rows = sample_rows(checked) if good is None else good[sample_rows(checked)]
    similar = similarities(vectors[rows])
    count = len(rows)
    mean = float((similar.sum(dtype=np.float64) - np.trace(similar, dtype=np.float64)) / (count * (count - 1)))
    np.fill_diagonal(similar, -1)
    is_high = mean > _HIGH and count >= _FEWEST and _is_high([texts[row] for row in rows.tolist()], similar)
    greatest = min(1.0, float(similar.max()))
    return VectorChecks(checked, min(1.0, mean), greatest, (_HIGH_SIMILARITY,) if is_high else ())


@np.errstate(all="ignore")  # whatever the caller has set
def similarities(sample: Vectors) -> Vectors:
    """Return the cosines of all pairs of rows, float32 (n, n)."""
    lengths = np.linalg.norm(sample, axis=1)
    products: Vectors = sample @ sample.T
    products /= np.where(lengths > 0, lengths, 1)[:, None]
    products /= np.where(lengths > 0, lengths, 1)
    return products


def _is_high(texts: Sequence[str], similar: Vectors) -> bool:
    """Return whether the clearly different ones of some texts are similar, not only texts from one template.

    Texts without words, such as emoji, do not count: many models read all of them as one unknown token.
    """
    sets = [frozenset(words(text[:4096])) for text in texts]
    values = [
        similar[row, other]
        for row, one in enumerate(sets)
        for other in range(row)
        if one and sets[other] and len(one & sets[other]) <= MOST_SHARED * len(one | sets[other])
    ]
    return len(values) >= _FEWEST * (_FEWEST - 1) // 2 and float(np.mean(values)) > _HIGH


def note_of(checks: VectorChecks, model: str) -> str | None:
    """Return the note on the warning of a receipt's checks; None if there is none."""
    if _HIGH_SIMILARITY not in checks.warnings:
        return None
    return (
        f"{model}: the vectors of different texts are nearly equal (mean cosine {checks.mean_similarity:.3f}), so "
        "search finds little; check that the model is trained for embeddings, its pooling and its prompts"
    )
