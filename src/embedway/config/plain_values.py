"""Conversion of settings that a caller passes as objects to plain values, before other code uses them.

Objects of other classes are refused, because their methods may raise, never return, or return anything.
"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretBytes, SecretStr

from embedway.errors import ConfigError
from embedway.money import as_number
from embedway.text import shown, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Classes of values that are passed on unchanged.
_KEPT = (bool, bytes, decimal.Decimal, dt.date, dt.time, PurePath, SecretBytes, SecretStr, BaseModel)
#: Maximum depth of nested tables. Keys have at most four parts.
_DEEPEST = 100
_MOST_ITEMS = 100_000
#: Maximum files of a call; an endless iterator would fill the memory.
_MOST_FILES = 1000
_LONGEST_KEY = 1000
#: Maximum integer. No setting has a larger one, and Python cannot convert some of them to text.
_MOST = 10**300


def plain_table(values: object, rule: str, *, where: str = "arguments") -> dict[str, Any]:
    """Return a mapping with plain keys and values at every depth. Raises ConfigError; `rule` says what is required."""
    if not issubclass(type(values), Mapping):
        raise ConfigError(rule, where=where)
    return _table(values, where, rule, "", 0)


def _table(values: Any, where: str, rule: str, above: str, depth: int) -> dict[str, Any]:
    try:
        items = list(itertools.islice(values.items(), _MOST_ITEMS))
        pairs = [(key, value) for key, value in items]
    except Exception:  # noqa: BLE001  a mapping of the caller may raise anything
        raise ConfigError(rule, where=where) from None
    found = {}
    for key, value in pairs:
        if not issubclass(type(key), str):
            raise ConfigError(f"{rule}; a key is {shown(key)}", where=where)
        name = str.__str__(key)
        if len(name) > _LONGEST_KEY or name.count(".") > _DEEPEST:
            raise ConfigError(f"{rule}; a key is {shown_name(name)}, which is too long", where=where)
        found[name] = _plain(value, where, rule, f"{above}{name}", depth)
    return found


def _plain(value: Any, where: str, rule: str, key: str, depth: int) -> Any:
    kind = type(value)
    if value is None or issubclass(kind, _KEPT):
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if (number := as_number(value)) is not None:
        if isinstance(number, int) and abs(number) > _MOST:
            raise ConfigError("is an integer with hundreds of digits", where=where, key=key)
        return number
    if depth > _DEEPEST:
        raise ConfigError("contains tables that are nested too deeply", where=where)
    if issubclass(kind, Mapping):
        return _table(value, where, rule, f"{key}.", depth + 1)
    if kind in {list, tuple}:
        return kind(_plain(item, where, rule, key, depth + 1) for item in value)
    raise ConfigError(f"is of type {kind.__name__}, which no setting has", where=where, key=key)


def plain_paths(files: Sequence[Path | str]) -> list[Path]:
    """Return the named files as paths. Raises ConfigError for anything but a list of paths."""
    try:
        listed = list(itertools.islice(files, _MOST_FILES + 1))
        paths = [Path(file) for file in listed if isinstance(file, (str, os.PathLike))]
    except Exception:  # noqa: BLE001  the caller's objects may raise anything
        listed, paths = [""], []
    if issubclass(type(files), (str, bytes)) or len(paths) < len(listed) or len(listed) > _MOST_FILES:
        raise ConfigError("files must be a list of paths", where="arguments")
    return paths
