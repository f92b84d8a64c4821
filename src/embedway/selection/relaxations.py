"""Changes of the criteria that would include excluded models, and their wording where the criteria were set."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.errors import NoModelError
from embedway.selection.candidate import WEIGHTS_MISSING
from embedway.selection.requirements import QUALITY_SCORE, RUNS_HERE, quality_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from embedway.config import ModelBenchmark
    from embedway.selection.requirements import Reason
    from embedway.selection.scoring import ScoredModel

#: Maximum models that advice names; it counts the others.
_NAMED_MODELS = 3

_SECTION = "selection"
#: Place where criteria are set: arguments in Python, options of a command, or settings.
Place: TypeAlias = Literal["arguments", "options", "settings"]
#: Options of `embedway select`, by criterion; the others have the criterion's name.
_OPTIONS = {
    "require_multilingual": "multilingual",
    "require_local": "local",
    "require_fit": "fit",
    "licences": "licence",
    "languages": "language",
}
#: Speeds of an example of a benchmark.
_EXAMPLE_SPEEDS = {"avg_latency_ms": 100, "tokens_per_second": 1000}


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Changes of requirements that include models: each requirement with its new value, or None to drop it."""

    changes: tuple[tuple[str, Any], ...]
    #: The included models, the nearest first.
    rows: tuple[ScoredModel, ...]

    def __str__(self) -> str:
        """Return the change as advice, in Python's names."""
        return self.advice()

    @property
    def requirements(self) -> frozenset[str]:
        """Names of the changed requirements."""
        return frozenset(requirement for requirement, _ in self.changes)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the included models: one, if the change sets its quality."""
        named = self.rows[:1] if QUALITY_SCORE in self.requirements else self.rows
        return tuple(row.model for row in named)

    def advice(self, place: Place = "arguments", options: Collection[str] = ()) -> str:
        """Return the change as advice for a place where criteria are set.

        `options` are criteria that the command has as options, with `on_overflow` if that makes texts fit.
        """
        values: list[str] = []
        others: list[str] = []
        for requirement, to in self.changes:
            if requirement == RUNS_HERE:
                others.append(f"make one of these run here (for the first: {self.rows[0].candidate.lacks})")
            elif requirement == QUALITY_SCORE:
                others.append(_quality(self.rows[0], to, place))
            else:
                part = _criterion(requirement, to, place, options)
                (values if place == "arguments" or part.startswith("--") else others).append(part)
        joined = (", " if place == "arguments" else " ").join(values)
        left = len(self.models) - _NAMED_MODELS
        names = ", ".join(self.models[:_NAMED_MODELS]) + (f" and {left} more" if left > 0 else "")
        return f"{' and '.join([joined, *others] if joined else others)}: {names}"


def _criterion(requirement: str, to: Any, place: Place, options: Collection[str]) -> str:
    """Return the change of a criterion, to be typed where it is set."""
    must_fit = requirement == "require_fit" and "on_overflow" in options
    if place == "arguments":
        argument = f"{requirement}={'()' if requirement == 'languages' else _argument(to)}"
        return f'on_overflow="truncate", {argument}' if must_fit else argument
    if must_fit:
        return "--on-overflow truncate --no-fit"
    if to is None:
        given = requirement in options
        return f"without {_option(requirement) if given else f'the setting {_SECTION}.{requirement}'}"
    if place == "options" or requirement in options:
        return _option(requirement, to)
    return f"{_SECTION}.{requirement} = {_setting(to)}"


def _quality(row: ScoredModel, score: int, place: Place) -> str:
    """Return the advice to set a model's quality: in its benchmark, or with a whole one if it has none."""
    known = row.candidate.has_benchmark
    fields = {"quality_score": score} if known else _example(row.candidate.benchmark, score)
    example = "" if known else "; the speeds are examples"
    if place == "arguments":
        setting = f"config.with_benchmarks({ {row.model: fields}!r})"
    else:
        table = quality_table(row.model)
        inline = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        setting = f"{table}.{inline}" if known else f"{table} = {{{inline}}}"
    return f"set a quality (measure it, or take it from its board{example}), such as {setting}"


