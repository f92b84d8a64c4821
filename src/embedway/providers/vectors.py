"""Validation and decoding of vectors from parsed JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pybase64

from embedway.errors import BadVectorsError, ProtocolError

if TYPE_CHECKING:
    from embedway.types import Vectors


def read_indexed(body: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer in OpenAI's format, float32 (count, d), ordered by their `index`.

    Raises ProtocolError for another format, BadVectorsError for wrong counts, indexes, lengths and numbers.
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
    return _stack([placed[index] for index in range(count)], route=route)


def read_listed(values: Any, *, count: int, route: str) -> Vectors:
    """Read the vectors of an answer that is a plain list in the order of the texts, float32 (count, d).

    Raises ProtocolError if it is not a list, BadVectorsError for wrong counts, lengths and numbers.
    """
    if not isinstance(values, list):
        raise ProtocolError("the answer has no list of vectors", route=route, billed=True)
    if len(values) != count:
        raise BadVectorsError(f"answered with {len(values)} vectors for {count} texts", route=route)
    return _stack(values, route=route)


def _stack(values: list[Any], *, route: str) -> Vectors:
    if not values:
        return np.zeros((0, 0), np.float32)
    first = decode(values[0], row=0, route=route)
    vectors = np.empty((len(values), len(first)), np.float32)
    vectors[0] = first
    for row, value in enumerate(values[1:], start=1):
        vector = decode(value, row=row, route=route)
        if len(vector) != len(first):
            raise BadVectorsError(
                f"answered with vectors of different lengths, {len(first)} and {len(vector)}", route=route, rows=[row]
            )
        vectors[row] = vector
    return vectors


def decode(value: Any, *, row: int, route: str) -> Vectors:
    """Decode one read-only vector, float32 (d,), from a list of numbers or base64 of little-endian float32."""
    if isinstance(value, str):
        try:
            raw = pybase64.b64decode(value, validate=True)
        except ValueError:
            raw = b""
        if not raw or len(raw) % 4:
            raise BadVectorsError("answered with base64 that is not float32 numbers", route=route, rows=[row])
        return np.frombuffer(raw, "<f4")
    if isinstance(value, list) and value:
        try:
            with np.errstate(all="ignore"):  # infinite numbers are rejected below
                array = np.array(value, np.float32)
        except (ValueError, TypeError):
            array = np.zeros((0, 0), np.float32)
        # numpy converts `null` to NaN, which is rejected here.
        if array.ndim == 1 and np.isfinite(array).all():
            return array
    raise BadVectorsError("answered with something that is not a vector of numbers", route=route, rows=[row])


def normalize(vectors: Vectors) -> Vectors:
    """Normalize rows to length 1, for services that truncate without it.

    Rows of zeros do not change, and rows with infinite numbers become NaN; validation rejects both.
    """
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
