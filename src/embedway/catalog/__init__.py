"""Facts of models, as data."""

from embedway.catalog.load import DEFAULT_MODEL, Catalog, default_catalog
from embedway.catalog.types import ModelFacts, Task

__all__ = ["DEFAULT_MODEL", "Catalog", "ModelFacts", "Task", "default_catalog"]
