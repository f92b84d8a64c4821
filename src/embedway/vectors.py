"""Validation of vectors before any cache, sink or caller. Vectors from a cache are checked in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import BadVectorsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from embedway.types import Space, Vectors

#: Maximum distance of a normalized vector's length from 1; bfloat16 rounds to 2**-8 of each number.
_NORM_TOLERANCE = 0.02
_LEAST_SQUARE, _MOST_SQUARE = (1 - _NORM_TOLERANCE) ** 2, (1 + _NORM_TOLERANCE) ** 2
_UNREAD, _NOT_FINITE = "something that is not a vector of numbers", "numbers that are not finite"
_ZERO, _WRONG_LENGTH = "vectors of zeros", "vectors that are not of length 1"
#: Name of the check of each fault of rows (`quality/names.py`).
_CHECKS = {_UNREAD: "unreadable", _NOT_FINITE: "not_finite", _ZERO: "zero", _WRONG_LENGTH: "norm"}
#: Minimum cosine of two vectors of one text in one space: half precision and other kernels stay above 0.999; another
#: model, tokenizer, prompt or pooling falls below.
SAME_COSINE = 0.99


def validate(vectors: Vectors, *, count: int, space: Space, route: str, advises: bool = True) -> None:
    """Raise BadVectorsError unless there are `count` finite, nonzero float32 rows of the space's width.

    Its `rows` are the invalid rows if the others can be used. `advises` adds what to check, if a service has answered.
    """
    if vectors.shape != (count, space.dimensions):
        if len(vectors) == count and vectors.dtype == np.float32 and np.isnan(vectors).all():
            # The width of unreadable rows is not known.
            refuse_rows({_UNREAD: np.ones(count, bool)}, route=route, checks=_CHECKS)
        if vectors.ndim == 2 and len(vectors) == count:
            message = wrong_width(vectors.shape[1], space.dimensions, advises=advises and not _is_local(route))
            raise BadVectorsError(message, route=route, check="dimension")
        raise BadVectorsError(
            f"answered with an array of shape {vectors.shape}, not {(count, space.dimensions)}",
            route=route,
            check="count" if vectors.ndim == 2 else "type",
        )
    if vectors.dtype != np.float32:
        raise BadVectorsError(f"answered with {vectors.dtype}, not float32", route=route, check="type")
    if _is_good_query(vectors, space):
        return
    lengths = _lengths(vectors)
    if space.normalized and (np.abs(lengths - 1) <= _NORM_TOLERANCE).all():
        return
    with np.errstate(all="ignore"):
        faults = {
            _UNREAD: np.isnan(vectors).all(axis=1),
            _NOT_FINITE: ~np.isfinite(lengths),
            _ZERO: lengths == 0,
            _WRONG_LENGTH: space.normalized & (np.abs(lengths - 1) > _NORM_TOLERANCE),
        }
    remedy = wrong_length(lengths, advises=advises and not _is_local(route))
    refuse_rows(faults, route=route, remedies={_WRONG_LENGTH: remedy}, checks=_CHECKS)


def _is_local(route: str) -> bool:
    """Return whether a route is this machine, which has no settings to check."""
    return route.startswith("local:")


def wrong_width(came: int, wanted: int, *, advises: bool = True) -> str:
    """Return the message and the remedy for vectors of another width than the model's."""
    if not advises:
        return f"answered with vectors of {came} dimensions, not {wanted}"
    return (
        f"answered with vectors of {came} dimensions, not {wanted}: check upstream_model, because the service may run "
        "another model; set options.dimensions = true in the route if the service can return shorter vectors, and "
        f"false if it cannot; if the model has its own section [models.NAME], set dimensions = {came} there"
    )


def wrong_length(lengths: npt.NDArray[np.float32], *, advises: bool = True) -> str:
    """Return the remedy for vectors that are not of length 1."""
    worst = float(lengths[np.abs(lengths - 1).argmax()]) if len(lengths) else 1.0
    found = f"; one has length {worst:.4g}"
    if not advises:
        return found
    return (
        f"{found}: check upstream_model, because the service may run another model; if the model "
        "has its own section [models.NAME] and does not normalize, set normalized = false there"
    )


def good_rows(vectors: Vectors, space: Space) -> npt.NDArray[np.bool_]:
    """Return the mask of rows that `validate` accepts (n,)."""
    lengths = _lengths(vectors)
    return np.abs(lengths - 1) <= _NORM_TOLERANCE if space.normalized else np.isfinite(lengths) & (lengths > 0)


def bad_rows(vectors: Vectors, space: Space) -> list[int]:
    """Return the rows that `validate` rejects."""
    if _is_good_query(vectors, space):
        return []
    good = good_rows(vectors, space)
    return [] if good.all() else np.flatnonzero(~good).tolist()


def _is_good_query(vectors: Vectors, space: Space) -> bool:
    """Return whether this is one valid normalized vector; a fast path, because queries wait for it."""
    if not space.normalized or len(vectors) != 1:
        return False
    vector = vectors[0]
    # A vector that is not finite fails the comparison. Other products warn if numbers are too large to be squared.
    return _LEAST_SQUARE <= float(np.vdot(vector, vector)) <= _MOST_SQUARE


def _lengths(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Return the length of each row (n,). A row with NaN or infinity has a length that is not finite."""
    with np.errstate(all="ignore"):
        # The product of each row with itself takes half the time of einsum.
        squares = np.matmul(vectors[:, None, :], vectors[:, :, None])[:, 0, 0]
        lengths: npt.NDArray[np.float32] = np.sqrt(squares)
    return lengths


@np.errstate(all="ignore")  # whatever the caller has set
def cosines(left: Vectors, right: Vectors) -> Vectors:
    """Return the cosine of each pair of rows, float32 (n,), of two arrays (n, d); 0 for a row of zeros."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: Vectors = np.einsum("nd,nd->n", left, right) / np.where(lengths == 0, 1, lengths)
    return found


def unit_vectors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return vectors of length 1 in double precision; vectors of zeros stay zeros."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    found: npt.NDArray[np.float64] = wide / np.where(lengths == 0, 1.0, lengths)
    return found


def to_size(vectors: Vectors, space: Space) -> Vectors:
    """Truncate to the space's dimensions and restore length 1 in a normalized space, as Matryoshka training expects."""
    if vectors.shape[1] == space.dimensions:
        return vectors
    cut = vectors[:, : space.dimensions].copy()
    if space.normalized:
        cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return cut


def refuse_rows(
    faults: Mapping[str, npt.NDArray[np.bool_]],
    *,
    route: str,
    remedies: Mapping[str, str] | None = None,
    checks: Mapping[str, str] | None = None,
) -> None:
    """Raise BadVectorsError with all invalid rows, given a mask of rows for each fault, if there are any.

    The first fault that any row has is named, with its remedy and the name of its check.
    """
    masks = list(faults.values())
    bad = np.logical_or.reduce(masks)
    if bad.any():
        what = next(fault for fault, mask in faults.items() if mask.any())
        part = f" in {int(bad.sum())} of {len(bad)} rows" if len(bad) > 1 else ""
        raise BadVectorsError(
            f"answered with {what}{part}{(remedies or {}).get(what, '')}",
            route=route,
            rows=np.flatnonzero(bad).tolist(),
            check=(checks or {}).get(what, ""),
        )
