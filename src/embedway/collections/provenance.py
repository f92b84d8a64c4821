"""Facts in a record about what computed the vectors."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from embedway.catalog.load import default_catalog
from embedway.catalog.types import ModelFacts
from embedway.collections.record import MadeBy
from embedway.local.cpu import facts as cpu_facts

if TYPE_CHECKING:
    from embedway.types import ModelDescription

#: Libraries whose versions may change the last bits of a vector.
_LIBRARIES = ("numpy", "onnxruntime", "openvino", "tokenizers")


def made_by(described: ModelDescription) -> MadeBy:
    """Return versions of embedway, its libraries and the runtime, and the name of the CPU."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return MadeBy(runtime=described.runtime, libraries=versions, cpu=cpu_facts().name)


def catalog_facts(model: str) -> dict[str, Any]:
    """Return what the catalog knows about a model, as JSON types; empty for a model that it does not list."""
    catalog = default_catalog()
    facts = catalog.get(model) if model in catalog else None
    if not isinstance(facts, ModelFacts):
        return {}
    return {
        "name": facts.name,
        "licence": facts.licence,
        "languages": list(facts.languages),
        "max_tokens": facts.max_tokens,
        "dimensions": facts.dimensions,
        "pooling": facts.pooling,
        "normalized": facts.normalized,
        "parameters": facts.parameters,
        "revision": facts.weights.revision,
    }
