"""Vectors in JSON documents of the store of records: the shape, and the float32 numbers in base64."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.types import Vectors


def vectors_to_json(vectors: Vectors) -> dict[str, Any]:
    """Return vectors as JSON types."""
    data = base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode()
    return {"shape": list(vectors.shape), "float32": data}


def vectors_from_json(found: Mapping[str, Any]) -> Vectors:
    """Return vectors. Raises KeyError, TypeError or ValueError for anything that `vectors_to_json` does not return."""
    flat = np.frombuffer(base64.b64decode(found["float32"], validate=True), "<f4")
    rows, width = found["shape"]
    if type(rows) is not int or type(width) is not int or min(rows, width) < 1 or rows * width != len(flat):
        raise ValueError(found["shape"])
    return flat.reshape(rows, width).astype(np.float32)
