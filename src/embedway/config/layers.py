"""Layers of settings: each file, and the environment, is one layer of nested plain values."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.config.paths import expand_user, is_url
from embedway.errors import ConfigError
from embedway.files import read_bounded
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ENVIRONMENT = "environment"
#: Maximum size of a settings file, in bytes. Settings are written by hand.
_MOST_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Problem:
    """Error in the settings: its layer or location in a file, its dotted key, and the reason."""

    where: str
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class SettingSource:
    """Source of a setting: its layer, and the variable if the layer is the environment."""

    layer: str = ""
    variable: str = ""

    def __str__(self) -> str:
        """Return the text for `Config.sources`."""
        return ": ".join(part for part in (self.layer, self.variable) if part)


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings of one layer. `variables` maps dotted keys to the variables that set them."""

    where: str
    values: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Errors that the values do not show, such as duplicate keys.
    problems: tuple[Problem, ...] = ()


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over values of all nested tables, with their dotted keys."""
    for path, value in _leaf_paths(values):
        yield f"{prefix}{'.'.join(path)}", value


def _leaf_paths(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaf_paths(value, (*above, name))
        else:
            yield (*above, name), value


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `under`, table by table; a list is one value and replaces the lower one."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(value, dict):
            merged[name] = overlay(below if isinstance(below, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def set_key(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value at a dotted key, and create the tables above it."""
    set_path(values, tuple(key.split(".")), value)


def set_path(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value at a path of names, and create the tables above it."""
    *tables, name = path
    for table in tables:
        below = values.get(table)
        if not isinstance(below, dict):
            below = values[table] = {}
        values = below
    values[name] = value


# ---------------------------------------------------------------- files


def read_layer(path: Path, folders: frozenset[str]) -> Layer:
    """Read the settings of one TOML or JSON file. Relative paths under the keys `folders` start at the file's folder.

    Raises ConfigError with file, line and column.
    """
    reader_of(path)
    try:
        data = read_bounded(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from error
    except ValueError:
        raise ConfigError("cannot be read: the path is invalid", where=str(path)) from None
    return parse_layer(data, path, folders)


def parse_layer(data: bytes, path: Path, folders: frozenset[str]) -> Layer:
    """Parse the content of a settings file, as `read_layer` does."""
    where = str(path)
    reader = reader_of(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError("is not UTF-8", where=f"{where}:{line}:{column}") from None
    try:
        values = reader(text, where)
        for names, value in list(_leaf_paths(values)):
            key = ".".join(names)
            if has_surrogate(key):
                raise ConfigError("must have a name of valid Unicode", where=where, key=key)
            if is_among(pattern_of(key), folders):
                set_path(values, names, _from_folder(value, path.absolute().parent))
        return Layer(where, values, problems=tuple(duplicate_keys(values, where)))
    except (RecursionError, ValueError):  # very deeply nested tables; integers of thousands of digits
        raise ConfigError("contains a value that is too large or too deeply nested", where=where) from None


def reader_of(path: Path) -> Callable[[str, str], dict[str, Any]]:
    """Return the parser for a file's extension. Raises ConfigError for an unsupported one."""
    reader = {".toml": _read_toml, ".json": _read_json}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError("a settings file must end in .toml or .json", where=str(path))
    return reader


def _from_folder(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_from_folder(item, folder) for item in value]
    if isinstance(value, str) and value.strip() and not is_url(value.strip()):  # the rule of its key reports a URL
        path = expand_user(value)
        # The rule of its key reports an unknown user.
        return value if path.parts[0].startswith("~") else str(folder / path)
    return value


def _read_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        if found is None:
            raise ConfigError(f"is not TOML: {error}", where=where) from None
        line, column = found[2], found[3]
        if line is None:
            lines = text.split("\n")
            line, column = str(len(lines)), str(len(lines[-1]) + 1)
        raise ConfigError(f"is not TOML: {found[1]}", where=f"{where}:{line}:{column}") from None


def _read_json(text: str, where: str) -> dict[str, Any]:
    try:
        # The rule of each field reports NaN and infinity, together with all other errors.
        values = json.loads(text, object_pairs_hook=JsonTable)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: {error.msg}", where=f"{where}:{error.lineno}:{error.colno}") from None
    if not isinstance(values, dict):
        raise ConfigError("must contain one JSON object", where=where)
    values.pop("$schema", None)  # used by editors
    return values


class JsonTable(dict[str, Any]):
    """JSON object that records its duplicate keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.duplicates = {name: [value for key, value in pairs if key == name] for name in counts if counts[name] > 1}


def duplicate_keys(values: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[Problem]:
    """Return errors of the duplicate keys of a JSON object."""
    for name, given in (values.duplicates if isinstance(values, JsonTable) else {}).items():
        key = f"{prefix}{name}"
        # Only benchmarks never contain a secret.
        plain = key.startswith(BENCHMARKS) and not any(isinstance(one, (dict, list)) for one in given)
        shown = f", as {' and '.join(map(repr, given))}" if plain else ""
        yield Problem(where, key, f"is set twice{shown}; set it once")
    for name, value in values.items():
        if isinstance(value, dict):
            yield from duplicate_keys(value, where, f"{prefix}{name}.")


#: Tables with names given by users.
NAMED = ("budgets", "routes", "models")
BENCHMARKS = "embedding.model_benchmarks."
#: A user's name, which may contain dots, and a field: of its table, or of a table in it.
_NAME_AND_FIELD = re.compile(r"(.+?)\.((?:options|headers|headers_env|headers_file)(?:\..+)?|[^.]+)", re.DOTALL)


def pattern_of(key: str) -> str:
    """Return the key with `*` in place of the user's name: `routes.mine.model` becomes `routes.*.model`."""
    return pattern_and_name(key)[0]


def is_among(pattern: str, keys: frozenset[str]) -> bool:
    """Return whether a key's pattern, or its table such as the headers of a route, is one of `keys`."""
    return pattern in keys or pattern.rpartition(".")[0] in keys


def pattern_and_name(key: str) -> tuple[str, str]:
    """Return the pattern of a key, and the user's name in it, or `*` if there is none."""
    if key.startswith(BENCHMARKS):
        name, _, field = key.removeprefix(BENCHMARKS).rpartition(".")
        return (f"{BENCHMARKS}*.{field}", name) if name else (key, "*")
    first, _, rest = key.partition(".")
    found = _NAME_AND_FIELD.fullmatch(rest) if first in NAMED else None
    return (key, "*") if found is None else (f"{first}.*.{found[2]}", found[1])
