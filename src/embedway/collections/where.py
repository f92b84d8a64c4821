"""Conditions on columns: values of `--where`, parsed once, and translated by each store.

A condition is a tree of `Compare`, `In`, `IsNull`, `And`, `Or` and `Not`. A row whose column is null matches only
`IsNull`, as in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from embedway.collections.values import Value

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]


@dataclass(frozen=True, slots=True)
class Compare:
    """`column operator value`. `contains` is membership of a text in a column of lists."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    """`column in (values)`."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column is null`."""

    column: str


@dataclass(frozen=True, slots=True)
class And:
    """All conditions hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """A condition holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    part: Condition


Condition: TypeAlias = Compare | In | IsNull | And | Or | Not
