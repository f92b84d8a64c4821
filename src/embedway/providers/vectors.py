"""Validation and decoding of vectors from parsed JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pybase64

from embedway.errors import BadVectorsError, ProtocolError

if TYPE_CHECKING:
    from embedway.types import Vectors


def read_indexed(body: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer in OpenAI's format, float32 (count, d), ordered by their `index`.

    A row without a vector of numbers is NaN. Raises ProtocolError for another format, BadVectorsError for wrong counts
    and indexes.
    """
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the answer has no list called data", route=route, billed=True)
    if len(rows) != count:
        raise BadVectorsError(f"answered with {len(rows)} vectors for {count} texts", route=route)
    placed: dict[int, Any] = {}
    for row in rows:
        index = row.get("index")
        if type(index) is not int or not 0 <= index < count or index in placed:
            raise BadVectorsError(f"answered with the index {index!r} among {count} texts", route=route)
        placed[index] = row.get("embedding")
    return _stack([placed[index] for index in range(count)])


def read_listed(values: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer that is a plain list in the order of the texts, float32 (count, d).

    A row without a vector of numbers is NaN. Raises ProtocolError if it is not a list, BadVectorsError for a wrong
    count.
    """
    if not isinstance(values, list):
        raise ProtocolError("the answer has no list of vectors", route=route, billed=True)
    if len(values) != count:
        raise BadVectorsError(f"answered with {len(values)} vectors for {count} texts", route=route)
    return _stack(values)


def _stack(values: list[Any]) -> Vectors:
    """Return the vectors as rows. A row that cannot be read, or of another length than most rows, is NaN."""
    if not values:
        return np.zeros((0, 0), np.float32)
    decoded = [decode(value) for value in values]
    widths = Counter(len(vector) for vector in decoded if vector is not None) or {1: 0}
    # Of two lengths that are equally frequent, the longer one: a damaged row is short.
    width = max(widths, key=lambda length: (widths[length], length))
    vectors = np.full((len(values), width), np.nan, np.float32)
    for row, vector in enumerate(decoded):
        if vector is not None and len(vector) == width:
            vectors[row] = vector
    return vectors


def decode(value: Any) -> Vectors | None:
    """Decode one read-only vector, float32 (d,), from a list of numbers or base64 of little-endian float32.

    Returns None if it is neither.
    """
    if isinstance(value, str):
        try:
            raw = pybase64.b64decode(value, validate=True)
        except ValueError:
            raw = b""
        return np.frombuffer(raw, "<f4") if raw and not len(raw) % 4 else None
    if isinstance(value, list) and value:
        try:
            with np.errstate(all="ignore"):  # infinite numbers are rejected below
                array = np.array(value, np.float32)
        except (ValueError, TypeError):
            array = np.zeros((0, 0), np.float32)
        # numpy converts `null` to NaN, which is rejected here.
        if array.ndim == 1 and np.isfinite(array).all():
            return array
    return None


def normalize(vectors: Vectors) -> Vectors:
    """Normalize rows to length 1, for services that truncate without it.

    Rows of zeros do not change, and rows with infinite numbers become NaN; validation rejects both.
    """
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
