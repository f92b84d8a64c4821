"""Embeddings from local and hosted models, with a cache, budgets, and checked vector spaces.

Names are imported at their first use, so that `import embedway` is cheap.
"""

from embedway._version import __version__

# Nothing of the standard library is imported here: with `python -m embedway` this runs while the working directory is
# still on the module path (see __main__.py). Type checkers take the name for typing's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from embedway import errors
    from embedway._admin import AsyncCacheAdmin, AsyncModelAdmin, AsyncPinAdmin
    from embedway._embedder import AsyncEmbedder
    from embedway._options import EmbedOptions
    from embedway._sync import Embedder
    from embedway._sync_admin import CacheAdmin, ModelAdmin, PinAdmin
    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult, ModelStats
    from embedway.config import Config, ModelBenchmark
    from embedway.errors import EmbedwayError
    from embedway.ledger.pins import Pin
    from embedway.local.backend import SessionOptions
    from embedway.local.tune import TuneReport, TuneRow
    from embedway.money import Amount
    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.candidate import Candidate, TokenEstimate
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.requirements import Reason
    from embedway.selection.scoring import ScoredModel, Selection
    from embedway.space import InputType, Pooling, Space
    from embedway.telemetry.hooks import BaseHook, Hook
    from embedway.telemetry.operations import (
        AttemptDetails,
        BatchDetails,
        BudgetRefusalDetails,
        BudgetWarningDetails,
        CacheDetails,
        CircuitDetails,
        Details,
        LoadDetails,
        Operation,
        Outcome,
        RequestDetails,
        ReservationDetails,
        ValidationDetails,
        WaitDetails,
    )
    from embedway.types import (
        Averaged,
        EmbedResult,
        EncodedText,
        ModelDescription,
        Overflow,
        PlainTokenizer,
        Plan,
        Receipt,
        RerankResult,
        Selected,
        Texts,
        Timing,
        Truncation,
        Vectors,
    )
    from embedway.weights.types import ProgressSink

__all__ = [
    "Amount",
    "AsyncCacheAdmin",
    "AsyncEmbedder",
    "AsyncModelAdmin",
    "AsyncPinAdmin",
    "AttemptDetails",
    "Averaged",
    "BaseHook",
    "BatchDetails",
    "BudgetRefusalDetails",
    "BudgetWarningDetails",
    "CacheAdmin",
    "CacheCheck",
    "CacheDetails",
    "CacheStats",
    "Candidate",
    "CircuitDetails",
    "ClearResult",
    "Config",
    "Details",
    "EmbedOptions",
    "EmbedResult",
    "Embedder",
    "EmbedwayError",
    "EncodedText",
    "Hook",
    "InputType",
    "LoadDetails",
    "ModelAdmin",
    "ModelBenchmark",
    "ModelDescription",
    "ModelSelectionCriteria",
    "ModelStats",
    "Operation",
    "Outcome",
    "Overflow",
    "Pin",
    "PinAdmin",
    "PlainTokenizer",
    "Plan",
    "Pooling",
    "ProgressSink",
    "Reason",
    "Receipt",
    "RequestDetails",
    "RerankResult",
    "ReservationDetails",
    "ScoredModel",
    "Selected",
    "Selection",
    "SessionOptions",
    "Space",
    "TextAnalysis",
    "Texts",
    "Timing",
    "TokenEstimate",
    "Truncation",
    "TuneReport",
    "TuneRow",
    "ValidationDetails",
    "Vectors",
    "WaitDetails",
    "__version__",
    "errors",
]

_HOMES = {
    "Amount": "money",
    "AsyncCacheAdmin": "_admin",
    "AsyncEmbedder": "_embedder",
    "AsyncModelAdmin": "_admin",
    "AsyncPinAdmin": "_admin",
    "AttemptDetails": "telemetry.operations",
    "Averaged": "types",
    "BaseHook": "telemetry.hooks",
    "BatchDetails": "telemetry.operations",
    "BudgetRefusalDetails": "telemetry.operations",
    "BudgetWarningDetails": "telemetry.operations",
    "CacheAdmin": "_sync_admin",
    "CacheCheck": "cache.stats",
    "CacheDetails": "telemetry.operations",
    "CacheStats": "cache.stats",
    "Candidate": "selection.candidate",
    "CircuitDetails": "telemetry.operations",
    "ClearResult": "cache.stats",
    "Config": "config",
    "Details": "telemetry.operations",
    "EmbedOptions": "_options",
    "EmbedResult": "types",
    "Embedder": "_sync",
    "EmbedwayError": "errors",
    "EncodedText": "types",
    "Hook": "telemetry.hooks",
    "InputType": "space",
    "LoadDetails": "telemetry.operations",
    "ModelAdmin": "_sync_admin",
    "ModelBenchmark": "config",
    "ModelDescription": "types",
    "ModelSelectionCriteria": "selection.criteria",
    "ModelStats": "cache.stats",
    "Operation": "telemetry.operations",
    "Outcome": "telemetry.operations",
    "Overflow": "types",
    "Pin": "ledger.pins",
    "PinAdmin": "_sync_admin",
    "PlainTokenizer": "types",
    "Plan": "types",
    "Pooling": "space",
    "ProgressSink": "weights.types",
    "Reason": "selection.requirements",
    "Receipt": "types",
    "RequestDetails": "telemetry.operations",
    "RerankResult": "types",
    "ReservationDetails": "telemetry.operations",
    "ScoredModel": "selection.scoring",
    "Selected": "types",
    "Selection": "selection.scoring",
    "SessionOptions": "local.backend",
    "Space": "space",
    "TextAnalysis": "selection.analysis",
    "Texts": "types",
    "Timing": "types",
    "TokenEstimate": "selection.candidate",
    "Truncation": "types",
    "TuneReport": "local.tune",
    "TuneRow": "local.tune",
    "ValidationDetails": "telemetry.operations",
    "Vectors": "types",
    "WaitDetails": "telemetry.operations",
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
