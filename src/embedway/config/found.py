"""An `embedway.toml` that was found in the working directory and not named: what it may set, and what is ignored.

Such a file came with the folder, and nobody said that it is to be followed. It may set what can neither lead texts,
keys or money anywhere nor make the program read or write other files. Everything else is ignored and told, so that a
setting that is added later is ignored until it is listed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.config.here import computes_here, is_known, ready_here
from embedway.config.trust import digest_of, place_of
from embedway.errors import ConfigError
from embedway.files import read_regular
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from embedway.catalog.types import Task
    from embedway.config.load import Config

    #: A key as the names of its tables and its own.
    KeyPath: TypeAlias = tuple[str, ...]

#: Read from the working directory when no file is named.
FOUND_FILE = "embedway.toml"

#: Settings are written by hand; more is no settings file.
_MOST_BYTES = 2**20
#: Of a file that is not trusted.
_MOST_FOUND_BYTES = 2**16
_PLAIN = frozenset({("run", "chunk_tokens"), ("run", "overlap"), ("embedding", "on_overflow")})
_MODELS: dict[tuple[str, ...], Task] = {
    ("embedding", "default_model"): "embed",
    ("rerank", "default_model"): "rerank",
}
_BENCHMARKS = ("embedding", "model_benchmarks")
#: Which way a benchmark of a model of this machine may go: upwards or downwards.
_BETTER: dict[str, Literal[1, -1]] = {"quality_score": 1, "tokens_per_second": 1, "avg_latency_ms": -1}
_BUDGET = frozenset({"usd", "period", "model", "collection", "api_key", "hard", "warn_at"})
#: Put after the name of a budget: one of this name is of nobody else, in the settings or in the ledger.
BUDGET_SUFFIX = " (found file)"
#: More than these are no budgets but a burden: each one is looked at in every call.
_MOST_BUDGETS = 50
_MOST_NAME = 60
#: Tables in tables down to a benchmark's field; below is one value.
_DEPTH = 4
_TOLD = 6
#: Of a line, of a line that may be a table's header, and of a file. Keys with more parts mean nothing.
_MOST_DOTS = 200
_MOST_HEADER_DOTS = 40
_MOST_FILE_DOTS = 4000
_NAME_IT = "name the file with --config if that is meant"


@dataclass(frozen=True, slots=True)
class Found:
    """The file: its path as errors name it, its place, its content, which was read once, and the content's sha256."""

    path: Path
    place: str
    data: bytes = field(repr=False)
    sha256: str


def check_cheap(found: Found) -> None:
    """Raise ConfigError for a file that takes seconds to read.

    The cost of a key is that of its parts times those of its table's header.
    """
    where = str(found.path)
    if len(found.data) > _MOST_FOUND_BYTES:
        raise ConfigError(f"has more than {_MOST_FOUND_BYTES:,} bytes and is not trusted; {_NAME_IT}", where=where)
    if found.data.count(b".") > _MOST_FILE_DOTS:
        raise ConfigError(f"has more than {_MOST_FILE_DOTS:,} dots and is not trusted; {_NAME_IT}", where=where)
    for number, line in enumerate(found.data.split(b"\n"), 1):
        most = _MOST_HEADER_DOTS if line.lstrip().startswith(b"[") else _MOST_DOTS
        if line.count(b".") > most:
            raise ConfigError(f"has more than {most} dots; {_NAME_IT}", where=f"{where}:{number}")


def find(path: Path | None = None) -> Found | None:
    """The file of the working directory, or at a path; None where there is none.

    Raises ConfigError for one that cannot be read.
    """
    path = path or Path(FOUND_FILE)
    try:
        data = read_regular(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=str(path)) from error
    return None if data is None else Found(path, place_of(path), data, digest_of(data))


@dataclass(slots=True)
class Harmless:
    """The settings of a file that are kept, by key, and those ignored: keys without control characters, and values."""

    kept: dict[str, Any] = field(default_factory=dict)
    ignored: list[tuple[str, Any]] = field(default_factory=list)


def harmless(values: Mapping[str, Any], base: Callable[[], Config | None]) -> Harmless:
    """Take the settings that a file may set beside the other ones.

    `base` gives those other settings, or None where they are wrong. It is called once, and only if they decide.
    """
    return _Sieve(base).sift(values)


