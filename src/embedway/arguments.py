"""Validation of arguments that several public methods share. Errors name the argument.

Classes are checked with `type`: `isinstance` also uses the attribute `__class__`, which proxies and mocks set to a
class that they do not derive from. Methods that an argument's class may override are called only where every error is
caught.
"""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import UsageError
from embedway.money import to_nanousd
from embedway.text import shown, shown_name
from embedway.third_party import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.money import Amount
    from embedway.types import Vectors

_BYTES = (bytes, bytearray, memoryview)
#: Maximum of a number without a limit of its own.
_MOST_INTEGER = 2**31 - 1
#: Maximum texts of a call. More vectors do not fit into memory, and an endless iterator would fill it.
MOST_TEXTS = 10_000_000
#: Maximum elements of any other list, such as models or licences.
_MOST_NAMES = 10_000
#: Maximum characters of a name; that of a path on Linux.
_LONGEST_NAME = 4096


def is_a(value: object, kinds: Any) -> bool:
    """Return whether the class of a value is one of `kinds` or derives from one, whatever its `__class__` is."""
    return issubclass(type(value), kinds)


def as_texts(texts: Any, name: str) -> tuple[Any, ...]:
    """Return one text or an iterable of texts as a tuple. The iterable is read once; its elements are not checked.

    Series and arrays of pandas, polars, numpy and pyarrow are accepted if they have one dimension. Raises UsageError
    for more than `MOST_TEXTS`, and for everything that does not iterate over texts in order: sets, mappings, data
    frames and bytes. An error of the iteration is the caller's, and is not caught.
    """
    kind: Any = type(texts)  # attributes of a series itself may be labels of its index
    if kind is tuple or (kind is list and len(texts) <= MOST_TEXTS):
        return tuple(texts)
    if issubclass(kind, str):
        return (texts,)
    has_order = issubclass(kind, KeysView) or not issubclass(kind, AbstractSet | Mapping)
    if not has_order or issubclass(kind, _BYTES) or not issubclass(kind, Iterable):
        raise UsageError(
            f"{name} is of type {kind.__name__}; it must be a text, or a list, column or generator of texts"
        )
    if (hasattr(kind, "ndim") and attribute(texts, "ndim") != 1) or hasattr(kind, "columns"):
        raise UsageError(
            f"{name} is of type {kind.__name__} with columns or several dimensions; "
            "pass one of its columns, such as frame['text']"
        )
    if hasattr(kind, "to_pylist") and type(listed := kind.to_pylist(texts)) is list:
        return tuple(listed)  # pyarrow's own elements are scalars
    read = tuple(itertools.islice(texts, MOST_TEXTS + 1))
    if len(read) > MOST_TEXTS:
        raise UsageError(f"{name} has more than {MOST_TEXTS:,} texts; embed them in several calls")
    return read


def attribute(value: object, name: str) -> Any:
    """Return an attribute of a caller's object; None if it is missing or raises."""
    try:
        return getattr(value, name)
    except Exception:  # noqa: BLE001  a property may raise anything
        return None


