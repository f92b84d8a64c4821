"""Text to vectors with the right model, within a budget, fast, and never in the wrong space.

The names below are imported when they are first used, so that `import embedway` costs nothing.
"""

from embedway._version import __version__

# Nothing of the standard library is imported here: with `python -m embedway` this runs while the working directory is
# still on the module path (see __main__.py). Type checkers take the name for typing's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from embedway import errors
    from embedway._embedder import AsyncEmbedder
    from embedway._sync import Embedder
    from embedway.config import Config, ModelBenchmark
    from embedway.errors import EmbedwayError
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection
    from embedway.types import EmbedResult, ModelDescription, Plan, Receipt, RerankResult, Space, Truncation

__all__ = [
    "AsyncEmbedder",
    "Config",
    "EmbedResult",
    "Embedder",
    "EmbedwayError",
    "ModelBenchmark",
    "ModelDescription",
    "ModelSelectionCriteria",
    "Plan",
    "Receipt",
    "RerankResult",
    "Selection",
    "Space",
    "Truncation",
    "__version__",
    "errors",
]

_HOMES = {
    "AsyncEmbedder": "_embedder",
    "Config": "config",
    "EmbedResult": "types",
    "Embedder": "_sync",
    "EmbedwayError": "errors",
    "ModelBenchmark": "config",
    "ModelDescription": "types",
    "ModelSelectionCriteria": "selection.criteria",
    "Plan": "types",
    "Receipt": "types",
    "RerankResult": "types",
    "Selection": "selection.scoring",
    "Space": "types",
    "Truncation": "types",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'embedway' has no attribute {name!r}")
    import importlib  # noqa: PLC0415  see above

    value = getattr(importlib.import_module(f"embedway.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
