"""Filter for an `embedway.toml` that was discovered in the working directory and not named.

Such a file came with the folder; the user did not choose it. It may set only values that send no texts, keys or money
anywhere and cause no access to other files. All others are ignored with a warning. A new setting is ignored until it
is listed here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.config.layers import set_path
from embedway.config.local_models import is_known_model, is_ready_locally, runs_locally
from embedway.config.trust import content_sha256, file_location
from embedway.errors import ConfigError
from embedway.files import read_regular
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from embedway.catalog.types import Task
    from embedway.config.load import Config

    #: Key as a sequence of names: its tables, then its own name.
    KeyPath: TypeAlias = tuple[str, ...]

#: File that is read from the working directory if no file is named.
DEFAULT_FILE = "embedway.toml"

#: Maximum size of a settings file, in bytes. Settings are written by hand.
_MOST_BYTES = 2**20
#: Maximum size of a file that is not trusted, in bytes.
_MOST_FOUND_BYTES = 2**16
_PLAIN = frozenset({("run", "chunk_tokens"), ("run", "overlap"), ("embedding", "on_overflow")})
_MODELS: dict[tuple[str, ...], Task] = {("embedding", "default_model"): "embed", ("rerank", "default_model"): "rerank"}
_BENCHMARKS = ("embedding", "model_benchmarks")
#: Allowed direction of change for fields of a local model's benchmark: 1 is up, -1 is down.
_BETTER: dict[str, Literal[1, -1]] = {"quality_score": 1, "tokens_per_second": 1, "avg_latency_ms": -1}
#: Fields that confirm such values.
_CONFIRMATIONS = frozenset({"quality_confirmed", "speed_confirmed"})
_BUDGET = frozenset({"usd", "period", "model", "collection", "api_key", "hard", "warn_at"})
#: Suffix of a discovered budget's name, so that it replaces no other budget in the settings or the ledger.
BUDGET_SUFFIX = " (found file)"
#: Maximum number of discovered budgets, because every call checks every budget.
_MOST_BUDGETS = 50
_MOST_NAME = 60
#: Depth of a benchmark's field; anything deeper is one value.
_DEPTH = 4
_MOST_LISTED = 6
#: Maximum dots of a line, of a line that may be a table's header, and of a file. No valid key has more parts.
_MOST_DOTS = 200
_MOST_HEADER_DOTS = 40
_MOST_FILE_DOTS = 4000
_NAME_IT = "pass the file with --config if it is intended"


@dataclass(frozen=True, slots=True)
class DiscoveredFile:
    """Discovered file: its path for errors, its real location, its content and the content's SHA-256."""

    path: Path
    location: str
    data: bytes = field(repr=False)
    sha256: str


def check_parse_cost(file: DiscoveredFile) -> None:
    """Raise ConfigError for a file that takes seconds to parse.

    The cost of a key grows with the number of its parts times that of its table's header.
    """
    where = str(file.path)
    if len(file.data) > _MOST_FOUND_BYTES:
        raise ConfigError(f"has more than {_MOST_FOUND_BYTES:,} bytes and is not trusted; {_NAME_IT}", where=where)
    if file.data.count(b".") > _MOST_FILE_DOTS:
        raise ConfigError(f"has more than {_MOST_FILE_DOTS:,} dots and is not trusted; {_NAME_IT}", where=where)
    for number, line in enumerate(file.data.split(b"\n"), 1):
        most = _MOST_HEADER_DOTS if line.lstrip().startswith(b"[") else _MOST_DOTS
        if line.count(b".") > most:
            raise ConfigError(f"has more than {most} dots; {_NAME_IT}", where=f"{where}:{number}")


def discover(path: Path | None = None) -> DiscoveredFile | None:
    """Read the file in the working directory, or at a path; return None if it does not exist.

    Raises ConfigError if it cannot be read.
    """
    path = path or Path(DEFAULT_FILE)
    try:
        data = read_regular(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=str(path)) from error
    except ValueError:
        raise ConfigError("cannot be read: the path is invalid", where=str(path)) from None
    return None if data is None else DiscoveredFile(path, file_location(path), data, content_sha256(data))


@dataclass(slots=True)
class FilteredSettings:
    """Allowed settings, and the keys and values of ignored ones. Ignored keys are printable."""

    kept: dict[str, Any] = field(default_factory=dict)
    ignored: list[tuple[str, Any]] = field(default_factory=list)


