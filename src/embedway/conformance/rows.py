"""Rows of an answer with vectors, and comparisons of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.conformance.verdicts import CheckFailedError
from embedway.providers.vectors import decode
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.conformance.client import Answer
    from embedway.types import Vectors

#: Cosine of two vectors that are the same but for rounding, also in bfloat16 and in batches of other shapes.
SAME = 0.9995
#: Cosine below which a vector is another one: search results change.
NEAR = 0.99
#: Cosine of the vectors of two requests whose tokens are the same.
EQUAL = 0.99999


def read_list(answer: Answer, count: int) -> list[dict[str, Any]]:
    """Return the list `data` of a good answer. Raises CheckFailedError unless it has `count` objects."""
    if not answer.is_ok:
        raise CheckFailedError(f"{count_of(count, 'text is', 'texts are')} answered with {answer.shown}")
    data = answer.value.get("data") if isinstance(answer.value, dict) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise CheckFailedError(f"the answer has no list data of objects; {answer.problem or 'it is other JSON'}")
    if len(data) != count:
        raise CheckFailedError(f"{count_of(count, 'text is', 'texts are')} answered with {count_of(len(data), 'row')}")
    return data


def read_vectors(answer: Answer, count: int) -> Vectors:
    """Return the vectors of a good answer by their index, float32 (count, d); by position if the indexes are no order.

    Raises CheckFailedError.
    """
    data = read_list(answer, count)
    indexes = [row.get("index") for row in data]
    if all(type(index) is int for index in indexes) and sorted(indexes) == list(range(count)):  # type: ignore[type-var]
        data = [row for _, row in sorted(zip(indexes, data, strict=True), key=lambda pair: pair[0])]  # type: ignore[arg-type, return-value]
    vectors = []
    for number, row in enumerate(data):
        vector = decode(row.get("embedding"))
        if vector is None or not np.isfinite(vector).all():
            raise CheckFailedError(f"row {number} has {describe_bad(row.get('embedding'))}")
        vectors.append(vector)
    widths = sorted({len(vector) for vector in vectors})
    if len(widths) > 1:
        raise CheckFailedError(f"the vectors of one answer have different lengths: {widths[0]} and {widths[-1]}")
    return np.stack(vectors)


def describe_bad(value: Any) -> str:
    """Return what stands in the place of a vector that `decode` cannot read."""
    if value is None:
        return "null in place of a vector"
    if isinstance(value, str):
        return "a text that is not base64 of float32" if decode(value) is None else "base64 of NaN or infinity"
    if not isinstance(value, list) or not value:
        return "no list of numbers"
    if any(number is None for number in value):
        return "a vector with null"
    if any(isinstance(number, float) and not np.isfinite(number) for number in value):
        return "a vector with NaN or infinity"
    return "a vector that is not a list of finite numbers"


def cosine(a: Vectors, b: Vectors) -> float:
    """Return the cosine of two vectors; 0 if one is zero or their lengths differ."""
    if a.shape != b.shape:
        return 0.0
    lengths = float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
    return float(a.astype(np.float64) @ b.astype(np.float64)) / lengths if lengths > 0 else 0.0


def cosines(rows: Vectors, others: Vectors) -> Vectors:
    """Return the cosine of each row with each other, (n, m); 0 if their lengths differ."""
    if rows.shape[1] != others.shape[1]:
        return np.zeros((len(rows), len(others)), np.float32)
    return np.asarray(_unit(rows) @ _unit(others).T, np.float32)


def _unit(rows: Vectors) -> np.ndarray[Any, np.dtype[np.float64]]:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30))


def lowest(pairs: Sequence[tuple[Vectors, Vectors]]) -> float:
    """Return the lowest cosine of pairs of vectors."""
    return min(cosine(a, b) for a, b in pairs)


def rounded(value: float) -> str:
    """Return a cosine for a report, rounded down so that 0.9999 is never shown as 1."""
    return f"{np.floor(value * 1e5) / 1e5:.5f}"
