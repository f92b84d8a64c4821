"""Equal and nearly equal vectors of different texts, within an answer and across recent answers of a route.

Vectors are equal if all bits are: models do not give texts that they read differently the same bits, and bits are
compared in linear time. A bound on the cosine of two texts would depend on the model and on the length of the texts.
Vectors that are only nearly equal are a fault if the texts are clearly different, and several of them are at one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.quality.memory import digest_of, starts_of
from embedway.quality.similarity import MOST_SHARED, sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.quality.memory import RecentVectors
    from embedway.quality.reading import Difference, Reads
    from embedway.types import Vectors

#: Distance from cosine 1 below which vectors differ by numeric noise: half precision and bfloat16 round to about 1e-6.
_NOISE = 1e-5
#: Minimum number of clearly different texts, besides the one that they are compared with, for `near_constant`.
_FEWEST_NEAR = 2
#: Rows of an answer that are remembered.
_REMEMBERED = 16


@dataclass(slots=True)
class Sameness:
    """Result: the rows at fault by check, the difference of two of their texts, and what is not certain."""

    check: str = ""
    rows: list[int] = field(default_factory=list)
    difference: Difference | None = None
    #: Whether the same vector was returned for another text in an earlier answer, which was passed on.
    is_earlier: bool = False
    #: Rows with one vector whose texts differ only in words that the model may not know.
    unsure: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SamenessCheck:
    """Finds equal vectors of different texts. `recent` are those of earlier answers; it is updated."""

    reads: Reads[Any]
    recent: RecentVectors

    def find(self, vectors: Vectors, reading: Callable[[int], Any], *, ordered: bool = True) -> Sameness:
        """Check rows of valid vectors, float32 (n, d); `reading` returns the reading of a row.

        If the order of the rows is not known, only vectors at fault are remembered: others may be of another text.
        """
        found = Sameness()
        starts = starts_of(vectors)
        if not starts:
            return found
        bad: set[int] = set()
        if len(starts) > 1 and len(set(starts)) < len(starts):
            self._find_within(vectors, starts, reading, found, bad)
        self._find_earlier(vectors, starts, reading, found, bad)
        found.check = "same_vector" if bad else ""
        if not bad:
            near = (
                self._near_many(vectors, reading)
                if len(starts) > _FEWEST_NEAR or not ordered
                else self._near_last(vectors, reading)
            )
            if near:
                found.check, bad = "near_constant", set(near)
        found.rows = sorted(bad)
        self._remember(vectors, starts, reading, found.rows, ordered=ordered)
        return found

    def _find_within(
        self, vectors: Vectors, starts: list[int], reading: Callable[[int], Any], found: Sameness, bad: set[int]
    ) -> None:
        """Add the rows with equal vectors of different texts."""
        by_start: dict[int, list[int]] = {}
        for row, start in enumerate(starts):
            by_start.setdefault(start, []).append(row)
        for candidates in by_start.values():
            if len(candidates) == 1:
                continue
            groups: dict[int, list[int]] = {}
            for row in candidates:
                groups.setdefault(digest_of(vectors[row]), []).append(row)
            for rows in groups.values():
                difference = self._difference(rows, reading) if _is_vector(vectors[rows[0]]) else None
                if difference is None:
                    continue
                if not difference.certain:
                    found.unsure += rows
                    continue
                bad.update(rows)
                found.difference = found.difference or difference

    def _difference(self, rows: list[int], reading: Callable[[int], Any]) -> Difference | None:
        """Return the difference of the first text to another one; a certain one if there is any."""
        found, seen = None, set()
        first = reading(rows[0])
        for row in rows[1:]:
            other = reading(row)
            key = self.reads.key(other)
            if key in seen:
                continue
            seen.add(key)
            difference = self.reads.differ(first, other)
            if difference is not None:
                found = difference
                if difference.certain:
                    break
        return found

    def _find_earlier(
        self, vectors: Vectors, starts: list[int], reading: Callable[[int], Any], found: Sameness, bad: set[int]
    ) -> None:
        """Add the rows whose vector belonged to another text in an earlier answer."""
        known = self.recent.known(starts)
        if not known:
            return
        for row, start in enumerate(starts):
            if start not in known or row in bad:
                continue
            difference = self.recent.difference(start, vectors[row], reading(row), self.reads)
            if difference is None or not _is_vector(vectors[row]):
                continue
            if not difference.certain:
                found.unsure.append(row)
                continue
            bad.add(row)
            found.difference = found.difference or difference
            found.is_earlier = True

    def _near_many(self, vectors: Vectors, reading: Callable[[int], Any]) -> list[int]:
        """Return the rows that are nearly equal to one of two reference rows, if clearly different texts are."""
        rows = sample_rows(len(vectors))
        sample = vectors[rows]
        references = [0, len(rows) // 2]
        near = _nearness(sample, sample[references])
        for place, reference in enumerate(references):
            chosen = np.flatnonzero(near[:, place])
            if len(chosen) <= _FEWEST_NEAR:
                continue
            one = reading(int(rows[reference]))
            if sum(self._is_clear(one, reading(int(rows[row]))) for row in chosen.tolist()) >= _FEWEST_NEAR:
                at_fault: list[int] = np.flatnonzero(_nearness(vectors, sample[[reference]])[:, 0]).tolist()
                return at_fault
        return []

    def _near_last(self, vectors: Vectors, reading: Callable[[int], Any]) -> list[int]:
        """Return row 0 if it and the one before are nearly equal to a vector of clearly different texts.

        Answers of one or two texts are compared with the vector of an earlier answer.
        """
        recent, vector = self.recent, vectors[0]
        if recent.last is not None and _is_near(vector, recent.last, recent.last_square):
            if self._is_clear(recent.last_reading, reading(0)):
                recent.near += 1
                return list(range(len(vectors))) if recent.near >= _FEWEST_NEAR else []
            return []
        recent.last, recent.last_square = vector.copy(), float(np.dot(vector, vector))
        recent.last_reading, recent.near = self.reads.keep(reading(0)), 0
        return []

    def _is_clear(self, one: Any, other: Any) -> bool:
        difference = self.reads.differ(one, other)
        return difference is not None and difference.certain and difference.shared <= MOST_SHARED

    def _remember(
        self, vectors: Vectors, starts: list[int], reading: Callable[[int], Any], bad: list[int], *, ordered: bool
    ) -> None:
        count = len(starts)
        if count == 1:
            self.recent.remember(starts[0], vectors[0], reading(0), self.reads)
            return
        rows = range(count) if count <= _REMEMBERED else np.linspace(0, count - 1, _REMEMBERED).astype(int).tolist()
        rows = rows if ordered else ()
        for row in dict.fromkeys((*rows, *bad[:_REMEMBERED])):
            self.recent.remember(starts[row], vectors[row], reading(row), self.reads)


@np.errstate(all="ignore")  # whatever the caller has set
def _nearness(vectors: Vectors, references: Vectors) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whether each row is nearly equal to each reference, bool (n, r)."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    products = vectors @ references.T
    limits = squares[:, None] * np.einsum("nd,nd->n", references, references)
    near: np.ndarray[Any, np.dtype[np.bool_]] = products > (1 - _NOISE) * np.sqrt(limits)
    return near


def _is_vector(vector: Vectors) -> bool:
    """Return whether a vector has a direction; others are refused by the checks of single rows."""
    return bool(np.isfinite(vector).all() and vector.any())


def _is_near(one: Vectors, other: Vectors, square: float) -> bool:
    """Return whether the distance of two vectors is numeric noise, compared with the second one's squared length."""
    most = 2 * _NOISE * square
    # Most vectors differ enough in one of their first numbers.
    if (one.item(0) - other.item(0)) ** 2 > most or (one.item(1) - other.item(1)) ** 2 > most:
        return False
    with np.errstate(all="ignore"):  # whatever the caller has set
        apart = one - other
        return float(np.dot(apart, apart)) < most
