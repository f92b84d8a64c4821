"""Cross-encoders on the built-in runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import UnsupportedModelError
from embedway.local.encoder import Encoder
from embedway.space import score_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.local.backend import SessionOptions
    from embedway.local.recipe import Recipe
    from embedway.local.remote import RemoteModel
    from embedway.local.runtime_choice import RuntimeChoice
    from embedway.types import TokenizedTexts, Vectors

#: Default of sentence-transformers for a classifier with one label, unless its config names another function.
_SIGMOID, _IDENTITY = "Sigmoid", "Identity"


class CrossEncoder(Encoder):
    """Cross-encoder on the built-in runtime: it reads query and document together and returns one score."""

    def __init__(
        self, recipe: Recipe, choice: RuntimeChoice, *, remote: RemoteModel | None = None, bulk_nice: int = 0
    ) -> None:
        if recipe.dimensions != 1:
            raise UnsupportedModelError(
                f"{recipe.name} is a classifier with {recipe.dimensions} labels: a reranker has exactly one, the score"
            )
        space = score_space(recipe.name, recipe.weights_sha256)
        super().__init__(recipe, choice, space, remote=remote, bulk_nice=bulk_nice)
        self._activation = _activation(recipe)

    def pairs(self, query: str, documents: Sequence[str]) -> TokenizedTexts:
        """Tokenize query and document together, truncated to the model's limit. Blocking."""
        return self.tokenizer.encode_pairs(query, documents)

    def compute(
        self, options: SessionOptions, rows: Sequence[np.ndarray], width: int, types: Sequence[np.ndarray] | None = None
    ) -> Vectors:
        """Compute the scores of one batch, float32 (b, 1)."""
        logits = super().compute(options, rows, width, types)
        if self._activation == _IDENTITY:
            return logits
        with np.errstate(all="ignore"):  # the limits of a large logit are 0 and 1
            scores: Vectors = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
        return scores


def _activation(recipe: Recipe) -> str:
    """Return the activation after the logit. The config may name it by its path in torch."""
    nested = recipe.config.get("sentence_transformers")
    named = (nested or {}).get("activation_fn") if isinstance(nested, dict) else None
    name = str(named or recipe.config.get("sbert_ce_default_activation_function") or _SIGMOID).rsplit(".", 1)[-1]
    if name not in {_SIGMOID, _IDENTITY}:
        raise UnsupportedModelError(f"{recipe.folder}: the activation {name!r} is not supported for a reranker")
    return name