class SettingsFilter:
    """Filter that allows the settings that a discovered file may set; for one file.

    `base` returns the settings of all other layers, or None if they are invalid. It is called at most once.
    """

    def __init__(self, base: Callable[[], Config | None]) -> None:
        self._settings = functools.cache(base)
        self._result = FilteredSettings()
        self._budgets: dict[str, str | None] = {}
        self._kept_budgets = 0
        self._tables: Mapping[str, Any] = {}

    def run(self, values: Mapping[str, Any]) -> FilteredSettings:
        """Allow or ignore each value."""
        budgets = values.get("budgets")
        self._tables = budgets if isinstance(budgets, dict) else {}
        for path, value in _leaves(values):
            target = self._target_key(path, value)
            if target is None:
                self._result.ignored.append((".".join(map(shorten, path)), value))
            else:
                set_path(self._result.kept, target, value)
        return self._result

    def _target_key(self, path: KeyPath, value: Any) -> KeyPath | None:
        """Return the key under which a value is set; None if it is ignored."""
        if path in _PLAIN:
            return path
        if path in _MODELS:
            base = self._settings() if isinstance(value, str) else None
            return path if base is not None and is_ready_locally(value, _MODELS[path], base) else None
        if path[:1] == ("budgets",) and len(path) == 3 and path[2] in _BUDGET:
            name = self._budget_name(path[1], self._tables.get(path[1]))
            return None if name is None else ("budgets", name, path[2])
        if path[:2] == _BENCHMARKS and len(path) == _DEPTH:
            return path if self._improves_local_model(path[2], path[3], value) else None
        return None

    def _budget_name(self, name: str, table: Any) -> str | None:
        """Return a name for a budget that does not replace another one; None to ignore the budget."""
        if name not in self._budgets:
            usable = self._kept_budgets < _MOST_BUDGETS and self._is_usable(name, table)
            self._kept_budgets += usable
            self._budgets[name] = self._unused(f"{name}{BUDGET_SUFFIX}") if usable else None
        return self._budgets[name]

    def _is_usable(self, name: str, table: Any) -> bool:
        if len(name) > _MOST_NAME or not name.strip() or not name.isprintable():
            return False
        model, base = table.get("model") if isinstance(table, dict) else None, self._settings()
        # The file may name a model that only its own, ignored settings define.
        return not isinstance(model, str) or base is None or is_known_model(model, base)

    def _unused(self, name: str) -> str:
        base = self._settings()
        used_names = {*(base.budgets if base is not None else ()), *self._budgets.values()}
        while name in used_names:
            name += BUDGET_SUFFIX
        return name

    def _improves_local_model(self, name: str, key: str, value: Any) -> bool:
        """Return whether a field improves the benchmark of a local model, so that no other model gains from it."""
        base = self._settings()
        if base is None:
            return False
        spellings = {known.casefold(): known for known in base.embedding.model_benchmarks}
        known = spellings.get(name.casefold())
        if known is None or not runs_locally(known, base):
            return False
        if key in _CONFIRMATIONS or key == "model_name":
            return value is True or (isinstance(value, str) and value.casefold() == known.casefold())
        if key not in _BETTER or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        before = getattr(base.embedding.model_benchmarks[known], key)
        # A model without a score is never selected, so any score improves it.
        if before is None:
            return True
        # No subtraction: the difference of an integer of 400 digits overflows a float.
        return bool(value >= before if _BETTER[key] > 0 else value <= before)


def _leaves(values: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in values.items():
        path = (*above, name)
        if isinstance(value, dict) and len(path) < _DEPTH:
            yield from _leaves(value, path)
        else:
            yield path, value


def shorten(name: str) -> str:
    """Return an untrusted name for a terminal or a log: printable, and truncated."""
    shown = printable(name)
    return shown if len(shown) <= _MOST_NAME else f"{shown[: _MOST_NAME - 1]}…"


def ignored_warning(file: DiscoveredFile, ignored: tuple[str, ...], *, changed: bool) -> str:
    """Return the warning about ignored settings, on one line: the names, the reason, and how to allow them."""
    more = len(ignored) - _MOST_LISTED
    names = ", ".join(ignored[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
    why = (
        "has changed since it was trusted"
        if changed
        else "is in the working directory and is neither named nor trusted"
    )
    return (
        f"{printable(file.location)} {why}, so these settings are ignored: {names}. "
        f"To allow them, run `embedway trust`, or name the file: `embedway --config {DEFAULT_FILE} …`"
    )
