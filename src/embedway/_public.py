"""The public place and documentation of classes."""

from __future__ import annotations

import contextlib
import typing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=type)


def public(cls: T) -> T:
    """Show and pickle a class as `embedway.NAME`, the name under which it is exported."""
    # Annotations are text that names things of the module where the class is defined: resolve them while it is known.
    # Names that only type checkers import remain text.
    with contextlib.suppress(NameError, TypeError):
        if "__annotations__" in vars(cls):
            hints = typing.get_type_hints(cls, include_extras=True)
            cls.__annotations__ = {name: hints[name] for name in cls.__annotations__}
    cls.__module__ = "embedway"
    return cls


def blocking_form_of(asynchronous: type) -> Callable[[T], T]:
    """Give methods the whole documentation of the asynchronous methods of the same names."""

    def document(cls: T) -> T:
        for name, method in vars(cls).items():
            if not name.startswith("_") and hasattr(asynchronous, name):
                method.__doc__ = getattr(asynchronous, name).__doc__
        return cls

    return document
