"""Recent vectors of a route, with the texts that they belong to: a fault may be spread over several answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from embedway.quality.reading import Difference, Reads
    from embedway.types import Vectors

#: Vectors that are remembered of each kind, kinds of a route, and texts of one vector.
_MOST_VECTORS, _MOST_KINDS, _MOST_TEXTS = 512, 8, 4


@dataclass(slots=True)
class _Seen:
    """A vector, by a hash of its numbers, and the readings of the texts that have it, by key."""

    digest: int
    readings: dict[Hashable, Any]


@dataclass(slots=True)
class RecentVectors:
    """The last vectors of one route in one space, of one size and input type.

    A vector is found by its first two numbers, and compared by a hash of all of them.
    """

    _seen: dict[int, _Seen] = field(default_factory=dict)
    #: The vector that each text had last.
    _of_text: dict[Hashable, int] = field(default_factory=dict)
    #: The last vector that was compared, its squared length and its reading, and the number of nearly equal ones after
    #: it.
    last: Vectors | None = None
    last_square: float = 0.0
    last_reading: Any = None
    near: int = 0

    @property
    def vectors(self) -> int:
        """Number of remembered vectors."""
        return len(self._seen)

    @property
    def texts(self) -> int:
        """Number of texts of the remembered vectors."""
        return len(self._of_text)

    def known(self, starts: list[int]) -> set[int]:
        """Return those of the given starts of vectors that are remembered."""
        return self._seen.keys() & starts if len(starts) > 1 else {one for one in starts if one in self._seen}

    def difference(self, start: int, vector: Vectors, reading: Any, reads: Reads[Any]) -> Difference | None:
        """Return the difference of a text to one that had the same vector; a certain one if there is any."""
        seen = self._seen.get(start)
        if seen is None or (len(seen.readings) == 1 and reads.key(reading) in seen.readings):
            return None
        if seen.digest != digest_of(vector):
            return None
        found = None
        for other in seen.readings.values():
            difference = reads.differ(reading, other)
            if difference is not None:
                found = difference
                if difference.certain:
                    break
        return found

    def remember(self, start: int, vector: Vectors, reading: Any, reads: Reads[Any]) -> None:
        """Remember the vector of a text, in place of its former one: a corrected text blames no other one."""
        key, digest = reads.key(reading), digest_of(vector)
        former = self._of_text.get(key)
        if former is not None and former != start:
            self._forget(former, key)
        seen = self._seen.get(start)
        if seen is None or seen.digest != digest:
            self._drop(start)
            seen = self._seen[start] = _Seen(digest, {})
        if key in seen.readings or len(seen.readings) < _MOST_TEXTS:
            seen.readings[key] = reads.keep(reading)
            self._of_text[key] = start
        if len(self._seen) > _MOST_VECTORS:
            self._drop(next(iter(self._seen)))

    def _forget(self, start: int, key: Hashable) -> None:
        seen = self._seen.get(start)
        if seen is not None:
            seen.readings.pop(key, None)
            if not seen.readings:
                del self._seen[start]

    def _drop(self, start: int) -> None:
        seen = self._seen.pop(start, None)
        for key in () if seen is None else seen.readings:
            self._of_text.pop(key, None)


@dataclass(slots=True)
class AnswerMemory:
    """Recent vectors of a route by kind, such as size and input type."""

    _kinds: dict[Hashable, RecentVectors] = field(default_factory=dict)

    def of(self, *kind: Hashable) -> RecentVectors:
        """Return the recent vectors of a kind; the kind that came first is dropped if there are many."""
        recent = self._kinds.get(kind)
        if recent is None:
            if len(self._kinds) >= _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            recent = self._kinds[kind] = RecentVectors()
        return recent


def starts_of(vectors: Vectors) -> list[int]:
    """Return the first two numbers of each row as one integer; rows of one number have none."""
    if vectors.shape[1] < 2:
        return []
    if len(vectors) == 1:
        return [int.from_bytes(vectors[0, :2].tobytes(), sys.byteorder)]
    starts: list[int] = np.ascontiguousarray(vectors[:, :2]).view(np.uint64)[:, 0].tolist()
    return starts


def digest_of(vector: Vectors) -> int:
    """Return a hash of a vector's numbers, valid in this process."""
    return hash(vector.tobytes())
