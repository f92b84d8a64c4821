"""Checks of options against the annotations of their fields, so that a new field is checked too."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from embedway.arguments import check_choice, check_flag, check_integer, check_name, check_names, is_a
from embedway.errors import UsageError


class Range(NamedTuple):
    """Bounds of an integer, both included, as `Annotated[int, Range(1)]`."""

    least: int
    most: int = 2**31 - 1


def check_fields(options: object) -> None:
    """Replace the fields of a frozen dataclass by checked values of plain types. Raises UsageError."""
    for name, hint in _hints(type(options)).items():  # type: ignore[arg-type]  # a class is hashable
        object.__setattr__(options, name, _checked(getattr(options, name), hint, name))


def check_class(value: object, kind: type, name: str) -> None:
    """Raise UsageError unless a value is of a class."""
    if not is_a(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise UsageError(f"{name} is of type {type(value).__name__}; it must be {article} {kind.__name__}")


def check_mapping(value: Any, hint: Any, name: str) -> dict[str, Any]:
    """Return names with values of the annotated type. Raises UsageError."""
    if not is_a(value, Mapping):
        raise UsageError(f"{name} is of type {type(value).__name__}; it must map names to values")
    return {check_name(key, f"a key of {name}"): _checked(one, hint, f"{name}[{key!r}]") for key, one in value.items()}


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _checked(value: Any, hint: Any, name: str) -> Any:  # noqa: PLR0911  a result for each form of annotation
    """Return a value of the annotated type, with its class as plain type. Raises UsageError."""
    if get_origin(hint) in {Union, UnionType}:
        kinds = get_args(hint)
        if value is None and NoneType in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not NoneType)
        if len(kinds) > 1:
            return _instance(value, kinds, name)
        hint = kinds[0]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return check_integer(value, name, *arguments[1])
    if origin is Literal:
        return check_choice(value, arguments, name)
    if origin is Mapping:
        return check_mapping(value, arguments[1], name)
    if origin is tuple:
        return check_names(() if value is None else value, name)
    if hint is bool:
        return check_flag(value, name)
    if hint is str:
        return check_name(value, name)
    return _instance(value, (hint,), name)


def _instance(value: Any, kinds: tuple[type, ...], name: str) -> Any:
    if not is_a(value, kinds):
        allowed = ", ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"{name} is of type {type(value).__name__}; it must be one of {allowed}")
    return value
