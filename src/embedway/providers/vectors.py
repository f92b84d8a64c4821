"""Validation and decoding of vectors from parsed JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pybase64

from embedway.errors import BadVectorsError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.types import Vectors


def read_indexed(body: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer in OpenAI's format, float32 (count, d), ordered by their `index`.

    A row without a vector of numbers is NaN. Raises ProtocolError for another format, BadVectorsError for wrong counts
    and indexes.
    """
    vectors, by_position = read_rows(body, count=count, route=route)
    if by_position and count > 1:
        raise BadVectorsError(f"answered without index for {count} texts", route=route, check="count")
    return vectors


def read_rows(body: Any, *, count: int, route: str) -> tuple[Vectors, bool]:
    """Read an answer like `read_indexed`, but accept rows without `index`, by position.

    Returns the vectors, and whether the index of a vector is missing: `Answer.by_position`. If one is missing, every
    other index must be the position of its row. Raises the same errors.
    """
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the answer has no list called data", route=route, billed=True)
    if len(rows) != count:
        raise BadVectorsError(f"answered with {len(rows)} vectors for {count} texts", route=route, check="count")
    order, is_missing = read_order([row.get("index") for row in rows], route=route, of="texts")
    # A row without a vector needs no order.
    by_position = is_missing and any(row.get("index") is None and row.get("embedding") is not None for row in rows)
    placed = dict(zip(order, rows, strict=True))
    return _stack([placed[index].get("embedding") for index in range(count)]), by_position


def read_order(indexes: Sequence[Any], *, route: str, of: str) -> tuple[list[int], bool]:
    """Return the index of each row, and whether one is missing (None); a missing one is the position of its row.

    Raises BadVectorsError for an index that is not an integer, out of range or repeated, and if another index is
    missing, for one that is not the position of its row.
    """
    count, by_position = len(indexes), None in indexes
    order: list[int] = []
    placed: set[int] = set()
    for position, value in enumerate(indexes):
        index = position if value is None else value
        if type(index) is not int or not 0 <= index < count or index in placed:
            raise BadVectorsError(f"answered with {_shown_index(value)} among {count} {of}", route=route)
        if by_position and index != position:
            raise BadVectorsError(
                f"answered without some indexes, and with the index {index} at position {position} among {count} {of}",
                route=route,
            )
        placed.add(index)
        order.append(index)
    return order, by_position


def _shown_index(value: Any) -> str:
    """Return an index for a message. It may be any value of an answer, so only numbers are shown."""
    if type(value) in {bool, float, int} and len(repr(value)) <= 24:
        return f"the index {value!r}"
    return "an index that is not an integer"


def read_listed(values: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer that is a plain list in the order of the texts, float32 (count, d).

    A row without a vector of numbers is NaN. Raises ProtocolError if it is not a list, BadVectorsError for a wrong
    count.
    """
    if not isinstance(values, list):
        raise ProtocolError("the answer has no list of vectors", route=route, billed=True)
    if len(values) != count:
        raise BadVectorsError(f"answered with {len(values)} vectors for {count} texts", route=route, check="count")
    return _stack(values)


def _stack(values: list[Any]) -> Vectors:
    """Return the vectors as rows. A row that cannot be read, or of another length than most rows, is NaN."""
    if not values:
        return np.zeros((0, 0), np.float32)
    decoded = [decode(value) for value in values]
    widths = Counter(len(vector) for vector in decoded if vector is not None) or {1: 0}
    # Of two lengths that are equally frequent, the longer one: a damaged row is short.
    width = max(widths, key=lambda length: (widths[length], length))
    vectors = np.empty((len(values), width), np.float32)
    for row, vector in enumerate(decoded):
        vectors[row] = vector if vector is not None and len(vector) == width else np.nan
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