class _Sieve:
    """Takes a file's values apart."""

    def __init__(self, base: Callable[[], Config | None]) -> None:
        self._make_base = base
        self._base: Config | None = None
        self._made = False
        self._found = Harmless()
        self._budgets: dict[str, str | None] = {}
        self._kept_budgets = 0
        self._tables: Mapping[str, Any] = {}

    def sift(self, values: Mapping[str, Any]) -> Harmless:
        """Keep or ignore each value."""
        budgets = values.get("budgets")
        self._tables = budgets if isinstance(budgets, dict) else {}
        for path, value in _leaves(values):
            to = self._kept_as(path, value)
            if to is None:
                self._found.ignored.append((".".join(map(clean, path)), value))
            else:
                place_at(self._found.kept, to, value)
        return self._found

    def _kept_as(self, path: KeyPath, value: Any) -> KeyPath | None:
        """The key under which a value is kept; None where it is ignored."""
        if path in _PLAIN:
            return path
        if path in _MODELS:
            base = self._settings() if isinstance(value, str) else None
            return path if base is not None and ready_here(value, _MODELS[path], base) else None
        if path[:1] == ("budgets",) and len(path) == 3 and path[2] in _BUDGET:
            name = self._budget_name(path[1], self._tables.get(path[1]))
            return None if name is None else ("budgets", name, path[2])
        if path[:2] == _BENCHMARKS and len(path) == _DEPTH:
            return path if self._only_helps_here(path[2], path[3], value) else None
        return None

    def _budget_name(self, name: str, table: Any) -> str | None:
        """A name of its own for a budget, so that it is one more and stands in no other's place; None to ignore it."""
        if name not in self._budgets:
            usable = self._kept_budgets < _MOST_BUDGETS and self._is_usable(name, table)
            self._kept_budgets += usable
            self._budgets[name] = self._unused(f"{name}{BUDGET_SUFFIX}") if usable else None
        return self._budgets[name]

    def _is_usable(self, name: str, table: Any) -> bool:
        if len(name) > _MOST_NAME or not name.strip() or not name.isprintable():
            return False
        model, base = table.get("model") if isinstance(table, dict) else None, self._settings()
        # The file may mean a model that it describes itself, which is ignored.
        return not isinstance(model, str) or base is None or is_known(model, base)

    def _unused(self, name: str) -> str:
        base = self._settings()
        taken = {*(base.budgets if base is not None else ()), *self._budgets.values()}
        while name in taken:
            name += BUDGET_SUFFIX
        return name

    def _only_helps_here(self, name: str, key: str, value: Any) -> bool:
        """Whether a benchmark's field makes a model of this machine better, so that no other model wins by it."""
        base = self._settings()
        if base is None:
            return False
        spellings = {known.casefold(): known for known in base.embedding.model_benchmarks}
        known = spellings.get(name.casefold())
        if known is None or not computes_here(known, base):
            return False
        if key == "model_name":
            return isinstance(value, str) and value.casefold() == known.casefold()
        if key not in _BETTER or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        before = getattr(base.embedding.model_benchmarks[known], key)
        # A model without a score is out; any score only lets it in.
        if before is None:
            return True
        # Not by their difference, which is no float for a whole number of 400 digits.
        return bool(value >= before if _BETTER[key] > 0 else value <= before)

    def _settings(self) -> Config | None:
        if not self._made:
            self._made = True
            self._base = self._make_base()
        return self._base


def _leaves(values: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in values.items():
        path = (*above, name)
        if isinstance(value, dict) and len(path) < _DEPTH:
            yield from _leaves(value, path)
        else:
            yield path, value


def place_at(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Put a value where its path leads, making tables on the way."""
    *tables, name = path
    for table in tables:
        values = values.setdefault(table, {})
    values[name] = value


def clean(name: str) -> str:
    """A name out of a foreign file for a terminal or a log: printable, and not longer than names are."""
    shown = printable(name)
    return shown if len(shown) <= _MOST_NAME else f"{shown[: _MOST_NAME - 1]}…"


def told(found: Found, ignored: tuple[str, ...], *, changed: bool) -> str:
    """The one line that says what is ignored, why, and how to allow it."""
    names = ", ".join(ignored[:_TOLD]) + (f" and {len(ignored) - _TOLD} more" if len(ignored) > _TOLD else "")
    why = (
        "was changed since it was trusted"
        if changed
        else "is in the working directory and was neither named nor trusted"
    )
    return (
        f"{printable(found.place)} {why}, so these settings in it are ignored: {names}. "
        f"`embedway trust` allows them, or name the file: `embedway --config {FOUND_FILE} …`"
    )
