"""Settings that cannot be changed: tables that refuse assignment, and the errors that say what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from embedway.errors import UsageError
from embedway.text import printable

if TYPE_CHECKING:
    from pydantic import BaseModel

_BENCHMARKS = "model_benchmarks"
_LOAD = "settings cannot be changed; load them with the new value: Config.load(…, overrides={{{key!r}: {value}}})"
_BENCHMARK = "benchmarks cannot be changed in place; write config = config.with_benchmarks({{{name!r}: {value}}})"
_LONGEST = 60


class ReadOnlyTable(dict[str, Any]):
    """Table of settings, by name. Assignment raises UsageError, because it would skip the checks of the settings.

    It is the field of a section. `name` is the section's own, if it has one, as a route has.
    """

    __slots__ = ("_field", "_section", "name")

    def __init__(self, values: dict[str, Any], section: type[BaseModel], field: str, name: str = "NAME") -> None:
        super().__init__(values)
        self._section, self._field, self.name = section, field, name

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts for pickle and copy, which otherwise assign the items."""
        return type(self), (dict(self), self._section, self._field, self.name)

    @property
    def _key(self) -> str:
        return ".".join((*_table_of(self._section, self.name), self._field))

    def _refuse(self, *changes: Any, **more: Any) -> NoReturn:
        given = changes[0] if changes else None
        first = next(iter(given or more), None) if isinstance(given, dict) or not changes else given
        name = printable(first)[:_LONGEST] if isinstance(first, str) else "NAME"
        if self._field == _BENCHMARKS:
            raise UsageError(_BENCHMARK.format(name=name, value="ModelBenchmark(…)"))
        raise UsageError(_LOAD.format(key=f"{self._key}.{name}", value="…"))

    def _refuse_removal(self, *_: Any) -> NoReturn:
        others = (
            "limit a selection to models with selection.models" if self._field == _BENCHMARKS else "load them without"
        )
        raise UsageError(f"{self._key} cannot be removed from settings; {others}")

    __setitem__ = __ior__ = update = setdefault = _refuse
    __delitem__ = pop = popitem = clear = _refuse_removal

    def name_tables(self) -> None:
        """Tell the tables within sections, such as the options of a route, the names of their sections."""
        for name, section in self.items():
            for table in getattr(section, "__dict__", {}).values():
                if type(table) is ReadOnlyTable:
                    table.name = printable(name)[:_LONGEST]


def read_only(section: BaseModel) -> None:
    """Replace each dictionary among the fields of a section by a read-only one, in place."""
    fields = section.__dict__
    for field, value in fields.items():
        if type(value) is dict:
            fields[field] = ReadOnlyTable(value, type(section), field)
            fields[field].name_tables()


def refuse_change(section: BaseModel, field: str, value: Any) -> NoReturn:
    """Raise UsageError for the assignment of a field, with the call that changes it."""
    if field not in type(section).model_fields:
        raise UsageError(f"{type(section).__name__} has no field {printable(field)[:_LONGEST]}")
    name = getattr(section, "model_name", None)
    if name is not None:
        raise UsageError(_BENCHMARK.format(name=name, value=f"{{{field!r}: {_shown(value, plain=True)}}}"))
    if field == _BENCHMARKS:
        raise UsageError(_BENCHMARK.format(name="NAME", value="{…}"))
    key = ".".join((*_table_of(type(section)), field))
    raise UsageError(_LOAD.format(key=key, value=_shown(value, plain=False)))


def _shown(value: Any, *, plain: bool) -> str:
    """Return a value for an error: only numbers where it may be a secret."""
    kinds = (bool, int, float, str) if plain else (bool, int, float)
    text = repr(value) if type(value) in kinds else "…"
    return text if len(text) <= _LONGEST else "…"


def _table_of(section: type[BaseModel], table: str = "NAME") -> tuple[str, ...]:
    """Return the names of the tables in which a section is: `cache`, or `routes` and the name of its own table."""
    from embedway.config.load import Config  # noqa: PLC0415  it contains all sections

    for name, field in Config.model_fields.items():
        if field.annotation is section:
            return (name,)
        if section in getattr(field.annotation, "__args__", ()):
            return name, table
    return ()
