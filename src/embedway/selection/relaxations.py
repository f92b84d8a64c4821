"""Changes of the criteria that would include excluded models, and their wording where the criteria were set."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.errors import NoModelError
from embedway.selection.requirements import QUALITY_SCORE, RUNS_HERE, quality_setting

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.selection.requirements import Reason
    from embedway.selection.scoring import ScoredModel

#: Maximum models that advice names; it counts the others.
_NAMED_MODELS = 3

_SECTION = "selection"
#: Place where criteria are set: arguments in Python, options of a command, or settings.
Place: TypeAlias = Literal["arguments", "options", "settings"]
_INTRODUCTIONS: dict[Place, str] = {"arguments": "criteria", "options": "options", "settings": "settings"}
#: Options of `embedway select`, by criterion; the others have the criterion's name.
_OPTIONS = {
    "require_multilingual": "multilingual",
    "require_local": "local",
    "require_fit": "fit",
    "licences": "licence",
    "languages": "language",
}


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Changes of requirements that include models: each requirement with its new value, or None to drop it."""

    changes: tuple[tuple[str, Any], ...]
    models: tuple[str, ...]
    #: Requirement that the first model lacks to run here; empty if none.
    lacks: str = ""

    def __str__(self) -> str:
        """Return the change as advice, in Python's names."""
        return self.advice()

    def advice(self, place: Place = "arguments", options: Collection[str] = ()) -> str:
        """Return the change as advice for a place where criteria are set; `options` are criteria given as options."""
        parts = [self._part(requirement, to, place, options) for requirement, to in self.changes]
        others = len(self.models) - _NAMED_MODELS
        names = ", ".join(self.models[:_NAMED_MODELS]) + (f" and {others} more" if others > 0 else "")
        return f"{' and '.join(parts)}: {names}"

    def _part(self, requirement: str, to: Any, place: Place, options: Collection[str]) -> str:
        if requirement == RUNS_HERE:
            return f"make one of these run here (for the first: {self.lacks})"
        if requirement == QUALITY_SCORE:
            return f"set a quality for one of these, such as {quality_setting(self.models[0])} = 60"
        if place == "arguments":
            return f"with {requirement}={'()' if requirement == 'languages' else _argument(to)}"
        if to is None:
            given = requirement in options
            return f"without {_option(requirement) if given else f'the setting {_SECTION}.{requirement}'}"
        if place == "options" or requirement in options:
            return f"with {_option(requirement, to)}"
        return f"with {_SECTION}.{requirement} = {_setting(to)}"


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
    advice = [one.advice(place, options) for one in find_relaxations(table)]
    return NoModelError(advice, table=table, changes=_INTRODUCTIONS[place])


def find_relaxations(table: Sequence[ScoredModel]) -> tuple[Relaxation, ...]:
    """Find the smallest change of each requirement that alone excludes models, with the models that it includes.

    The change that includes most models is first. If every model fails several requirements, the changes are for the
    models that fail the fewest.
    """
    out = [row for row in table if row.reasons]
    fewest = min((len(row.reasons) for row in out), default=0)
    lacking: dict[tuple[str, ...], list[ScoredModel]] = {}
    for row in out:
        if len(row.reasons) == fewest:
            lacking.setdefault(tuple(reason.requirement for reason in row.reasons), []).append(row)
    found = []
    for requirements, rows in lacking.items():
        nearest = min(rows, key=lambda row: [_change(reason) for reason in row.reasons])
        least = [_change(reason) for reason in nearest.reasons]
        admitted = [row for row in rows if all(map(operator.le, map(_change, row.reasons), least))]
        changes = zip(requirements, (reason.would_pass for reason in nearest.reasons), strict=True)
        found.append(Relaxation(tuple(changes), tuple(row.model for row in admitted), admitted[0].candidate.lacks))
    return tuple(sorted(found, key=lambda one: (-len(one.models), [requirement for requirement, _ in one.changes])))


def _change(reason: Reason) -> tuple[bool, Any]:
    """Return the size of the change that a model needs, as a sort key. Dropping a requirement is the largest."""
    value = reason.would_pass
    if value is None:
        return True, 0
    return False, -value if reason.requirement.startswith("min_") else value
