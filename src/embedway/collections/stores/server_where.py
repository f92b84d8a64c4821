"""Conditions, in forms that servers need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedway.collections.where import And, Compare, In, Not, Or

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.where import Condition, Operator


_OPPOSITE: Final[Mapping[Operator, Operator]] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def has_nul(where: Condition) -> bool:
    """Return whether a text of a condition has a NUL, which some databases refuse."""
    match where:
        case And(parts) | Or(parts):
            return any(map(has_nul, parts))
        case Not(part):
            return has_nul(part)
        case In(_, values):
            return any(isinstance(value, str) and "\0" in value for value in values)
        case Compare(_, _, value):
            return isinstance(value, str) and "\0" in value
    return False


def push_not_down(where: Condition) -> Condition:
    """Return the same condition with `Not` only before `In`, `IsNull` and `contains`.

    A row whose column is null meets neither a comparison nor its opposite, as in SQL.
    """
    match where:
        case And(parts):
            return And(tuple(map(push_not_down, parts)))
        case Or(parts):
            return Or(tuple(map(push_not_down, parts)))
        case Not(part):
            return _negated(part)
    return where


def _negated(where: Condition) -> Condition:
    match where:
        case And(parts):
            return Or(tuple(map(_negated, parts)))
        case Or(parts):
            return And(tuple(map(_negated, parts)))
        case Not(part):
            return push_not_down(part)
        case Compare(column, operator, value) if operator in _OPPOSITE:
            return Compare(column, _OPPOSITE[operator], value)
    return Not(where)
