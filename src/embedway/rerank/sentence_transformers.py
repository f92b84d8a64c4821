"""Cross-encoders that sentence-transformers runs, with the options of its embedding models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.opt_out import opt_out_of_telemetry
from embedway.providers.base import Declared
from embedway.providers.foreign_code import model_source
from embedway.providers.library import LoadedOnce, request_inputs
from embedway.providers.options import whole
from embedway.providers.sentence_transformers import OPTIONS, check, fast_counter, loading
from embedway.rerank.base import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.counting import TokenCounter
    from embedway.types import Vectors


class CrossEncoders:
    """A hub reranker."""

    runtime = "sentence-transformers"

    def __init__(self, endpoint: Endpoint) -> None:
        self._batch_size = whole(endpoint, "batch_size", 32)
        self.declared = Declared(request_inputs(endpoint, self._batch_size), free=True, local=True)
        self._loaded = LoadedOnce(endpoint, lambda: _load(endpoint))

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:

        def compute(model: Any) -> Vectors:
            # The library sorts by length itself.
            pairs = [(query, document) for document in documents]
            scores = model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)
            return np.asarray(scores, np.float32)

        return Scores(await self._loaded.compute(compute), tokens=0)

    def max_tokens(self) -> int:
        """Load the model and return its limit for query, document and special tokens. Blocking."""
        model = self._loaded.get()
        return int(getattr(model, "max_length", None) or model.tokenizer.model_max_length)

    def counter(self, max_tokens: int) -> TokenCounter:
        return fast_counter(self._loaded.get().tokenizer, max_tokens)

    async def aclose(self) -> None:
        self._loaded.close()


def cross_encoder(endpoint: Endpoint) -> CrossEncoders:
    """Create the reranker, an entry of `embedway.rerankers`.

    Raises RuntimeUnavailableError without the extra `sentence-transformers`.
    """
    check(endpoint, OPTIONS)
    return CrossEncoders(endpoint)


def _load(endpoint: Endpoint) -> Any:
    source = model_source(endpoint)
    opt_out_of_telemetry()
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  an extra, and slow to import

    return CrossEncoder(source, **loading(endpoint, source))
