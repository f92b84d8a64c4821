"""Texts that finish before their request: each is passed on as soon as its last part is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedway.batching.windows import TextWindows
from embedway.vectors import bad_rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedway.batching.work import Work
    from embedway.compute import OnReady
    from embedway.types import Space, Vectors


class RowCheck(Protocol):
    """Checks the vectors of parts before they are passed on."""

    def check_some(self, parts: npt.NDArray[np.int64], vectors: Vectors) -> list[int]:
        """Return the rows of some parts' vectors that must not be passed on."""


class ReadyRows:
    """Passes the vectors of finished texts to `on_ready`, by their position in the request.

    A text in windows is finished when all its windows are computed. An invalid vector is kept for the end of the
    request, where it is an error.
    """

    def __init__(self, work: Work, space: Space, on_ready: OnReady, checks: RowCheck | None = None) -> None:
        self._checks = checks
        self._space = space
        self._on_ready = on_ready
        self._positions = work.positions
        self._metas = work.metas
        self._windows = work.windows
        if work.windows is not None:
            self._vectors = np.empty((len(work.texts), space.dimensions), np.float32)
            self._left = np.bincount(work.windows.owner, minlength=work.windows.texts)

    def __call__(self, parts: npt.NDArray[np.int64], vectors: Vectors) -> None:
        """Add the vectors of parts: of texts, or of their windows; float32 (k, full width)."""
        refused = [] if self._checks is None else self._checks.check_some(parts, vectors)
        if refused:
            vectors = vectors.copy()
            vectors[refused] = np.nan
        texts, merged = (parts, vectors) if self._windows is None else self._merge(self._windows, parts, vectors)
        bad = bad_rows(merged, self._space)
        if bad:
            texts, merged = np.delete(texts, bad), np.delete(merged, bad, axis=0)
        positions = self._positions[texts].tolist()
        if positions:
            metas = [meta for position in positions if (meta := self._metas[position]) is not None]
            self._on_ready(positions, merged, metas)

    def _merge(
        self, windows: TextWindows, parts: npt.NDArray[np.int64], vectors: Vectors
    ) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Return the texts that these parts complete, and their vectors."""
        self._vectors[parts] = vectors
        owners = windows.owner[parts]
        np.subtract.at(self._left, owners, 1)
        texts = np.unique(owners)
        texts = texts[self._left[texts] == 0]
        own = np.flatnonzero(np.isin(windows.owner, texts))
        some = TextWindows(np.searchsorted(texts, windows.owner[own]), len(texts), windows.weights[own])
        return texts, some.merge(self._vectors[own], self._space)
