"""What is known of each model, as data."""

from __future__ import annotations

from embedway.catalog.load import DEFAULT_MODEL, Catalog, default_catalog
from embedway.catalog.types import ModelFacts, Source, Task, WeightFile, Weights, Wheel

__all__ = [
    "DEFAULT_MODEL",
    "Catalog",
    "ModelFacts",
    "Source",
    "Task",
    "WeightFile",
    "Weights",
    "Wheel",
    "default_catalog",
]
