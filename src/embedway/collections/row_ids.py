"""Ids of the rows of a file, to find those that occur twice."""

from __future__ import annotations

from array import array

_HASH_MASK = (1 << 64) - 1


class RowIds:
    """Set of the ids of a file, with the line of each: 24 to 48 bytes an id.

    Ids are compared by their hashes of 64 bits. In ten million ids, two different ones are taken for equal with a
    probability of 0.000003.
    """

    def __init__(self) -> None:
        self._resize(1 << 10)
        self._count = 0

    def add(self, name: str, line: int) -> int | None:
        """Add an id; return the line of the id if it is in the set already."""
        if 3 * self._count > 2 * len(self._lines):
            old = [(one, at) for one, at in zip(self._hashes, self._lines, strict=True) if at]
            self._resize(2 * len(self._lines))
            for one, at in old:
                self._insert(one, at)
        known = self._insert(hash(name) & _HASH_MASK, line)
        self._count += known is None
        return known

    def _resize(self, size: int) -> None:
        self._hashes = array("Q", bytes(8 * size))
        self._lines = array("q", bytes(8 * size))

    def _insert(self, value: int, line: int) -> int | None:
        hashes, lines = self._hashes, self._lines
        mask = len(lines) - 1
        place = value & mask
        while lines[place]:
            if hashes[place] == value:
                return lines[place]
            place = (place + 1) & mask
        hashes[place], lines[place] = value, line
        return None
