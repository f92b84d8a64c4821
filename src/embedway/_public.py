"""Decorators of public classes: their exported name and their documentation."""

from __future__ import annotations

import contextlib
import typing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=type)


def public(cls: T) -> T:
    """Set the module of a class to `embedway`, from which it is exported, for its repr and for pickle."""
    # Annotations are strings with names of the defining module: resolve them before `__module__` changes. Names that
    # only type checkers import stay strings.
    with contextlib.suppress(NameError, TypeError):
        if "__annotations__" in vars(cls):
            hints = typing.get_type_hints(cls, include_extras=True)
            cls.__annotations__ = {name: hints[name] for name in cls.__annotations__}
    cls.__module__ = "embedway"
    return cls


def blocking_form_of(asynchronous: type) -> Callable[[T], T]:
    """Copy the docstrings of the asynchronous methods to the methods of the same names."""

    def document(cls: T) -> T:
        for name, method in vars(cls).items():
            if not name.startswith("_") and hasattr(asynchronous, name):
                method.__doc__ = getattr(asynchronous, name).__doc__
        return cls

    return document
