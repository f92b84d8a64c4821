"""The catalog: all models by name and alias, from the packaged files and user files."""

from __future__ import annotations

import difflib
import functools
from importlib import resources
from typing import TYPE_CHECKING

from embedway.catalog.rows import is_weights, read_rows
from embedway.errors import ConfigError, UnknownModelError
from embedway.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from embedway.catalog.types import ModelFacts

#: Model to use if none is named.
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

_NEAREST = 5
#: Maximum size of a user's catalog file, in bytes.
_MOST_BYTES = 2**22


class Catalog:
    """Immutable collection of model facts; use `load` to create it."""

    __slots__ = ("_by_alias", "_by_name", "_by_weights")

    def __init__(self, rows: Sequence[tuple[str, ModelFacts]]) -> None:
        """Index pairs of a file name and a model. Raises `ConfigError` if two models have the same name or alias."""
        self._by_name: dict[str, ModelFacts] = {}
        self._by_alias: dict[str, ModelFacts] = {}
        self._by_weights: dict[str, ModelFacts] = {}
        owners: dict[str, tuple[str, ModelFacts]] = {}
        for where, model in rows:
            for name in dict.fromkeys((model.name.casefold(), *map(str.casefold, model.aliases))):
                _claim(owners, name, where, model)
            self._by_name[model.name] = model
            self._by_alias |= {alias.casefold(): model for alias in model.aliases}
            for file in model.weights.files:
                # Models may share weights, for example with other prompts: the first one wins.
                if file.sha256 is not None and is_weights(file.path):
                    self._by_weights.setdefault(file.sha256, model)

    @classmethod
    def load(cls, extra: Sequence[Path] = ()) -> Catalog:
        """Read the packaged models, then the given files, whose rows add models or replace them by name.

        Raises `ConfigError`, which names file, model, field, value and rule, for an invalid row.
        """
        rows: dict[str, tuple[str, ModelFacts]] = {}
        packaged = resources.files("embedway.catalog").joinpath("models")
        for entry in sorted(packaged.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".toml"):
                where = f"embedway/catalog/models/{entry.name}"
                _add(rows, where, entry.read_text(encoding="utf-8"), replace=False)
        for path in extra:
            try:
                text = read_bounded(path, most_bytes=_MOST_BYTES).decode("utf-8-sig")
            except (OSError, ValueError) as error:
                reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                raise ConfigError(f"the catalog file cannot be read: {reason}", where=str(path)) from None
            _add(rows, str(path), text, replace=True)
        return cls(tuple(rows.values()))

    def get(self, name: str) -> ModelFacts:
        """Return a model by its exact name, or by an alias, case-insensitive.

        Raises `UnknownModelError` with up to five nearest names.
        """
        model = self._by_name.get(name) or self._by_alias.get(name.casefold())
        if model is None:
            raise UnknownModelError(name, nearest=self._nearest(name))
        return model

    def by_weights(self, sha256: str) -> ModelFacts | None:
        """Return the model that has a weights file with this sha256 (64 hex digits), or None."""
        return self._by_weights.get(sha256.lower())

    def __iter__(self) -> Iterator[ModelFacts]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._by_name or name.casefold() in self._by_alias)

    def __repr__(self) -> str:
        return f"Catalog({len(self)} models)"

    def _nearest(self, name: str) -> tuple[str, ...]:
        """Return one spelling for each of the closest models, so that aliases of one do not hide the others."""
        spellings = {
            spelling.casefold(): (spelling, model) for model in self for spelling in (*model.aliases, model.name)
        }
        found: dict[str, str] = {}
        for key in difflib.get_close_matches(name.casefold(), spellings, n=len(spellings)):
            spelling, model = spellings[key]
            found.setdefault(model.name, spelling)
        return tuple(found.values())[:_NEAREST]


@functools.cache
def default_catalog() -> Catalog:
    """Return the packaged catalog, read once."""
    return Catalog.load()


def _add(rows: dict[str, tuple[str, ModelFacts]], where: str, text: str, *, replace: bool) -> None:
    here: set[str] = set()
    for model in read_rows(text, where=where):
        if model.name in here or (model.name in rows and not replace):
            other = where if model.name in here else rows[model.name][0]
            raise ConfigError(f"the model is already in {other}", where=where, key=f"model {model.name!r}: name")
        here.add(model.name)
        rows[model.name] = (where, model)


def _claim(owners: dict[str, tuple[str, ModelFacts]], name: str, where: str, model: ModelFacts) -> None:
    owner = owners.setdefault(name, (where, model))
    if owner[1] is not model:
        other_where, other = owner
        raise ConfigError(
            f"the name {name!r} already belongs to the model {other.name!r} in {other_where}: "
            "a name must be unique (case-insensitive)",
            where=where,
            key=f"model {model.name!r}: {'name' if name == model.name.casefold() else 'aliases'}",
        )
