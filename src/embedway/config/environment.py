"""Settings from `EMBEDWAY_SECTION__KEY` variables, and from tables in `EMBEDWAY_SECTION`, as JSON or TOML."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from embedway.config.layers import ENVIRONMENT, NAMED, JsonTable, Layer, Problem, duplicate_keys, set_path
from embedway.config.types import FALSE, TRUE
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    #: Nested names of settings; `*` replaces a user's name. A leaf is the allowed types of its value.
    Tree: TypeAlias = dict[str, "Tree"] | frozenset[type]

PREFIX = "EMBEDWAY_"
#: Maximum number of parts in a variable's name. Keys have at most four.
_MOST_PARTS = 10
#: Maximum depth of a value. Settings have at most four.
_DEEPEST = 20
#: Maximum characters of an unknown variable or key that an error repeats.
_SHOWN = 60
_WORDS = dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,9})?", re.IGNORECASE)


def environment_layer(environ: Mapping[str, str], kinds: Mapping[str, frozenset[type]]) -> tuple[Layer, list[Problem]]:
    """Read settings from variables. `kinds` maps known keys to their allowed types.

    An empty variable means None where None is allowed, and else counts as unset.
    """
    reader = _Reader(known_tree(kinds))
    names = [(name.removeprefix(PREFIX).lower().split("__"), name) for name in environ if name.startswith(PREFIX)]
    for parts, name in sorted(names, key=lambda item: (len(item[0]), item)):
        reader.add(tuple(parts), name, environ[name].strip())
    return Layer(ENVIRONMENT, reader.values, reader.variables), reader.problems


def with_names_of(layer: Layer, files: Sequence[Layer]) -> Layer:
    """Return the environment's layer with names of budgets, routes and models spelled as in the files.

    Names from variables are lower case.
    """
    renamed = {}
    for table in NAMED:
        tables = [one.values.get(table) for one in files]
        written = {name for one in tables if isinstance(one, dict) for name in one}
        own = layer.values.get(table)
        for name in own if isinstance(own, dict) else ():
            same = [other for other in written if other.casefold() == name.casefold()]
            if name not in written and len(same) == 1:
                renamed[table, name] = same[0]
    if not renamed:
        return layer
    values = {
        table: {renamed.get((table, name), name): value for name, value in names.items()} if table in NAMED else names
        for table, names in layer.values.items()
    }
    variables = dict(layer.variables)
    for (table, name), other in renamed.items():
        for key in [key for key in variables if f"{key}.".startswith(f"{table}.{name}.")]:
            variables[f"{table}.{other}{key.removeprefix(f'{table}.{name}')}"] = variables.pop(key)
    return replace(layer, values=values, variables=variables)


def known_tree(kinds: Mapping[str, frozenset[type]]) -> dict[str, Tree]:
    """Return the known keys as nested tables."""
    tree: dict[str, Tree] = {}
    for key, kind in kinds.items():
        # A table of strings, such as the options of a route, has no names of its own.
        set_path(tree, tuple(key.split(".")), {"*": frozenset({str})} if dict in kind else kind)
    return tree


@dataclass(slots=True)
class _Reader:
    """Values of variables, and the variable of each key. Tables are added before their single keys."""

    tree: Tree
    values: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    #: Variable of each value that is not a table.
    leaves: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, parts: tuple[str, ...], name: str, text: str) -> None:
        """Parse the text of a variable, and set its key or the keys of its table."""
        if len(parts) > _MOST_PARTS or has_surrogate(name):
            self._refuse(".".join(parts)[:_SHOWN], "is not a setting", f"{name[:_SHOWN]}…")
            return
        key, kind = ".".join(parts), _find(self.tree, parts)
        may_be_none = isinstance(kind, frozenset) and type(None) in kind
        if not text and kind is not None and not may_be_none:
            return
        if has_surrogate(text) and not (isinstance(kind, frozenset) and Path in kind):
            self._refuse(key, "is not UTF-8", name)
            return
        if not isinstance(kind, dict):
            try:
                self._set(parts, _parse(text, kind or frozenset()), name)
            except ValueError as error:
                self._refuse(key, str(error), name)
            return
        try:
            table = _parse_table(text)
        except ValueError as error:
            self._refuse(key, str(error), name)
            return
        self.problems += (
            replace(one, message=f"{one.message} (set by {name})")
            for one in duplicate_keys(table, ENVIRONMENT, f"{key}.")
        )
        for path, value in _paths(table, parts):
            self._set(path, value, name)

    def _set(self, path: tuple[str, ...], value: Any, name: str) -> None:
        """Set a key; another variable must not set it, a table above it, or a key below it."""
        tables = [path[:count] for count in range(1, len(path) + 1)]
        first = next((self.leaves[table] for table in tables if table in self.leaves), None)
        is_empty = isinstance(value, dict)  # as tables are split into their keys
        if first is None and not is_empty:
            first = self.variables.get(".".join(path))
        if first is not None:
            self._refuse(".".join(path), f"is set twice, by {first} and {name}; set it once")
            return
        if is_empty and ".".join(path) in self.variables:
            return
        set_path(self.values, path, value)
        if not is_empty:
            self.leaves[path] = name
        for table in tables:  # for errors such as a missing field
            self.variables.setdefault(".".join(table), name)

    def _refuse(self, key: str, message: str, name: str = "") -> None:
        self.problems.append(Problem(ENVIRONMENT, key, f"{message} (set by {name})" if name else message))


def _find(tree: Tree, parts: tuple[str, ...]) -> Tree | None:
    """Return the table or the types of a key; None for an unknown one."""
    for part in parts:
        if not isinstance(tree, dict):
            return None
        found = tree.get(part, tree.get("*"))
        if found is None:
            return None
        tree = found
    return tree


def _paths(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Iterate over the values of a table with their paths; an empty table is a value."""
    if not table:
        yield above, {}
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _paths(value, (*above, name))
        else:
            yield (*above, name), value


