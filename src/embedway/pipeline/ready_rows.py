"""What a request has ready before it ends: handed on text by text, as its parts come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.pipeline.windows import TextWindows
from embedway.vectors import good_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from embedway.cache.vector_cache import Landed
    from embedway.pipeline.plan import Work
    from embedway.types import Space, TextMeta, Vectors


class ReadyRows:
    """Gives the vectors of finished texts to `landed`, by row of a request whose texts are unique.

    A text in windows is finished when all of them are there. What cannot be right is left for the end, where it is an
    error.
    """

    def __init__(self, work: Work, metas: Mapping[int, TextMeta], space: Space, landed: Landed) -> None:
        self._space = space
        self._landed = landed
        self._metas = metas
        self._row_of = {unique: row for row, unique in enumerate(work.positions.tolist()) if unique >= 0}
        self._windows = work.windows
        if work.windows is not None:
            self._vectors = np.empty((len(work.texts), space.dimensions), np.float32)
            self._left = np.bincount(work.windows.owner, minlength=work.windows.texts)

    def __call__(self, parts: npt.NDArray[np.int64], vectors: Vectors) -> None:
        """Take the vectors of parts: of texts, or of their windows; float32 (k, full width)."""
        texts, merged = (parts, vectors) if self._windows is None else self._merged(self._windows, parts, vectors)
        good = good_rows(merged, self._space)
        if not good.all():
            texts, merged = texts[good], merged[good]
        rows = [self._row_of[unique] for unique in texts.tolist()]
        if rows:
            self._landed(rows, merged, [self._metas[row] for row in rows])

    def _merged(
        self, windows: TextWindows, parts: npt.NDArray[np.int64], vectors: Vectors
    ) -> tuple[npt.NDArray[np.int64], Vectors]:
        """The texts that are finished now, and their vectors."""
        self._vectors[parts] = vectors
        owners = windows.owner[parts]
        np.subtract.at(self._left, owners, 1)
        texts = np.unique(owners)
        texts = texts[self._left[texts] == 0]
        own = np.flatnonzero(np.isin(windows.owner, texts))
        some = TextWindows(np.searchsorted(texts, windows.owner[own]), len(texts), windows.weights[own])
        return texts, some.merge(self._vectors[own], self._space)
