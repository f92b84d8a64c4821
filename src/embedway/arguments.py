"""Validation of arguments that several public methods share. Errors name the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import UsageError
from embedway.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.types import Vectors

_BYTES = (bytes, bytearray, memoryview)


def as_texts(texts: Any, name: str) -> tuple[Any, ...]:
    """Return one text or an iterable of texts as a tuple. The iterable is read once; its elements are not checked.

    Series and arrays of pandas, polars, numpy and pyarrow are accepted if they have one dimension. Raises UsageError
    for everything whose iteration is not a list of texts: sets (no order), mappings and data frames (keys), bytes.
    """
    kind: Any = type(texts)  # attributes of a series itself may be labels of its index
    if kind is tuple:
        return tuple(texts)
    if isinstance(texts, str):
        return (texts,)
    has_order = isinstance(texts, KeysView) or not isinstance(texts, AbstractSet | Mapping)
    if not has_order or isinstance(texts, _BYTES) or not isinstance(texts, Iterable):
        raise UsageError(
            f"{name} is of type {kind.__name__}; it must be a text, or a list, column or generator of texts"
        )
    if (hasattr(kind, "ndim") and kind.ndim.__get__(texts) != 1) or hasattr(kind, "columns"):
        raise UsageError(
            f"{name} is of type {kind.__name__} with columns or several dimensions; "
            "pass one of its columns, such as frame['text']"
        )
    if hasattr(kind, "to_pylist") and isinstance(listed := kind.to_pylist(texts), list):
        return tuple(listed)  # pyarrow's own elements are scalars
    return tuple(texts)


def as_vectors(vectors: Any) -> Vectors:
    """Return vectors as a float32 array. Raises UsageError."""
    try:
        return np.asarray(vectors, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise UsageError("vectors must be an array of numbers, one row per text") from None


def check_names(names: Any, name: str) -> tuple[str, ...] | None:
    """Return a list of names as a tuple, or None. Raises UsageError."""
    if names is None:
        return None
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise UsageError(f"{name} is of type {type(names).__name__}; it must be a list of names")
    return tuple(check_name(one, f"{name}[{place}]") for place, one in enumerate(names))


def check_flag(flag: Any, name: str) -> bool:
    """Return True or False. Raises UsageError for anything else, because a text such as "false" is true."""
    if not isinstance(flag, bool | np.bool_):
        raise UsageError(f"{name} is {shown(flag)}; it must be True or False")
    return bool(flag)


def check_choice(choice: Any, choices: Sequence[str], name: str) -> str:
    """Return `choice` if it is one of `choices`. Raises UsageError for anything else."""
    for one in choices:
        if type(choice) is type(one) and choice == one:
            return one
    raise UsageError(f"{name} is {shown(choice)}; it must be one of {', '.join(choices)}")


def check_count(number: Any, name: str) -> int | None:
    """Return an integer of at least 1, or None. Raises UsageError."""
    if number is None:
        return None
    try:
        checked = None if isinstance(number, bool) else operator.index(number)
    except TypeError:
        checked = None
    if checked is None:
        raise UsageError(f"{name} is {shown(number)}; it must be an integer")
    if not 1 <= checked < 2**31:
        rule = "it must be at least 1" if checked < 1 else "it is too large"
        raise UsageError(f"{name} is {shown(checked)}; {rule}")
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
        raise UsageError(f"{name} is {shown(number)}; it must be a number of seconds")
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