def as_vectors(vectors: Any) -> Vectors:
    """Return vectors as a float32 array. Raises UsageError."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(vectors, np.float32)
    except Exception:  # noqa: BLE001  the argument's own conversion may raise anything
        raise UsageError("vectors must be an array of numbers, one row per text") from None


def check_names(names: Any, name: str) -> tuple[str, ...] | None:
    """Return a list of names as a tuple, or None. Raises UsageError."""
    if names is None:
        return None
    listed = as_list(names, name, "names")
    return tuple(check_name(one, f"{name}[{place}]") for place, one in enumerate(listed))


def as_list(values: Any, name: str, what: str) -> tuple[Any, ...]:
    """Return an iterable as a tuple; `what` names its elements. Raises UsageError, also for an endless one."""
    if is_a(values, (str, *_BYTES, Mapping)) or not is_a(values, Iterable):
        raise UsageError(f"{name} is of type {type(values).__name__}; it must be a list of {what}")
    try:
        listed = tuple(itertools.islice(values, _MOST_NAMES + 1))
    except Exception as error:
        raise UsageError(f"{name} cannot be read: its iteration raised {type(error).__name__}") from error
    if len(listed) > _MOST_NAMES:
        raise UsageError(f"{name} has more than {_MOST_NAMES:,} elements")
    return listed


def check_flag(flag: Any, name: str) -> bool:
    """Return True or False. Raises UsageError for anything else, because a text such as "false" is true."""
    if type(flag) is not bool and not is_a(flag, np.bool_):
        raise UsageError(f"{name} is {shown(flag)}; it must be True or False")
    return bool(flag)


def check_choice(choice: Any, choices: Sequence[str], name: str) -> str:
    """Return `choice` as a plain string if it is one of `choices`. Raises UsageError for anything else."""
    if type(choice) is str and choice in choices:
        return choice
    plain = str.__str__(choice) if is_a(choice, str) else None
    if plain is None or plain not in choices:
        raise UsageError(f"{name} is {shown(choice)}; it must be one of {', '.join(choices)}")
    return plain


def check_count(number: Any, name: str) -> int | None:
    """Return an integer of at least 1, or None. Raises UsageError."""
    return None if number is None else check_integer(number, name)


def check_integer(number: Any, name: str, least: int = 1, most: int = _MOST_INTEGER) -> int:
    """Return an integer from `least` to `most`: an int, or one of numpy. Raises UsageError, also for floats."""
    if type(number) is int and least <= number <= most:
        return number
    bounds = "" if most == _MOST_INTEGER else f" from {least} to {most}"
    try:
        checked = None if is_a(number, (bool, np.bool_)) else int(operator.index(number))
    except Exception:  # noqa: BLE001  the argument's own conversion may raise anything
        checked = None
    if checked is None:
        raise UsageError(f"{name} is {shown(number)}; it must be an integer{bounds}")
    if not least <= checked <= most:
        if bounds:
            rule = f"must be an integer{bounds}"
        else:
            rule = f"must be at least {least}" if checked < least else "is too large"
        raise UsageError(f"{name} is {shown(checked)}; it {rule}")
    return checked


def check_seconds(number: Any, name: str) -> float | None:
    """Return a number of seconds as a float, or None. Raises UsageError."""
    if number is None:
        return None
    try:
        is_number = not is_a(number, (bool, np.bool_, str, *_BYTES)) and not getattr(number, "ndim", 0)
        checked = float(number) if is_number else None
    except Exception:  # noqa: BLE001  the argument's own conversion may raise anything
        checked = None
    if checked is None:
        raise UsageError(f"{name} is {shown(number)}; it must be a number of seconds")
    return checked


def check_progress(sink: Any) -> Any:
    """Return a progress sink, or None. Raises UsageError for an object without its methods."""
    if sink is not None and not all(callable(attribute(sink, name)) for name in ("start", "advance", "done")):
        raise UsageError(
            f"progress is of type {type(sink).__name__}; it must be a ProgressSink, with start, advance and done"
        )
    return sink


def check_name(text: Any, name: str) -> str:
    """Return the name of a model, a collection or a key as a plain string. Raises UsageError unless it is valid."""
    if type(text) is str and text.isascii() and len(text) <= _LONGEST_NAME and "\0" not in text:
        return text
    if not is_a(text, str):
        raise UsageError(f"{name} is of type {type(text).__name__}; it must be a string")
    plain = str.__str__(text)
    if len(plain) > _LONGEST_NAME:
        raise UsageError(f"{name} has {len(plain):,} characters; a name has at most {_LONGEST_NAME:,}")
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name}: character {error.start} is half of a surrogate pair, which is not valid in a name"
        ) from None
    if "\0" in plain:
        raise UsageError(f"{name} is {shown_name(plain)}; a name must not contain a NUL character")
    return plain


def check_path(path: Any, name: str, what: str = "a path") -> str:
    """Return a text or an `os.PathLike` as a plain string. Raises UsageError unless the system can use it as a path."""
    if not is_a(path, (str, os.PathLike)):
        raise UsageError(f"{name} is of type {type(path).__name__}; it must be {what}")
    try:
        plain = str.__str__(os.fsdecode(path))
        os.fsencode(plain)
    except UnicodeError:
        raise UsageError(f"{name} is not valid Unicode; it must be {what}") from None
    except Exception as error:  # the argument's own conversion may raise anything
        raise UsageError(f"{name} cannot be read: its conversion raised {type(error).__name__}") from error
    if "\0" in plain:
        raise UsageError(f"{name} is {shown_name(plain)}; a path must not contain a NUL character")
    return plain


def check_callable(function: Any, name: str) -> Any:
    """Return a function, or None. Raises UsageError."""
    if function is not None and not callable(function):
        raise UsageError(f"{name} is of type {type(function).__name__}; it must be a function")
    return function


def as_report(progress: Any) -> Callable[[str], None]:
    """Return the function to which a call reports its progress; its errors are logged. Raises UsageError."""
    if progress is None:
        return lambda _: None
    return guarded(check_callable(progress, "progress"), "progress")


def as_max_nanousd(max_cost: Amount | None) -> int | None:
    """Return the limit of a call's cost in nano-dollars; None without a limit. Raises UsageError."""
    return None if max_cost is None else to_nanousd(max_cost, name="max_cost")
