"""Quality of an embedder's vectors: `embedder.quality`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway._public import public

if TYPE_CHECKING:
    from embedway._engine import Engines
    from embedway.config import Config


@public
class AsyncQualityAdmin:
    """Checks of vectors, and comparisons of models with their baselines: `embedder.quality`."""

    def __init__(self, engines: Engines, config: Config, default_model: str) -> None:
        self._engines = engines
        self._config = config
        self._default_model = default_model
