"""Number formats of stored vectors, as Arrow lists of fixed size.

`int8` has one scale for each vector, its largest number divided by 127. `bits` has the `signs`, eight in a byte, the
first dimension in the highest bit; they are read as 1 and -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import SinkError

if TYPE_CHECKING:
    from embedway.collections.values import VectorType
    from embedway.types import Vectors


def signs(vectors: Vectors) -> Any:
    """Return the signs as truth values of the same shape: True for positive numbers and for 0, also -0.0."""
    return vectors >= 0


def vector_kind(vector_type: VectorType, dimensions: int) -> Any:
    """Return the Arrow type of a vector."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if vector_type == "bits":
        return pa.list_(pa.uint8(), -(-dimensions // 8))
    number = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}[vector_type]
    return pa.list_(number, dimensions)


def encode(vectors: Vectors, vector_type: VectorType) -> tuple[Any, Any]:
    """Return the Arrow arrays of vectors, float32 (n, d), and of their scales, which only `int8` has."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    scales = None
    numbers: Any = np.ascontiguousarray(vectors, dtype=np.float32)
    if vector_type == "float16":
        numbers = np.clip(numbers, -65504, 65504).astype(np.float16)
    elif vector_type == "bits":
        numbers = np.packbits(signs(numbers), axis=1)
    elif vector_type == "int8":
        largest = np.abs(numbers).max(axis=1, initial=0)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        numbers = np.clip(np.rint(numbers / scale[:, None]), -127, 127).astype(np.int8)
        scales = pa.array(scale)
    flat = pa.array(numbers.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, numbers.shape[1]), scales


def decode(
    column: Any,
    scales: Any,
    vector_type: VectorType,
    dimensions: int,
    *,
    first_row: int,
    destination: str,
    strict: bool = True,
) -> Vectors:
    """Return the vectors, float32 (n, d), of an Arrow array of lists.

    Raises `SinkError` with the row of an invalid one; `first_row` is the number of the first, from 0. Without `strict`,
    an invalid one is NaN.
    """
    size = -(-dimensions // 8) if vector_type == "bits" else dimensions
    faults = _list_faults(column, size)
    if strict:
        for bad, reason in faults:
            _refuse(bad, reason, first_row, destination)
        return _decoded(column, scales, vector_type, dimensions, first_row=first_row, destination=destination)
    bad = np.logical_or.reduce([rows for rows, _ in faults])
    vectors: Vectors = np.full((len(column), dimensions), np.nan, np.float32)
    good = np.flatnonzero(~bad)
    parts = column.take(good), None if scales is None else scales.take(good)
    vectors[good] = _decoded(*parts, vector_type, dimensions)
    return vectors


def _list_faults(column: Any, size: int) -> list[tuple[Any, str]]:
    """Return which lists have each of the faults that prevent their conversion to one matrix."""
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    missing = np.asarray(column.is_null())
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), size))
    return [(missing, "is missing"), (lengths != size, f"does not have {size} numbers")]


def _refuse(bad: Any, reason: str, first_row: int, destination: str) -> None:
    if bad.any():
        row = first_row + int(np.flatnonzero(bad)[0]) + 1
        raise SinkError(f"the vector of row {row:,} {reason}; embed the texts again", destination=destination)


def _decoded(
    column: Any,
    scales: Any,
    vector_type: VectorType,
    dimensions: int,
    *,
    first_row: int = 0,
    destination: str | None = None,
) -> Vectors:
    """Return the vectors of lists of the right length. Without a destination, invalid ones are NaN."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    flat = column.flatten()
    if vector_type == "bits":
        size = -(-dimensions // 8)
        missing = np.asarray(flat.is_null()).reshape(len(column), size).any(axis=1)
        if destination is not None:
            _refuse(missing, "has a number that is missing", first_row, destination)
        packed = flat.fill_null(0).to_numpy(zero_copy_only=False).reshape(len(column), size)
        positive: Vectors = np.unpackbits(packed, axis=1, count=dimensions).astype(np.float32) * 2 - 1
        positive[missing] = np.nan
        return positive
    # Nulls become NaN, and numbers outside of float32 become infinite.
    numbers = pc.cast(flat, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    vectors: Vectors = np.asarray(numbers, np.float32).reshape(len(column), dimensions)
    if scales is not None:
        scale = pc.cast(scales, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(all="ignore"):
            vectors = vectors * scale[:, None]
    bad = ~np.isfinite(vectors).all(axis=1)
    if destination is not None:
        _refuse(bad, "has a number that is missing, infinite or not a number", first_row, destination)
    elif bad.any():
        vectors = vectors.copy()
        vectors[bad] = np.nan
    return vectors
