"""The criteria of a selection: requirements on a model, and the weights of accuracy, speed and cost."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from embedway._public import public
from embedway.arguments import as_list, check_flag, check_integer, is_a
from embedway.catalog.languages import explain_wrong_tag
from embedway.errors import UsageError
from embedway.money import as_number, to_nanousd, usd
from embedway.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.money import Amount

Preset: TypeAlias = Literal["fast", "balanced", "best", "cheap", "private"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

#: Default of `min_accuracy`. If no model reaches it, the best model below it is selected, with a warning.
DEFAULT_MIN_ACCURACY = 0.6
#: Value of `licences` that admits every licence.
ANY_LICENCE = "any"
_WEIGHTS = ("accuracy_weight", "speed_weight", "cost_weight")
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
    #: Minimum quality score divided by 100. If no model that meets the other requirements reaches the default, the best
    #: of them is selected, with a warning; any other minimum excludes.
    min_accuracy: float = DEFAULT_MIN_ACCURACY
    max_latency_ms: float | None = None
    #: Minimum tokens per text that the model must accept.
    min_context: int | None = None
    #: Vector size that the model must be trained for.
    dimensions: int | None = None
    #: BCP 47 tags; the model must support all of them.
    languages: tuple[str, ...] = ()
    #: SPDX identifiers, in any case; the model's licence must be one of them, or be a choice (`OR`) that has one of
    #: them. Empty for all except non-commercial ones, `any` for all.
    licences: tuple[str, ...] = ()
    #: Maximum dollars for embedding each text once.
    max_total_cost: Amount | None = None
    #: The model must support the languages of the texts, as far as both are known.
    match_languages: bool = True
    #: The model must read the longest text completely; chunks always fit, and `on_overflow="mean"` reads all windows.
    require_fit: bool = True
    #: Names or aliases of the models that may be selected, case-insensitive; empty for all.
    models: tuple[str, ...] = ()
    #: Compare quality scores of different scales (`ModelBenchmark.quality_scale`).
    any_scale: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError, which names the field, for an invalid value."""
        weights = [self._check_number(name, "a number of at least 0", lambda weight: weight >= 0) for name in _WEIGHTS]
        if not any(weights):
            raise UsageError("accuracy_weight, speed_weight and cost_weight are all 0; one must be greater than 0")
        if sum(map(float, weights)) > _MOST_WEIGHT:
            raise UsageError("accuracy_weight, speed_weight and cost_weight are too large; divide all by one number")
        self._check_limits()
        for name in ("languages", "licences", "models"):
            given = getattr(self, name)
            listed = () if is_a(given, str) else as_list(given, name, "strings")
            if is_a(given, str) or not all(is_a(one, str) for one in listed):
                raise UsageError(f"{name} is {shown(given)}; it must be a list of strings")
            object.__setattr__(self, name, tuple(str.__str__(one) for one in listed))
        for tag in self.languages:
            if wrong := explain_wrong_tag(tag):
                raise UsageError(f"one of languages is {shown(tag)}, {wrong}")
        for name in ("require_multilingual", "require_local", "match_languages", "require_fit", "any_scale"):
            object.__setattr__(self, name, check_flag(getattr(self, name), name))

    def _check_limits(self) -> None:
        self._check_number("min_accuracy", "from 0 to 1, a score divided by 100", lambda number: 0 <= number <= 1)
        if self.max_latency_ms is not None:
            self._check_number("max_latency_ms", "greater than 0", lambda number: number > 0)
        for name in ("min_context", "dimensions"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(getattr(self, name), name))
        for name in ("max_cost_per_million", "max_total_cost"):
            if (amount := getattr(self, name)) is not None:
                to_nanousd(amount, name=name)
                plain = str.__str__(amount) if is_a(amount, str) else as_number(amount)
                object.__setattr__(self, name, amount if plain is None else plain)

    def _check_number(self, name: str, rule: str, is_right: Callable[[float], bool]) -> float:
        """Replace a field with a plain number. Raises UsageError unless it is finite and `is_right` accepts it."""
        number = as_number(getattr(self, name))
        if number is None or abs(number) > sys.float_info.max or not is_right(number):
            raise UsageError(f"{name} is {shown(getattr(self, name))}; it must be {rule}")
        object.__setattr__(self, name, number)
        return number

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelSelectionCriteria:
        """Return the criteria of a preset, with changes. Raises UsageError for an unknown preset."""
        name = str.__str__(name) if is_a(name, str) else name
        if not is_a(name, str) or name not in PRESETS:
            raise UsageError(f"criteria is {shown(name)}, which is not a preset; available: {', '.join(PRESETS)}")
        unknown = [change for change in changes if change not in cls.__dataclass_fields__]
        if unknown:
            fields = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"{shown(unknown[0])} is not a criterion; available: {fields}")
        return cls(**{**_PRESETS[name], **changes})

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        found = asdict(self)
        for name in ("max_cost_per_million", "max_total_cost"):
            found[name] = None if found[name] is None else usd(to_nanousd(found[name], name=name))
        return {**found, **{name: list(getattr(self, name)) for name in ("languages", "licences", "models")}}


_PRESETS: dict[str, dict[str, Any]] = {
    # The fastest models have accuracies between 0.5 and 0.6.
    "fast": {"accuracy_weight": 0.2, "speed_weight": 0.7, "cost_weight": 0.1, "min_accuracy": 0.5},
    "balanced": {},
    "best": {"accuracy_weight": 1.0, "speed_weight": 0.0, "cost_weight": 0.0},
    "cheap": {"accuracy_weight": 0.2, "speed_weight": 0.1, "cost_weight": 0.7},
    "private": {"accuracy_weight": 0.6, "speed_weight": 0.4, "cost_weight": 0.0, "require_local": True},
}
