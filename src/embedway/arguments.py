"""Checks of arguments that several public methods share. An error names the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from embedway.errors import UsageError

_BYTES = (bytes, bytearray, memoryview)


def as_texts(texts: Any, name: str) -> tuple[Any, ...]:
    """Return one text or an iterable of texts as a tuple. The iterable is read once; its elements are not checked.

    Series and arrays of pandas, polars, numpy and pyarrow are accepted if they have one dimension. Raises UsageError
    for everything whose iteration is not a list of texts: sets (no order), mappings and data frames (keys), bytes.
    """
    if type(texts) is tuple:
        return texts
    if isinstance(texts, str):
        return (texts,)
    has_order = isinstance(texts, KeysView) or not isinstance(texts, AbstractSet | Mapping)
    if not has_order or isinstance(texts, _BYTES) or not isinstance(texts, Iterable):
        raise UsageError(
            f"{name} is of type {type(texts).__name__}; it must be a text, or a list, column or generator of texts"
        )
    if getattr(texts, "ndim", 1) != 1 or hasattr(texts, "columns"):
        raise UsageError(
            f"{name} is of type {type(texts).__name__} with columns or several dimensions; "
            "give one column of it, such as frame['text']"
        )
    return tuple(texts.to_pylist() if hasattr(texts, "to_pylist") else texts)  # pyarrow's own elements are scalars


def check_count(number: Any, name: str) -> int | None:
    """Return an integer from 1, or None. Raises UsageError."""
    if number is None:
        return None
    try:
        checked = None if isinstance(number, bool) else operator.index(number)
    except TypeError:
        checked = None
    if checked is None:
        raise UsageError(f"{name} is {_short(number)}; it must be an integer")
    if checked < 1:
        raise UsageError(f"{name} is {checked}; it must be at least 1")
    return checked


def check_seconds(number: Any, name: str) -> float | None:
    """Return a number of seconds as a float, or None. Raises UsageError."""
    if number is None:
        return None
    try:
        checked = None if isinstance(number, (bool, str)) else float(number)
    except (TypeError, ValueError, OverflowError):
        checked = None
    if checked is None:
        raise UsageError(f"{name} is {_short(number)}; it must be a number of seconds")
    return checked


def check_name(text: Any, name: str) -> str:
    """Return the name of a model, a collection or a key. Raises UsageError unless it is a valid string."""
    if not isinstance(text, str):
        raise UsageError(f"{name} is of type {type(text).__name__}; it must be a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name}: character {error.start} is half of a surrogate pair, which is not valid in a name"
        ) from None
    return text


def _short(value: Any) -> str:
    """Return a number or a short text for an error message, else the type."""
    shown = repr(value) if isinstance(value, (bool, float, str)) else ""
    return shown if 0 < len(shown) <= 40 else f"of type {type(value).__name__}"
