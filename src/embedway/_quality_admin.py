"""Quality of an embedder's vectors: `embedder.quality`."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway._public import public
from embedway.arguments import as_texts, as_vectors, check_choice, check_name
from embedway.errors import UsageError
from embedway.quality.reading import TextReader, ignored_ids
from embedway.quality.report import report_on
from embedway.sizes import VectorSizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._engine import Engines
    from embedway.config import Config
    from embedway.models.base import Model
    from embedway.quality.report import VectorReport
    from embedway.types import InputType, Space, Texts, Vectors


@public
class AsyncQualityAdmin:
    """Checks of vectors, and comparisons of models with their baselines: `embedder.quality`."""

    def __init__(self, engines: Engines, config: Config, default_model: str) -> None:
        self._engines = engines
        self._config = config
        self._default_model = default_model

    async def validate(
        self,
        vectors: Vectors | Sequence[Vectors],
        texts: Texts,
        *,
        model: str | None = None,
        input_type: InputType = "document",
    ) -> VectorReport:
        """Check the vectors of texts, float32 (n, d), which came from a model or were stored, as an answer is checked.

        A fault is in the report, not an error. Nothing is computed, and no weights are fetched. Raises UsageError for
        arguments that are no vectors and no texts, and ModelError as `embed` does.
        """
        check_choice(input_type, ("query", "document"), "input_type")
        read = as_texts(texts, "texts")
        for row, text in enumerate(read):
            if not isinstance(text, str):
                raise UsageError(f"texts[{row}] is of type {type(text).__name__}; it must be a text")
        array = _as_array(vectors)
        async with self._engines.call() as engine:
            opened = await engine.models.outline(self._default_model if model is None else check_name(model, "model"))
            return await asyncio.to_thread(
                report_on, array, read, _space_of_width(opened, array), _reader_of(opened, input_type)
            )


def _as_array(vectors: Any) -> Vectors:
    """Return an array of float32 of any shape. Raises UsageError for values that are not numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex numbers are refused below
        array = as_vectors(vectors)
    if np.iscomplexobj(vectors):
        raise UsageError("vectors must be an array of real numbers, one row per text")
    return array


def _space_of_width(model: Model, vectors: Vectors) -> Space:
    """Return the model's space at the width of the vectors, or at its default size if it has no such size."""
    known = model.profile.description
    width = vectors.shape[1] if vectors.ndim == 2 else 0
    return model.space_of_size(width if width in VectorSizes(known.sizes, known.min_dimensions) else None)


def _reader_of(model: Model, input_type: InputType) -> TextReader:
    """Return the comparison of texts as the model reads them."""
    known, space = model.profile.description, model.space
    prompt = space.query_prompt if input_type == "query" else space.document_prompt
    plain = known.tokenizer if model.profile.exact else None
    most = max(1, model.max_tokens - len(prompt.encode()))  # at most one token for each byte
    return TextReader(most, plain, known.special_tokens, frozenset() if plain is None else ignored_ids(plain))