def _parse(text: str, kind: frozenset[type]) -> Any:
    """Convert a variable's text to a plain value. Invalid text stays text, and the key's rule rejects it."""
    if type(None) in kind and text.lower() in {"", "none"}:
        return None
    if tuple in kind:
        return _parse_list(text, kind)
    if bool in kind:
        return _WORDS.get(text.lower(), text)
    return _parse_number(text, kind)


def _parse_number(text: str, kind: frozenset[type]) -> Any:
    if int in kind and _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if float in kind and _FLOAT.fullmatch(text) else text


def _parse_list(text: str, kind: frozenset[type]) -> Any:
    if text.startswith("["):
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not a JSON list: {error.msg} at character {error.pos + 1}") from None
        except (ValueError, RecursionError):
            raise ValueError("contains a value that is too large or too deeply nested") from None
        _check_depth(found)
        return found
    separator = os.pathsep if Path in kind else ","
    return [_parse_number(part.strip(), kind) for part in text.split(separator) if part.strip()]


def _parse_table(text: str) -> dict[str, Any]:
    """Parse a table in JSON, or an inline table in TOML. Raises ValueError without any part of the text."""
    if not text.startswith("{"):
        raise ValueError('must be a table of settings, in JSON or TOML, such as {"name": "value"}')
    try:
        found = json.loads(text, object_pairs_hook=JsonTable)
    except json.JSONDecodeError as error:
        found = _parse_toml(text)
        if found is None:
            message = f"is neither a JSON object nor an inline table of TOML: {error.msg} at character {error.pos + 1}"
            raise ValueError(message) from None
    except (ValueError, RecursionError):
        raise ValueError("contains a value that is too large or too deeply nested") from None
    _check_depth(found)
    table: dict[str, Any] = found
    return table


def _parse_toml(text: str) -> Any:
    try:
        document = tomllib.loads(f"table = {text}")
    except (ValueError, RecursionError):
        return None
    return document["table"] if len(document) == 1 else None


def _check_depth(value: Any) -> None:
    """Raise ValueError for a value that is nested too deeply."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError("contains a value that is too deeply nested")
