"""Options and commands in messages, as the user of this program writes them: flags in a command, keywords in Python."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class _Program:
    """State of the program, which all of its threads share: readers and writers of a job raise errors, too."""

    #: Whether it is the command line.
    is_command: bool = False


_program = _Program()


@contextmanager
def in_command() -> Iterator[None]:
    """Word the messages of the block for the command line."""
    before, _program.is_command = _program.is_command, True
    try:
        yield
    finally:
        _program.is_command = before


def by_place(*, command: str, python: str) -> str:
    """Return the text for the place where a message is shown."""
    return command if _program.is_command else python


def option(name: str, value: Any = None) -> str:
    """Return an option with its value: `--id-field key` in a command, `id_field='key'` in Python.

    True, and no value, are the flag alone: `--overwrite`, in Python `overwrite=True` and `overwrite`.
    """
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return by_place(command=flag, python=name)
    return by_place(command=flag if value is True else f"{flag} {value}", python=f"{name}={value!r}")


def keep_as(column: str, kind: str) -> str:
    """Return the option that keeps a column with a type."""
    return by_place(command=f"--keep {column}:{kind}", python=f"keep={ {column: kind}!r}")
