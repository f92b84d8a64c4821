"""Similarity of sentences to a query, for highlights: the most recent vectors are kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.vectors import cosines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.query_model import QueryModel
    from embedway.types import Vectors

#: Maximum numbers in memory: 8 MiB, for 5,461 sentences of 384 dimensions.
_MAX_NUMBERS = 1 << 21


class SentenceVectors:
    """Vectors of the sentences that were shown last, of one model.

    They are not stored in the cache of the embedder: sentences are many, and `forget` could not find all of them.
    """

    def __init__(self, embedder: AsyncEmbedder, model: QueryModel) -> None:
        self._embedder = embedder
        self._model = model
        self._kept: dict[str, Vectors] = {}
        self._most = max(1, _MAX_NUMBERS // model.dimensions)

    async def similarities(self, query: Vectors, texts: Sequence[str]) -> list[float]:
        """Return the cosine similarity of each text to a query, float32 (d,). Raises as `embed` does."""
        if not texts:
            return []
        missing = list(dict.fromkeys(text for text in texts if text not in self._kept))
        found = {text: self._kept.pop(text) for text in dict.fromkeys(texts) if text in self._kept}
        if missing:
            vectors, _ = await self._embedder.cache.recompute(
                missing, model=self._model.name, dimensions=self._model.dimensions, on_overflow="truncate"
            )
            found.update(zip(missing, vectors, strict=True))
        rows = np.stack([found[text] for text in texts])
        self._kept.update(found)  # the most recent ones are last
        for text in list(self._kept)[: max(0, len(self._kept) - self._most)]:
            del self._kept[text]
        return [float(one) for one in cosines(rows, np.broadcast_to(query, rows.shape))]