def _example(benchmark: ModelBenchmark, score: int) -> dict[str, Any]:
    """Return all required fields of a benchmark, from a model's facts."""
    price = benchmark.cost_per_million_tokens
    return {
        "model_name": benchmark.model_name,
        "provider": benchmark.provider,
        "quality_score": score,
        **_EXAMPLE_SPEEDS,
        "cost_per_million_tokens": "unknown" if price is None else str(price),
        **({"cost_confirmed": True} if price else {}),
        "max_context_length": benchmark.max_context_length,
        "embedding_dimensions": benchmark.embedding_dimensions,
    }


def _argument(to: Any) -> str:
    return repr(to) if to is None or isinstance(to, (bool, int, float, tuple)) else f'"{to}"'


def _setting(to: Any) -> str:
    if isinstance(to, bool):
        return str(to).lower()
    if isinstance(to, tuple):
        return f"[{', '.join(map(_setting, to))}]"
    return str(to) if isinstance(to, (int, float)) else f'"{to}"'


def _option(requirement: str, to: Any = None) -> str:
    name = _OPTIONS.get(requirement, requirement.replace("_", "-"))
    if to is None or isinstance(to, bool):
        return f"--{'no-' if to is False else ''}{name}"
    return f"--{name} {', '.join(to) if isinstance(to, tuple) else to}"


def no_model(table: Sequence[ScoredModel], place: Place = "arguments", options: Collection[str] = ()) -> NoModelError:
    """Return the error of a selection without a model, with advice for the place where criteria are set."""
    return NoModelError([one.advice(place, options) for one in find_relaxations(table)], table=table)


@dataclass(frozen=True, slots=True)
class _Excluded:
    """An excluded model, with the reasons that must be relaxed to select it."""

    row: ScoredModel
    reasons: tuple[Reason, ...]

    @property
    def requirements(self) -> tuple[str, ...]:
        return tuple(reason.requirement for reason in self.reasons)

    @property
    def effort(self) -> int:
        """Return what its changes take: criteria, a quality, a download, or more, such as a key."""
        if RUNS_HERE in self.requirements:
            return 2 if self.row.candidate.lacks.startswith(WEIGHTS_MISSING) else 3
        return 1 if QUALITY_SCORE in self.requirements else 0


def find_relaxations(table: Sequence[ScoredModel]) -> tuple[Relaxation, ...]:
    """Find the smallest changes that include excluded models, with these models.

    They are for the models that fail the fewest requirements: of those whose criteria alone must change, of those that
    run here, and of all. Changes that need the least effort are first, then those that include most models.
    """
    out = [row for row in table if row.reasons]
    # A table in which some model is selected needs no waiver of the default min_accuracy.
    waived = len(out) == len(table) and not any(all(reason.soft for reason in row.reasons) for row in out)
    every = [_Excluded(row, tuple(reason for reason in row.reasons if not (waived and reason.soft))) for row in out]
    nearest = (_fewest(one for one in every if one.effort <= most) for most in (0, 1, 3))
    groups: dict[tuple[Any, ...], list[_Excluded]] = {}
    for one in {one.row.model: one for some in nearest for one in some}.values():
        groups.setdefault((one.effort, *one.requirements), []).append(one)
    found = [(effort, _relax(group)) for (effort, *_), group in groups.items()]
    found.sort(key=lambda one: (one[0], -len(one[1].models), [name for name, _ in one[1].changes]))
    return tuple(one for _, one in found)


def _fewest(excluded: Iterable[_Excluded]) -> list[_Excluded]:
    listed = list(excluded)
    fewest = min((len(one.reasons) for one in listed), default=0)
    return [one for one in listed if len(one.reasons) == fewest]


def _relax(group: Sequence[_Excluded]) -> Relaxation:
    """Return the smallest change that includes a model of a group that fails the same requirements."""
    # A model below the default min_accuracy is included only if none reaches it.
    group = [one for one in group if len(one.reasons) == len(one.row.reasons)] or group
    nearest = min(group, key=lambda one: [_change(reason) for reason in one.reasons])
    least = [_change(reason) for reason in nearest.reasons]
    admitted = [one.row for one in group if all(map(operator.le, map(_change, one.reasons), least))]
    return Relaxation(tuple((reason.requirement, reason.would_pass) for reason in nearest.reasons), tuple(admitted))


def _change(reason: Reason) -> tuple[bool, Any]:
    """Return the size of the change that a model needs, as a sort key. Dropping a requirement is the largest."""
    value = reason.would_pass
    if value is None:
        return True, 0
    return False, -value if reason.requirement.startswith("min_") else value
