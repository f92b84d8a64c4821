"""Settings from the arguments of a call: dotted keys, in which names of models, routes and budgets may contain dots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.config.environment import known_tree
from embedway.config.layers import BENCHMARKS, NAMED, Layer, Problem, set_path
from embedway.config.plain_values import plain_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedway.config.environment import Tree

    KeyPath = tuple[str, ...]

_ARGUMENTS = "arguments"


def arguments_layer(
    overrides: Mapping[str, Any] | None, kinds: Mapping[str, frozenset[type]]
) -> tuple[Layer, tuple[Problem, ...]]:
    """Return the settings of a call's overrides, and an error for each key that is set twice.

    Raises ConfigError for values that are not plain, at any depth.
    """
    tree = known_tree(kinds)
    reader = _Reader()
    rule = "must be a mapping of keys such as run.overlap to values"
    for key, value in ({} if overrides is None else plain_table(overrides, rule)).items():
        reader.add(_split(key, value, tree), value)
    return Layer(_ARGUMENTS, reader.values), tuple(reader.problems)


@dataclass(slots=True)
class _Reader:
    """Values by key, the paths of those that are set, and an error for each one that is set again."""

    values: dict[str, Any] = field(default_factory=dict)
    leaves: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, value: Any) -> None:
        """Set a value or each value of a table, unless it, a part of it or a table around it is set."""
        for leaf, item in _leaves(path, value):
            above = (leaf[:count] for count in range(1, len(leaf) + 1))
            is_table = isinstance(item, dict)
            below = not is_table and any(one[: len(leaf)] == leaf for one in self.leaves)
            if below or any(one in self.leaves for one in above):
                self.problems.append(Problem(_ARGUMENTS, ".".join(leaf), "is set twice; set it once"))
                continue
            if is_table:
                _make_table(self.values, leaf)
                continue
            self.leaves.add(leaf)
            set_path(self.values, leaf, item)


def _make_table(values: dict[str, Any], path: KeyPath) -> None:
    for name in path:
        values = values.setdefault(name, {})


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Iterate over the values of a table with their paths; an empty table is a value."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for name, item in value.items():
        yield from _leaves((*path, name), item)


def _split(key: str, value: Any, tree: Tree) -> KeyPath:
    """Split a dotted key at the dots that are not part of a user's name."""
    parts = tuple(key.split("."))
    found = _match(parts, tree, is_table=isinstance(value, dict))
    if found is not None:
        return found
    # An unknown field: the name is all before it.
    start = 2 if key.startswith(BENCHMARKS) else 1 if parts[0] in NAMED else 0
    if start and len(parts) > start + 2:
        return (*parts[:start], ".".join(parts[start:-1]), parts[-1])
    return parts


def _match(parts: KeyPath, tree: Tree, *, is_table: bool) -> KeyPath | None:
    """Return the path of a known key; None if the key is unknown."""
    if not parts:
        return () if is_table or not isinstance(tree, dict) or "*" in tree else None
    if not isinstance(tree, dict):
        return None
    if parts[0] in tree:
        rest = _match(parts[1:], tree[parts[0]], is_table=is_table)
        return None if rest is None else (parts[0], *rest)
    for count in range(1, len(parts) + 1) if "*" in tree else ():
        rest = _match(parts[count:], tree["*"], is_table=is_table)
        if rest is not None:
            return (".".join(parts[:count]), *rest)
    return None
