"""Checks of the parts that this machine computes: as soon as a batch is ready, and together at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import of_row

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

    from embedway.batching.work import Work
    from embedway.errors import BadVectorsError, EmbedwayError
    from embedway.quality.checks import DiversityCheck
    from embedway.types import Vectors


class PartCheck:
    """Checks of one request for equal vectors of different texts. A part is a text, or a window of one."""

    def __init__(self, work: Work, check: DiversityCheck) -> None:
        self._work = work
        self._check = check
        #: The first fault, and the parts of all faults.
        self._fault: BadVectorsError | None = None
        self._refused: set[int] = set()
        #: Whether one batch had all parts.
        self._is_done = False

    def check_some(self, parts: npt.NDArray[np.int64], vectors: Vectors) -> list[int]:
        """Return the rows of a batch's vectors that must not be passed on; float32 (k, d)."""
        ids, numbers = self._work.tokenized.ids, parts.tolist()
        fault = self._check.find_fault(vectors, lambda row: ids[numbers[row]])
        self._is_done = len(numbers) == len(ids)
        if fault is None:
            return []
        self._fault = self._fault or fault
        self._refused.update(numbers[row] for row in fault.rows)
        return list(fault.rows)

    def find_fault(self, vectors: Vectors, failed: Collection[int]) -> BadVectorsError | None:
        """Return the error of all parts at fault, by part; None for no fault. Parts in `failed` are not checked."""
        if not self._is_done:
            skipped = {*failed, *self._refused}
            parts = np.delete(np.arange(len(vectors)), sorted(skipped)) if skipped else np.arange(len(vectors))
            if len(parts):
                self.check_some(parts, vectors[parts] if skipped else vectors)
        if self._fault is not None:
            self._fault.rows = tuple(sorted(self._refused))
        return self._fault

    def errors(self, fault: BadVectorsError) -> dict[int, EmbedwayError]:
        """Return the error of each part at fault, with the row of its text in the request."""
        return {part: of_row(fault, self._work.position(part)) for part in fault.rows}
