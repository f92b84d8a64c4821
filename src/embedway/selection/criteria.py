"""The criteria of a selection: requirements on a model, and the weights of accuracy, speed and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from embedway._public import public
from embedway.errors import UsageError
from embedway.money import to_nanousd, usd
from embedway.text import shown

if TYPE_CHECKING:
    from embedway.money import Amount

Preset: TypeAlias = Literal["fast", "balanced", "best", "cheap", "private"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

#: Minimum accuracy in presets, below the class's default of 0.6, so that the default model (0.563) is a candidate.
_PRESET_ACCURACY = 0.5
#: Maximum sum of weights; scores overflow above it.
_MOST_WEIGHT = 1e300


@public
@dataclass(frozen=True, slots=True)
class ModelSelectionCriteria:
    """Requirements on a model, and the weights of accuracy, speed and cost. None means no requirement."""

    accuracy_weight: float = 0.4
    speed_weight: float = 0.3
    cost_weight: float = 0.3
    #: Maximum dollars per million tokens; 0 allows only free models.
    max_cost_per_million: Amount | None = None
    require_multilingual: bool = False
    #: Only models that run on this machine, so that no text leaves it.
    require_local: bool = False
    #: Minimum quality score divided by 100. The presets require 0.5, which the default model meets.
    min_accuracy: float = 0.6
    max_latency_ms: float | None = None
    #: Minimum tokens per text that the model must accept.
    min_context: int | None = None
    #: Vector size that the model must be trained for.
    dimensions: int | None = None
    #: BCP 47 tags; the model must support all of them.
    languages: tuple[str, ...] = ()
    #: SPDX identifiers, case-insensitive; the model's licence must be one of them.
    licences: tuple[str, ...] = ()
    #: Maximum dollars for embedding each text once.
    max_total_cost: Amount | None = None
    #: The model must support the languages of the texts, as far as both are known.
    match_languages: bool = True
    #: The longest text must fit the model; for texts that are not split into chunks.
    require_fit: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError, which names the field, for an invalid value."""
        weights = (self.accuracy_weight, self.speed_weight, self.cost_weight)
        for name, weight in zip(("accuracy_weight", "speed_weight", "cost_weight"), weights, strict=True):
            if not _is_number(weight) or weight < 0:
                raise UsageError(f"{name} is {shown(weight)}; it must be a number of at least 0")
        if not any(weights):
            raise UsageError("accuracy_weight, speed_weight and cost_weight are all 0; one must be greater than 0")
        if sum(map(float, weights)) > _MOST_WEIGHT:
            raise UsageError("accuracy_weight, speed_weight and cost_weight are too large; divide all by one number")
        self._check_limits()
        for name in ("require_multilingual", "require_local", "match_languages", "require_fit"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {shown(getattr(self, name))}; it must be True or False")
        for name in ("languages", "licences"):
            value = getattr(self, name)
            listed = None if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
            if listed is None or not all(isinstance(one, str) for one in listed):
                raise UsageError(f"{name} is {shown(value)}; it must be a list of strings")
            object.__setattr__(self, name, listed)

    def _check_limits(self) -> None:
        if not _is_number(self.min_accuracy) or not 0 <= self.min_accuracy <= 1:
            hint = ", a quality score divided by 100" if _is_number(self.min_accuracy) else ""
            raise UsageError(f"min_accuracy is {shown(self.min_accuracy)}; it must be from 0 to 1{hint}")
        if self.max_latency_ms is not None and (not _is_number(self.max_latency_ms) or self.max_latency_ms <= 0):
            raise UsageError(f"max_latency_ms is {shown(self.max_latency_ms)}; it must be greater than 0")
        for name in ("min_context", "dimensions"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} is {shown(value)}; it must be an integer of at least 1")
        for name in ("max_cost_per_million", "max_total_cost"):
            if getattr(self, name) is not None:
                to_nanousd(getattr(self, name), name=name)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelSelectionCriteria:
        """Return the criteria of a preset, with changes. Raises UsageError for an unknown preset."""
        if name not in PRESETS:
            raise UsageError(f"criteria is {shown(name)}, which is not a preset; available: {', '.join(PRESETS)}")
        unknown = [change for change in changes if change not in cls.__dataclass_fields__]
        if unknown:
            fields = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"{shown(unknown[0])} is not a criterion; available: {fields}")
        return cls(**{"min_accuracy": _PRESET_ACCURACY, **_PRESETS[name], **changes})

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        found = asdict(self)
        for name in ("max_cost_per_million", "max_total_cost"):
            found[name] = None if found[name] is None else usd(to_nanousd(found[name], name=name))
        return {**found, "languages": list(self.languages), "licences": list(self.licences)}


_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"accuracy_weight": 0.2, "speed_weight": 0.7, "cost_weight": 0.1},
    "balanced": {"accuracy_weight": 0.4, "speed_weight": 0.3, "cost_weight": 0.3},
    "best": {"accuracy_weight": 1.0, "speed_weight": 0.0, "cost_weight": 0.0},
    "cheap": {"accuracy_weight": 0.2, "speed_weight": 0.1, "cost_weight": 0.7},
    "private": {"accuracy_weight": 0.6, "speed_weight": 0.4, "cost_weight": 0.0, "require_local": True},
}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False
